"""Reads the objects of a page: drawn shapes and pictures in the order in which they are drawn. Uses raw pdfium calls.

Listing an object takes a microsecond, so of a page with very many objects (each word or character is one) only the last
are looked at: programs that edit a page add their shapes at the end.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import msgspec
import pypdfium2.raw as pdfium

from ragsvc.extract.pdfium_calls import HANDLE, INT, PdfiumHandle, bind, places_of, reference_to
from ragsvc.extract.turned import Rectangle

_MOST_OBJECTS = 400
_MOST_IF_THOROUGH = 2_000
_LAST_OBJECTS = 40
_WIDEST_BAR = 4.0
_MIN_AREA_SIDE = 3.0
_OPAQUE = 250

_get_object = bind("FPDFPage_GetObject", HANDLE)
_get_form_object = bind("FPDFFormObj_GetObject", HANDLE, of_object=True)
_count_form_objects = bind("FPDFFormObj_CountObjects", INT, of_object=True)
_get_type = bind("FPDFPageObj_GetType", INT, of_object=True)
_get_bounds = bind("FPDFPageObj_GetBounds", INT, of_object=True)
_get_draw_mode = bind("FPDFPath_GetDrawMode", INT, of_object=True)
_get_fill_colour = bind("FPDFPageObj_GetFillColor", INT, of_object=True)

Colour = tuple[int, int, int]
"""Red, green and blue from 0 to 255."""


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


class PageObjects:
    """The objects of a page, each known by its address."""

    def __init__(self, page: PdfiumHandle) -> None:
        self._page = reference_to(page)
        self.count: int = max(0, pdfium.FPDFPage_CountObjects(page))
        self._sides = (ctypes.c_float * 4)()
        self._side_places = places_of(self._sides)
        self._modes = (ctypes.c_int * 2)()
        self._mode_places = places_of(self._modes)
        self._colour = (ctypes.c_uint * 4)()
        self._colour_places = places_of(self._colour)

    def at(self, number: int) -> int:
        """The address of the object with this number in drawing order."""
        address: int = _get_object(self._page, number)
        return address

    def kind(self, address: int) -> int:
        """The type, as ``FPDF_PAGEOBJ_PATH``."""
        kind: int = _get_type(address)
        return kind

    def bounds(self, address: int) -> Rectangle | None:
        if not _get_bounds(address, *self._side_places):
            return None
        left, bottom, right, top = self._sides
        return (left, bottom, right, top)

    def is_opaque(self, address: int) -> bool:
        """Whether a shape is filled, and not with a transparent colour."""
        return self._is_filled(address) and (
            not _get_fill_colour(address, *self._colour_places) or self._colour[3] >= _OPAQUE
        )

    def fill_colour(self, address: int) -> Colour | None:
        """The colour of a filled shape; ``None`` if it is not filled, transparent, or its colour is not known."""
        if not self._is_filled(address) or not _get_fill_colour(address, *self._colour_places):
            return None
        red, green, blue, alpha = self._colour
        return (red, green, blue) if alpha >= _OPAQUE else None

    def _is_filled(self, address: int) -> bool:
        return bool(_get_draw_mode(address, *self._mode_places)) and self._modes[0] != pdfium.FPDF_FILLMODE_NONE

    def holds_picture(self, address: int, *, most: int) -> bool:
        """Whether an object is a picture, or a form with a picture among its first ``most`` objects."""
        kind = _get_type(address)
        if kind != pdfium.FPDF_PAGEOBJ_FORM:
            return bool(kind == pdfium.FPDF_PAGEOBJ_IMAGE)
        inside = range(min(most, _count_form_objects(address)))
        return any(_get_type(_get_form_object(address, number)) == pdfium.FPDF_PAGEOBJ_IMAGE for number in inside)

    def pictures(self, numbers: Sequence[int], *, most_inside: int) -> list[Rectangle]:
        """The bounds of the pictures, and of the forms with a picture."""
        found: list[Rectangle] = []
        for number in numbers:
            address = _get_object(self._page, number)
            if self.holds_picture(address, most=most_inside) and (box := self.bounds(address)) is not None:
                found.append(box)
        return found

    def shapes(self, *, thorough: bool) -> PageShapes:
        """The shapes of the page; of a page with very many objects only the last, unless ``thorough``."""
        path, image = pdfium.FPDF_PAGEOBJ_PATH, pdfium.FPDF_PAGEOBJ_IMAGE
        text, form = pdfium.FPDF_PAGEOBJ_TEXT, pdfium.FPDF_PAGEOBJ_FORM
        found = PageShapes()
        page, count, sides, places = self._page, self.count, self._sides, self._side_places
        most = _MOST_IF_THOROUGH if thorough else _MOST_OBJECTS
        for number in range(0 if count <= most else count - _LAST_OBJECTS, count):
            address = _get_object(page, number)
            kind = _get_type(address)
            if kind == text:
                found.texts[address] = number
            elif kind == form:
                found.last_form = number
            elif kind in (path, image) and _get_bounds(address, *places):
                left, bottom, right, top = sides
                least = min(right - left, top - bottom)
                if least <= _WIDEST_BAR and kind == path:
                    found.bars.append((left, bottom, right, top))
                if least >= _MIN_AREA_SIDE:
                    found.areas.append(Area(number, address, kind == path, (left, bottom, right, top)))
        return found
