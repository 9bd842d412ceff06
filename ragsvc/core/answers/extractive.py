"""The built-in answerer: picks the sentences that answer a question, word for word, or says that there are none.

Pure: a question and search hits in, sentences with their places out. It finds; it does not write.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np

from ragsvc.core.ports.embedding import Vectors
from ragsvc.core.retrieval.answerability import ABSTAIN_BELOW
from ragsvc.core.retrieval.conversation_query import content_words
from ragsvc.core.retrieval.search import SearchHit
from ragsvc.core.text.sentences import Span, sentence_spans
from ragsvc.core.text.word_starts import plain_text, word_start

EmbedTexts = Callable[[Sequence[str]], Vectors]
"""Unit vectors of a few texts; the question is the first of them."""

MAX_SENTENCES: Final = 4
MAX_PASSAGES: Final = 8
"""Hits that are read. With ten, the first sentence was right less often: xquad in English -0.5 ± 0.24 points of 78."""

MAX_SENTENCE_CHARACTERS: Final = 480
CLOSE_TO_BEST: Final = 0.85
"""A further sentence must score this share of the best one's score."""

_CONTEXT_SHARE: Final = 0.35
_RANK_WEIGHT: Final = 0.5
_KIND_WEIGHT: Final = 0.25
_COSINE_WEIGHT: Final = 0.8
_SAME_WORDS: Final = 0.7
_DIGIT: Final = re.compile(r"\d")
_DATE: Final = re.compile(
    r"\b(?:19|20)\d\d\b|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.? \d", re.IGNORECASE
)
_NAME: Final = re.compile(r"(?<=[\w,;] )[A-Z][\w'’-]+")  # noqa: RUF001 - the apostrophe of printed text
_ASKS_NUMBER: Final = re.compile(
    r"\b(?:how (?:many|much|long|old|far|high|large|big)|percent\w*|number of|amount|total|rate|price|cost"
    r"|wie ?viele?|сколько)\b|多少|几",
    re.IGNORECASE,
)
_ASKS_DATE: Final = re.compile(
    r"\b(?:when|what (?:year|date|day|month)|which (?:year|date|day|month)|wann|когда)\b", re.IGNORECASE
)
_ASKS_NAME: Final = re.compile(r"\b(?:who|whom|whose|wer|wem|wen|кто|кого)\b|谁", re.IGNORECASE)


class AnswerSentence(msgspec.Struct, frozen=True):
    """A sentence that stands at ``start`` to ``end`` (characters) of the text of ``hits[passage_index]``."""

    text: str
    passage_index: int
    start: int
    end: int


class ExtractedAnswer(msgspec.Struct, frozen=True):
    """Sentences, best first; none when ``abstained``."""

    sentences: list[AnswerSentence]
    abstained: bool


class _Scored(msgspec.Struct, frozen=True):
    sentence: AnswerSentence
    plain: str
    score: float


def answer(
    question: str, hits: Sequence[SearchHit], *, answerable: float, embed: EmbedTexts | None = None
) -> ExtractedAnswer:
    """Choose one to four sentences that answer the question, or none.

    Args:
        question: self-contained (``core.retrieval.conversation_query`` makes it so).
        hits: best first; the first ``MAX_PASSAGES`` are read.
        answerable: the search's own judgement in 0..1 (``SearchResult.answerable``). It was made over all candidates
            and is not repeated over the few hits here; below ``ABSTAIN_BELOW`` there is no answer.
        embed: adds likeness of meaning to that of words, at the cost of embedding some dozens of sentences.
    """
    if answerable < ABSTAIN_BELOW:
        return ExtractedAnswer([], abstained=True)
    chosen = _choose(_score_sentences(question, content_words(question), hits[:MAX_PASSAGES], embed))
    return ExtractedAnswer(chosen, abstained=not chosen)


def _score_sentences(
    question: str, asked: Sequence[str], hits: Sequence[SearchHit], embed: EmbedTexts | None
) -> list[_Scored]:
    found = [
        AnswerSentence(hit.passage.text[start:end], index, start, end)
        for index, hit in enumerate(hits)
        for start, end in _quotable(hit.passage.text, asked)
    ]
    if not found:
        return []
    plain = [plain_text(sentence.text) for sentence in found]
    starts = [start for start in map(word_start, asked) if start]
    holds = np.array([[start in text for start in starts] for text in plain], dtype=np.float64).reshape(len(found), -1)
    weights = np.log(1 + len(found) / (0.5 + holds.sum(axis=0)))
    around = np.array([_around(hits, found, at, starts) for at in range(len(found))]).reshape(len(found), -1)
    shares = (np.maximum(holds, _CONTEXT_SHARE * around) * weights).sum(axis=1) / max(float(weights.sum()), 1e-9)
    cosines = np.zeros(len(found))
    if embed is not None:
        vectors = embed([question, *(sentence.text for sentence in found)])
        cosines = np.asarray(vectors[1:] @ vectors[0], dtype=np.float64)
    own = holds.sum(axis=1)
    best = max(hit.score for hit in hits) or 1.0
    scored: list[_Scored] = []
    for at, sentence in enumerate(found):
        if not own[at] and cosines[at] < 0.35:
            continue
        score = float(shares[at]) + _COSINE_WEIGHT * float(cosines[at])
        score += _RANK_WEIGHT * hits[sentence.passage_index].score / best
        score += _KIND_WEIGHT * _kind_fits(question, sentence.text, asked) - _penalty(sentence.text)
        scored.append(_Scored(sentence, plain[at], score))
    return sorted(scored, key=lambda one: -one.score)


