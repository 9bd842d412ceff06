"""The pages of a PDF, read one after the other: their text layers, then the pictures of those without one.

Keeps what is known of each page until the document's words decide about hyphens. Knows nothing of the rest of a
document (``pdf_document``); memory is bounded by one page plus the text found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ragsvc.core.documents import ProblemCode
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.clean import join_hyphens, known_words
from ragsvc.extract.headings import PageTypes, types_of
from ragsvc.extract.layout import page_text
from ragsvc.extract.pdf_images import shows_picture
from ragsvc.extract.pdf_text import PageUnreadable, open_text_page, read_lines

OnProgress = Callable[[int, int], None]
OnRecognised = Callable[[int], None]
"""Told how many pages' text was recognised so far."""
OnWarning = Callable[[str], None]

_LITTLE_TEXT = 200
_PICTURE_SHARE = 0.3
_GAIN = 1.5
_PICTURES = (ProblemCode.NO_TEXT_LAYER, ProblemCode.GARBLED_TEXT)


class PageDraft(msgspec.Struct):
    """What reading the pages gave, before hyphens are decided.

    ``stamped`` are numbers of pages that are mostly a picture with little text on it: a court's stamp on a scan, say.
    """

    texts: list[str] = []
    types: list[PageTypes] = []
    findings: list[tuple[int, ProblemCode]] = []
    stamped: set[int] = set()

    def pages(self, *codes: ProblemCode) -> list[int]:
        """Numbers of the pages with one of these findings, in order."""
        return sorted(page for page, code in self.findings if code in codes)

    def settle(self, number: int, *codes: ProblemCode) -> None:
        """Replace what was found about a page."""
        self.findings = [finding for finding in self.findings if finding[0] != number]
        self.findings += [(number, code) for code in codes]


class PageReports(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to tell what while a document is read."""

    on_progress: OnProgress
    on_recognised: OnRecognised = lambda _: None
    on_warning: OnWarning = lambda _: None


def read_pages(raw: Any, page_count: int, *, limits: ExtractionLimits, on_progress: OnProgress) -> PageDraft:  # noqa: ANN401 - a ctypes handle
    """Read the text layers of a pdfium document handle's pages, up to the limits."""
    draft = PageDraft()
    budget = limits.max_text_characters
    pictures = 0
    for index in range(page_count):
        text, types = "", PageTypes()
        if budget <= 0:
            draft.findings.append((index + 1, ProblemCode.NOT_READ))
        else:
            text, types, finding = _read_page(raw, index, max_characters=min(budget, limits.max_page_characters))
            if finding is not None:
                draft.findings.append((index + 1, finding))
            elif len(text) < _LITTLE_TEXT and limits.ocr and shows_picture(raw, index, share=_PICTURE_SHARE):
                draft.stamped.add(index + 1)
            budget -= len(text)
            pictures += finding in _PICTURES or index + 1 in draft.stamped
        draft.texts.append(text)
        draft.types.append(types)
        on_progress(index + 1 - pictures, page_count)
    return draft


def _read_page(raw: Any, index: int, *, max_characters: int) -> tuple[str, PageTypes, ProblemCode | None]:  # noqa: ANN401 - a ctypes handle
    try:
        with open_text_page(raw, index, max_characters=max_characters) as page:
            found = read_lines(page)
            truncated = page.truncated
    except PageUnreadable:
        return "", PageTypes(), ProblemCode.PAGE_UNREADABLE
    if found.garbled:
        return "", PageTypes(), ProblemCode.GARBLED_TEXT
    text = page_text(found.lines)
    if not text.strip():
        return "", PageTypes(), ProblemCode.NO_TEXT_LAYER
    return text, types_of(found.lines), ProblemCode.TEXT_TRUNCATED if truncated else None


def read_pictures(raw: Any, draft: PageDraft, *, limits: ExtractionLimits, reports: PageReports) -> bool:  # noqa: ANN401 - a ctypes handle
    """Have text recognised on the pages whose text layer holds none, or none that means anything; true if tried."""
    numbers, page_count = sorted({*draft.pages(*_PICTURES), *draft.stamped}), len(draft.texts)
    if not numbers or not limits.ocr:
        return False
    from ragsvc.extract.ocr_pages import recognise_pages  # noqa: PLC0415 - numpy, only where a page needs it

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
            draft.texts[number - 1], draft.types[number - 1] = page.text, types_of(page.lines)
            draft.settle(number, ProblemCode.OCR_USED, *[ProblemCode.TEXT_TRUNCATED] * page.truncated)
    if found:
        for number in set(draft.pages(ProblemCode.NO_TEXT_LAYER)) - set(found):
            draft.settle(number, ProblemCode.NOT_READ)
    if len(found) < len(numbers):
        reports.on_progress(page_count, page_count)
    return bool(found)


def put_second_opinion(draft: PageDraft, numbers: list[int], texts: dict[int, str]) -> None:
    """Put the second parser's pages in where the first one gave up."""
    for number in numbers:
        if texts.get(number):
            draft.texts[number - 1] = texts[number]
            draft.settle(number, ProblemCode.SECOND_PARSER_USED)


def join_words(texts: list[str], limits: ExtractionLimits) -> list[str]:
    """Decide the hyphens at lines' ends by the words of the whole document."""
    words = known_words(texts) if any("\ufffe" in text for text in texts) else set[str]()
    return [join_hyphens(text, words)[: limits.max_page_characters] for text in texts]
