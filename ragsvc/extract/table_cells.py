"""Reads the cells of a line from the characters of its page: its pieces without wide gaps.

Two calls of pdfium for each word, so it is done only for lines that may belong to a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ragsvc.extract.clean import LINE_HYPHEN, clean_line
from ragsvc.extract.layout import Line
from ragsvc.extract.line_spans import UNSHOWN
from ragsvc.extract.pdf_text import TextPage
from ragsvc.extract.table_columns import Cell
from ragsvc.extract.turned import Rectangle

_WORD = re.compile(f"[^{''.join(sorted(UNSHOWN))}]+")
_GAP = 0.6
_LINE_GAP = 1.2
_ONE_LINE = 1.5


def line_cells(page: TextPage, line: Line) -> list[Cell]:
    """The cells of a line, from left to right within each part of it that the file stores together."""
    size = line.size or 10.0
    if " " not in line.text and not line.row and line.top - line.bottom < _ONE_LINE * size:
        return [Cell(line.text, line.left, line.right, line.bottom, line.top)]
    return [cell for start, end in line.spans for cell in _span_cells(page, start, end, size)]


def _span_cells(page: TextPage, start: int, end: int, size: float) -> Iterator[Cell]:
    if page.font(start)[2] != page.turns:  # a turned heading is one cell
        boxes = [page.shown(box) for index in (start, end - 1) if (box := page.character_box(index)) is not None]
        if boxes:
            (left, bottom, right, top), (left_2, bottom_2, right_2, top_2) = boxes[0], boxes[-1]
            whole = (min(left, left_2), min(bottom, bottom_2), max(right, right_2), max(top, top_2))
            yield _cell(page, start, end, whole)
        return
    words = (found.span() for found in _WORD.finditer(page.text, start, end))
    for begin, stop, box in page.runs(words, gap=_GAP * size, step=_LINE_GAP * size):
        yield _cell(page, begin, stop, box)


def _cell(page: TextPage, start: int, end: int, box: Rectangle) -> Cell:
    text = clean_line(page.edited(start, end)).replace(LINE_HYPHEN, "-")
    return Cell(text, box[0], box[2], box[1], box[3])
