"""Reads the titles and cached values of charts, and the texts of diagrams, in Office documents (DrawingML)."""

from __future__ import annotations

from ragsvc.extract.formats.number_formats import display
from ragsvc.extract.formats.xml_trees import Element, attribute, child, local

_MAX_POINTS = 2_000


def chart_title(root: Element) -> str:
    """The title that the author gave a chart."""
    title = next((element for element in root.iter() if local(element) == "title"), None)
    return (
        " ".join("".join(element.text or "" for element in title.iter() if local(element) == "t").split())
        if (title is not None)
        else ""
    )


def chart_rows(root: Element) -> list[list[str]]:
    """A chart as a table: a column for each series, a row for each category."""
    names: list[str] = []
    values: list[dict[int, str]] = []
    categories: dict[int, str] = {}
    for series in (element for element in root.iter() if local(element) == "ser"):
        points = _points(child(series, "val")) or _points(child(series, "yVal"))
        if not points:
            continue
        names.append(next(iter(_points(child(series, "tx")).values()), ""))
        values.append(points)
        categories = categories or _points(child(series, "cat")) or _points(child(series, "xVal"))
    indexes = sorted({index for points in values for index in points})[:_MAX_POINTS]
    if not indexes:
        return []
    rows = [[categories.get(index, ""), *(points.get(index, "") for points in values)] for index in indexes]
    return [["", *names], *rows] if any(names) else rows


def _points(element: Element | None) -> dict[int, str]:
    """The cached points of a series, by index, as their number format shows them."""
    found: dict[int, str] = {}
    if element is None:
        return found
    code = next((part.text or "" for part in element.iter() if local(part) == "formatCode"), "General")
    for point in (part for part in element.iter() if local(part) == "pt"):
        index, value = attribute(point, "idx") or "", child(point, "v")
        if value is not None and value.text and index.isdigit() and len(index) < 9:
            found[int(index)] = _shown(value.text, code)
    return found


def _shown(text: str, code: str) -> str:
    try:
        return display(float(text), code)
    except (ValueError, OverflowError, ArithmeticError):
        return text


def diagram_texts(root: Element) -> list[str]:
    """The texts of a diagram (SmartArt), a line for each of its points."""
    texts: list[str] = []
    for point in (element for element in root.iter() if local(element) == "pt"):
        text = "".join(part.text or "" for part in point.iter() if local(part) == "t")
        if text.strip():
            texts.append(text)
    return texts
