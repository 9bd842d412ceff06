"""Detects PDF pages that are mostly an image. Uses the raw API of pypdfium2."""

from __future__ import annotations

import ctypes
from typing import Any

import pypdfium2.raw as pdfium

_MAX_OBJECTS = 200


def has_large_image(document: Any, index: int, *, share: float) -> bool:  # noqa: ANN401 - ctypes handle
    """Whether an image covers more than ``share`` of page ``index`` (from 0), as on a scan with a stamp."""
    page = pdfium.FPDF_LoadPage(document, index)
    if not page:
        return False
    try:
        area = pdfium.FPDF_GetPageWidthF(page) * pdfium.FPDF_GetPageHeightF(page)
        for number in range(min(_MAX_OBJECTS, pdfium.FPDFPage_CountObjects(page))):
            page_object = pdfium.FPDFPage_GetObject(page, number)
            if _holds_image(page_object) and _area(page_object) > share * area:
                return True
        return False
    finally:
        pdfium.FPDF_ClosePage(page)


def _holds_image(page_object: Any) -> bool:  # noqa: ANN401 - ctypes handle
    kind = pdfium.FPDFPageObj_GetType(page_object)
    if kind != pdfium.FPDF_PAGEOBJ_FORM:
        return bool(kind == pdfium.FPDF_PAGEOBJ_IMAGE)
    inside = range(min(_MAX_OBJECTS, pdfium.FPDFFormObj_CountObjects(page_object)))
    return any(
        pdfium.FPDFPageObj_GetType(pdfium.FPDFFormObj_GetObject(page_object, number)) == pdfium.FPDF_PAGEOBJ_IMAGE
        for number in inside
    )


def _area(page_object: Any) -> float:  # noqa: ANN401 - ctypes handle
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    if not pdfium.FPDFPageObj_GetBounds(page_object, left, bottom, right, top):
        return 0.0
    return (right.value - left.value) * (top.value - bottom.value)
