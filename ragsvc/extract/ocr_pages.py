"""Recognises the text of pages that have no usable text layer.

Decides which pages are recognised, within the limits. ``page_image`` renders pages, ``ocr`` recognises lines, and
``ocr_layout`` orders them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.layout import Line, page_text
from ragsvc.extract.ocr import OcrUnavailable, Recognised, open_recogniser
from ragsvc.extract.ocr_layout import ocr_lines
from ragsvc.extract.page_image import PageImage, PageNotRendered, render_page

_MIN_CHARACTERS = 2
_MIN_CONTRAST = 16


class RecognisedPage(msgspec.Struct, frozen=True):
    """A page's recognised text; empty if there is none."""

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
    """Recognise pages (from 1) of a pdfium document handle, up to the limits; further pages are missing in the result.

    ``on_page`` is called after each page with the number of pages done. If text recognition is not available, the
    result is empty and ``on_warning`` is called.
    """
    found: dict[int, RecognisedPage] = {}
    for number in numbers[: limits.ocr_max_pages]:
        if max_characters <= 0:
            break
        try:
            page = _recognise_page(document, number - 1)
        except OcrUnavailable as error:
            on_warning(f"Pages without a text layer are skipped: {error}.")
            return found
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - any error of the engine affects this page only
            on_warning(f"The text of a page could not be recognised ({type(error).__name__}).")
            page = RecognisedPage()
        found[number] = page
        max_characters -= len(page.text)
        on_page(len(found))
    return found


def render_and_recognise(document: Any, index: int) -> tuple[PageImage, Recognised] | None:  # noqa: ANN401 - a ctypes handle
    """Render page ``index`` (from 0) and recognise its text; ``None`` if the page is blank or cannot be rendered.

    Raises:
        OcrUnavailable: text recognition is not installed or does not start.
    """
    try:
        image = render_page(document, index)
    except PageNotRendered:
        return None
    if image is None or int(image.pixels.max()) - int(image.pixels.min()) < _MIN_CONTRAST:
        return None
    return image, open_recogniser().read(image.pixels)


def _recognise_page(document: Any, index: int) -> RecognisedPage:  # noqa: ANN401 - a ctypes handle
    seen = render_and_recognise(document, index)
    if seen is None:
        return RecognisedPage()
    image, recognised = seen
    lines = ocr_lines(recognised.lines, turns=recognised.turns, scale=image.scale)
    text = page_text(lines)
    if sum(map(str.isalnum, text)) < _MIN_CHARACTERS:
        return RecognisedPage()
    return RecognisedPage(text, lines, recognised.truncated)
