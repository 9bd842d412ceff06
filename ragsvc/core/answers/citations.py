"""Resolves citation markers in an answer to passages, with the supporting quotes.

Markers have the forms ``[1]``, ``[1][3]`` and ``[1, 3]``; the numbers are 1-based positions of the request's passages.
Offsets count Unicode code points of the answer. Quotes are exact substrings of the passage and so of its page.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from ragsvc.core.documents import StoredPassage
from ragsvc.core.ids import chunk_id
from ragsvc.core.retrieval.search import SearchHit
from ragsvc.core.text.sentences import Span, sentence_spans

_MARKER: Final = re.compile(r"\[ *[0-9]{1,3}(?: *[,;] *[0-9]{1,3})* *\]")
_BEGUN: Final = re.compile(r"\[[0-9 ,;]*\Z")
_NUMBER: Final = re.compile(r"[0-9]+")
_WORD: Final = re.compile(r"\w+(?:[.,]\d+)*")
_LONGEST_MARKER: Final = 64
_CLAIM_WINDOW: Final = 1200
_COPIED_CONTEXT: Final = 20
_LONGEST_QUOTE: Final = 1200
_MOST_SENTENCES: Final = 3
_WORTH_A_SENTENCE: Final = 0.2


class Marker(msgspec.Struct, frozen=True):
    """A citation marker: ``text[start:end]`` of an answer, and the passage numbers in it."""

    start: int
    end: int
    numbers: tuple[int, ...]


class MarkerScanner:
    """Finds markers in text that arrives in pieces. The result does not depend on the slicing.

    >>> scanner = MarkerScanner()
    >>> scanner.feed("It rose [1") + scanner.feed(", 3] by 2.") + scanner.finish()
    [Marker(start=8, end=14, numbers=(1, 3))]
    """

    def __init__(self) -> None:
        self._held = ""
        self._offset = 0

    def feed(self, piece: str) -> list[Marker]:
        """Take the next piece; return the markers that are now complete."""
        if not self._held and "[" not in piece:
            self._offset += len(piece)
            return []
        return self._scan(self._held + piece, last=False)

    def finish(self) -> list[Marker]:
        """The marker at the end of the text, if any."""
        return self._scan(self._held, last=True)

    def _scan(self, text: str, *, last: bool) -> list[Marker]:
        markers: list[Marker] = []
        position = 0
        while (position := text.find("[", position)) >= 0:
            found = _MARKER.match(text, position)
            undecided = found.end() == len(text) if found else _BEGUN.match(text, position) is not None
            if undecided and not last and len(text) - position <= _LONGEST_MARKER:
                break
            if found is None or found.end() - position > _LONGEST_MARKER:
                position += 1
                continue
            if text[found.end() : found.end() + 1] != "(":  # "[1](" begins a Markdown link
                numbers = tuple(int(number) for number in _NUMBER.findall(found[0]))
                markers.append(Marker(self._offset + position, self._offset + found.end(), numbers))
            position = found.end()
        rest = len(text) if position < 0 else position
        self._offset += rest
        self._held = text[rest:]
        return markers


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """A resolved marker number. ``page`` is 1-based; ``quote`` is an exact substring of the page."""

    type: Literal["file_citation"] = "file_citation"
    index: int
    file_id: str
    filename: str
    page: int
    page_label: str | None
    start_index: int
    end_index: int
    quote: str
    score: float
    chunk_id: str


class CitedAnswer:
    """Collects an answer piece by piece and resolves its markers at the end."""

    def __init__(self, hits: Sequence[SearchHit]) -> None:
        self._hits = hits
        self._pieces: list[str] = []
        self._scanner = MarkerScanner()
        self._markers: list[Marker] = []
        self.unresolved = 0
        """Count of marker numbers without a passage."""

    def feed(self, piece: str) -> None:
        self._pieces.append(piece)
        self._markers.extend(self._scanner.feed(piece))

    def citations(self) -> list[Citation]:
        """The citations of the whole answer in the order of their markers. Call once, after the last piece."""
        self._markers.extend(self._scanner.finish())
        answer = "".join(self._pieces)
        resolved: list[Citation] = []
        for marker in self._markers:
            if self._is_copied(answer, marker):
                continue
            claim = claim_at(answer, marker)
            for number in dict.fromkeys(marker.numbers):
                if 1 <= number <= len(self._hits):
                    resolved.append(_citation(self._hits[number - 1], number, marker, claim))
                else:
                    self.unresolved += 1
        return resolved

    def _is_copied(self, answer: str, marker: Marker) -> bool:
        """Whether the marker is a reference in the document's text that the answer quotes with its context."""
        before = answer[max(0, marker.start - _COPIED_CONTEXT) : marker.end]
        after = answer[marker.start : marker.end + _COPIED_CONTEXT]
        contexts = [text for text in (before, after) if len(text) >= marker.end - marker.start + _COPIED_CONTEXT]
        return any(context in hit.passage.text for context in contexts for hit in self._hits)


