"""Reads the pages of a PDF: their text layers, then by text recognition the pages without one.

Keeps the pages' texts until the words of the whole document decide about hyphens. Knows nothing of the rest of a
document (``pdf_document``). Memory is bounded by a page plus the extracted text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ragsvc.core.documents import ProblemCode
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.clean import join_hyphens, known_words
from ragsvc.extract.headings import PageFonts, page_fonts
from ragsvc.extract.layout import page_text
from ragsvc.extract.pdf_images import has_large_image
from ragsvc.extract.pdf_text import PageUnreadable, open_text_page, read_lines

OnProgress = Callable[[int, int], None]
OnRecognised = Callable[[int], None]
"""Called with the number of pages that were recognised so far."""
OnWarning = Callable[[str], None]

_LITTLE_TEXT = 200
_IMAGE_SHARE = 0.3
_GAIN = 1.5
_NEED_RECOGNITION = (ProblemCode.NO_TEXT_LAYER, ProblemCode.GARBLED_TEXT)


class PageDraft(msgspec.Struct):
    """The pages as read, before hyphens are resolved.

    ``image_pages`` are the numbers of pages that are mostly an image with little text: a scan with a court's stamp,
    for example. ``hidden`` is the number of characters that were left out of a page because a reader cannot see them.
    """

    texts: list[str] = []
    fonts: list[PageFonts] = []
    findings: list[tuple[int, ProblemCode]] = []
    image_pages: set[int] = set()
    hidden: dict[int, int] = {}

    def pages(self, *codes: ProblemCode) -> list[int]:
        """The numbers of the pages with any of these findings, in order."""
        return sorted(page for page, code in self.findings if code in codes)

    def replace_findings(self, number: int, *codes: ProblemCode) -> None:
        """Replace the findings of a page."""
        self.findings = [finding for finding in self.findings if finding[0] != number]
        self.findings += [(number, code) for code in codes]


class PageReports(msgspec.Struct, frozen=True, kw_only=True):
    """Callbacks while a document is read."""

    on_progress: OnProgress
    on_recognised: OnRecognised = lambda _: None
    on_warning: OnWarning = lambda _: None


def read_pages(
    raw: Any,  # noqa: ANN401 - a ctypes handle
    page_count: int,
    *,
    limits: ExtractionLimits,
    on_progress: OnProgress,
    layers: bool = False,
) -> PageDraft:
    """Read the text layers of the pages of a pdfium document handle, up to the limits.

    ``layers`` is whether parts of the pages may be switched off.
    """
    draft = PageDraft()
    budget = limits.max_text_characters
    unrecognised = 0
    for index in range(page_count):
        text, fonts = "", PageFonts()
        if budget <= 0:
            draft.findings.append((index + 1, ProblemCode.NOT_READ))
        else:
            text, fonts, finding, hidden = _read_page(
                raw, index, max_characters=min(budget, limits.max_page_characters), layers=layers
            )
            if hidden:
                draft.hidden[index + 1] = hidden
            if finding is not None:
                draft.findings.append((index + 1, finding))
            elif len(text) < _LITTLE_TEXT and limits.ocr and has_large_image(raw, index, share=_IMAGE_SHARE):
                draft.image_pages.add(index + 1)
            budget -= len(text)
            unrecognised += finding in _NEED_RECOGNITION or index + 1 in draft.image_pages
        draft.texts.append(text)
        draft.fonts.append(fonts)
        on_progress(index + 1 - unrecognised, page_count)
    return draft


def _read_page(
    raw: Any,  # noqa: ANN401 - a ctypes handle
    index: int,
    *,
    max_characters: int,
    layers: bool,
) -> tuple[str, PageFonts, ProblemCode | None, int]:
    try:
        with open_text_page(raw, index, max_characters=max_characters, layers=layers) as page:
            found = read_lines(page)
            truncated = page.truncated
    except PageUnreadable:
        return "", PageFonts(), ProblemCode.PAGE_UNREADABLE, 0
    if found.garbled:
        return "", PageFonts(), ProblemCode.GARBLED_TEXT, 0
    text = page_text(found.lines)
    if not text.strip():
        return "", PageFonts(), ProblemCode.NO_TEXT_LAYER, found.hidden
    return text, page_fonts(found.lines), ProblemCode.TEXT_TRUNCATED if truncated else None, found.hidden


def recognise_images(raw: Any, draft: PageDraft, *, limits: ExtractionLimits, reports: PageReports) -> bool:  # noqa: ANN401 - a ctypes handle
    """Recognise the pages without usable text; ``True`` if pages were recognised."""
    numbers, page_count = sorted({*draft.pages(*_NEED_RECOGNITION), *draft.image_pages}), len(draft.texts)
    if not numbers or not limits.ocr:
        return False
    from ragsvc.extract.ocr_pages import recognise_pages  # noqa: PLC0415 - imports numpy, only if a page needs it

    def report(done: int) -> None:
        reports.on_recognised(done)
        reports.on_progress(page_count - len(numbers) + done, page_count)

    found = recognise_pages(
        raw,
        numbers,
        limits=limits,
        max_characters=limits.max_text_characters - sum(map(len, draft.texts)),
        on_page=report,
        on_warning=reports.on_warning,
    )
    for number, page in found.items():
        if len(page.text) > _GAIN * len(draft.texts[number - 1]):
            draft.texts[number - 1], draft.fonts[number - 1] = page.text, page_fonts(page.lines)
            draft.replace_findings(number, ProblemCode.OCR_USED, *[ProblemCode.TEXT_TRUNCATED] * page.truncated)
    if found:
        for number in set(draft.pages(ProblemCode.NO_TEXT_LAYER)) - set(found):
            draft.replace_findings(number, ProblemCode.NOT_READ)
    if len(found) < len(numbers):
        reports.on_progress(page_count, page_count)
    return bool(found)


def use_fallback_texts(draft: PageDraft, numbers: list[int], texts: dict[int, str]) -> None:
    """Use the texts of pypdf for pages that pdfium cannot read."""
    for number in numbers:
        if texts.get(number):
            draft.texts[number - 1] = texts[number]
            draft.replace_findings(number, ProblemCode.SECOND_PARSER_USED)


def join_words(texts: list[str], limits: ExtractionLimits) -> list[str]:
    """Resolve the hyphens at line ends by the words of the whole document."""
    words = known_words(texts) if any("\ufffe" in text for text in texts) else set[str]()
    return [join_hyphens(text, words)[: limits.max_page_characters] for text in texts]
