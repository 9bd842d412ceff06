"""Finds the rectangles of a quote on its page, from the stored PDF.

The extracted text differs from pdfium's text (ligatures, hyphens, the order of columns), so the quote is located by its
letters and digits only, and in pieces if it is not contiguous. Positions of recognised text are not stored: the page is
recognised again (which takes seconds), and a part of a line is positioned by its share of the line's letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.extract.annotation_lines import PlacedText
from ragsvc.extract.child_protocol import QuoteBox
from ragsvc.extract.clean import clean_line
from ragsvc.extract.pdf_annotations import read_annotations
from ragsvc.extract.pdf_document import PdfNotOpened, open_forms, open_pdf
from ragsvc.extract.pdf_layers import may_hide_layers
from ragsvc.extract.pdf_text import PageUnreadable, TextPage, open_text_page, read_lines
from ragsvc.extract.pdfium_calls import PdfiumHandle
from ragsvc.extract.turned import Rectangle

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
            forms = open_forms(document)
            with open_text_page(document.raw, page_number - 1, max_characters=_MAX_CHARACTERS, layers=layers) as page:
                read_lines(page)  # leaves out the hidden characters
                found: list[QuoteBox] = []
                annotations = read_annotations(document.raw, page.page, page_number - 1, forms=forms)
                values = _values(annotations, page_text, _skeleton(page.text)[0]) if annotations else []
                for begin, stop, box in _segments(values, start, end):
                    if box is not None:
                        found.append(box)
                        continue
                    for first, last in _character_spans(page.text, page_text, begin, stop):
                        found += _rows(page, first, last)
            return found or _find_in_image(document.raw, page_number - 1, page_text, start, end)
    except (PdfNotOpened, PageUnreadable) as error:
        raise ExtractionFailed(FailureReason.DAMAGED, "The page cannot be read by the main parser.") from error


class _Value(msgspec.Struct, frozen=True):
    """The span of a form value, a free text or a note in the text of its page, and its rectangle."""

    start: int
    end: int
    box: QuoteBox


def _values(annotations: Sequence[PlacedText], page_text: str, skeleton: str) -> list[_Value]:
    """Where the page's text contains the annotations. Equal values are assigned from top to bottom.

    A line that the text layer (``skeleton``) contains as a whole contains no value.
    """
    ordered = sorted(annotations, key=lambda placed: (-placed.rectangle[3], placed.rectangle[0]))
    rectangles: defaultdict[str, list[Rectangle]] = defaultdict(list)
    for placed in ordered:
        rectangles[" ".join(placed.text.split())].append(placed.rectangle)
    values: list[_Value] = []
    for wording, places in sorted(rectangles.items(), key=lambda item: -len(item[0])):
        pattern = r"(?<!\w)" + r"\s+".join(map(re.escape, wording.split())) + r"(?!\w)"
        spans = [
            (match.start(), match.end())
            for match in re.finditer(pattern, page_text)
            if not _overlaps(values, *match.span()) and _letters(_line_around(page_text, *match.span())) not in skeleton
        ]
        for (start, end), (left, bottom, right, top) in zip(spans, places, strict=False):
            values.append(_Value(start, end, QuoteBox(left, top, right, bottom)))
    return sorted(values, key=lambda value: value.start)


def _overlaps(values: Sequence[_Value], start: int, end: int) -> bool:
    return any(value.start < end and start < value.end for value in values)


def _line_around(text: str, start: int, end: int) -> str:
    following = text.find("\n", end)
    return text[text.rfind("\n", 0, start) + 1 : len(text) if following < 0 else following]


def _segments(values: Sequence[_Value], start: int, end: int) -> Iterator[tuple[int, int, QuoteBox | None]]:
    """Cut a span at the values in it; a value has its box, text between values has none."""
    for value in values:
        if value.end <= start or value.start >= end:
            continue
        if value.start > start:
            yield start, value.start, None
        yield max(start, value.start), min(end, value.end), value.box
        start = value.end
    if start < end:
        yield start, end, None


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
