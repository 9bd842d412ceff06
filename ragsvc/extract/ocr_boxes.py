"""Where recognised characters stand on their page: recognised again, since nothing of it is stored."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import msgspec
import numpy as np

from ragsvc.extract.child_protocol import QuoteBox
from ragsvc.extract.ocr import OcrUnavailable, Points
from ragsvc.extract.ocr_layout import ocr_rows
from ragsvc.extract.ocr_pages import look_at
from ragsvc.extract.page_image import PagePicture, Point, to_page


class _Place(msgspec.Struct, frozen=True):
    """A character's share, ``begin`` to ``end`` of 0..1, of the line with ``corners``."""

    corners: Points
    begin: float
    end: float


class ShownText(msgspec.Struct, frozen=True):
    """A page's recognised characters in reading order, without blanks between lines, and where each stands."""

    text: str = ""
    places: list[_Place] = []
    picture: PagePicture | None = None

    def boxes(self, document: Any, index: int, first: int, last: int) -> list[QuoteBox]:  # noqa: ANN401 - a ctypes handle
        """Find the rectangles of characters ``first`` to ``last`` (inclusive) on page ``index`` (from 0)."""
        if self.picture is None:
            return []
        found: list[QuoteBox] = []
        for place in _joined(self.places[first : last + 1]):
            x, y = zip(*to_page(document, index, self.picture, _corners(place)), strict=True)
            found.append(QuoteBox(min(x), max(y), max(x), min(y)))
        return found


def recognise_again(document: Any, index: int) -> ShownText:  # noqa: ANN401 - a ctypes handle
    """Recognise page ``index`` (from 0) of a pdfium document handle; empty when that cannot be done."""
    try:
        seen = look_at(document, index)
    except OcrUnavailable:
        return ShownText()
    if seen is None:
        return ShownText()
    picture, recognised = seen
    text = ""
    places: list[_Place] = []
    for row in ocr_rows(recognised.lines, turns=recognised.turns, scale=picture.scale):
        for fragment in row:
            line = fragment.line.text
            corners = np.roll(recognised.lines[fragment.source].corners, recognised.turns, axis=0)
            places += [_Place(corners, at / len(line), (at + 1) / len(line)) for at in range(len(line))]
            text += line
    return ShownText(text, places, picture)


def _joined(places: list[_Place]) -> Iterator[_Place]:
    """Join neighbouring characters of one line."""
    for _, run in groupby(places, key=lambda place: id(place.corners)):
        characters = list(run)
        yield _Place(characters[0].corners, characters[0].begin, characters[-1].end)


def _corners(place: _Place) -> list[Point]:
    upper_left, upper_right, lower_right, lower_left = place.corners
    along = [(upper_left, upper_right), (lower_left, lower_right)]
    points = [start + share * (end - start) for start, end in along for share in (place.begin, place.end)]
    return [(float(x), float(y)) for x, y in points]
