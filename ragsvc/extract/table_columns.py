"""Assigns the cells of a table to columns, and headings to the columns they stand above. Pure geometry and text."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

import msgspec


class Cell(msgspec.Struct, frozen=True):
    """A piece of a line without wide gaps, in points on the displayed page."""

    text: str
    left: float
    right: float
    bottom: float
    top: float


Interval = tuple[float, float]

_CURRENCIES = "$\u20ac\u00a3\u00a5"
_DASHES = "-\u2212\u2012-\u2015"
_AMOUNT = (
    rf"(?:[{_CURRENCIES}]|[A-Z]{{3}} )? ?[+(~{_DASHES}]*[{_CURRENCIES}]? ?(?=\D{{0,3}}\d)"
    rf"(?:[\d.,:/\u2019' \u00a0]|[{_DASHES}](?=[ .\d])){{1,24}}"
    rf"[)%*\u2020\u2030]*(?: ?[%)*x{_CURRENCIES}]|(?<=\d) ?[a-zA-Z]{{1,3}}|(?<=\d) [a-z]{{4,6}}| ?\[\d{{1,2}}\])?"
)
_VALUE = re.compile(
    rf"{_AMOUNT}|[){_DASHES}{_CURRENCIES} %(]{{1,4}}"
    r"|[A-Z+xo\u2022\u25cf\u25cb\u25a0\u25a1\u2610-\u2612\u2713-\u2718\u221a\u00d7]|n/?[am]\.?|N/?[AM]\.?|nil|[Yy]es|[Nn]o"
)
_RAISED = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
_HAS_DIGIT = re.compile(r"\d")
_YEAR = re.compile(r"(?:FY ?|Q[1-4] ?)?(?:19|20)\d\d(?:[/-]\d{2,4})?\*?|[1-4]Q\d\d|\(\d\)")
_CURRENCY = re.compile(rf"[{_CURRENCIES}]|US\$|[A-Z]{{3}}")
_CLOSING = re.compile(r"[)%\u2030*]{1,3}|pts?\.?")
_COLUMN_GAP = 0.3
_TOLERANCE = 0.5
_NEAR_COLUMN = 2
_VALUE_SHARE = 0.6


def is_value(text: str) -> bool:
    """Whether a cell has an amount, a mark, or a sign that there is none."""
    return _VALUE.fullmatch(text.strip("~").rstrip(_RAISED)) is not None


def is_figure(text: str) -> bool:
    """Whether a cell has an amount that is no year."""
    return _HAS_DIGIT.search(text) is not None and is_value(text) and _YEAR.fullmatch(text.rstrip(_RAISED)) is None


def find_columns(rows: Sequence[Sequence[Cell]], size: float) -> list[Interval]:
    """The intervals of x that the cells cover, with currencies and closing signs joined to their figures."""
    most = max(len(row) for row in rows)
    second = min(row[1].left for row in rows if len(row) == most)
    cells = [
        cell for row in rows for number, cell in enumerate(row) if number or cell.right <= second or cell.left >= second
    ]
    intervals: list[list[float]] = []
    members: list[list[str]] = []
    for cell in sorted(cells, key=lambda cell: cell.left):
        if intervals and cell.left - intervals[-1][1] < _COLUMN_GAP * size:
            intervals[-1][1] = max(intervals[-1][1], cell.right)
            members[-1].append(cell.text)
        else:
            intervals.append([cell.left, cell.right])
            members.append([cell.text])
    columns: list[Interval] = []
    opening: float | None = None
    for (left, right), texts in zip(intervals, members, strict=True):
        if columns and all(map(_CURRENCY.fullmatch, texts)):
            opening = left if opening is None else opening
        elif columns and opening is None and all(map(_CLOSING.fullmatch, texts)):
            columns[-1] = (columns[-1][0], right)
        else:
            columns.append((left if opening is None else opening, right))
            opening = None
    return columns


def in_columns(cells: Sequence[Cell], columns: Sequence[Interval]) -> list[str]:
    """The text in each column."""
    texts = [""] * len(columns)
    lefts = [left for left, _ in columns]
    for cell in cells:
        at = max(0, bisect_right(lefts, cell.left + _TOLERANCE) - 1)
        texts[at] = f"{texts[at]} {cell.text}" if texts[at] else cell.text
    return texts


def value_columns(grid: Sequence[Sequence[str]]) -> list[int]:
    """The columns (but not the first) whose cells are mostly values."""
    found: list[int] = []
    for column in range(1, len(grid[0])):
        texts = [row[column] for row in grid if row[column]]
        if texts and sum(map(is_value, texts)) >= _VALUE_SHARE * len(texts):
            found.append(column)
    return found


def spread_headings(
    level: Sequence[Cell], columns: Sequence[Interval], wide: list[Interval], size: float
) -> dict[int, str]:
    """The columns of each heading of a level, as a heading can span several columns.

    ``wide`` are the columns with the headings below this level, and is updated.
    """
    ranges = [_own_columns(cell, wide, size) for cell in level]
    texts: dict[int, list[str]] = {}
    for at, (cell, own) in enumerate(zip(level, ranges, strict=True)):
        others = {column for number, other in enumerate(ranges) if number != at for column in other}
        spanned = (
            own
            if len(own) == 1 and _is_inside(cell, wide[own[0]], size)
            else _spanned(cell, own, columns, others, size)
        )
        ranges[at] = spanned
        for column in spanned:
            texts.setdefault(column, []).append(cell.text)
        if len(spanned) == 1:
            left, right = wide[spanned[0]]
            wide[spanned[0]] = (min(left, cell.left), max(right, cell.right))
    return {column: " ".join(dict.fromkeys(parts)) for column, parts in texts.items()}


def _own_columns(cell: Cell, columns: Sequence[Interval], size: float) -> range:
    """The columns that a heading stands above; without one, the nearest column if it is near."""
    found = [
        at
        for at, (left, right) in enumerate(columns)
        if min(cell.right, right) - max(cell.left, left) > min(0.25 * size, 0.5 * (right - left))
    ]
    if len(found) > 1 and found[0] == 0:
        found = found[1:]
    if found:
        return range(found[0], found[-1] + 1)
    distances = [max(0.0, left - cell.right, cell.left - right) for left, right in columns]
    nearest = distances.index(min(distances))
    return range(nearest, nearest + 1) if distances[nearest] < _NEAR_COLUMN * size else range(0)


def _is_inside(cell: Cell, column: Interval, size: float) -> bool:
    return column[0] - 0.5 * size < cell.left and cell.right < column[1] + 0.5 * size


def _spanned(cell: Cell, own: range, columns: Sequence[Interval], others: set[int], size: float) -> range:
    """The largest range of columns with the heading in its middle."""
    if not own or not own[0]:
        return own
    middle = (cell.left + cell.right) / 2
    first = last = own[0]
    while first > 1 and first - 1 not in others:
        first -= 1
    while last < len(columns) - 1 and last + 1 not in others:
        last += 1
    best = own
    for start in range(first, own[0] + 1):
        for end in range(own[-1], last + 1):
            left, right = columns[start][0], columns[end][1]
            off = abs(middle - (left + right) / 2)
            if off < 0.06 * (right - left) + 0.5 * size and end - start + 1 > len(best):
                best = range(start, end + 1)
    return best