def _citation(hit: SearchHit, number: int, marker: Marker, claim: str) -> Citation:
    passage = hit.passage
    start, end = best_support(claim, passage)
    return Citation(
        index=number,
        file_id=passage.document_public_id,
        filename=passage.filename,
        page=passage.page,
        page_label=passage.page_label,
        start_index=marker.start,
        end_index=marker.end,
        quote=passage.text[start:end],
        score=round(float(hit.score), 4),
        chunk_id=chunk_id(passage.id),
    )


def claim_at(answer: str, marker: Marker) -> str:
    """The sentence that the marker belongs to, up to the marker and without other markers.

    >>> claim_at("Sales rose. Costs fell by 3 % [2].", Marker(30, 33, (2,)))
    'Costs fell by 3 %'
    """
    before = answer[max(0, marker.start - _CLAIM_WINDOW) : marker.start]
    before = _MARKER.sub(lambda found: " " * len(found[0]), before).rstrip()
    spans = sentence_spans(before)
    if not spans:
        return ""
    start, end = spans[-1]
    return before[start:end]


def best_support(claim: str, passage: StoredPassage) -> Span:
    """The span of one to three consecutive sentences of the passage that best support a claim."""
    text = passage.text
    verbatim = text.find(claim) if claim else -1
    if verbatim >= 0:
        return _shortened(text, (verbatim, verbatim + len(claim)))
    spans = sentence_spans(text) or [(0, len(text))]
    words = [frozenset(_words(text[start:end])) for start, end in spans]
    weights = _weights(_words(claim), words)
    first = last = max(range(len(spans)), key=lambda at: (_covered(weights, words[at]), -at))
    covered = words[first]
    while last - first + 1 < _MOST_SENTENCES:
        neighbours = [at for at in (first - 1, last + 1) if 0 <= at < len(spans)]
        gains = [(_covered(weights, covered | words[at]) - _covered(weights, covered), -at) for at in neighbours]
        if not gains or max(gains)[0] < _WORTH_A_SENTENCE:
            break
        chosen = -max(gains)[1]
        covered |= words[chosen]
        first, last = min(first, chosen), max(last, chosen)
    return _shortened(text, (spans[first][0], spans[last][1]))


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _weights(claim: Sequence[str], sentences: Sequence[frozenset[str]]) -> dict[str, float]:
    """Weights of the claim's words (sum 1): rare words of the passage weigh more, numbers count double."""
    frequency = Counter(word for sentence in sentences for word in sentence)
    raw = {
        word: math.log1p(len(sentences) / (1 + frequency[word])) * (2.0 if word[0].isdigit() else 1.0) for word in claim
    }
    total = sum(raw.values()) or 1.0
    return {word: weight / total for word, weight in raw.items()}


def _covered(weights: dict[str, float], words: frozenset[str]) -> float:
    """The share in 0..1 of the claim's weight that these words cover."""
    return sum(weight for word, weight in weights.items() if word in words)


def _shortened(text: str, span: Span) -> Span:
    """The span cut to the maximum length of a quote, at a space if possible."""
    start, end = span
    if end - start <= _LONGEST_QUOTE:
        return span
    cut = text.rfind(" ", start, start + _LONGEST_QUOTE)
    return start, cut if cut > start else start + _LONGEST_QUOTE
