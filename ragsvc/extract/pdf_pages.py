"""Reads the pages of a PDF: their text layers, then by text recognition the pages without one.

Keeps the pages' texts until the words of the whole document decide about hyphens. Knows nothing of the rest of a
document (``pdf_document``). Memory is bounded by a page plus the extracted text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from ragsvc.core.documents import ProblemCode
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.annotation_lines import PlacedText, place_texts
from ragsvc.extract.clean import join_hyphens, known_words
from ragsvc.extract.glyph_evidence import UNUSABLE, needs_recognition
from ragsvc.extract.headings import PageFonts, page_fonts
from ragsvc.extract.layout import page_text
from ragsvc.extract.page_merge import KeptLines, Reason, turned_texts
from ragsvc.extract.pdf_annotations import read_annotations
from ragsvc.extract.pdf_images import hides_text
from ragsvc.extract.pdf_text import PageLines, PageUnreadable, TextPage, open_text_page, read_lines
from ragsvc.extract.pdfium_calls import PdfiumHandle
from ragsvc.extract.table_cells import line_cells
from ragsvc.extract.tables import DraftTable, find_tables

if TYPE_CHECKING:
    from ragsvc.extract.ocr_pages import RecognisedPage

OnProgress = Callable[[int, int], None]
OnRecognised = Callable[[int], None]
"""Called with the number of pages that were recognised so far."""
OnWarning = Callable[[str], None]
OnText = Callable[[int, str], None]
"""Called with the number and the text of a page, before the words of the whole document decide about its hyphens."""

_NEED_RECOGNITION = (ProblemCode.NO_TEXT_LAYER, ProblemCode.GARBLED_TEXT)


class PageDraft(msgspec.Struct):
    """The pages as read, before hyphens are resolved.

    ``kept`` has the text layers of pages that are also recognised: scans with a stamp and unusable glyphs, for example.
    ``hidden`` is the number of characters that were left out of a page because a reader cannot see them.
    """

    texts: list[str] = []
    fonts: list[PageFonts] = []
    findings: list[tuple[int, ProblemCode]] = []
    kept: dict[int, KeptLines] = {}
    hidden: dict[int, int] = {}
    tables: dict[int, list[DraftTable]] = {}

    def pages(self, *codes: ProblemCode) -> list[int]:
        """The numbers of the pages with any of these findings, in order."""
        return sorted(page for page, code in self.findings if code in codes)

    def to_recognise(self) -> set[int]:
        return {*self.pages(*_NEED_RECOGNITION), *self.kept}

    def replace_findings(self, number: int, *codes: ProblemCode) -> None:
        """Replace the findings of a page."""
        self.findings = [finding for finding in self.findings if finding[0] != number]
        self.findings += [(number, code) for code in codes]


class PageReports(msgspec.Struct, frozen=True, kw_only=True):
    """Callbacks while a document is read."""

    on_progress: OnProgress
    on_recognised: OnRecognised = lambda _: None
    on_warning: OnWarning = lambda _: None
    on_text: OnText = lambda _number, _text: None
    on_recognition: Callable[[int], None] = lambda _: None
    """Called before pages are recognised, with their number."""


def read_pages(
    raw: PdfiumHandle,
    page_count: int,
    *,
    limits: ExtractionLimits,
    on_progress: OnProgress,
    on_text: OnText = lambda _number, _text: None,
    forms: PdfiumHandle = None,
    layers: bool = False,
) -> PageDraft:
    """Read the text layers and annotations of the pages of a pdfium document handle, up to the limits.

    ``forms`` is the handle of the form environment; ``None`` if the document has no form. ``layers`` is whether parts
    of the pages may be switched off.
    """
    draft = PageDraft()
    budget = limits.max_text_characters
    unrecognised = 0
    for index in range(page_count):
        page = _PageRead()
        if budget <= 0:
            page.findings.append(ProblemCode.NOT_READ)
        else:
            most = min(budget, limits.max_page_characters)
            page = _read_page(raw, index, forms=forms, limits=limits, max_characters=most, layers=layers)
        budget -= len(page.text)
        draft.findings += [(index + 1, finding) for finding in page.findings]
        if page.kept is not None:
            draft.kept[index + 1] = page.kept
        if page.hidden:
            draft.hidden[index + 1] = page.hidden
        unrecognised += page.kept is not None or any(finding in _NEED_RECOGNITION for finding in page.findings)
        draft.texts.append(page.text)
        if page.text:
            on_text(index + 1, page.text)
        draft.fonts.append(page.fonts)
        if page.tables:
            draft.tables[index + 1] = page.tables
        on_progress(index + 1 - unrecognised, page_count)
    return draft


class _PageRead(msgspec.Struct):
    """The text layer of a page; ``kept`` if the page is also recognised. ``hidden``: hidden characters."""

    text: str = ""
    fonts: PageFonts = msgspec.field(default_factory=PageFonts)
    findings: list[ProblemCode] = []
    kept: KeptLines | None = None
    hidden: int = 0
    tables: list[DraftTable] = []


def _read_page(
    raw: PdfiumHandle,
    index: int,
    *,
    forms: PdfiumHandle,
    limits: ExtractionLimits,
    max_characters: int,
    layers: bool,
) -> _PageRead:
    try:
        with open_text_page(raw, index, max_characters=max_characters, layers=layers) as page:
            found = read_lines(page)
            reason = _reason_to_recognise(page, found) if limits.ocr else None
            annotations = read_annotations(raw, page.page, index, forms=forms)
            placed = [annotation for annotation in annotations if page.visibility.is_on_page(annotation.rectangle)]
            hidden = found.hidden + _characters(annotations) - _characters(placed)
            lines = [] if found.garbled else found.lines
            tables = [] if page.right_to_left else find_tables(lines, lambda line: line_cells(page, line))
            if placed:
                lines = place_texts(lines, turned_texts(placed, page.turns), page.text_before)
            turns, truncated = page.turns, page.truncated
    except PageUnreadable:
        return _PageRead(findings=[ProblemCode.PAGE_UNREADABLE])
    text, fonts = page_text(lines)[:max_characters], page_fonts(lines)
    kept = None
    if reason is not None or (placed and not found.lines and limits.ocr):
        kept = KeptLines(reason or Reason.PICTURE, found.lines, turns, placed)
    if found.garbled:
        return _PageRead(text, fonts, [ProblemCode.GARBLED_TEXT], kept, hidden)
    if not any(line.text for line in found.lines):
        return _PageRead(text, fonts, [ProblemCode.NO_TEXT_LAYER], kept if placed else None, hidden)
    findings = [ProblemCode.TEXT_TRUNCATED] * truncated + [ProblemCode.BAD_CHARACTERS] * (UNUSABLE in text)
    return _PageRead(text, fonts, findings, kept, hidden, tables)


def _characters(texts: Sequence[PlacedText]) -> int:
    return sum(not character.isspace() for placed in texts for character in placed.text)


def _reason_to_recognise(page: TextPage, found: PageLines) -> Reason | None:
    if found.garbled:
        return Reason.GARBLED
    if UNUSABLE in page.text and needs_recognition(page.text):
        return Reason.GLYPHS
    if hides_text(page, found.lines):
        return Reason.PICTURE
    return Reason.LAYER if found.layer else None


def recognise_images(raw: PdfiumHandle, draft: PageDraft, *, limits: ExtractionLimits, reports: PageReports) -> bool:
    """Recognise the pages without usable text; ``True`` if pages were recognised."""
    pages_with_layer = {number for number, kept in draft.kept.items() if kept.reason is Reason.LAYER}
    numbers = sorted(draft.to_recognise(), key=lambda number: (number in pages_with_layer, number))
    page_count = len(draft.texts)
    if not numbers or not limits.ocr:
        return False
    from ragsvc.extract.ocr_pages import recognise_pages  # noqa: PLC0415 - imports numpy, only if a page needs it

    reports.on_recognition(min(len(numbers), limits.ocr_max_pages))

    def report(done: int) -> None:
        reports.on_recognised(done)
        reports.on_progress(page_count - len(numbers) + done, page_count)

    found = recognise_pages(
        raw,
        numbers,
        kept=draft.kept,
        limits=limits,
        max_characters=limits.max_text_characters - sum(map(len, draft.texts)),
        on_page=report,
        on_text=reports.on_text,
        on_warning=reports.on_warning,
    )
    for number, page in found.items():
        if page.text and (not page.unchanged or number in draft.pages(ProblemCode.GARBLED_TEXT)):
            draft.texts[number - 1], draft.fonts[number - 1] = page.text, page_fonts(page.lines)
            draft.tables.pop(number, None)
            draft.replace_findings(number, *_findings(page))
    if found:
        for number in {*draft.pages(ProblemCode.NO_TEXT_LAYER), *_pictures(draft)} - set(found):
            draft.replace_findings(number, ProblemCode.NOT_READ)
    if len(found) < len(numbers):
        reports.on_progress(page_count, page_count)
    return bool(found)


def _findings(page: RecognisedPage) -> list[ProblemCode]:
    return (
        [ProblemCode.OCR_USED] * (not page.unchanged)
        + [ProblemCode.TEXT_TRUNCATED] * page.truncated
        + [ProblemCode.BAD_CHARACTERS] * (UNUSABLE in page.text)
    )


def _pictures(draft: PageDraft) -> list[int]:
    return [number for number, kept in draft.kept.items() if kept.reason is Reason.PICTURE]


def use_fallback_texts(draft: PageDraft, numbers: list[int], texts: dict[int, str]) -> None:
    """Use the texts of pypdf for pages that pdfium cannot read."""
    for number in numbers:
        if texts.get(number):
            draft.kept.pop(number, None)
            values = draft.texts[number - 1]
            draft.texts[number - 1] = f"{texts[number]}\n\n{values}".strip()
            draft.replace_findings(number, ProblemCode.SECOND_PARSER_USED)


def join_words(texts: list[str], limits: ExtractionLimits) -> list[str]:
    """Resolve the hyphens at line ends by the words of the whole document."""
    words = known_words(texts) if any("\ufffe" in text for text in texts) else set[str]()
    return [join_hyphens(text, words)[: limits.max_page_characters] for text in texts]
