"""Joins the cells of a table row that pdfium gives as lines of their own. Pure geometry and text.

pdfium decides by the width that the text covers whether a page runs across or down. On a page of short cells it does
not decide, and then each object of a single character starts a line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from ragsvc.extract.layout import Line
from ragsvc.extract.right_to_left import has_right_to_left

_CELL_GAP = 1.3
_WORD_GAP = 0.17
_ADJACENT_GAP = 0.35
_SHORT = 2
_MIN_ROWS = 3
_VALUES = 0.7
_LONGEST_VALUE = 20
_MARKS = frozenset("\u00b9\u00b2\u00b3\u2070\u2074\u2075\u2076\u2077\u2078\u2079")
_VALUE = re.compile(r"(?=.*\d)[\d.,:/()%+$\u20ac\u00a3\u00a5*\u2212\u2012-\u2015 -]{1,20}|\S|[\u2012-\u2015-]")


def may_be_cell(line: Line) -> bool:
    """Whether pdfium may have broken a row at a line: it begins with a cell of one character, or has a raised mark."""
    text = line.text
    return len(text) == 1 or (line.row and text[1:2] == " ") or text[-1:] in _MARKS


def join_cells(lines: Sequence[Line]) -> list[Line]:
    """Join lines of a character or two to the line before or after them, if both are on one baseline.

    Also lines that begin with a cell of one character, and lines after a raised mark.

    >>> pike, seven, trout = Line("Pike", 60, 80, 640, 648, 10), Line("7", 195, 200, 640, 648, 10), Line("Trout", 60, 80, 624, 632, 10)
    >>> [line.text for line in join_cells([pike, seven, trout])]
    ['Pike 7', 'Trout']
    """  # noqa: E501 - a doctest
    joined: list[Line] = []
    for line in lines:
        before = joined[-1] if joined else None
        if before is not None and _is_cell_of(before, line):
            joined[-1] = _joined(before, line)
        else:
            joined.append(line)
    return joined


def _is_cell_of(before: Line, line: Line) -> bool:
    gap = _gap(before, line)
    short = (
        len(line.text) <= _SHORT
        or len(before.text) <= _SHORT
        or before.row
        or (line.row and line.text[1:2] == " ")
        or (before.text[-1:] in _MARKS and line.left >= before.right)
    )
    return (
        gap > -0.2 * line.size
        and (short or gap < _ADJACENT_GAP * line.size)
        and not (before.upright or line.upright or line.fresh)
        and on_one_baseline(before, line)
    )


def _gap(line: Line, other: Line) -> float:
    return max(line.left, other.left) - min(line.right, other.right)


def on_one_baseline(line: Line, other: Line) -> bool:
    """Whether two lines are cells of one row; a raised or lowered mark beside a word is not."""
    size = max(line.size, other.size) or 10.0
    middle, other_middle = (line.top + line.bottom) / 2, (other.top + other.bottom) / 2
    if abs(middle - other_middle) > 0.4 * size:
        return False
    raised = min(line.size, other.size) < 0.85 * size or abs(line.bottom - other.bottom) > 0.35 * size
    return not raised or _gap(line, other) > _CELL_GAP * size


def _joined(before: Line, line: Line) -> Line:
    size = max(before.size, line.size) or 10.0
    gap = _gap(before, line)
    to_the_left = line.left < before.left
    backwards = to_the_left != has_right_to_left(before.text + line.text)
    first, last = (line, before) if backwards else (before, line)
    larger = before if len(before.text) >= len(line.text) else line
    return msgspec.structs.replace(
        before,
        text=first.text + (" " if gap > _WORD_GAP * size else "") + last.text,
        left=min(before.left, line.left),
        right=max(before.right, line.right),
        bottom=min(before.bottom, line.bottom),
        top=max(before.top, line.top),
        size=larger.size,
        weight=larger.weight,
        row=before.row or line.row or gap > _CELL_GAP * size,
        spans=first.spans + last.spans,
    )


def join_table_columns(lines: Sequence[Line]) -> list[Line]:
    """Join tables that a file stores column by column to rows: a column of labels, then columns of values.

    >>> def cell(text, left, row): return Line(text, left, left + 6 * len(text), 640 - 16 * row, 648 - 16 * row, 10)
    >>> labels = [cell(text, 60, row) for row, text in enumerate(("Pike", "Trout", "Eel"))]
    >>> values = [cell(text, 200, row) for row, text in enumerate(("714", "43", "89"))]
    >>> [line.text for line in join_table_columns(labels + values)]
    ['Pike 714', 'Trout 43', 'Eel 89']
    """
    if sum(not line.row and len(line.text) <= _LONGEST_VALUE for line in lines) < _MIN_ROWS:
        return list(lines)
    joined: list[Line] = []
    table: list[Line] = []
    for column in _columns(lines):
        rows = _with_column(table, column)
        if rows is None:
            joined += table
            table = column
        else:
            table = rows
    return joined + table


def _columns(lines: Sequence[Line]) -> list[list[Line]]:
    """Runs of lines below each other."""
    columns: list[list[Line]] = []
    for line in lines:
        before = columns[-1][-1] if columns else None
        if before is not None and line.top < before.top - 0.5 * before.size and _aligned(before, line):
            columns[-1].append(line)
        else:
            columns.append([line])
    return columns


def _aligned(line: Line, below: Line) -> bool:
    size = max(line.size, below.size)
    return not (line.upright or below.upright) and (line.left - size < below.right and below.left - size < line.right)


def _with_column(table: Sequence[Line], column: Sequence[Line]) -> list[Line] | None:
    """The rows of a table with one more column; ``None`` if the lines are no column of this table."""
    if len(table) < _MIN_ROWS or len(column) < _MIN_ROWS or column[0].top < table[-1].top:
        return None
    hosts = [_host(table, line) for line in column]
    matched = [line for line, host in zip(column, hosts, strict=True) if host is not None]
    values = sum(_VALUE.fullmatch(line.text) is not None for line in matched)
    headings = len(column) - len(matched)
    if len(matched) < _MIN_ROWS or headings > 1 or values < _VALUES * len(matched):
        return None
    rows = list(table)
    for line, host in zip(column, hosts, strict=True):
        if host is None:
            rows.append(line)
        else:
            rows[host] = _joined(rows[host], line)
    return sorted(rows, key=lambda row: -row.bottom)


def _host(table: Sequence[Line], line: Line) -> int | None:
    return next(
        (
            index
            for index, row in enumerate(table)
            if row.right + 0.5 * line.size < line.left and on_one_baseline(row, line)
        ),
        None,
    )
