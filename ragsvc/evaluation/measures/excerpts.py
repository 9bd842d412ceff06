"""Finds where an excerpt stands in a document, by its letters and digits alone. Pure.

What people copy from a reader differs from the extracted text in line ends, hyphens, quotation marks, ligatures and
capitals; none of them tells passages apart.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Mapping

from ragsvc.evaluation.measures.judging import Occurrence, Span


def letters(text: str) -> tuple[str, list[int]]:
    r"""Letters and digits in one spelling, each with the place in ``text`` it comes from.

    >>> letters("The ﬁrst\n“Co-op”")
    ('thefirstcoop', [0, 1, 2, 4, 4, 5, 6, 7, 10, 11, 13, 14])
    """
    kept: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        plain = unicodedata.normalize("NFKC", character).casefold()
        for one in plain:
            if one.isalnum():
                kept.append(one)
                places.append(place)
    return "".join(kept), places


class SearchableText:
    """The text of some pages of a document, in which excerpts are looked up, also over the ends of pages."""

    def __init__(self, document: str, pages: Mapping[int, str]) -> None:
        self._document = document
        self._numbers = sorted(pages)
        self._starts: list[int] = []
        self._places: list[list[int]] = []
        found: list[str] = []
        length = 0
        for number in self._numbers:
            text, places = letters(pages[number])
            self._starts.append(length)
            self._places.append(places)
            found.append(text)
            length += len(text)
        self._letters = "".join(found)

    def find(self, excerpt: str) -> tuple[Occurrence, ...]:
        """All places of an excerpt, in order; none when it has no letter or digit or does not stand there."""
        wanted, _ = letters(excerpt)
        occurrences: list[Occurrence] = []
        place = self._letters.find(wanted) if wanted else -1
        while place >= 0:
            occurrences.append(tuple(self._spans(place, place + len(wanted))))
            place = self._letters.find(wanted, place + len(wanted))
        return tuple(occurrences)

    def _spans(self, start: int, end: int) -> list[Span]:
        spans: list[Span] = []
        while start < end:
            index = bisect_right(self._starts, start) - 1
            first, places = self._starts[index], self._places[index]
            last = min(end, first + len(places))
            spans.append(
                Span(self._document, self._numbers[index], places[start - first], places[last - 1 - first] + 1)
            )
            start = last
        return spans
