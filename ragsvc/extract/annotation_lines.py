"""Places form values, free texts and notes among the lines of a page. Pure geometry and text.

A value follows its label on the same line, or stands at the position of its field; without a label near it, it gets the
name of the field. Lines have coordinates as in ``layout``, in the orientation of the page's text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec

from ragsvc.extract.layout import Line
from ragsvc.extract.turned import Rectangle

_NEAR = 2.0
_LABEL_GAP = 2.5
_BOX_GAP = 4.0
_ROWS = 1.8
_DEFAULT_SIZE = 10.0
_MIN_KNOWN = 4
_PROSE = 50


class PlacedText(msgspec.Struct):
    """A text on top of a page. ``label`` names a form field, ``boxed`` marks check boxes, and ``note`` comments."""

    text: str
    rectangle: Rectangle
    label: str = ""
    boxed: bool = False
    note: bool = False


TextBefore = Callable[[Line, float], str | None]
"""The text of a line on the left of a position; ``None`` if it is not known."""


def place_texts(
    lines: Sequence[Line], texts: Sequence[PlacedText], text_before: TextBefore | None = None
) -> list[Line]:
    """The lines with the texts in reading order. Without ``text_before``, positions in a line are estimated."""
    insertions: defaultdict[int, list[tuple[int, float, str]]] = defaultdict(list)
    alone: list[PlacedText] = []
    for placed in sorted(texts, key=lambda placed: (-placed.rectangle[3], placed.rectangle[0])):
        if _is_known(placed, lines):
            continue
        home = None if placed.note else _find_line(placed, lines)
        if home is None:
            alone.append(placed)
        else:
            offset = _offset(lines[home], placed, text_before)
            insertions[home].append((offset, placed.rectangle[0], _wording(placed, lines[home].text)))
    extended = [
        _insert(line, insertions[index], texts) if index in insertions else line for index, line in enumerate(lines)
    ]
    for placed in alone:
        new = _new_line(placed, extended)
        beside = _label_beside(new, extended) if placed.label and "\n" in placed.text else None
        index = _end_of_paragraph(extended, _position(new, extended)) if beside is None else beside + 1
        extended.insert(index, new)
    return extended


def _is_known(placed: PlacedText, lines: Sequence[Line]) -> bool:
    """Whether the lines at the position already contain the text, as in a scan of a filled form.

    The text of a ticked box is often its label, which says nothing about the mark.
    """
    if placed.boxed:
        return False
    text = _letters(placed.text)
    return len(text) >= _MIN_KNOWN and any(
        text in _letters(line.text) for line in lines if placed.note or _beside(line, placed.rectangle)
    )


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()


def _beside(line: Line, rectangle: Rectangle) -> bool:
    """Whether a line is in the row of a rectangle."""
    _, bottom, _, top = rectangle
    overlap = min(line.top, top) - max(line.bottom, bottom)
    return overlap > 0.5 * min(line.top - line.bottom, top - bottom)


def _find_line(placed: PlacedText, lines: Sequence[Line]) -> int | None:
    """The line that a text belongs to: its label, on the left or (for a box) nearer on the right."""
    left, bottom, right, top = placed.rectangle
    best: tuple[float, int] | None = None
    for index, line in enumerate(lines):
        size = line.size or _DEFAULT_SIZE
        if not _beside(line, placed.rectangle) or line.upright:
            continue
        if "\n" in placed.text and top - bottom > _ROWS * size:
            continue
        if not placed.label and _in_paragraph(lines, index):
            continue
        if line.right <= left + _NEAR:
            distance = left - line.right
        elif line.left >= right - _NEAR:
            distance = line.left - right
            if distance > (_BOX_GAP if placed.boxed else _LABEL_GAP) * size:
                continue
            distance += 0 if placed.boxed else 4 * size
        else:
            distance = 0.0
        if best is None or distance < best[0]:
            best = (distance, index)
    return None if best is None else best[1]


def _offset(line: Line, placed: PlacedText, text_before: TextBefore | None) -> int:
    """The index in the line's text at which a text is inserted."""
    left, _, right, _ = placed.rectangle
    if line.right <= left + _NEAR:
        return len(line.text)
    if line.left >= right - _NEAR:
        return 0
    before = text_before(line, left) if text_before is not None else None
    if before is None:
        share = max(0.0, left - line.left) / max(1.0, line.right - line.left)
        before = line.text[: round(share * len(line.text))]
        before = before[: before.rfind(" ") + 1] if " " in before else before
    count = sum(not character.isspace() for character in before)
    index = 0
    while index < len(line.text) and count > 0:
        count -= not line.text[index].isspace()
        index += 1
    while 0 < index < len(line.text) and line.text[index - 1].isalnum() and line.text[index].isalnum():
        index -= 1  # to the start of the word, or of the rule that is filled in
    while index > 0 and line.text[index - 1] == "_":
        index -= 1
    return index


