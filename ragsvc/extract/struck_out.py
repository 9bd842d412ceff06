"""Finds the characters that a line strikes out: bars drawn through the middle of the text, and StrikeOut annotations.

Underlines, rules of tables and fraction bars are not near the middle of a character, or are longer than the text they
touch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pypdfium2.raw as pdfium

from ragsvc.extract.layout import Line
from ragsvc.extract.line_spans import UNSHOWN, Span
from ragsvc.extract.pdfium_calls import PdfiumHandle
from ragsvc.extract.turned import Rectangle

if TYPE_CHECKING:
    from ragsvc.extract.pdf_text import TextPage

_MOST_ANNOTATIONS = 500
_MOST_QUADS = 200
_LEVEL = 8.0
_THICKEST = 0.3
_SHORTEST = 0.25
_LOWEST, _HIGHEST = 0.12, 0.5
_DESCENT = 0.3
_BEYOND = 1.0
_UNSEEN = pdfium.FPDF_ANNOT_FLAG_HIDDEN | pdfium.FPDF_ANNOT_FLAG_NOVIEW


def struck_out(page: TextPage, spans: Sequence[Span], lines: Sequence[Line]) -> list[Span]:
    """The struck-out runs of characters of a page, in order; runs with only spaces between them are one."""
    bars = [page.shown(bar) for bar in page.visibility.shapes.bars]
    quads = [page.shown(quad) for quad in _annotated(page.page)]
    if not bars and not quads:
        return []
    found: set[int] = set()
    level = _by_level(lines)
    for bar in bars:
        for number in level.get(int((bar[1] + bar[3]) / 2 // _LEVEL), ()):
            if _may_strike(bar, lines[number]):
                found.update(_struck_by(page, spans[number], bar))
    for left, bottom, right, top in quads:
        for span, line in zip(spans, lines, strict=True):
            middle = (line.bottom + line.top) / 2
            if bottom < middle < top and left < line.right and right > line.left and not line.upright:
                found.update(_between(page, span, left, right))
    runs = _runs(page.text, sorted(found))
    return [(start, end) for start, end in runs if any(map(str.isalnum, page.text[start:end]))]


def _by_level(lines: Sequence[Line]) -> dict[int, list[int]]:
    """The numbers of the lines at each height, so that a bar is not compared with all lines."""
    found: dict[int, list[int]] = {}
    for number, line in enumerate(lines):
        if not line.upright:
            for level in range(int(line.bottom // _LEVEL), int(line.top // _LEVEL) + 1):
                found.setdefault(level, []).append(number)
    return found


def _annotated(page: PdfiumHandle) -> Iterator[Rectangle]:
    """The rectangles of StrikeOut annotations."""
    for number in range(min(_MOST_ANNOTATIONS, max(0, pdfium.FPDFPage_GetAnnotCount(page)))):
        annotation = pdfium.FPDFPage_GetAnnot(page, number)
        if not annotation:
            continue
        try:
            if pdfium.FPDFAnnot_GetSubtype(annotation) != pdfium.FPDF_ANNOT_STRIKEOUT:
                continue
            if pdfium.FPDFAnnot_GetFlags(annotation) & _UNSEEN:
                continue
            quad = pdfium.FS_QUADPOINTSF()
            for index in range(min(_MOST_QUADS, pdfium.FPDFAnnot_CountAttachmentPoints(annotation))):
                if pdfium.FPDFAnnot_GetAttachmentPoints(annotation, index, quad):
                    x, y = (quad.x1, quad.x2, quad.x3, quad.x4), (quad.y1, quad.y2, quad.y3, quad.y4)
                    yield (min(x), min(y), max(x), max(y))
        finally:
            pdfium.FPDFPage_CloseAnnot(annotation)


def _may_strike(bar: Rectangle, line: Line) -> bool:
    left, bottom, right, top = bar
    size = line.size or 10.0
    return (
        top - bottom <= _THICKEST * size
        and right - left >= _SHORTEST * size
        and _LOWEST * size < (bottom + top) / 2 - line.bottom < (_HIGHEST + _DESCENT) * size
        and line.left - _BEYOND * size < left < line.right
        and line.left < right < line.right + _BEYOND * size
    )


def _struck_by(page: TextPage, span: Span, bar: Rectangle) -> list[int]:
    """The characters of a line that a bar crosses near their middle; none if the bar reaches far beyond them."""
    left, bottom, right, top = bar
    middle = (bottom + top) / 2
    struck = _between(page, span, left, right)
    struck = [
        index
        for index in struck
        if _LOWEST < (middle - page.baseline(index)) / (page.font(index)[0] or 10.0) < _HIGHEST
    ]
    if not struck:
        return []
    boxes = [page.character_box(index) for index in (struck[0], struck[-1])]
    if boxes[0] is None or boxes[1] is None:
        return []
    first, last = page.shown(boxes[0]), page.shown(boxes[1])
    beyond = _BEYOND * page.font(struck[0])[0]
    return struck if left > first[0] - beyond and right < last[2] + beyond else []


def _between(page: TextPage, span: Span, left: float, right: float) -> list[int]:
    """The characters of a line whose middle is between two positions."""
    found: list[int] = []
    for index in range(*span):
        if page.text[index] in UNSHOWN:
            continue
        box = page.character_box(index)
        if box is not None:
            x0, _, x1, _ = page.shown(box)
            if left <= (x0 + x1) / 2 <= right:
                found.append(index)
    return found


def _runs(text: str, positions: Sequence[int]) -> Iterator[Span]:
    start = last = -1
    for position in positions:
        if start >= 0 and text[last + 1 : position].strip(" "):
            yield start, last + 1
            start = -1
        if start < 0:
            start = position
        last = position
    if start >= 0:
        yield start, last + 1
