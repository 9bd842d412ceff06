"""Rectangles of recognised text on a page. The page is recognised again, because positions are not stored."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from ragsvc.core.page_views import PositionedLine, RecognisedLines
from ragsvc.extract.clean import clean_line
from ragsvc.extract.formats.pictures import recognise_picture
from ragsvc.extract.ocr import OcrLine, OcrUnavailable, Recognised
from ragsvc.extract.ocr_layout import ocr_rows
from ragsvc.extract.ocr_pages import render_and_recognise
from ragsvc.extract.page_image import PixelArray
from ragsvc.extract.pdfium_calls import PdfiumHandle
from ragsvc.extract.turned import Rectangle

_PAGE_POINTS = 842.0
"""The longer side of a picture that is a page."""


def rectangles_of(lines: RecognisedLines, first: int, last: int) -> list[Rectangle]:
    """The rectangles of characters ``first`` to ``last`` (inclusive) of the joined lines, one for each line.

    Left, top, right and bottom as fractions of the picture.
    """
    found: list[Rectangle] = []
    start = 0
    for line in lines.lines:
        begin, end = max(first, start), min(last + 1, start + len(line.text))
        if begin < end:
            found.append(_rectangle(lines, line, line.edges[begin - start][0], line.edges[end - start - 1][1]))
        start += len(line.text)
    return found


def _rectangle(lines: RecognisedLines, line: PositionedLine, begin: float, end: float) -> Rectangle:
    corners = np.array(line.corners).reshape(4, 2) / (lines.columns, lines.rows)
    upper_left, upper_right, lower_right, lower_left = corners
    along = [(upper_left, upper_right), (lower_left, lower_right)]
    points = np.array([start + share * (stop - start) for start, stop in along for share in (begin, end)])
    left, top = points.min(axis=0).clip(0, 1)
    right, bottom = points.max(axis=0).clip(0, 1)
    return (float(left), float(top), float(right), float(bottom))


def recognise_again(document: PdfiumHandle, index: int) -> RecognisedLines | None:
    """Recognise page ``index`` (from 0) of a pdfium document handle; ``None`` if that is not possible."""
    try:
        seen = render_and_recognise(document, index, positions=True)
    except OcrUnavailable:
        return None
    if seen is None:
        return None
    image, recognised = seen
    return _positioned(image.pixels, recognised, image.scale)


def recognise_picture_again(path: Path, page_number: int) -> RecognisedLines | None:
    """Recognise page ``page_number`` (from 1) of a picture; ``None`` if that is not possible.

    Raises:
        ExtractionFailed: the picture has no such page, or is damaged.
    """
    try:
        pixels, recognised = recognise_picture(path, page_number)
    except OcrUnavailable:
        return None
    return _positioned(pixels, recognised, max(pixels.shape[:2]) / _PAGE_POINTS)


def _positioned(pixels: PixelArray, recognised: Recognised, scale: float) -> RecognisedLines:
    lines: list[PositionedLine] = []
    for row in ocr_rows(recognised.lines, turns=recognised.turns, scale=scale):
        for fragment in row:
            source = recognised.lines[fragment.source]
            text = fragment.line.text
            corners = np.roll(source.corners, recognised.turns, axis=0).ravel()
            x0, y0, x1, y1, x2, y2, x3, y3 = (round(float(value), 1) for value in corners)
            lines.append(PositionedLine(text, (x0, y0, x1, y1, x2, y2, x3, y3), _edges(text, source)))
    rows, columns = pixels.shape[:2]
    return RecognisedLines(lines, columns, rows)


def _edges(text: str, source: OcrLine) -> list[tuple[float, float]]:
    """Where the characters of a line begin and end, as fractions of its length.

    A character reaches to the middle between its middle and the next one's. Cleaning a line may change the number of
    its characters; each then has an equal share.
    """
    middles = _middles_of(text, source)
    if middles is None:
        return [(at / len(text), (at + 1) / len(text)) for at in range(len(text))]
    borders = [0.0, *((before + after) / 2 for before, after in pairwise(middles)), 1.0]
    edges: list[tuple[float, float]] = []
    seen = 0
    for character in text:
        if character == " ":
            edges.append((borders[seen], borders[seen]))
        else:
            edges.append((borders[seen], borders[seen + 1]))
            seen += 1
    return edges


def _middles_of(text: str, source: OcrLine) -> Sequence[float] | None:
    """The middles of the characters of ``text`` that are no spaces."""
    count = sum(character != " " for character in text)
    recognised = [character for character in source.text if not character.isspace()]
    if len(source.middles) != len(recognised):
        return None
    if len(recognised) == count:
        return source.middles
    # a recognised character may become several (or none)
    spread = [
        middle
        for character, middle in zip(recognised, source.middles, strict=True)
        for _ in clean_line(character).replace(" ", "")
    ]
    return spread if len(spread) == count else None
