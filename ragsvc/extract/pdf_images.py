"""Detects pages whose content is mostly in a picture, as on a scan with a stamp."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pypdfium2.raw as pdfium

from ragsvc.extract.layout import Line
from ragsvc.extract.page_shapes import PageObjects
from ragsvc.extract.pdf_text import TextPage
from ragsvc.extract.turned import Rectangle

_MAX_OBJECTS = 1_000
_SAMPLED = 20
_MAX_INNER_OBJECTS = 200
_FEW_CHARACTERS = 200
_SHARE_BESIDE_FEW = 0.3
_SHARE = 0.5
_TEXT_SHARE = 0.08
_FULL_OF_TEXT = 0.15


def hides_text(page: TextPage, lines: Sequence[Line]) -> bool:
    """Whether a picture (or its strips) covers most of the page, and text covers little of the picture.

    On a page with few characters, a smaller picture is enough. ``lines`` are those of the page.
    """
    area = pdfium.FPDF_GetPageWidthF(page.page) * pdfium.FPDF_GetPageHeightF(page.page)
    if area <= 0 or sum(map(_covered, lines)) > _FULL_OF_TEXT * area:
        return False
    pictures = _pictures(page.visibility.objects)
    covered = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in pictures)
    if covered <= _SHARE_BESIDE_FEW * area:
        return False
    if sum(len(line.text) for line in lines) < _FEW_CHARACTERS:
        return True
    around = page.shown(_around(pictures))
    return covered > _SHARE * area and sum(_covered(line) for line in lines if _overlaps(line, around)) < (
        _TEXT_SHARE * covered
    )


def _covered(line: Line) -> float:
    """The area of a line, from its characters: its rectangle also contains the gaps of a row."""
    return 0.5 * len(line.text) * line.size * line.size


def _overlaps(line: Line, around: Rectangle) -> bool:
    x0, y0, x1, y1 = around
    return line.left < x1 and line.right > x0 and line.bottom < y1 and line.top > y0


def _around(rectangles: Iterable[Rectangle]) -> Rectangle:
    lefts, bottoms, rights, tops = zip(*rectangles, strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)


def _pictures(objects: PageObjects) -> list[Rectangle]:
    """The rectangles of the images of a page, in points of the unrotated page.

    Looking at every object of every page would take 3 % of the time for a report, so a page has none if there is none
    among its first and last objects.
    """
    count = min(_MAX_OBJECTS, objects.count)
    sampled = {*range(min(_SAMPLED, count)), *range(max(0, count - _SAMPLED), count)}
    if not any(objects.holds_picture(objects.at(number), most=_MAX_INNER_OBJECTS) for number in sampled):
        return []
    return objects.pictures(range(count), most_inside=_MAX_INNER_OBJECTS)
