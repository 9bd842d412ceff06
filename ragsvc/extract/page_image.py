"""Renders a PDF page to an image for text recognition, with limits on pixels and time. Uses pypdfium2."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import msgspec
import numpy as np
import numpy.typing as npt
import pypdfium2.raw as pdfium

from ragsvc.extract.pdfium_calls import PdfiumHandle

PixelArray = npt.NDArray[np.uint8]
"""``(height, width, 3)`` uint8, in the order blue, green, red."""

PixelMask = npt.NDArray[np.bool_]
"""``(height, width)``."""

Window = tuple[int, int, int, int]
"""left, top, width, height in pixels of a drawn page."""

Point = tuple[float, float]

_POINTS_PER_INCH = 72
_DPI = 200
_MAX_PIXELS = 6_000_000
_MIN_SIDE = 16
_MAX_SECONDS = 30.0
_WHITE = 0xFFFFFFFF


class PageNotRendered(Exception):
    """pdfium cannot render the page, or not within the time limit."""


class PageImage(msgspec.Struct, frozen=True):
    """A rendered page with its rotation applied; ``scale`` is pixels per point."""

    pixels: PixelArray
    scale: float


def render_page(document: PdfiumHandle, index: int) -> PageImage | None:
    """Render page ``index`` (from 0) of a pdfium document handle; ``None`` if it is too small for text.

    Raises:
        PageNotRendered: pdfium cannot load the page, or rendering exceeds the time limit.
    """
    with _open_page(document, index) as page:
        width, height = pdfium.FPDF_GetPageWidthF(page), pdfium.FPDF_GetPageHeightF(page)
        if not (0 < width < 1e5 and 0 < height < 1e5):
            return None
        scale = min(_DPI / _POINTS_PER_INCH, (_MAX_PIXELS / (width * height)) ** 0.5)
        columns, rows = int(width * scale), int(height * scale)
        if min(columns, rows) < _MIN_SIDE:
            return None
        return PageImage(draw_page(page, columns, rows), scale)


@contextmanager
def _open_page(document: PdfiumHandle, index: int) -> Generator[PdfiumHandle]:
    """Load page ``index`` (from 0). Raises ``PageNotRendered`` if pdfium cannot."""
    page = pdfium.FPDF_LoadPage(document, index)
    if not page:
        raise PageNotRendered
    try:
        yield page
    finally:
        pdfium.FPDF_ClosePage(page)


def draw_page(page: PdfiumHandle, columns: int, rows: int) -> PixelArray:
    """Draw a loaded page on white.

    Raises:
        PageNotRendered: rendering exceeds the time limit.
    """
    return np.ascontiguousarray(draw_window(page, columns, rows, (0, 0, columns, rows))[:, :, :3])


def draw_window(page: PdfiumHandle, columns: int, rows: int, window: Window) -> npt.NDArray[np.uint8]:
    """Draw a part of a loaded page that would have ``columns`` and ``rows`` pixels: ``(height, width, 4)`` uint8.

    The order is blue, green, red, unused.

    Raises:
        PageNotRendered: rendering exceeds the time limit.
    """
    left, top, width, height = window
    bitmap = pdfium.FPDFBitmap_Create(width, height, 0)
    if not bitmap:
        raise MemoryError
    try:
        pdfium.FPDFBitmap_FillRect(bitmap, 0, 0, width, height, _WHITE)
        _render(page, bitmap, (-left, -top, columns, rows))
        stride = pdfium.FPDFBitmap_GetStride(bitmap)
        address = pdfium.FPDFBitmap_GetBuffer(bitmap)
        buffer = (ctypes.c_ubyte * (stride * height)).from_address(ctypes.cast(address, ctypes.c_void_p).value or 0)
        return np.frombuffer(buffer, np.uint8).reshape(height, stride // 4, 4)[:, :width].copy()
    finally:
        pdfium.FPDFBitmap_Destroy(bitmap)


def different_pixels(pixels: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8], *, least: int) -> PixelMask:
    """The pixels of two ``(height, width, 4)`` arrays of which a colour differs by ``least`` or more."""
    differences = np.maximum(pixels, others) - np.minimum(pixels, others)
    visible: npt.NDArray[np.uint32] = (differences >= least).view(np.uint32)[:, :, 0]
    return np.not_equal(visible, 0)


def _render(page: PdfiumHandle, bitmap: PdfiumHandle, place: Window) -> None:
    """Render in steps that can be interrupted: some pages take minutes."""
    deadline = time.thread_time() + _MAX_SECONDS

    def is_late(_: object) -> bool:
        return time.thread_time() > deadline

    pause = pdfium.IFSDK_PAUSE(version=1, user=None)
    pause.NeedToPauseNow = type(pause.NeedToPauseNow)(is_late)
    try:
        status = pdfium.FPDF_RenderPageBitmap_Start(bitmap, page, *place, 0, pdfium.FPDF_ANNOT, ctypes.byref(pause))
    finally:
        pdfium.FPDF_RenderPage_Close(page)
    if status != pdfium.FPDF_RENDER_DONE:
        raise PageNotRendered


def page_rotation(document: PdfiumHandle, index: int) -> int:
    """The clockwise quarter turns with which page ``index`` is displayed."""
    with _open_page(document, index) as page:
        return int(pdfium.FPDFPage_GetRotation(page))


def page_to_image_points(document: PdfiumHandle, index: int, image: PageImage, points: Sequence[Point]) -> list[Point]:
    """Convert points of the unrotated page ``index`` to positions in its image (pixels, y downwards)."""
    rows, columns = image.pixels.shape[:2]
    column, row = ctypes.c_int(), ctypes.c_int()
    found: list[Point] = []
    with _open_page(document, index) as page:
        for x, y in points:
            pdfium.FPDF_PageToDevice(page, 0, 0, columns, rows, 0, x, y, column, row)
            found.append((column.value, row.value))
    return found


def image_to_page_points(document: PdfiumHandle, index: int, image: PageImage, points: Sequence[Point]) -> list[Point]:
    """Convert image positions on page ``index`` (pixels, y downwards) to points of the unrotated page."""
    rows, columns = image.pixels.shape[:2]
    x, y = ctypes.c_double(), ctypes.c_double()
    found: list[Point] = []
    with _open_page(document, index) as page:
        for left, top in points:
            pdfium.FPDF_DeviceToPage(page, 0, 0, columns, rows, 0, round(left), round(top), x, y)
            found.append((x.value, y.value))
    return found
