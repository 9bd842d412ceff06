"""Puts lines that run in another direction than their page into order. Pure geometry and text.

Such lines are the headings of narrow table columns, and blocks of turned or vertical text on an upright page.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

from ragsvc.extract.cells import join_cells
from ragsvc.extract.layout import Line, page_text

Rectangle = tuple[float, float, float, float]
"""left, bottom, right, top in points."""

_HEADING_GAP = 1.2
_LEADING = 1.5
_MIN_STACKED = 4
FIRST_CJK = "\u2e80"
_DOWNWARDS = 3


def turned(rectangle: Rectangle, turns: int) -> Rectangle:
    """The rectangle after clockwise quarter turns around the origin.

    >>> turned((0, 0, 2, 1), 1), turned(turned((0, 0, 2, 1), 1), 3)
    ((0, -2, 1, 0), (0, 0, 2, 1))
    """
    x0, y0, x1, y1 = rectangle
    match turns:
        case 1:
            return (y0, -x1, y1, -x0)
        case 2:
            return (-x1, -y1, -x0, -y0)
        case 3:
            return (-y1, x0, -y0, x1)
        case _:
            return rectangle


def join_turned(lines: Sequence[Line], turns: Sequence[int]) -> list[Line]:
    """Join runs of turned lines: headings of columns to a row, a block of text to one line with its line breaks.

    ``turns`` has for each line the clockwise quarter turns that make it run from left to right on the page as shown.
    """
    joined: list[Line] = []
    for own_turns, run in groupby(zip(turns, lines, strict=True), key=lambda item: item[0]):
        group = [line for _, line in run]
        if own_turns == 0:
            joined += _join_stacked(group)
        elif len(group) == 1:
            joined += group
        else:
            joined += _join_run(group, own_turns)
    return joined


def _join_run(lines: Sequence[Line], turns: int) -> list[Line]:
    shown = [_turned_line(line, turns) for line in lines]
    ascents = sum(after.top > before.top for before, after in pairwise(shown))
    if 2 * ascents > len(lines) - 1:  # pdfium sorts lines that run downwards by their distance from the left edge
        shown.reverse()
    shown = join_cells(shown)
    headings = turns % 2 and all(
        before.bottom - after.top > _HEADING_GAP * after.size and _touch(before, after)
        for before, after in pairwise(shown)
    )
    left, bottom = min(line.left for line in lines), min(line.bottom for line in lines)
    right, top = max(line.right for line in lines), max(line.top for line in lines)
    first = lines[0]
    text = " ".join(line.text for line in sorted(lines, key=lambda line: line.left)) if headings else page_text(shown)
    spans = tuple(span for line in lines for span in line.spans)
    return [
        Line(
            text,
            left,
            right,
            bottom,
            top,
            first.size,
            first.weight,
            row=bool(headings),
            upright=not headings,
            spans=spans,
        )
    ]


def _turned_line(line: Line, turns: int) -> Line:
    left, bottom, right, top = turned((line.left, line.bottom, line.right, line.top), turns)
    return Line(line.text, left, right, bottom, top, line.size, line.weight)


def _touch(before: Line, after: Line) -> bool:
    return before.left < after.right and after.left < before.right


def _join_stacked(lines: Sequence[Line]) -> list[Line]:
    """Join Chinese and Japanese characters below each other to vertical lines, from right to left."""
    joined: list[Line] = []
    columns: list[Line] = []
    index = 0
    while index < len(lines):
        end = index + 1
        while end < len(lines) and _is_stacked(lines[end - 1], lines[end]):
            end += 1
        if end - index >= _MIN_STACKED:
            columns.append(_column(lines[index:end]))
        else:
            joined += _flush(columns) + list(lines[index:end])
            columns = []
        index = end
    return joined + _flush(columns)


def _flush(columns: list[Line]) -> list[Line]:
    return _join_run(columns, _DOWNWARDS) if len(columns) > 1 else columns


def _is_stacked(above: Line, below: Line) -> bool:
    size = above.size or 10.0
    return (
        len(above.text) == len(below.text) == 1
        and min(above.text, below.text) >= FIRST_CJK
        and 0.6 * size < (above.top + above.bottom - below.top - below.bottom) / 2 < _LEADING * size
        and abs(above.left + above.right - below.left - below.right) < size
    )


def _column(lines: Sequence[Line]) -> Line:
    text = "".join(line.text for line in lines)
    left, right = min(line.left for line in lines), max(line.right for line in lines)
    first, last = lines[0], lines[-1]
    return Line(text, left, right, last.bottom, first.top, first.size, first.weight, upright=True)
