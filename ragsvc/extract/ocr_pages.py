"""Recognises the text of pages that have no usable text layer.

Decides which pages are recognised, within the limits. ``page_image`` renders pages, ``ocr`` recognises lines, and
``ocr_layout`` orders them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.layout import Line, page_text
from ragsvc.extract.ocr import OcrUnavailable, Recognised, open_recogniser
from ragsvc.extract.ocr_layout import ocr_lines, ocr_rows
from ragsvc.extract.page_image import (
    PageImage,
    PageNotRendered,
    Point,
    image_to_page_points,
    page_rotation,
    page_to_image_points,
    render_page,
)
from ragsvc.extract.page_merge import KeptLines, Reason, combine
from ragsvc.extract.pdfium_calls import PdfiumHandle
from ragsvc.extract.scan_layers import Pixels, agrees_with_picture, should_replace

_MIN_CHARACTERS = 2
_MIN_CONTRAST = 16
_MUCH_TEXT = 200
_PAPER_SHARE = 0.5
_PAPER_RANGE = 24
_EVERY = 4


class RecognisedPage(msgspec.Struct, frozen=True):
    """A page's recognised text; empty if there is none. ``unchanged``: the text layer of the page is all its text."""

    text: str = ""
    lines: list[Line] = []
    truncated: bool = False
    unchanged: bool = False


def recognise_pages(
    document: PdfiumHandle,
    numbers: Sequence[int],
    *,
    kept: Mapping[int, KeptLines],
    limits: ExtractionLimits,
    max_characters: int,
    on_page: Callable[[int], None],
    on_warning: Callable[[str], None],
    on_text: Callable[[int, str], None] = lambda _number, _text: None,
) -> dict[int, RecognisedPage]:
    """Recognise pages (from 1) of a pdfium document handle, up to the limits; further pages are missing in the result.

    The lines of text layers (``kept``, by page) are combined with the recognised lines. ``on_page`` is called after
    each page with the number of pages done, ``on_text`` with the number and the text of each page that has text. If
    text recognition is not available, the result is empty and ``on_warning`` is called.
    """
    found: dict[int, RecognisedPage] = {}
    for number in numbers[: limits.ocr_max_pages]:
        if max_characters <= 0:
            break
        try:
            page = _recognise_page(document, number - 1, kept.get(number))
        except OcrUnavailable as error:
            on_warning(f"Pages without a text layer are skipped, and text layers of scans not checked: {error}.")
            return found
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - any error of the engine affects this page only
            on_warning(f"The text of a page could not be recognised ({type(error).__name__}).")
            page = RecognisedPage()
        found[number] = page
        if page.text:
            on_text(number, page.text)
        max_characters -= len(page.text)
        on_page(len(found))
    return found


def render_and_recognise(
    document: PdfiumHandle, index: int, *, positions: bool = False
) -> tuple[PageImage, Recognised] | None:
    """Render page ``index`` (from 0) and recognise its text; ``None`` if the page is blank or cannot be rendered.

    ``positions``: also where the characters of the lines are.

    Raises:
        OcrUnavailable: text recognition is not installed or does not start.
    """
    try:
        image = render_page(document, index)
    except PageNotRendered:
        return None
    if image is None or int(image.pixels.max()) - int(image.pixels.min()) < _MIN_CONTRAST:
        return None
    return image, open_recogniser().read(image.pixels, positions=positions)


def _recognise_page(document: PdfiumHandle, index: int, kept: KeptLines | None) -> RecognisedPage:
    if kept is not None and (_is_photograph(document, index, kept) or _agrees(document, index, kept)):
        return RecognisedPage(unchanged=True)
    seen = render_and_recognise(document, index)
    if seen is None:
        return RecognisedPage()
    image, recognised = seen
    if kept is not None and kept.reason is Reason.LAYER and not should_replace(kept.lines, recognised):
        return RecognisedPage(unchanged=True)
    lines = ocr_lines(recognised.lines, turns=recognised.turns, scale=image.scale)
    if kept is not None:
        if not kept.lines:  # without text, the picture decides about the orientation
            kept.turns += recognised.turns
        rows = ocr_rows(recognised.lines, turns=recognised.turns, scale=image.scale)
        fragments = [fragment.line for row in rows for fragment in row]
        placed = _in_text_layer(document, index, image, [*lines, *fragments], from_turns=recognised.turns, kept=kept)
        lines, changed = combine(kept, placed[: len(lines)], placed[len(lines) :])
        if not changed:
            return RecognisedPage(page_text(lines), lines, unchanged=True)
    text = page_text(lines)
    if sum(map(str.isalnum, text)) < _MIN_CHARACTERS:
        return RecognisedPage()
    return RecognisedPage(text, lines, recognised.truncated)


def _is_photograph(document: PdfiumHandle, index: int, kept: KeptLines) -> bool:
    """Whether a page with a picture and text has no background of an even colour, as a picture of text has."""
    if kept.reason is not Reason.PICTURE or sum(len(line.text) for line in kept.lines) < _MUCH_TEXT:
        return False
    try:
        image = render_page(document, index)
    except PageNotRendered:
        return False
    if image is None:
        return False
    levels = np.bincount(image.pixels[::_EVERY, ::_EVERY].mean(axis=2).astype(np.uint8).ravel(), minlength=256)
    paper = int(levels.argmax())
    near = levels[max(0, paper - _PAPER_RANGE) : paper + _PAPER_RANGE + 1]
    return bool(near.sum() < _PAPER_SHARE * levels.sum())


def _agrees(document: PdfiumHandle, index: int, kept: KeptLines) -> bool:
    """Whether the text layer of a scan agrees with its picture."""
    if kept.reason is not Reason.LAYER:
        return False
    try:
        image = render_page(document, index)
    except PageNotRendered:
        return True
    if image is None:
        return True

    def place(lines: Sequence[Line]) -> list[Pixels]:
        corners = [
            _turn(corner, -kept.turns)
            for line in lines
            for corner in ((line.left, line.top), (line.right, line.bottom))
        ]
        points = page_to_image_points(document, index, image, corners)
        return [
            (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
            for (x0, y0), (x1, y1) in zip(points[::2], points[1::2], strict=True)
        ]

    turns = kept.turns - page_rotation(document, index)
    return agrees_with_picture(kept.lines, image.pixels, place, turns=turns, recogniser=open_recogniser())


def _in_text_layer(
    document: PdfiumHandle,
    index: int,
    image: PageImage,
    lines: Sequence[Line],
    *,
    from_turns: int,
    kept: KeptLines,
) -> list[Line]:
    """Convert recognised lines to the coordinates of the page's text layer."""
    corners = [corner for line in lines for corner in ((line.left, line.top), (line.right, line.bottom))]
    pixels = [(image.scale * x, -image.scale * y) for x, y in (_turn(corner, -from_turns) for corner in corners)]
    points = [_turn(point, kept.turns) for point in image_to_page_points(document, index, image, pixels)]
    return [
        msgspec.structs.replace(line, left=min(x0, x1), right=max(x0, x1), bottom=min(y0, y1), top=max(y0, y1))
        for line, (x0, y0), (x1, y1) in zip(lines, points[::2], points[1::2], strict=True)
    ]


def _turn(point: Point, turns: int) -> Point:
    """Turn a point around the origin, ``turns`` quarter turns clockwise."""
    x, y = point
    for _ in range(turns % 4):
        x, y = y, -x
    return x, y
