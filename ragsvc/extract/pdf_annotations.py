"""Reads what a viewer shows on top of a PDF page: values of form fields, free texts and notes. Uses raw pdfium calls.

ISO 32000-1 §12.5 and §12.7. A value comes from the field; where a field or stamp only has an appearance, the page is
flattened in memory and the text in its rectangle is read. Hidden annotations and passwords are left out.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pypdfium2.raw as pdfium

from ragsvc.extract.annotation_lines import PlacedText
from ragsvc.extract.clean import clean_line
from ragsvc.extract.pdfium_calls import PdfiumHandle
from ragsvc.extract.turned import Rectangle

_MAX_ANNOTATIONS = 2_000
_MAX_BYTES = 40_000
_MAX_OPTIONS = 500
_UNSEEN = pdfium.FPDF_ANNOT_FLAG_HIDDEN | pdfium.FPDF_ANNOT_FLAG_NOVIEW
_COMMENTED = frozenset(
    (
        *(pdfium.FPDF_ANNOT_TEXT, pdfium.FPDF_ANNOT_HIGHLIGHT, pdfium.FPDF_ANNOT_UNDERLINE),
        *(pdfium.FPDF_ANNOT_SQUIGGLY, pdfium.FPDF_ANNOT_STRIKEOUT, pdfium.FPDF_ANNOT_CARET, pdfium.FPDF_ANNOT_SQUARE),
        *(pdfium.FPDF_ANNOT_CIRCLE, pdfium.FPDF_ANNOT_LINE, pdfium.FPDF_ANNOT_POLYGON, pdfium.FPDF_ANNOT_POLYLINE),
        pdfium.FPDF_ANNOT_INK,
    )
)
"""Annotations with a comment that a viewer shows when they are selected."""
_CHECKED, _UNCHECKED = "\u2612", "\u2610"
_PLAIN_STATES = frozenset(("", "on", "off", "checked", "true", "x"))


def read_annotations(
    document: PdfiumHandle, page: PdfiumHandle, index: int, *, forms: PdfiumHandle
) -> list[PlacedText]:
    """The annotations of a page with a text, in the file's order; rectangles are in points of the unrotated page.

    ``forms`` is the handle of the form environment; ``None`` if the document has no form.
    """
    count = min(_MAX_ANNOTATIONS, pdfium.FPDFPage_GetAnnotCount(page))
    if count <= 0:
        return []
    found: list[PlacedText] = []
    with _loaded(page, forms):
        for number in range(count):
            with _open_annotation(page, number) as annotation:
                if annotation is not None and not pdfium.FPDFAnnot_GetFlags(annotation) & _UNSEEN:
                    found += _read(annotation, forms)
    unread = [annotation for annotation in found if not annotation.text]
    if unread:
        _read_appearances(document, index, unread)
    return [annotation for annotation in found if annotation.text]


@contextmanager
def _loaded(page: PdfiumHandle, forms: PdfiumHandle) -> Generator[None]:
    """Load the page's fields into the form environment, which then knows the states of check boxes."""
    if forms is None:
        yield
        return
    pdfium.FORM_OnAfterLoadPage(page, forms)
    try:
        yield
    finally:
        pdfium.FORM_OnBeforeClosePage(page, forms)


@contextmanager
def _open_annotation(page: PdfiumHandle, number: int) -> Generator[PdfiumHandle]:
    annotation = pdfium.FPDFPage_GetAnnot(page, number)
    try:
        yield annotation or None
    finally:
        if annotation:
            pdfium.FPDFPage_CloseAnnot(annotation)


def _read(annotation: PdfiumHandle, forms: PdfiumHandle) -> list[PlacedText]:
    """The annotation with its text, which is empty if it has an appearance only; nothing if it shows no text."""
    kind = pdfium.FPDFAnnot_GetSubtype(annotation)
    bounds = pdfium.FS_RECTF()
    if not pdfium.FPDFAnnot_GetRect(annotation, bounds):
        return []
    left, right = sorted((bounds.left, bounds.right))
    bottom, top = sorted((bounds.bottom, bounds.top))
    rectangle = (left, bottom, right, top)
    if kind == pdfium.FPDF_ANNOT_WIDGET:
        return _read_field(annotation, forms, rectangle) if forms is not None else []
    if kind in (pdfium.FPDF_ANNOT_FREETEXT, pdfium.FPDF_ANNOT_STAMP):
        text = _string(annotation, b"Contents") if kind == pdfium.FPDF_ANNOT_FREETEXT else ""
        return [PlacedText(text, rectangle)] if text or _has_appearance(annotation) else []
    if kind in _COMMENTED and not _string(annotation, b"StateModel"):
        text = _string(annotation, b"Contents")
        return [PlacedText(text, rectangle, note=True)] if text else []
    return []


