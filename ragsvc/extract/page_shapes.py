"""Lists the drawn shapes and pictures of a page in the order in which they are drawn. Uses raw pdfium calls.

Listing an object takes a microsecond, so of a page with very many objects (each word or character is one) only the last
are looked at: programs that edit a page add their shapes at the end.
"""

from __future__ import annotations

import ctypes

import msgspec
import pypdfium2.raw as pdfium

from ragsvc.extract.pdfium_calls import HANDLE, INT, OUT, PdfiumHandle, address_of, bind
from ragsvc.extract.turned import Rectangle

_MOST_OBJECTS = 400
_MOST_IF_THOROUGH = 2_000
_LAST_OBJECTS = 40
_WIDEST_BAR = 4.0
_MIN_AREA_SIDE = 3.0

_get_object = bind("FPDFPage_GetObject", HANDLE, HANDLE, INT)
_get_type = bind("FPDFPageObj_GetType", INT, HANDLE)
_get_bounds = bind("FPDFPageObj_GetBounds", INT, HANDLE, OUT, OUT, OUT, OUT)


class Area(msgspec.Struct):
    """A drawn shape or a picture: its number in drawing order, its address, and its box."""

    number: int
    address: int
    is_path: bool
    box: Rectangle


class PageShapes(msgspec.Struct):
    """The shapes of a page: thin ``bars``, and ``areas``.

    ``texts`` are the numbers of the listed text objects, ``last_form`` is the number of the last form object.
    """

    bars: list[Rectangle] = []
    areas: list[Area] = []
    texts: dict[int, int] = {}
    last_form: int = -1

    def number_of(self, text_object: int) -> int:
        """The number in drawing order; that of the last form if the text is not on the page itself."""
        return self.texts.get(text_object, self.last_form)


def list_shapes(page: PdfiumHandle, *, thorough: bool) -> PageShapes:
    """The shapes of a page; of a page with very many objects only the last, unless ``thorough``."""
    found = PageShapes()
    count, address = pdfium.FPDFPage_CountObjects(page), address_of(page)
    sides = (ctypes.c_float * 4)()
    start = ctypes.addressof(sides)
    most = _MOST_IF_THOROUGH if thorough else _MOST_OBJECTS
    for number in range(0 if count <= most else count - _LAST_OBJECTS, count):
        item = _get_object(address, number)
        kind = _get_type(item)
        if kind == pdfium.FPDF_PAGEOBJ_TEXT:
            found.texts[item] = number
        elif kind == pdfium.FPDF_PAGEOBJ_FORM:
            found.last_form = number
        elif kind in (pdfium.FPDF_PAGEOBJ_PATH, pdfium.FPDF_PAGEOBJ_IMAGE):
            if not _get_bounds(item, start, start + 4, start + 8, start + 12):
                continue
            left, bottom, right, top = sides
            least = min(right - left, top - bottom)
            if least <= _WIDEST_BAR and kind == pdfium.FPDF_PAGEOBJ_PATH:
                found.bars.append((left, bottom, right, top))
            if least >= _MIN_AREA_SIDE:
                found.areas.append(Area(number, item, kind == pdfium.FPDF_PAGEOBJ_PATH, (left, bottom, right, top)))
    return found
