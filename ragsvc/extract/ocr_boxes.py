"""Rectangles of recognised text on a page. The page is recognised again, because positions are not stored."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import msgspec
import numpy as np

from ragsvc.extract.child_protocol import QuoteBox
from ragsvc.extract.ocr import OcrUnavailable, Points
from ragsvc.extract.ocr_layout import ocr_rows
from ragsvc.extract.ocr_pages import render_and_recognise
from ragsvc.extract.page_image import PageImage, Point, image_to_page_points
from ragsvc.extract.pdfium_calls import PdfiumHandle


class _CharacterPosition(msgspec.Struct, frozen=True):
    """A character's share of its line: from ``begin`` to ``end``, of 0..1, of the line with ``corners``."""

    corners: Points
    begin: float
    end: float


class PositionedText(msgspec.Struct, frozen=True):
    """A page's recognised characters in reading order, without spaces between lines, with their positions."""

    text: str = ""
    positions: list[_CharacterPosition] = []
    image: PageImage | None = None

    def boxes(self, document: PdfiumHandle, index: int, first: int, last: int) -> list[QuoteBox]:
        """The rectangles of characters ``first`` to ``last`` (inclusive) on page ``index`` (from 0)."""
        if self.image is None:
            return []
        found: list[QuoteBox] = []
        for position in _joined(self.positions[first : last + 1]):
            x, y = zip(*image_to_page_points(document, index, self.image, _corners(position)), strict=True)
            found.append(QuoteBox(min(x), max(y), max(x), min(y)))
        return found


def recognise_again(document: PdfiumHandle, index: int) -> PositionedText:
    """Recognise page ``index`` (from 0) of a pdfium document handle; empty if that is not possible."""
    try:
        seen = render_and_recognise(document, index)
    except OcrUnavailable:
        return PositionedText()
    if seen is None:
        return PositionedText()
    image, recognised = seen
    text = ""
    positions: list[_CharacterPosition] = []
    for row in ocr_rows(recognised.lines, turns=recognised.turns, scale=image.scale):
        for fragment in row:
            line = fragment.line.text
            corners = np.roll(recognised.lines[fragment.source].corners, recognised.turns, axis=0)
            positions += [_CharacterPosition(corners, at / len(line), (at + 1) / len(line)) for at in range(len(line))]
            text += line
    return PositionedText(text, positions, image)


def _joined(positions: list[_CharacterPosition]) -> Iterator[_CharacterPosition]:
    """Merge adjacent characters of a line."""
    for _, run in groupby(positions, key=lambda position: id(position.corners)):
        characters = list(run)
        yield _CharacterPosition(characters[0].corners, characters[0].begin, characters[-1].end)


def _corners(position: _CharacterPosition) -> list[Point]:
    upper_left, upper_right, lower_right, lower_left = position.corners
    along = [(upper_left, upper_right), (lower_left, lower_right)]
    points = [start + share * (end - start) for start, end in along for share in (position.begin, position.end)]
    return [(float(x), float(y)) for x, y in points]
