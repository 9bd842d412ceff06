"""Restores the reading order of columns whose lines a file stores row by row. Pure geometry and text.

Tables look similar, and their rows must stay together: only two sides that both read like prose, with a gutter between
them over many lines, count as columns. Columns that a file stores one after the other are not reordered (``alternates``
returns ``False`` for them).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, pairwise
from statistics import median

from ragsvc.extract.layout import Line

_STEP = 3
_MIN_LINES = 6
_MIN_WORDS = 3.5
_DIGITS = re.compile(r"\d")
_LETTERS = re.compile(r"[^\W\d_]")
_CROSSING_SHARE = 0.15


def order_columns(lines: Sequence[Line]) -> list[Line]:
    """Put line fragments (each within a column, or across all) into reading order; unchanged if there are no columns.

    >>> row = lambda text, left, top: Line(text, left, left + 200, top - 10, top, 10)
    >>> sides = (("left", 50), ("right", 300))
    >>> page = [row(f"{side} line {n} goes on", x, 700 - 12 * n) for n in range(8) for side, x in sides]
    >>> [line.text.split()[0] for line in order_columns(page)] == ["left"] * 8 + ["right"] * 8
    True
    """
    gutter = find_gutter(lines)
    if gutter is None:
        return list(lines)
    left = [line for line in lines if line.right <= gutter]
    right = [line for line in lines if line.left >= gutter]
    if not (_is_prose(left) and _is_prose(right) and alternates(lines, gutter)):
        return list(lines)
    across = sorted((line for line in lines if line.left < gutter < line.right), key=_by_top)
    ordered: list[Line] = []
    for spanning in [*across, None]:
        floor = spanning.top if spanning is not None else float("-inf")
        for side in (left, right):
            above = [line for line in side if _middle(line) > floor]
            side[:] = [line for line in side if _middle(line) <= floor]
            above = order_columns(sorted(above, key=_by_top))
            if above and ordered:
                above[0].fresh = True
            ordered += above
        if spanning is not None:
            ordered.append(spanning)
    return ordered


def find_gutter(lines: Sequence[Line]) -> float | None:
    """The x in the middle half of the page that the fewest lines cross; ``None`` if too many lines cross it."""
    if len(lines) < 2 * _MIN_LINES:
        return None
    start, end = min(line.left for line in lines), max(line.right for line in lines)
    width = end - start
    if width <= 0:
        return None
    first_x = int(start + 0.25 * width)
    count = int(0.5 * width / _STEP) + 1  # over the middle half
    changes = [0] * (count + 1)
    for line in lines:
        enters = max(0, min(count, int((line.left - first_x) // _STEP) + 1))
        leaves = max(enters, min(count, int(-((first_x - line.right) // _STEP))))
        changes[enters] += 1
        changes[leaves] -= 1
    crossings = list(accumulate(changes))[:count]
    if min(crossings) > _CROSSING_SHARE * len(lines):
        return None
    fewest = min(crossings)
    best, run = (0, 0), 0
    for index, crossing in enumerate([*crossings, len(lines) + 1]):
        if crossing == fewest:
            run += 1
            continue
        best, run = max(best, (run, index - run)), 0
    length, first = best
    return float(first_x + _STEP * (first + length // 2))


def alternates(lines: Sequence[Line], gutter: float) -> bool:
    """Whether the file's order jumps across the gutter often, which reading order never does."""
    sides = [line.left >= gutter for line in lines if line.right <= gutter or line.left >= gutter]
    jumps = sum(a != b for a, b in pairwise(sides))
    return jumps >= 4 and jumps >= 0.25 * len(sides)


def _is_prose(lines: Sequence[Line]) -> bool:
    if len(lines) < _MIN_LINES:
        return False
    text = "".join(line.text for line in lines)
    letters, digits = len(_LETTERS.findall(text)), len(_DIGITS.findall(text))
    width = max(line.right for line in lines) - min(line.left for line in lines)
    return (
        letters > 5 * digits
        and median(len(line.text.split()) for line in lines) >= _MIN_WORDS
        and median(line.right - line.left for line in lines) >= 0.55 * width
    )


def _by_top(line: Line) -> float:
    return -line.top


def _middle(line: Line) -> float:
    return (line.top + line.bottom) / 2
