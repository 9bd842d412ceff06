"""Finds the rectangles of a quote on its page, from the stored PDF.

The extracted text differs from pdfium's text (ligatures, hyphens, the order of columns), so the quote is located by its
letters and digits only, and in pieces if it is not contiguous. Positions of recognised text are not stored: the page is
recognised again (which takes seconds), and a part of a line is positioned by its share of the line's letters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.extract.child_protocol import QuoteBox
from ragsvc.extract.clean import clean_line
from ragsvc.extract.pdf_document import PdfNotOpened, open_pdf
from ragsvc.extract.pdf_layers import may_hide_layers
from ragsvc.extract.pdf_text import PageUnreadable, TextPage, open_text_page, read_lines
from ragsvc.extract.pdfium_calls import PdfiumHandle

_MAX_CHARACTERS = 1_000_000


def find_quote_boxes(
    path: Path, page_number: int, start: int, end: int, *, page_text: str, password: str | None = None
) -> list[QuoteBox]:
    """The rectangles (at most a few per line) of ``page_text[start:end]`` on page ``page_number`` (from 1).

    ``page_text`` is the extracted text of the page. Empty if the page does not contain the span (for example because
    only pypdf could read the page). In PDF points, with the origin at the bottom left of the unrotated page.

    Raises:
        ExtractionFailed: the file cannot be opened, or has no such page.
    """
    try:
        with open_pdf(path, password) as document:
            if not 1 <= page_number <= len(document):
                raise ExtractionFailed(FailureReason.DAMAGED, f"The PDF has no page {page_number}.")
            layers = may_hide_layers(path)
            with open_text_page(document.raw, page_number - 1, max_characters=_MAX_CHARACTERS, layers=layers) as page:
                read_lines(page)  # leaves out the hidden characters
                found = [
                    box
                    for first, last in _character_spans(page.text, page_text, start, end)
                    for box in _rows(page, first, last)
                ]
            return found or _find_in_image(document.raw, page_number - 1, page_text, start, end)
    except (PdfNotOpened, PageUnreadable) as error:
        raise ExtractionFailed(FailureReason.DAMAGED, "The page cannot be read by the main parser.") from error


def _find_in_image(document: PdfiumHandle, index: int, page_text: str, start: int, end: int) -> list[QuoteBox]:
    from ragsvc.extract.ocr_boxes import recognise_again  # noqa: PLC0415 - imports numpy, only if a page needs it

    recognised = recognise_again(document, index)
    return [
        box
        for first, last in _character_spans(recognised.text, page_text, start, end)
        for box in recognised.boxes(document, index, first, last)
    ]


def _character_spans(raw: str, page_text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The spans ``[first, last]`` (inclusive) of pdfium's characters that correspond to a span of the page's text."""
    skeleton, indexes = _skeleton(raw)
    whole = _letters(page_text[start:end])
    before = _letters(page_text[:start])
    if whole and (position := _occurrence(skeleton, whole, _letters(page_text), len(before))) >= 0:
        yield indexes[position], indexes[position + len(whole) - 1]
        return
    near = 0
    for line in _pieces(page_text, start, end):
        letters = _letters(line)
        position = skeleton.find(letters, near) if letters else -1
        if letters and position < 0:
            position = skeleton.find(letters)
        if position >= 0:
            yield indexes[position], indexes[position + len(letters) - 1]
            near = position + len(letters)


def _occurrence(skeleton: str, wanted: str, page_letters: str, offset: int) -> int:
    """Find the occurrence of ``wanted`` with the same ordinal as the occurrence at ``offset`` in the page's text."""
    repeats, position = 0, page_letters.find(wanted)
    while 0 <= position < offset:
        repeats += 1
        position = page_letters.find(wanted, position + 1)
    found = skeleton.find(wanted)
    while repeats and found >= 0:
        following = skeleton.find(wanted, found + 1)
        if following < 0:
            break
        found, repeats = following, repeats - 1
    return found


def _pieces(text: str, start: int, end: int) -> Iterator[str]:
    """Split a span into runs of a few words, which rarely cross a column or a moved line."""
    words = text[start:end].split()
    for index in range(0, len(words), 6):
        yield " ".join(words[index : index + 6])


def _skeleton(raw: str) -> tuple[str, list[int]]:
    """The letters and digits of pdfium's text, each with the index of its character."""
    letters: list[str] = []
    indexes: list[int] = []
    for index, character in enumerate(raw):
        if "\ud800" <= character <= "\udbff":
            kept = _letters(clean_line(raw[index : index + 2]))
        else:
            kept = character if character.isalnum() and character.isascii() else _letters(clean_line(character))
        letters.append(kept)
        indexes += [index] * len(kept)
    return "".join(letters), indexes


def _letters(text: str) -> str:
    return "".join(character for character in unicodedata.normalize("NFKD", text) if character.isalnum())


def _rows(page: TextPage, first: int, last: int) -> Iterator[QuoteBox]:
    """The rectangles of a run of characters; adjacent rectangles of a line are merged."""
    merged: list[QuoteBox] = []
    for index in range(page.rectangles(first, last - first + 1)):
        left, bottom, right, top = page.rectangle(index)
        box = QuoteBox(left, top, right, bottom)
        if merged and _same_row(merged[-1], box):
            other = merged[-1]
            merged[-1] = QuoteBox(
                min(other.left, left), max(other.top, top), max(other.right, right), min(other.bottom, bottom)
            )
        else:
            merged.append(box)
    yield from merged


def _same_row(before: QuoteBox, other: QuoteBox) -> bool:
    overlap = min(before.top, other.top) - max(before.bottom, other.bottom)
    height = min(before.top - before.bottom, other.top - other.bottom)
    near = max(before.top - before.bottom, other.top - other.bottom)
    return overlap > 0.3 * height and -near < other.left - before.right < 2 * near