def _read_field(annotation: PdfiumHandle, forms: PdfiumHandle, rectangle: Rectangle) -> list[PlacedText]:
    match pdfium.FPDFAnnot_GetFormFieldType(forms, annotation):
        case pdfium.FPDF_FORMFIELD_CHECKBOX | pdfium.FPDF_FORMFIELD_RADIOBUTTON:
            return [PlacedText(_state(annotation, forms), rectangle, _label(annotation, forms), boxed=True)]
        case pdfium.FPDF_FORMFIELD_LISTBOX:
            text = _selected(annotation, forms)
            return [PlacedText(text, rectangle, _label(annotation, forms))] if text else []
        case pdfium.FPDF_FORMFIELD_COMBOBOX:
            text = _selected(annotation, forms) or _text(pdfium.FPDFAnnot_GetFormFieldValue, forms, annotation)
        case pdfium.FPDF_FORMFIELD_TEXTFIELD:
            if pdfium.FPDFAnnot_GetFormFieldFlags(forms, annotation) & pdfium.FPDF_FORMFLAG_TEXT_PASSWORD:
                return []
            text = _text(pdfium.FPDFAnnot_GetFormFieldValue, forms, annotation)
        case pdfium.FPDF_FORMFIELD_SIGNATURE:
            text = ""
        case _:
            return []
    if not text and not _has_appearance(annotation):
        return []
    return [PlacedText(text, rectangle, _label(annotation, forms))]


def _label(annotation: PdfiumHandle, forms: PdfiumHandle) -> str:
    return _text(pdfium.FPDFAnnot_GetFormFieldAlternateName, forms, annotation) or _text(
        pdfium.FPDFAnnot_GetFormFieldName, forms, annotation
    )


def _state(annotation: PdfiumHandle, forms: PdfiumHandle) -> str:
    """A ticked or an empty box; a ticked box with the value that it stands for, if that is a word."""
    if not pdfium.FPDFAnnot_IsChecked(forms, annotation):
        return _UNCHECKED
    value = _text(pdfium.FPDFAnnot_GetFormFieldExportValue, forms, annotation)
    return _CHECKED if value.lower() in _PLAIN_STATES or not value.isalpha() else f"{_CHECKED} {value}"


def _selected(annotation: PdfiumHandle, forms: PdfiumHandle) -> str:
    options = min(_MAX_OPTIONS, max(0, pdfium.FPDFAnnot_GetOptionCount(forms, annotation)))
    chosen = [number for number in range(options) if pdfium.FPDFAnnot_IsOptionSelected(forms, annotation, number)]
    return ", ".join(_text(pdfium.FPDFAnnot_GetOptionLabel, forms, annotation, number) for number in chosen)


def _has_appearance(annotation: PdfiumHandle) -> bool:
    return bool(pdfium.FPDFAnnot_GetObjectCount(annotation) > 0)


def _string(annotation: PdfiumHandle, key: bytes) -> str:
    return _text(pdfium.FPDFAnnot_GetStringValue, annotation, key)


def _text(function: Callable[..., int], *arguments: PdfiumHandle) -> str:
    """Call a function that writes UTF-16 to a buffer; returns cleaned lines."""
    size = function(*arguments, None, 0)
    if not 2 < size <= _MAX_BYTES:
        return ""
    buffer = (ctypes.c_ushort * (size // 2 + 1))()
    function(*arguments, buffer, size)
    raw = bytes(buffer)[: size - 2].decode("utf-16-le", "replace")
    return "\n".join(line for line in map(clean_line, raw.splitlines()) if line)


def _read_appearances(document: PdfiumHandle, index: int, annotations: list[PlacedText]) -> None:
    """Set the texts from the appearances: the text in the rectangle that flattening the page adds."""
    before = _texts_in(document, index, annotations, flatten=False)
    after = _texts_in(document, index, annotations, flatten=True)
    for annotation, old, new in zip(annotations, before, after, strict=True):
        added = new[len(old) :] if new.startswith(old) else new
        annotation.text = "\n".join(line for line in map(clean_line, added.splitlines()) if line)


def _texts_in(document: PdfiumHandle, index: int, annotations: list[PlacedText], *, flatten: bool) -> list[str]:
    page = pdfium.FPDF_LoadPage(document, index)
    if page and flatten:
        pdfium.FPDFPage_Flatten(page, pdfium.FLAT_NORMALDISPLAY)
        pdfium.FPDF_ClosePage(page)
        page = pdfium.FPDF_LoadPage(document, index)
    text_page = pdfium.FPDFText_LoadPage(page) if page else None
    try:
        return [_bounded(text_page, annotation.rectangle) if text_page else "" for annotation in annotations]
    finally:
        if text_page:
            pdfium.FPDFText_ClosePage(text_page)
        if page:
            pdfium.FPDF_ClosePage(page)


def _bounded(text_page: PdfiumHandle, rectangle: Rectangle) -> str:
    left, bottom, right, top = rectangle
    count = pdfium.FPDFText_GetBoundedText(text_page, left, top, right, bottom, None, 0)
    if not 0 < count <= _MAX_BYTES:
        return ""
    buffer = (ctypes.c_ushort * (count + 1))()
    pdfium.FPDFText_GetBoundedText(text_page, left, top, right, bottom, buffer, count)
    return bytes(buffer)[: 2 * count].decode("utf-16-le", "replace").rstrip("\x00")
