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
_BLANK = 2.3
_COLUMN_WIDTH = 1.3
_READING_SIZE = 0.65
_WORD_GAP = 0.15
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
    for own_turns, run in groupby(_join_stacked(lines, turns), key=lambda item: item[0]):
        group = [line for _, line in run]
        if own_turns == 0 or len(group) == 1:
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


def _join_stacked(lines: Sequence[Line], turns: Sequence[int]) -> list[tuple[int, Line]]:
    """Join Chinese and Japanese characters below each other to vertical columns, and these to blocks.

    Figures and Latin letters inside a column stand upright beside each other, or are turned and run downwards.
    """
    joined: list[tuple[int, Line]] = []
    columns: list[Line] = []
    index = 0
    while index < len(lines):
        end = index + 1
        if turns[index] in {0, _DOWNWARDS}:
            while end < len(lines) and turns[end] in {0, _DOWNWARDS} and _is_stacked(lines[index:end], lines[end]):
                end += 1
        stack = lines[index:end]
        characters = sum(len(line.text) for line in stack)
        ideographs = sum(_is_cjk(character) for line in stack if not line.text.isascii() for character in line.text)
        if (len(stack) > 1 and characters >= _MIN_STACKED and 2 * ideographs >= characters) or (
            ideographs and columns and all(map(_is_narrow, stack)) and _is_next_column(columns, stack[0])
        ):
            columns.append(_column(stack))
        else:
            joined += [*_flush(columns), *zip(turns[index:end], stack, strict=True)]
            columns = []
        index = end
    return joined + _flush(columns)


def _flush(columns: Sequence[Line]) -> list[tuple[int, Line]]:
    """The block of the columns.

    Readings in small type beside a column follow it: they would divide sentences.
    """
    size = max((column.size for column in columns), default=0.0)
    text = [column for column in columns if column.size > _READING_SIZE * size]
    readings = [column for column in columns if column.size <= _READING_SIZE * size]
    block = _join_run(text, _DOWNWARDS) if len(text) > 1 else text
    return [(0, line) for line in (*block, *readings)]


def _is_stacked(above: Sequence[Line], line: Line) -> bool:
    last = above[-1]
    size = last.size or 10.0
    if not (_is_narrow(last) and _is_narrow(line)) or abs(line.size - size) > 0.2 * size:
        return False
    if not (_is_cjk(last.text[-1]) or _is_cjk(line.text[0]) or last.upright or line.upright):
        return False
    if abs(last.left + last.right - line.left - line.right) >= 1.5 * size:
        return False
    distance = (last.top + last.bottom - line.top - line.bottom) / 2
    if len(last.text) == len(line.text) == 1 and not (last.upright or line.upright):
        even = len(above) >= _MIN_STACKED and above[0].top - last.bottom < 1.25 * size * len(above)
        return 0.6 * size < distance < (_BLANK if even else _LEADING) * size
    return distance > 0 and -0.4 * size < last.bottom - line.top < 0.9 * size


def _is_cjk(character: str) -> bool:
    """Chinese, Japanese and Korean characters and marks, without the private use area."""
    return FIRST_CJK <= character < "\ue000" or character >= "\uf900"


def _is_narrow(line: Line) -> bool:
    return line.right - line.left <= _COLUMN_WIDTH * (line.size or 10.0)


def _is_next_column(columns: Sequence[Line], line: Line) -> bool:
    """Whether a short stack is the next column on the left, or a reading in small type beside the last one."""
    last = columns[-1]
    size = last.size or 10.0
    if line.size <= _READING_SIZE * size:
        return -0.5 * size < line.left - last.right < size and last.bottom < line.top < last.top + size
    return (
        abs(line.size - size) <= 0.2 * size
        and abs(line.top - last.top) < 1.5 * size
        and 0 < last.left - line.right < 3 * size
    )


def _column(lines: Sequence[Line]) -> Line:
    text = lines[0].text
    for before, line in pairwise(lines):
        gap = before.bottom - line.top
        apart = not (_is_cjk(before.text[-1]) or _is_cjk(line.text[0])) and gap > _WORD_GAP * line.size
        text += f" {line.text}" if apart else line.text
    left, right = min(line.left for line in lines), max(line.right for line in lines)
    first, last = lines[0], lines[-1]
    spans = tuple(span for line in lines for span in line.spans)
    return Line(text, left, right, last.bottom, first.top, first.size, first.weight, upright=True, spans=spans)
