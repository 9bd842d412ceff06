"""Reads PowerPoint presentations (PPTX): each slide is a page, with its tables, charts, diagrams, notes and comments.

A hidden slide is a blank page, so that page numbers are the slide numbers that PowerPoint shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ragsvc.core.documents import Extraction
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.formats.charts import chart_rows, chart_title, diagram_texts
from ragsvc.extract.formats.markdown_table import table_rows
from ragsvc.extract.formats.package_properties import package_title
from ragsvc.extract.formats.page_builder import PageBuilder
from ragsvc.extract.formats.word_runs import formula_text, superscript_digits
from ragsvc.extract.formats.word_styles import formatted_number
from ragsvc.extract.formats.xml_trees import Element, attribute, child, children, local
from ragsvc.extract.formats.zip_package import Relation, ZipPackage, open_package
from ragsvc.extract.pdf_pages import PageReports

_TITLES = frozenset({"title", "ctrTitle"})
_MARGINS = frozenset({"sldNum", "dt", "ftr", "hdr"})
_MAX_DEPTH = 30
_KINDS = {
    "arabic": "decimal",
    "alphaLc": "lowerLetter",
    "alphaUc": "upperLetter",
    "romanLc": "lowerRoman",
    "romanUc": "upperRoman",
}
_BEFORE_AFTER = {"Period": ("", "."), "ParenR": ("", ")"), "ParenBoth": ("(", ")"), "Plain": ("", "")}


def read_slides(path: Path, *, limits: ExtractionLimits, reports: PageReports) -> Extraction:
    """Read a presentation. Raises ``ExtractionFailed``."""
    with open_package(path) as package:
        main = next((found.path for found in package.relations("").values() if found.kind == "officeDocument"), "")
        main = main or "ppt/presentation.xml"
        root = package.xml(main)
        if root is None:
            raise ExtractionFailed(
                FailureReason.DAMAGED, "The file is damaged: the presentation has no list of slides."
            )
        relations = package.relations(main)
        listed = [found for found in children(child(root, "sldIdLst")) if local(found) == "sldId"]
        builder = PageBuilder(limits)
        reader = _SlideReader(package, builder)
        for number, slide in enumerate(listed, start=1):
            relation = relations.get(_relation_id(slide))
            builder.page(f"slide {number}")
            if relation is not None:
                reader.slide(relation.path)
            reports.on_progress(number, len(listed))
        return builder.finish(
            title=package_title(package) or builder.first_heading,
            nothing="The presentation contains no text.",
            on_progress=reports.on_progress,
        )


def _relation_id(element: Element) -> str:
    """The id of a relation; the attribute ``id`` without a namespace is another id."""
    return next((value for key, value in element.items() if key.endswith("}id")), "")


class _SlideReader:
    """Adds the visible text of slides to pages."""

    def __init__(self, package: ZipPackage, builder: PageBuilder) -> None:
        self._package = package
        self._builder = builder
        self._margins: set[str] = set()
        self._relations: dict[str, Relation] = {}
        authors = [
            relation.path for relation in self._main_relations() if relation.kind in ("commentAuthors", "authors")
        ]
        self._authors = {
            attribute(author, "id") or "": attribute(author, "name") or ""
            for path in authors
            for author in children(self._package.xml(path))
        }

    def _main_relations(self) -> list[Relation]:
        main = next(
            (found.path for found in self._package.relations("").values() if found.kind == "officeDocument"), ""
        )
        return list(self._package.relations(main or "ppt/presentation.xml").values())

    def slide(self, path: str) -> None:
        """Add a slide with its notes and comments."""
        root = self._package.xml(path)
        if root is None:
            return
        if (attribute(root, "show") or "1").lower() in ("0", "false"):
            self._builder.hidden("".join(found.text or "" for found in root.iter() if local(found) == "t"))
            return
        self._relations = self._package.relations(path)
        tree = child(child(root, "cSld"), "spTree")
        for shape in sorted(_shapes(tree), key=lambda found: _placeholder(found) not in _TITLES):
            self._shape(shape)
        for relation in self._relations.values():
            if relation.kind == "notesSlide":
                self._notes(relation.path)
            elif relation.kind == "comments":
                self._comments(relation.path)

    def _shape(self, shape: Element) -> None:
        if _is_hidden(shape):
            self._builder.hidden("".join(found.text or "" for found in shape.iter() if local(found) == "t"))
        elif local(shape) == "graphicFrame":
            self._frame(shape)
        else:
            self._text_shape(shape)

    def _text_shape(self, shape: Element) -> None:
        body = child(shape, "txBody")
        text = _body_text(body) if body is not None else ""
        kind = _placeholder(shape)
        if not text.strip() or kind == "sldNum":
            return
        if kind in _MARGINS:  # a footer stands on every slide
            if text in self._margins:
                return
            self._margins.add(text)
        self._builder.block(text.replace("\n", " ") if kind in _TITLES else text, level=1 if kind in _TITLES else 0)

    def _frame(self, frame: Element) -> None:
        for element in frame.iter():
            name = local(element)
            if name == "tbl":
                lines = table_rows(_cells(element))
                self._builder.rows(lines, headers=2 if len(lines) > 2 else 0)
            elif name == "chart":
                relation = self._relations.get(_relation_id(element))
                root = self._package.xml(relation.path) if relation is not None else None
                if root is not None:
                    self._builder.block(chart_title(root))
                    self._builder.rows(table_rows(chart_rows(root)))
            elif name == "relIds":
                path = next((value for key, value in element.items() if key.endswith("}dm")), "")
                relation = self._relations.get(path)
                root = self._package.xml(relation.path) if relation is not None else None
                if root is not None:
                    self._builder.block("\n".join(diagram_texts(root)))

    def _notes(self, path: str) -> None:
        root = self._package.xml(path)
        tree = child(child(root, "cSld"), "spTree")
        for shape in _shapes(tree):
            body = child(shape, "txBody")
            if _placeholder(shape) == "body" and body is not None and (text := _body_text(body)).strip():
                self._builder.block(f"Notes: {text.strip()}")

    def _comments(self, path: str) -> None:
        root = self._package.xml(path)
        for comment in children(root):
            if local(comment) != "cm":
                continue
            written = child(comment, "text")
            body = child(comment, "txBody")
            text = written.text if written is not None else _body_text(body) if body is not None else ""
            author = self._authors.get(attribute(comment, "authorId") or "", "")
            if text and text.strip():
                self._builder.block(f"[Comment{' by ' + author if author else ''}: {text.strip()}]")


def _shapes(tree: Element | None, depth: int = 0) -> Iterator[Element]:
    """The shapes of a tree, also those in groups, from back to front, which is their reading order."""
    for element in children(tree):
        name = local(element)
        if name in ("sp", "graphicFrame", "cxnSp"):
            yield element
        elif name == "grpSp" and depth < _MAX_DEPTH and not _is_hidden(element):
            yield from _shapes(element, depth + 1)
        elif name == "AlternateContent":
            choice = child(element, "Choice")
            choice = child(element, "Fallback") if choice is None else choice
            if choice is not None and depth < _MAX_DEPTH:
                yield from _shapes(choice, depth + 1)


def _properties(shape: Element) -> Element | None:
    """The non-visual properties of a shape."""
    return next((element for element in shape if local(element).startswith("nv")), None)


def _is_hidden(shape: Element) -> bool:
    named = child(_properties(shape), "cNvPr")
    return named is not None and (attribute(named, "hidden") or "") in ("1", "true")


def _placeholder(shape: Element) -> str:
    """The kind of a placeholder; empty for other shapes."""
    found = child(child(_properties(shape), "nvPr"), "ph")
    return (attribute(found, "type") or "obj") if found is not None else ""


def _body_text(body: Element) -> str:
    """The paragraphs of a text body, with the numbers of numbered lists."""
    counters: dict[int, int] = {}
    lines: list[str] = []
    for paragraph in body:
        if local(paragraph) != "p":
            continue
        text = _paragraph_text(paragraph)
        properties = child(paragraph, "pPr")
        level = _level(properties)
        numbered = child(properties, "buAutoNum")
        for deeper in [key for key in counters if key > level or (key == level and numbered is None)]:
            del counters[deeper]
        if numbered is not None and text.strip():
            start = attribute(numbered, "startAt") or "1"
            counters[level] = counters.get(level, (int(start) if start.isdigit() else 1) - 1) + 1
            text = f"{_list_number(counters[level], attribute(numbered, 'type') or 'arabicPeriod')} {text}"
        elif (bullet := child(properties, "buChar")) is not None and text.strip():
            text = f"{'•' if len(attribute(bullet, 'char') or '') else ''} {text}".strip()
        lines.append(text)
    return "\n".join(lines)


def _level(properties: Element | None) -> int:
    written = (attribute(properties, "lvl") or "0") if properties is not None else "0"
    return int(written) if written.isdigit() and len(written) < 3 else 0


def _list_number(number: int, kind: str) -> str:
    for name, number_format in _KINDS.items():
        if kind.startswith(name):
            before, after = _BEFORE_AFTER.get(kind.removeprefix(name), ("", "."))
            return f"{before}{formatted_number(number, number_format)}{after}"
    return f"{number}."


def _paragraph_text(paragraph: Element) -> str:
    parts: list[str] = []
    for element in paragraph:
        name = local(element)
        if name in ("r", "fld"):
            text = "".join(found.text or "" for found in element if local(found) == "t").replace("\x0b", "\n")
            properties = child(element, "rPr")
            baseline = (attribute(properties, "baseline") or "0") if properties is not None else "0"
            if baseline.isdigit() and int(baseline) > 0:
                text = superscript_digits(text)
            struck = properties is not None and (attribute(properties, "strike") or "noStrike") != "noStrike"
            parts.append(f"~~{text}~~" if struck and text.strip() else text)
        elif name == "br":
            parts.append("\n")
        elif name in ("m", "AlternateContent"):
            parts.append(formula_text(element))
    return "".join(parts)


def _cells(table: Element) -> list[list[str]]:
    """The texts of a table; merged cells are repeated in the rows and columns that they cover."""
    rows: list[list[str]] = []
    for row in (element for element in table if local(element) == "tr"):
        texts: list[str] = []
        for cell in (element for element in row if local(element) == "tc"):
            merged_right = (attribute(cell, "hMerge") or "") in ("1", "true")
            merged_down = (attribute(cell, "vMerge") or "") in ("1", "true")
            body = child(cell, "txBody")
            text = _body_text(body) if body is not None else ""
            if merged_down and rows and len(texts) < len(rows[-1]):
                text = rows[-1][len(texts)]
            elif merged_right and texts:
                text = texts[-1]
            texts.append(text)
        if len(texts) > 1 and len(set(texts)) == 1:  # merged over the whole width
            texts = [texts[0], *[""] * (len(texts) - 1)]
        rows.append(texts)
    return rows
