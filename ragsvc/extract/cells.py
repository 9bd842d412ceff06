"""Joins the cells of a table row that pdfium gives as lines of their own. Pure geometry and text.

pdfium decides by the width that the text covers whether a page runs across or down. On a page of short cells it does
not decide, and then each object of a single character starts a line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from ragsvc.extract.layout import Line

_CELL_GAP = 1.3
_WORD_GAP = 0.17
_ADJACENT_GAP = 0.35
_SHORT = 2
_VALUE = re.compile(r"(?=.*[\d\u2012-\u2015-])[\d.,:/()%+$€£¥*\u2012-\u2015\u2212 -]{1,20}|\S")


def join_cells(lines: Sequence[Line]) -> list[Line]:
    """Join lines of a character or two to the line before or after them, if both are on one baseline.

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
    gap = line.left - before.right
    short = len(line.text) <= _SHORT or len(before.text) <= _SHORT or before.row
    return (
        gap > -0.2 * line.size
        and (short or gap < _ADJACENT_GAP * line.size)
        and not (before.upright or line.upright or line.fresh)
        and on_one_baseline(before, line)
    )


def on_one_baseline(line: Line, other: Line) -> bool:
    """Whether two lines are cells of one row; a raised or lowered mark beside a word is not."""
    size = max(line.size, other.size) or 10.0
    middle, other_middle = (line.top + line.bottom) / 2, (other.top + other.bottom) / 2
    if abs(middle - other_middle) > 0.4 * size:
        return False
    raised = min(line.size, other.size) < 0.85 * size or abs(line.bottom - other.bottom) > 0.35 * size
    return not raised or max(line.left, other.left) - min(line.right, other.right) > _CELL_GAP * size


def _joined(before: Line, line: Line) -> Line:
    size = max(before.size, line.size) or 10.0
    gap = line.left - before.right
    larger = before if len(before.text) >= len(line.text) else line
    return msgspec.structs.replace(
        before,
        text=before.text + (" " if gap > _WORD_GAP * size else "") + line.text,
        right=max(before.right, line.right),
        bottom=min(before.bottom, line.bottom),
        top=max(before.top, line.top),
        size=larger.size,
        weight=larger.weight,
        row=before.row or line.row or gap > _CELL_GAP * size,
    )
