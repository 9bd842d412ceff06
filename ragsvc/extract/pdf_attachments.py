"""Reads the files attached to a PDF: those of its name tree (as in a portfolio), and of annotations on its pages.

ISO 32000-1 §7.11.4 and §12.5.6.15. Uses raw pdfium calls.
"""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import pypdfium2.raw as pdfium

from ragsvc.core.documents import AttachedFile
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.attached_files import AttachmentCollector
from ragsvc.extract.clean import clean_line
from ragsvc.extract.pdfium_calls import PdfiumHandle

_MAX_ATTACHMENTS = 1_000
_MAX_ANNOTATIONS = 2_000
_MAX_NAME_BYTES = 4_000


def read_attachments(document: PdfiumHandle, limits: ExtractionLimits, *, annotated: bool) -> AttachmentCollector:
    """The files attached to a PDF, each once. ``annotated``: annotations of pages may have files."""
    collector = AttachmentCollector(limits)
    for index in range(min(_MAX_ATTACHMENTS, pdfium.FPDFDoc_GetAttachmentCount(document.raw))):
        _collect(collector, pdfium.FPDFDoc_GetAttachment(document.raw, index))
    if annotated:
        for index in range(len(document)):
            _collect_of_page(collector, document.raw, index)
    return collector


def has_file_annotations(path: Path) -> bool:
    """Whether pages of a PDF may have attached files. The streams of embedded files are marked in the plain file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(b"/FileAttachment") >= 0 or data.find(b"/EmbeddedFile") >= 0


def _collect_of_page(collector: AttachmentCollector, document: PdfiumHandle, index: int) -> None:
    page = pdfium.FPDF_LoadPage(document, index)
    if not page:
        return
    try:
        for number in range(min(_MAX_ANNOTATIONS, pdfium.FPDFPage_GetAnnotCount(page))):
            annotation = pdfium.FPDFPage_GetAnnot(page, number)
            if not annotation:
                continue
            try:
                if pdfium.FPDFAnnot_GetSubtype(annotation) == pdfium.FPDF_ANNOT_FILEATTACHMENT:
                    _collect(collector, pdfium.FPDFAnnot_GetFileAttachment(annotation))
            finally:
                pdfium.FPDFPage_CloseAnnot(annotation)
    finally:
        pdfium.FPDF_ClosePage(page)


def _collect(collector: AttachmentCollector, attachment: PdfiumHandle) -> None:
    name = clean_line(_name(attachment)) if attachment else ""
    if not name:
        return
    data = b"" if collector.is_full else _content(attachment, most=collector.bytes_left)
    collector.add(AttachedFile(name, data))


def _name(attachment: PdfiumHandle) -> str:
    length = min(_MAX_NAME_BYTES, pdfium.FPDFAttachment_GetName(attachment, None, 0))
    buffer = ctypes.create_string_buffer(length)
    pdfium.FPDFAttachment_GetName(attachment, ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ushort)), length)
    return buffer.raw.decode("utf-16-le", "replace").rstrip("\x00")


def _content(attachment: PdfiumHandle, *, most: int) -> bytes:
    """The content of an attached file; empty if it is damaged, or larger than ``most`` bytes."""
    length = ctypes.c_ulong()
    pdfium.FPDFAttachment_GetFile(attachment, None, 0, length)
    if not 0 < length.value <= most:
        return b""
    buffer = ctypes.create_string_buffer(length.value)
    written = ctypes.c_ulong()
    if not pdfium.FPDFAttachment_GetFile(attachment, buffer, length.value, written):
        return b""
    return buffer.raw[: written.value]
