"""What a PDF page draws besides text: is it mostly an image? Uses pypdfium2's raw API."""

from __future__ import annotations

import ctypes
from typing import Any

import pypdfium2.raw as pdfium

_MAX_OBJECTS = 200


def shows_picture(document: Any, index: int, *, share: float) -> bool:  # noqa: ANN401 - ctypes handle
    """Tell whether an image covers more than ``share`` of page ``index`` (from 0): a scan with a stamp, say."""
    page = pdfium.FPDF_LoadPage(document, index)
    if not page:
        return False
    try:
        area = pdfium.FPDF_GetPageWidthF(page) * pdfium.FPDF_GetPageHeightF(page)
        for number in range(min(_MAX_OBJECTS, pdfium.FPDFPage_CountObjects(page))):
            drawn = pdfium.FPDFPage_GetObject(page, number)
            if _holds_image(drawn) and _area(drawn) > share * area:
                return True
        return False
    finally:
        pdfium.FPDF_ClosePage(page)


def _holds_image(drawn: Any) -> bool:  # noqa: ANN401 - ctypes handle
    kind = pdfium.FPDFPageObj_GetType(drawn)
    if kind != pdfium.FPDF_PAGEOBJ_FORM:
        return bool(kind == pdfium.FPDF_PAGEOBJ_IMAGE)
    inside = range(min(_MAX_OBJECTS, pdfium.FPDFFormObj_CountObjects(drawn)))
    return any(
        pdfium.FPDFPageObj_GetType(pdfium.FPDFFormObj_GetObject(drawn, number)) == pdfium.FPDF_PAGEOBJ_IMAGE
        for number in inside
    )


def _area(drawn: Any) -> float:  # noqa: ANN401 - ctypes handle
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    if not pdfium.FPDFPageObj_GetBounds(drawn, left, bottom, right, top):
        return 0.0
    return (right.value - left.value) * (top.value - bottom.value)
