"""Reads pictures of pages (PNG, JPEG, WebP, TIFF with several pages) by text recognition. Pillow decodes them.

The size in pixels is checked before a picture is decoded. Each page is turned as its EXIF data say, put on white, and
reduced to about the pixels of a page rendered at 200 dpi.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ragsvc.core.documents import Extraction, Page, ProblemCode
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.headings import document_title, headings_by_font, page_fonts
from ragsvc.extract.layout import page_text
from ragsvc.extract.ocr import OcrUnavailable, Recognised, open_recogniser
from ragsvc.extract.ocr_layout import ocr_lines
from ragsvc.extract.page_image import PixelArray
from ragsvc.extract.pdf_pages import PageDraft, PageReports
from ragsvc.extract.problems import merge_problems

_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")
_DAMAGED = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, struct.error)
"""What Pillow raises for damaged files; a truncated TIFF file gives a TypeError, for example."""
_MAX_PIXELS = 150_000_000
_WORK_PIXELS = 6_000_000
_REDUCIBLE = frozenset({"L", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "F", "I"})
_MIN_SIDE = 16
_MIN_CONTRAST = 16
_MIN_CHARACTERS = 2
_PAGE_POINTS = 842.0
"""The longer side of a page in points. Resolutions in pictures are rarely true, so every picture counts as A4."""


def read_pictures(path: Path, *, limits: ExtractionLimits, reports: PageReports) -> Extraction:
    """Recognise the text of each page. Raises ``ExtractionFailed``."""
    with _opened(path) as picture:
        count = _page_count(picture, limits)
        if count > limits.max_pages:
            raise ExtractionFailed(
                FailureReason.TOO_MANY_PAGES,
                f"The picture has {count:,} pages; the limit is {limits.max_pages:,}.",
            )
        if not limits.ocr:
            raise ExtractionFailed(
                FailureReason.NO_TEXT, "The file is a picture, and text recognition (OCR) is disabled."
            )
        draft = PageDraft()
        for index in range(count):
            _read_page(picture, index, draft, limits=limits, reports=reports)
            reports.on_progress(index + 1, count)
    if not any(draft.texts):
        raise ExtractionFailed(FailureReason.NO_TEXT, "Text recognition (OCR) found no text in the picture.")
    return Extraction(
        pages=[Page(number, text) for number, text in enumerate(draft.texts, start=1)],
        headings=headings_by_font(draft.fonts, draft.texts),
        problems=merge_problems(draft.findings),
        title=document_title(None, None, draft.fonts[0]),
        page_count=count,
    )


def picture_page(path: Path, page_number: int, width: int | None = None) -> PixelArray:
    """The pixels of page ``page_number`` (from 1), red first; at most ``width`` wide, else as recognition sees them.

    Raises:
        ExtractionFailed: the picture has no such page, is damaged, or has more pixels than the limit.
    """
    with _opened(path) as picture:
        try:
            image = _upright(picture, page_number - 1)
        except EOFError as error:
            raise ExtractionFailed(FailureReason.DAMAGED, f"The picture has no page {page_number}.") from error
        if width is not None and image.width > width:
            image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
        return np.ascontiguousarray(np.asarray(image, dtype=np.uint8))


def recognise_picture(path: Path, page_number: int) -> tuple[PixelArray, Recognised]:
    """The pixels of a page as recognition sees them, blue first, and its lines with the positions of their characters.

    Raises:
        ExtractionFailed: as ``picture_page``.
        OcrUnavailable: text recognition is not installed or does not start.
    """
    pixels: PixelArray = np.ascontiguousarray(picture_page(path, page_number)[:, :, ::-1])
    return pixels, open_recogniser().read(pixels, positions=True)


@contextmanager
def _opened(path: Path) -> Generator[Any]:
    Image.MAX_IMAGE_PIXELS = None  # our own limit applies, before decoding
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as picture:
                yield picture
    except _DAMAGED as error:
        raise ExtractionFailed(
            FailureReason.DAMAGED, "The picture is damaged or incomplete and cannot be decoded."
        ) from error


def _page_count(picture: Any, limits: ExtractionLimits) -> int:  # noqa: ANN401 - Pillow's images have many types
    """The number of pages, up to one more than the limit; of a damaged TIFF file, up to the first that is damaged."""
    if picture.format != "TIFF":
        return 1
    for number in range(1, limits.max_pages + 1):
        try:
            picture.seek(number)
        except EOFError:
            return number
        except _DAMAGED:
            return number + 1
    return limits.max_pages + 1


def _read_page(picture: Any, index: int, draft: PageDraft, *, limits: ExtractionLimits, reports: PageReports) -> None:  # noqa: ANN401 - Pillow's images have many types
    number = index + 1
    draft.texts.append("")
    draft.fonts.append(page_fonts([]))
    if number > limits.ocr_max_pages or sum(map(len, draft.texts)) >= limits.max_text_characters:
        draft.findings.append((number, ProblemCode.NOT_READ))
        return
    try:
        pixels = _pixels(picture, index)
    except _DAMAGED:
        if index == 0:
            raise
        draft.findings.append((number, ProblemCode.PAGE_UNREADABLE))
        return
    if pixels is None:
        draft.findings.append((number, ProblemCode.NO_TEXT_LAYER))
        return
    try:
        recognised = open_recogniser().read(pixels)
    except OcrUnavailable as error:
        raise ExtractionFailed(
            FailureReason.NO_TEXT, "The file is a picture, and text recognition (OCR) is not installed."
        ) from error
    lines = ocr_lines(recognised.lines, turns=recognised.turns, scale=max(pixels.shape[:2]) / _PAGE_POINTS)
    text = page_text(lines)[: limits.max_page_characters]
    reports.on_recognised(number)
    if sum(map(str.isalnum, text)) < _MIN_CHARACTERS:
        draft.findings.append((number, ProblemCode.NO_TEXT_LAYER))
        return
    draft.texts[index], draft.fonts[index] = text, page_fonts(lines)
    draft.findings.append((number, ProblemCode.OCR_USED))
    if recognised.truncated:
        draft.findings.append((number, ProblemCode.TEXT_TRUNCATED))


def _pixels(picture: Any, index: int) -> PixelArray | None:  # noqa: ANN401 - as above
    """The pixels of a page, blue first; ``None`` if the page is blank or too small.

    Raises:
        ExtractionFailed: the page has more pixels than the limit.
    """
    picture.seek(index)
    if min(picture.size) < _MIN_SIDE:
        return None
    image = _upright(picture, index)
    pixels: PixelArray = np.ascontiguousarray(np.asarray(image, dtype=np.uint8)[:, :, ::-1])
    return pixels if int(pixels.max()) - int(pixels.min()) >= _MIN_CONTRAST else None


def _upright(picture: Any, index: int) -> Any:  # noqa: ANN401 - as above
    """A page in RGB as it is displayed, with at most the pixels that recognition needs. Raises ``ExtractionFailed``."""
    picture.seek(index)
    width, height = picture.size
    if width * height > _MAX_PIXELS:
        raise ExtractionFailed(
            FailureReason.OUT_OF_MEMORY,
            f"The picture has {width * height:,} pixels; the limit is {_MAX_PIXELS:,}.",
        )
    return ImageOps.exif_transpose(_on_white(_reduced(picture)))


def _reduced(picture: Any) -> Any:  # noqa: ANN401 - as above
    """The picture with at most the pixels that recognition needs; reduced before its colours are converted."""
    width, height = picture.size
    share = (_WORK_PIXELS / (width * height)) ** 0.5
    if share >= 1:
        return picture
    size = max(1, round(width * share)), max(1, round(height * share))
    if picture.format == "JPEG":
        picture.draft("RGB", size)
    exif = picture.getexif()
    image = picture if picture.mode in _REDUCIBLE else picture.convert("L" if picture.mode == "1" else "RGBA")
    image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    image.getexif().update(exif)
    return image


def _on_white(picture: Any) -> Any:  # noqa: ANN401 - as above
    """The picture in RGB, transparent parts white."""
    exif = picture.getexif()
    if picture.mode.startswith(("I", "F")):  # 16 or 32 bits a pixel
        values = np.asarray(picture, dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        scaled = (values - low) * (255.0 / (high - low) if high > low else 0.0)
        image = Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
    elif picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        image = Image.new("RGBA", layer.size, "white")
        image.alpha_composite(layer)
        image = image.convert("RGB")
    else:
        image = picture.convert("RGB")
    image.getexif().update(exif)
    return image
