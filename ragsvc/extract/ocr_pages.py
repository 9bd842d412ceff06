"""Pages without usable text, read from their pictures: the step between a PDF's text layers and its text.

Decides what is tried and how much of it; drawing is ``picture``'s, recognition ``ocr``'s, order ``ocr_layout``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.layout import Line, page_text
from ragsvc.extract.ocr import OcrUnavailable, Recognised, open_recogniser
from ragsvc.extract.ocr_layout import ocr_lines
from ragsvc.extract.page_image import PagePicture, PageUndrawable, draw_page

_MIN_CHARACTERS = 2
_MIN_CONTRAST = 16


class RecognisedPage(msgspec.Struct, frozen=True):
    """A page's text from its picture; empty when it shows none."""

    text: str = ""
    lines: list[Line] = []
    truncated: bool = False


def recognise_pages(
    document: Any,  # noqa: ANN401 - a ctypes handle
    numbers: Sequence[int],
    *,
    limits: ExtractionLimits,
    max_characters: int,
    on_page: Callable[[int], None],
    on_warning: Callable[[str], None],
) -> dict[int, RecognisedPage]:
    """Read the pictures of pages (from 1) of a pdfium document handle, up to the limits; others are missing.

    ``on_page`` is told after each how many are done. Nothing is read, with a warning, when recognition cannot be used.
    """
    found: dict[int, RecognisedPage] = {}
    for number in numbers[: limits.ocr_max_pages]:
        if max_characters <= 0:
            break
        try:
            page = _recognise_page(document, number - 1)
        except OcrUnavailable as error:
            on_warning(f"Pages without a text layer are not read: {error}.")
            return found
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the engine raises on an odd picture loses that page only
            on_warning(f"A page's text could not be recognised ({type(error).__name__}).")
            page = RecognisedPage()
        found[number] = page
        max_characters -= len(page.text)
        on_page(len(found))
    return found


def look_at(document: Any, index: int) -> tuple[PagePicture, Recognised] | None:  # noqa: ANN401 - a ctypes handle
    """Draw page ``index`` (from 0) and recognise what it shows.

    ``None`` for a blank page, or one that cannot be drawn to be read.

    Raises:
        OcrUnavailable: recognition is not installed, or broken.
    """
    try:
        picture = draw_page(document, index)
    except PageUndrawable:
        return None
    if picture is None or int(picture.pixels.max()) - int(picture.pixels.min()) < _MIN_CONTRAST:
        return None
    return picture, open_recogniser().read(picture.pixels)


def _recognise_page(document: Any, index: int) -> RecognisedPage:  # noqa: ANN401 - a ctypes handle
    seen = look_at(document, index)
    if seen is None:
        return RecognisedPage()
    picture, recognised = seen
    lines = ocr_lines(recognised.lines, turns=recognised.turns, scale=picture.scale)
    text = page_text(lines)
    if sum(map(str.isalnum, text)) < _MIN_CHARACTERS:
        return RecognisedPage()
    return RecognisedPage(text, lines, recognised.truncated)
