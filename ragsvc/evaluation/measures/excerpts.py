"""Locates excerpts in a document's pages, comparing letters and digits only. Pure.

Text copied from a PDF viewer differs from the extracted text in line breaks, hyphens, quotation marks, ligatures and
capitalisation; none of these distinguish passages.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Mapping

from ragsvc.evaluation.measures.judging import Occurrence, Span


def normalise_characters(text: str) -> tuple[str, list[int]]:
    r"""Letters and digits after NFKC and case folding, each with its offset in ``text``.

    >>> normalise_characters("The ﬁrst\n“Co-op”")
    ('thefirstcoop', [0, 1, 2, 4, 4, 5, 6, 7, 10, 11, 13, 14])
    """
    kept: list[str] = []
    offsets: list[int] = []
    for offset, character in enumerate(text):
        for folded in unicodedata.normalize("NFKC", character).casefold():
            if folded.isalnum():
                kept.append(folded)
                offsets.append(offset)
    return "".join(kept), offsets


class SearchableText:
    """The text of some pages of a document. Excerpts may cross page breaks."""

    def __init__(self, document: str, pages: Mapping[int, str]) -> None:
        self._document = document
        self._page_numbers = sorted(pages)
        self._starts: list[int] = []
        self._offsets: list[list[int]] = []
        texts: list[str] = []
        length = 0
        for number in self._page_numbers:
            text, offsets = normalise_characters(pages[number])
            self._starts.append(length)
            self._offsets.append(offsets)
            texts.append(text)
            length += len(text)
        self._text = "".join(texts)

    def find(self, excerpt: str) -> tuple[Occurrence, ...]:
        """All occurrences of an excerpt, in order; empty if the excerpt has no letters or digits."""
        wanted, _ = normalise_characters(excerpt)
        occurrences: list[Occurrence] = []
        position = self._text.find(wanted) if wanted else -1
        while position >= 0:
            occurrences.append(tuple(self._spans(position, position + len(wanted))))
            position = self._text.find(wanted, position + len(wanted))
        return tuple(occurrences)

    def _spans(self, start: int, end: int) -> list[Span]:
        spans: list[Span] = []
        while start < end:
            index = bisect_right(self._starts, start) - 1
            first, offsets = self._starts[index], self._offsets[index]
            last = min(end, first + len(offsets))
            spans.append(
                Span(self._document, self._page_numbers[index], offsets[start - first], offsets[last - 1 - first] + 1)
            )
            start = last
        return spans
