"""Reads a PDF: its pages, title, headings, page labels and attachments.

pdfium reads everything. For opening 189 real PDFs and reading outlines, page labels and attachment names it took 0.11 s
of processor time, and pypdf 2.09 s; the results differed only in the outline of one file and in a space in one label.
pypdf is the fallback where pdfium cannot open a file or load a page. Memory is bounded by a page plus the extracted
text.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from ragsvc.core.documents import Extraction, Page, ProblemCode
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.page_views import OutlineEntry
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract import pypdf_fallback
from ragsvc.extract.attached_files import AttachmentCollector
from ragsvc.extract.clean import clean_line
from ragsvc.extract.headings import document_title, headings_by_font, place_outline
from ragsvc.extract.pdf_attachments import has_file_annotations, read_attachments
from ragsvc.extract.pdf_layers import may_hide_layers
from ragsvc.extract.pdf_pages import (
    OnProgress,
    PageDraft,
    PageReports,
    join_words,
    read_pages,
    recognise_images,
    use_fallback_texts,
)
from ragsvc.extract.pdf_passwords import password_spellings
from ragsvc.extract.pdfium_calls import PdfiumHandle
from ragsvc.extract.problems import merge_problems
from ragsvc.extract.tables import place_tables

_MAX_OUTLINE_ENTRIES = 5_000
_MAX_LABEL_CHARACTERS = 32
_CATALOG = re.compile(rb"(\d{1,9})\s+(\d{1,5})\s+obj\b(?:(?!endobj)[\s\S]){0,4000}?/Type\s*/Catalog\b")


def read_pdf(path: Path, *, password: str | None, limits: ExtractionLimits, reports: PageReports) -> Extraction:
    """Read a PDF's text and structure.

    Raises:
        ExtractionFailed: the file is password-protected, damaged, too long, or contains no text.
    """
    try:
        with open_pdf(path, password) as document:
            return _read_document(document, path, password=password, limits=limits, reports=reports)
    except PdfNotOpened:
        return _read_with_fallback(path, password=password, limits=limits, on_progress=reports.on_progress)


def read_outline(path: Path, *, password: str | None = None) -> list[OutlineEntry]:
    """The bookmarks of a PDF that name a page, in order; empty for files of other types.

    Raises:
        ExtractionFailed: the file is password-protected.
    """
    try:
        with open_pdf(path, password) as document:
            return _outline(document)
    except PdfNotOpened:
        return []


class PdfNotOpened(Exception):
    """pdfium cannot open the file."""


@contextmanager
def open_pdf(path: Path, password: str | None) -> Generator[Any]:
    """Open a PDF with pdfium (a ``pypdfium2.PdfDocument``); a file with an empty user password needs none.

    Raises:
        ExtractionFailed: the password is missing or wrong, or the encryption is not supported.
        PdfNotOpened: the file is damaged.
    """
    try:
        document = _unlock(path, password)
    except PdfNotOpened:
        repaired = with_new_trailer(path.read_bytes())
        if repaired is None:
            raise
        document = _unlock(repaired, password)
    try:
        yield document
    finally:
        document.close()


def _unlock(source: Path | bytes, password: str | None) -> PdfiumHandle:
    for spelling in password_spellings(password):
        document = _load(source, spelling)
        if document is not None:
            return document
    raise _locked(password)


def _load(source: Path | bytes, password: str | None) -> PdfiumHandle | None:
    """Open the file; ``None`` if the password is wrong."""
    try:
        return pypdfium2.PdfDocument(source, password=password)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pdfium.FPDF_ERR_PASSWORD:
            return None
        if error.err_code == pdfium.FPDF_ERR_SECURITY:
            raise ExtractionFailed(
                FailureReason.UNSUPPORTED_ENCRYPTION, "The PDF is encrypted with a method that ragsvc does not support."
            ) from error
        raise PdfNotOpened from error


def with_new_trailer(data: bytes) -> bytes | None:
    """Append a trailer that refers to the catalog to a truncated file; pdfium then finds the objects.

    ``None`` if the file has no catalog, or is encrypted (the key's parameters were in the lost trailer).
    """
    found = _CATALOG.search(data)
    if found is None or b"/Encrypt" in data:
        return None
    return data + b"\nendstream\nendobj\ntrailer\n<< /Root %b %b R >>\n%%%%EOF\n" % found.groups()


def _locked(password: str | None) -> ExtractionFailed:
    if not password:
        return ExtractionFailed(
            FailureReason.PASSWORD_REQUIRED, "The PDF is password-protected; send the password with the upload."
        )
    return ExtractionFailed(FailureReason.PASSWORD_WRONG, "The PDF is password-protected, and the password is wrong.")


def _read_document(
    document: PdfiumHandle,
    path: Path,
    *,
    password: str | None,
    limits: ExtractionLimits,
    reports: PageReports,
) -> Extraction:
    page_count = len(document)
    _check_page_count(page_count, limits)
    draft = read_pages(
        document.raw,
        page_count,
        limits=limits,
        on_progress=reports.on_progress,
        on_text=reports.on_text,
        forms=open_forms(document),
        layers=may_hide_layers(path),
    )
    # pypdf would also return the hidden text of a page
    garbled = [number for number in draft.pages(ProblemCode.GARBLED_TEXT) if number not in draft.hidden]
    unreadable = sorted([*draft.pages(ProblemCode.PAGE_UNREADABLE), *garbled])
    if unreadable:
        use_fallback_texts(
            draft,
            unreadable,
            pypdf_fallback.read_pages(path, password=password, numbers=unreadable, page_count=page_count),
        )
    recognised = recognise_images(document.raw, draft, limits=limits, reports=reports)
    texts = join_words(draft.texts, limits)
    outline = _outline(document)
    headings = place_outline(outline, texts) or headings_by_font(draft.fonts, texts)
    pages = [Page(number, text, _label(document, number - 1)) for number, text in enumerate(texts, start=1)]
    return _checked(
        Extraction(
            pages=pages,
            headings=headings,
            problems=merge_problems(draft.findings, hidden=draft.hidden),
            title=document_title(_metadata(document, "Title"), _metadata(document, "Subject"), draft.fonts[0]),
            page_count=page_count,
            tables={number: place_tables(tables, texts[number - 1]) for number, tables in draft.tables.items()},
        ),
        recognised=recognised,
        attachments=read_attachments(document, limits, annotated=has_file_annotations(path)),
    )


def open_forms(document: PdfiumHandle) -> PdfiumHandle:
    """The handle of the form environment, which knows inherited field values; ``None`` without a form."""
    with contextlib.suppress(pypdfium2.PdfiumError):
        document.init_forms()
    return document.formenv.raw if document.formenv is not None else None


def _check_page_count(page_count: int, limits: ExtractionLimits) -> None:
    if page_count > limits.max_pages:
        raise ExtractionFailed(
            FailureReason.TOO_MANY_PAGES,
            f"The PDF has {page_count:,} pages; the limit is {limits.max_pages:,}.",
        )


def _read_with_fallback(
    path: Path, *, password: str | None, limits: ExtractionLimits, on_progress: OnProgress
) -> Extraction:
    """Read a file that pdfium cannot open."""
    page_count = pypdf_fallback.count_pages(path, password=password)
    _check_page_count(page_count, limits)
    draft = PageDraft(texts=[""] * page_count)
    found = pypdf_fallback.read_pages(
        path,
        password=password,
        numbers=range(1, page_count + 1),
        page_count=page_count,
        on_page=lambda done: on_progress(done, page_count),
    )
    for number in range(1, page_count + 1):
        text = found.get(number, "")
        draft.texts[number - 1] = text
        code = ProblemCode.SECOND_PARSER_USED if text else ProblemCode.PAGE_UNREADABLE
        draft.findings.append((number, code))
    texts = join_words(draft.texts, limits)
    if not any(texts):
        raise ExtractionFailed(FailureReason.DAMAGED, "The PDF is damaged: none of its pages can be read.")
    return Extraction(
        pages=[Page(number, text) for number, text in enumerate(texts, start=1)],
        problems=merge_problems(draft.findings),
        page_count=page_count,
    )


def _checked(extraction: Extraction, *, recognised: bool, attachments: AttachmentCollector) -> Extraction:
    """Refuse a document without text, with the reason, unless its attached files are its content."""
    if any(page.text for page in extraction.pages) or attachments.files:
        return attachments.added_to(extraction)
    codes = {problem.code for problem in extraction.problems}
    count = extraction.page_count
    pages = "1 page" if count == 1 else f"{count} pages"
    if codes == {ProblemCode.PAGE_UNREADABLE}:
        raise ExtractionFailed(FailureReason.DAMAGED, f"The PDF ({pages}) is damaged: none of its pages can be read.")
    if ProblemCode.GARBLED_TEXT in codes:
        raise ExtractionFailed(
            FailureReason.NO_TEXT,
            f"The PDF ({pages}) has text, but its fonts do not map glyphs to characters, and text recognition "
            "(OCR) found none. Printing it to a new PDF may help.",
        )
    raise ExtractionFailed(
        FailureReason.NO_TEXT,
        f"The PDF ({pages}) has no text layer: it seems to be scanned or drawn, and text recognition (OCR) "
        + ("found no text." if recognised else "is disabled or not installed."),
    )


def _metadata(document: PdfiumHandle, key: str) -> str | None:
    with contextlib.suppress(UnicodeDecodeError):
        return clean_line(document.get_metadata_value(key)) or None
    return None


def _label(document: PdfiumHandle, index: int) -> str | None:
    """The page label (the page number as printed), if the file has one."""
    with contextlib.suppress(UnicodeDecodeError):
        label = clean_line(document.get_page_label(index))[:_MAX_LABEL_CHARACTERS]
        return label or None
    return None


def _outline(document: PdfiumHandle) -> list[OutlineEntry]:
    entries: list[OutlineEntry] = []
    with contextlib.suppress(UnicodeDecodeError, RecursionError):
        for bookmark in document.get_toc():
            if len(entries) >= _MAX_OUTLINE_ENTRIES:
                break
            destination = bookmark.get_dest()
            index = destination.get_index() if destination is not None else None
            title = clean_line(bookmark.get_title())
            if title and index is not None and 0 <= index < len(document):
                entries.append(OutlineEntry(title, bookmark.level + 1, index + 1))
    return entries