def _around(hits: Sequence[SearchHit], found: Sequence[AnswerSentence], at: int, starts: Sequence[str]) -> list[bool]:
    """Which words stand near a sentence: in headings, names, or the sentence before it."""
    sentence = found[at]
    passage = hits[sentence.passage_index].passage
    before = found[at - 1].text if at and found[at - 1].passage_index == sentence.passage_index else ""
    near = plain_text(" ".join((passage.filename, passage.title or "", *passage.headings, before)))
    return [start in near for start in starts]


def _kind_fits(question: str, text: str, asked: Sequence[str]) -> float:
    """1 when the sentence has the kind of thing asked for (a number, a date, a name) beyond the question's own."""
    if _ASKS_DATE.search(question):
        return 1.0 if _DATE.search(text) else 0.0
    if _ASKS_NUMBER.search(question):
        known = {word for word in asked if _DIGIT.search(word)}
        return 1.0 if set(re.findall(r"\d[\d.,]*", text)) - known else 0.0
    if _ASKS_NAME.search(question):
        return 1.0 if any(name.lower() not in asked for name in _NAME.findall(_DATE.sub(" ", text))) else 0.0
    return 0.5


def _penalty(text: str) -> float:
    """What speaks against quoting: a question, a heading or a fragment, a bare row of figures."""
    words = text.split()
    cost = 0.0
    if text.endswith(("?", "？")):  # noqa: RUF001 - the full-width mark
        cost += 0.4
    if len(words) < 4 and text.isascii():
        cost += 0.3
    letters = sum(character.isalpha() for character in text)
    return cost + (0.2 if letters < 0.3 * len(text) else 0.0)


def _choose(scored: Sequence[_Scored]) -> list[AnswerSentence]:
    """The best sentence and those nearly as good that say something else."""
    chosen: list[_Scored] = []
    for one in scored:
        if len(chosen) == MAX_SENTENCES or (chosen and one.score < CLOSE_TO_BEST * chosen[0].score):
            break
        if not any(_overlap(one.plain, other.plain) > _SAME_WORDS for other in chosen):
            chosen.append(one)
    return [one.sentence for one in chosen]


def _overlap(one: str, two: str) -> float:
    """The share of the shorter text's words that the other has as well."""
    ours, theirs = set(one.split()), set(two.split())
    return len(ours & theirs) / max(1, min(len(ours), len(theirs)))


def _quotable(text: str, asked: Sequence[str]) -> list[Span]:
    """Sentences; of one that is too long to quote (a table without borders), the lines with most of the words."""
    spans: list[Span] = []
    for start, end in sentence_spans(text):
        if end - start <= MAX_SENTENCE_CHARACTERS:
            spans.append((start, end))
        else:
            spans.append(_window(text, start, end, asked))
    return spans


def _window(text: str, start: int, end: int, asked: Sequence[str]) -> Span:
    """The best run of whole lines (words, where there are no lines) of at most the quotable length."""
    pieces = [match.span() for match in re.finditer(r"\S[^\n]*(?<=\S)", text[start:end])]
    if len(pieces) < 2:
        pieces = [match.span() for match in re.finditer(r"\S+", text[start:end])]
    starts = [word for word in map(word_start, asked) if word]
    values = [sum(word in plain_text(text[start + a : start + b]) for word in starts) for a, b in pieces]
    best, chosen, first, total = -math.inf, (start, min(end, start + MAX_SENTENCE_CHARACTERS)), 0, 0
    for last, (_, stop) in enumerate(pieces):
        total += values[last]
        while first < last and stop - pieces[first][0] > MAX_SENTENCE_CHARACTERS:
            total -= values[first]
            first += 1
        if total > best and stop - pieces[first][0] <= MAX_SENTENCE_CHARACTERS:
            best, chosen = total, (start + pieces[first][0], start + stop)
    return chosen
