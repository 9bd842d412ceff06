"""An inverted index in memory over the cards of a collection's documents: name, title and opening.

It judges which documents a question names (``core.retrieval.document_judgement``). Word rarity is exact over the
documents that the collection has at this moment: each change of the index log reads the cards of its documents again. A
card takes about 2 kB. There is one writer at a time; readers never wait for it.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from ragsvc.core.ports.indexes import DocumentCard, DocumentJudgement, Ids
from ragsvc.core.retrieval.document_judgement import (
    QuestionWord,
    confidence,
    no_judgement,
    period_names,
    question_words,
)
from ragsvc.core.text.languages import DEFAULT_LANGUAGE
from ragsvc.core.text.late_patterns import late_pattern
from ragsvc.core.text.spellings import dates_in, fold
from ragsvc.core.text.word_starts import FIRST_UNSPACED
from ragsvc.index.analysis import YEAR, passage_terms

MAX_CARDS: Final = 20_000
"""Larger collections are ranked without a judgement of documents: their cards would take too much memory."""

SELECTIVE_SHARE: Final = 0.3
"""A word in more than this share of the cards distinguishes no document ("report", "revenue")."""

AS_GOOD_SHARE: Final = 0.75
"""From this share of the best score on, a document may be meant as well: of these, "the latest" is the last by date."""

_OLDER: Final = 0.5
"""Factor of the scores of the others."""

_ASKS_LATEST: Final = late_pattern(
    r"\b(?:latest|most recent|newest|current (?:quarter|report|filing)"
    r"|neue?ste[nrms]?|jüngste[nrms]?"
    r"|aktuell(?:e|en|er|es|em|ste[nrms]?) (?:\w+bericht|Bericht|Quartal|Geschäftsjahr))\b",
    re.IGNORECASE,
)
_DIGIT: Final = late_pattern(r"\d")
_DATE: Final = late_pattern(r"\d\d/\d\d/\d{4}")
_NAME_WEIGHT: Final = 2
_K1: Final = 1.2
_B: Final = 0.3
_MAX_COUNT: Final = 15
_IN_NAME: Final = 16
_SLOT_SHIFT: Final = 5
_MAX_COMPARED: Final = 3
_COMPARED_FROM: Final = 0.5
"""A document is compared with the best if it alone has a name of the question and at least this share of the score."""

Floats = npt.NDArray[np.float32]


class _Postings(msgspec.Struct, frozen=True):
    """The live cards that contain a term."""

    slots: Ids
    counts: Ids
    in_name: npt.NDArray[np.bool_]

    def has(self, slot: int) -> bool:
        return bool((self.slots == slot).any())

    def names(self, slot: int) -> bool:
        return bool(self.in_name[self.slots == slot].any())


class _State:
    """The postings of all cards. Each card has a slot; the slot of a removed card stays unused until ``compacted``."""

    def __init__(self) -> None:
        self.postings: dict[str, array[int]] = {}
        self.alive = bytearray()
        self.lengths: array[float] = array("f")
        self.passages: array[int] = array("l")
        self.periods: array[int] = array("l")
        """The last date on each card as ``year * 10000 + month * 100 + day``; 0 if it has none."""
        self.documents: array[int] = array("q")
        self.slot_of: dict[int, int] = {}

    def add(self, document: int, counts: Counter[str], named: set[str], *, passages: int, period: int) -> None:
        slot = len(self.alive)
        self.lengths.append(sum(counts.values()))
        self.passages.append(passages)
        self.periods.append(period)
        self.documents.append(document)
        self.alive.append(0)
        for term, count in counts.items():
            packed = slot << _SLOT_SHIFT | (_IN_NAME if term in named else 0) | min(count, _MAX_COUNT)
            self.postings.setdefault(term, array("q")).append(packed)
        if (old := self.slot_of.get(document)) is not None:
            self.alive[old] = 0
        self.slot_of[document] = slot
        self.alive[slot] = 1  # last, so that readers see complete cards only

    def remove(self, document: int) -> None:
        if (slot := self.slot_of.pop(document, None)) is not None:
            self.alive[slot] = 0

    def compacted(self) -> _State:
        """The same cards without the unused slots."""
        alive = np.frombuffer(bytes(self.alive), np.uint8).astype(np.bool_)
        slots = np.cumsum(alive) - 1
        state = _State()
        state.alive = bytearray(b"\1" * int(alive.sum()))
        state.lengths = array("f", np.array(self.lengths)[alive].tolist())
        state.passages = array("l", np.array(self.passages)[alive].tolist())
        state.periods = array("l", np.array(self.periods)[alive].tolist())
        state.documents = array("q", np.array(self.documents)[alive].tolist())
        state.slot_of = {document: slot for slot, document in enumerate(state.documents)}
        for term, packed in self.postings.items():
            values = np.array(packed)
            values = values[alive[values >> _SLOT_SHIFT]]
            if len(values):
                moved = slots[values >> _SLOT_SHIFT] << _SLOT_SHIFT | values & (1 << _SLOT_SHIFT) - 1
                state.postings[term] = array("q", moved.tolist())
        return state


class DocumentCards:
    """The cards of one collection."""

    def __init__(self, cards: Iterable[DocumentCard] = ()) -> None:
        self._state = _State()
        self.replace((), cards)

    def __len__(self) -> int:
        return len(self._state.slot_of)

    @property
    def memory_bytes(self) -> int:
        state = self._state
        entries = sum(map(len, list(state.postings.values())))
        return 8 * entries + 150 * len(state.postings) + 100 * len(state.alive)

    def replace(self, documents: Iterable[int], cards: Iterable[DocumentCard]) -> None:
        """Add or replace ``cards``; those of ``documents`` without a card are removed."""
        state = self._state
        present: set[int] = set()
        for card in cards:
            named, opening = _terms(card.name), _terms(card.opening)
            counts = Counter(opening)
            for term in named:
                counts[term] += _NAME_WEIGHT
            period = last_period(f"{card.name} {card.opening}")
            state.add(card.document_id, counts, set(named), passages=card.passages, period=period)
            present.add(card.document_id)
        for document in set(documents) - present:
            state.remove(document)
        if len(state.alive) - len(state.slot_of) > max(64, len(state.slot_of) // 4):
            self._state = state.compacted()

    def judge(self, question: str, documents: Ids | None = None) -> DocumentJudgement:
        """Compare the names and dates of a question with the cards; ``documents`` restricts the choice."""
        return _CardReader(self._state).judge(question, documents)


class _CardReader:
    """A view of the state for one question."""

    def __init__(self, state: _State) -> None:
        self._state = state
        self._alive = np.frombuffer(bytes(state.alive), np.uint8).astype(np.bool_)
        self._count = int(self._alive.sum())
        self._found: dict[str, _Postings] = {}
        self._is_lower = False

    def judge(self, question: str, documents: Ids | None) -> DocumentJudgement:
        if not 0 < self._count <= MAX_CARDS:
            return no_judgement(question)
        words = [(word, _question_terms(word)) for word in question_words(question)]
        self._is_lower = question.islower()
        naming = [term for word, terms in words for term in terms if self._names_document(word, term)]
        dates = [term for term in _terms(question) if _DATE.fullmatch(term)] if _DIGIT.search(question) else []
        naming = list(dict.fromkeys([*naming, *dates, *period_names(question)]))
        scores = self._scores(naming)
        if documents is not None:
            allowed = np.array(
                [slot for d in documents.tolist() if (slot := self._state.slot_of.get(d)) is not None], int
            )
            kept = np.zeros_like(scores)
            kept[allowed[allowed < len(kept)]] = scores[allowed[allowed < len(kept)]]
            scores = kept
        if _ASKS_LATEST.search(question) and not YEAR.search(question):
            scores = self._prefer_latest(scores)
        best = int(np.argmax(scores)) if len(scores) else -1
        if best < 0 or scores[best] <= 0:
            return no_judgement(question)
        compared = self._compared(naming, scores, best)
        explaining = compared or [best]
        named = [terms for word, terms in words if any(self._names_document(word, term) for term in terms)]
        explained = [terms for terms in named if self._has_any(explaining, terms)]
        if not any(self._identifies(slot, word, terms) for word, terms in words for slot in explaining):
            return no_judgement(question)
        kept_words = [w.text for w, terms in words if not any(self._explains(s, w, terms) for s in explaining)]
        rest = " ".join([*kept_words, *question.split()[len(words) :]]) or question
        listed = np.flatnonzero(scores > 0)
        ids = np.array(self._state.documents, np.int64)[listed]
        shares = (scores[listed] / scores[best]).astype(np.float32)
        order = np.argsort(ids)
        return DocumentJudgement(
            documents=ids[order],
            scores=shares[order],
            confidence=confidence(self._state.passages[best], len(explained) / max(1, len(named))),
            rest=rest,
            compared=tuple(int(self._state.documents[slot]) for slot in compared),
        )

    def _prefer_latest(self, scores: Floats) -> Floats:
        """Of the documents that fit nearly as well as the best, the last by the dates on their cards."""
        as_good = np.flatnonzero((scores > 0) & (scores >= AS_GOOD_SHARE * float(scores.max(initial=0.0))))
        if len(as_good) < 2:
            return scores
        periods = np.array(self._state.periods, np.int64)[as_good]
        latest = periods == periods.max()
        preferred = scores.copy()
        preferred[as_good] *= np.where(latest, 1.0, _OLDER).astype(np.float32)
        preferred[as_good[latest]] = scores.max()
        return preferred

    def _names_document(self, word: QuestionWord, term: str) -> bool:
        """Whether a word is evidence of a document: a name or date.

        In a question without capital letters, selective words of documents' names are.
        """
        if word.is_name or word.is_date:
            return True
        if not self._is_lower:
            return False
        found = self._postings(term)
        return bool(found.in_name.any()) and self._is_selective(term)

    def _identifies(self, slot: int, word: QuestionWord, terms: Sequence[str]) -> bool:
        """Whether the card has this name, or its file name or title this date; a year on a cover is no evidence."""
        if word.is_name:
            return self._has_any([slot], terms)
        return any(self._postings(term).names(slot) for term in terms if self._names_document(word, term))

    def _has_any(self, slots: Sequence[int], terms: Sequence[str]) -> bool:
        return any(self._postings(term).has(slot) for term in terms for slot in slots)

    def _explains(self, slot: int, word: QuestionWord, terms: Sequence[str]) -> bool:
        """Whether the card says why the question has this word; then it says nothing about the page."""
        for term in terms:
            found = self._postings(term)
            if not found.has(slot):
                continue
            if word.is_date or (self._is_selective(term) and (word.is_name or found.names(slot))):
                return True
            if word.is_name and found.names(slot):
                return True
        return False

    def _compared(self, naming: Sequence[str], scores: Floats, best: int) -> list[int]:
        """Slots of the documents that a question compares: each has a selective name that the others lack."""
        chosen = [best]
        for term in naming:
            found = self._postings(term)
            if not len(found.slots) or not self._is_selective(term) or any(found.has(slot) for slot in chosen):
                continue
            slot = int(found.slots[np.argmax(scores[found.slots])])
            if scores[slot] >= _COMPARED_FROM * scores[best]:
                chosen.append(slot)
        return chosen[:_MAX_COMPARED] if len(chosen) > 1 else []

    def _scores(self, terms: Sequence[str]) -> Floats:
        """BM25 of each slot."""
        lengths = np.array(self._state.lengths, np.float32)[: len(self._alive)]
        mean = float(lengths[self._alive].mean()) if self._count else 1.0
        norms = _K1 * (1 - _B + _B * lengths / max(mean, 1e-9))
        scores = np.zeros(len(self._alive), np.float32)
        for term in terms:
            found = self._postings(term)
            counts = found.counts.astype(np.float32)
            scores[found.slots] += self._rarity(term) * counts * (_K1 + 1) / (counts + norms[found.slots])
        return scores

    def _rarity(self, term: str) -> float:
        cards = len(self._postings(term).slots)
        return math.log(1 + (self._count - cards + 0.5) / (cards + 0.5))

    def _is_selective(self, term: str) -> bool:
        return len(self._postings(term).slots) <= max(1, SELECTIVE_SHARE * self._count)

    def _postings(self, term: str) -> _Postings:
        if (known := self._found.get(term)) is not None:
            return known
        packed = np.array(self._state.postings.get(term, array("q"))[:], np.int64)
        packed = packed[packed >> _SLOT_SHIFT < len(self._alive)]
        packed = packed[self._alive[packed >> _SLOT_SHIFT]]
        found = _Postings(packed >> _SLOT_SHIFT, packed & _MAX_COUNT, (packed & _IN_NAME).astype(np.bool_))
        self._found[term] = found
        return found


def last_period(text: str) -> int:
    """The last date or year that a text names, as ``year * 10000 + month * 100 + day``; 0 if there is none.

    >>> last_period("10-Q for the quarterly period ended July 1, 2023"), last_period("Annual report 2021")
    (20230701, 20210000)
    """
    folded = fold(text)
    dates = [date.year * 10_000 + date.month * 100 + date.day for date in dates_in(folded)]
    return max([*dates, *(int(year) * 10_000 for year in YEAR.findall(folded))], default=0)


@lru_cache(maxsize=4096)
def _word_terms(word: str) -> tuple[str, ...]:
    return tuple(passage_terms(word, language=DEFAULT_LANGUAGE)[0])


def _question_terms(word: QuestionWord) -> list[str]:
    if not word.text.isascii() and max(word.text) >= FIRST_UNSPACED:
        return []
    return [term for term in dict.fromkeys(_terms(word.text)) if len(term) > 1]


def _terms(text: str) -> Sequence[str]:
    """Terms of a card or a word: always by the same stemmer, because names are not translated."""
    return _word_terms(text) if len(text) < 40 else passage_terms(text, language=DEFAULT_LANGUAGE)[0]