def _wording(placed: PlacedText, line: str) -> str:
    text = " ".join(placed.text.split())
    mark, _, state = text.partition(" ")
    return mark if placed.boxed and state.casefold() in line.casefold() else text


def _insert(line: Line, insertions: list[tuple[int, float, str]], texts: Sequence[PlacedText]) -> Line:
    text = line.text
    for offset, _, added in sorted(insertions, reverse=True):
        text = f"{text[:offset].rstrip()} {added} {text[offset:].lstrip()}".strip()
    right = max(placed.rectangle[2] for placed in texts if _beside(line, placed.rectangle))
    return msgspec.structs.replace(line, text=text, right=max(line.right, right), row=True)


def _new_line(placed: PlacedText, lines: Sequence[Line]) -> Line:
    left, bottom, right, top = placed.rectangle
    size = min(top - bottom, min((line.size for line in lines if line.size), default=_DEFAULT_SIZE)) or _DEFAULT_SIZE
    text = placed.text
    if placed.note:
        text = f"Note: {' '.join(text.split())}"
    elif placed.label and not any(_is_label(line, placed.rectangle) for line in lines):
        text = f"{text} {placed.label}" if placed.boxed else f"{placed.label}: {text}"
    return Line(text, left, right, bottom, top, size, row=True)


def _is_label(line: Line, rectangle: Rectangle) -> bool:
    """Whether a line is right above or below a rectangle."""
    left, bottom, right, top = rectangle
    gap = _LABEL_GAP * (line.size or _DEFAULT_SIZE)
    return (
        line.left < right and line.right > left and (-gap < line.bottom - top < gap or -gap < bottom - line.top < gap)
    )


def _label_beside(line: Line, others: Sequence[Line]) -> int | None:
    """The index of the last line on the left of a field of several lines."""
    beside = [
        index
        for index, other in enumerate(others)
        if other.right <= line.left + _NEAR and line.bottom < (other.bottom + other.top) / 2 < line.top
    ]
    return beside[-1] if beside else None


def _position(line: Line, others: Sequence[Line]) -> int:
    """The index after the nearest line above that overlaps horizontally, or after the nearest line above."""
    above = [
        (other.right <= line.left or other.left >= line.right, other.bottom - line.top, -index)
        for index, other in enumerate(others)
        if (other.bottom + other.top) / 2 >= line.top - min(line.top - line.bottom, line.size) / 2
    ]
    return 1 - min(above)[2] if above else 0


def _end_of_paragraph(lines: Sequence[Line], index: int) -> int:
    """The next index at which no paragraph is broken."""
    while 0 < index < len(lines) and _run_on(lines[index - 1], lines[index]):
        index += 1
    return index


def _in_paragraph(lines: Sequence[Line], index: int) -> bool:
    near = lines[max(0, index - 1) : index + 2]
    return any(
        _run_on(before, after) and max(len(before.text), len(after.text)) >= _PROSE for before, after in pairwise(near)
    )


def _run_on(before: Line, after: Line) -> bool:
    size = before.size or _DEFAULT_SIZE
    return (
        not (before.row or after.row or after.fresh)
        and -size < before.bottom - after.top < 0.6 * size
        and abs(before.left - after.left) <= size
    )
