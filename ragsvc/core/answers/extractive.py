"""The built-in extractive answerer: quotes the sentences that answer a question, or gives no answer.

Pure: takes a question and search hits, returns sentences with their positions. It generates no text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np
from msgspec.structs import replace

from ragsvc.core.answers.table_rows import STRUCK_OUT, row_statements, table_spans
from ragsvc.core.documents import StoredPassage
from ragsvc.core.ports.embedding import Vectors
from ragsvc.core.retrieval.answerability import ABSTAIN_BELOW
from ragsvc.core.retrieval.document_questions import document_question
from ragsvc.core.retrieval.search_values import SearchHit
from ragsvc.core.text.content_words import content_words
from ragsvc.core.text.sentences import Span, quotable_spans
from ragsvc.core.text.stop_words import QUESTION_STOP_WORDS
from ragsvc.core.text.word_starts import plain_text, word_start

EmbedTexts = Callable[[Sequence[str]], Vectors]
"""Unit vectors ``(n, dim)`` of a few texts, the first of which is the question."""

MAX_SENTENCES: Final = 4
MAX_PASSAGES: Final = 8
"""Number of hits that are read. With ten instead of eight, the first sentence holds the answer less often: on xquad in
English -0.50 ± 0.24 percentage points of 77.7."""

MAX_SENTENCE_CHARACTERS: Final = 480
CLOSE_TO_BEST: Final = 0.85
"""Minimum score of a further sentence, as a share of the best score."""

_CONTEXT_SHARE: Final = 0.35
_RANK_WEIGHT: Final = 0.5
_KIND_WEIGHT: Final = 0.25
_COSINE_WEIGHT: Final = 0.8
_SAME_WORDS: Final = 0.7
_PARALLEL_WORDS: Final = 0.6
_POOR_QUOTE: Final = 0.3
_MIN_COSINE_WITHOUT_WORDS: Final = 0.35
"""Minimum cosine of a sentence that shares no word with the question."""

_WORD: Final = re.compile(r"\w")
_SPACE_BEFORE_STOP: Final = re.compile(r"(?<=\w) (?=[.,;:!?](?:\s|\Z))")
_DIGIT: Final = re.compile(r"\d")
_NUMBER: Final = re.compile(r"(?<![^\W_])\d[\d.,]*")
_FOOTER: Final = re.compile(
    r"(?:page|seite|стр\.|p\.)\s*\d+(?:\s*(?:of|von|из|/)\s*\d+)?\Z|.*\|\s*(?:page\s*)?\d+\Z|\d+\s*\|", re.IGNORECASE
)
_NUMBER_WORDS: Final = frozenset(
    """zero one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand
    half quarter double once twice first second third eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf
    hundert halb один два три четыре пять шесть семь восемь девять десять""".split()
)
_NEGATIONS: Final = frozenset(
    """no not never none nothing neither nor without cannot kein keine keinen keinem keiner nicht nie niemals ohne не
    нет ни без никогда""".split()
)
_DATE: Final = re.compile(
    r"\b(?:19|20)\d\d\b|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.? \d", re.IGNORECASE
)
_NAME: Final = re.compile(r"(?<=[\w,;] )[A-Z][\w'’-]+")  # noqa: RUF001 - the typographic apostrophe
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
    """A sentence: ``text`` is ``hits[passage_index].passage.text[start:end]`` without what is struck out.

    The text of a row of a table consists of its words and those of the headings (``table_rows``).
    """

    text: str
    passage_index: int
    start: int
    end: int
    row: bool = False


class ExtractedAnswer(msgspec.Struct, frozen=True):
    """Sentences, best first; none when ``abstained``."""

    sentences: list[AnswerSentence]
    abstained: bool


class _Scored(msgspec.Struct, frozen=True):
    sentence: AnswerSentence
    plain: str
    score: float
    asked: frozenset[str]
    """The asked words that the sentence has."""


def answer(
    question: str, hits: Sequence[SearchHit], *, answerable: float, embed: EmbedTexts | None = None
) -> ExtractedAnswer:
    """Choose one to four sentences that answer the question, or none.

    Args:
        question: a complete question; see ``core.retrieval.conversation_query``.
        hits: best first; the first ``MAX_PASSAGES`` are read.
        answerable: ``SearchResult.answerable``. Below ``ABSTAIN_BELOW`` there is no answer. The search computes it over
            all candidates; recomputed over these hits alone it would differ.
        embed: adds semantic similarity to the scores, at the cost of embedding some dozens of sentences.
    """
    if answerable < ABSTAIN_BELOW:
        return ExtractedAnswer([], abstained=True)
    asked = document_question(question)
    if asked is not None and not asked.topic:
        chosen = _first_sentences(hits)
    else:
        chosen = _choose(_score_sentences(question, content_words(question), hits[:MAX_PASSAGES], embed))
    return ExtractedAnswer(chosen, abstained=not chosen)


def _first_sentences(hits: Sequence[SearchHit]) -> list[AnswerSentence]:
    """The first sentences of the pages or documents asked for, which have the highest score, in reading order."""
    found = [
        sentence
        for index, hit in enumerate(hits)
        if hit.score >= hits[0].score
        for sentence in _sentences(hit.passage, index, ())
    ]
    good = [sentence for sentence in found if _penalty(sentence.text) < _POOR_QUOTE]
    return (good or found)[:MAX_SENTENCES]


def _score_sentences(
    question: str, asked: Sequence[str], hits: Sequence[SearchHit], embed: EmbedTexts | None
) -> list[_Scored]:
    found = [sentence for index, hit in enumerate(hits) for sentence in _sentences(hit.passage, index, asked)]
    if not found:
        return []
    plain = [plain_text(sentence.text) for sentence in found]
    starts = [start for start in map(word_start, asked) if start]
    holds = np.array([[start in text for start in starts] for text in plain], dtype=np.float64).reshape(len(found), -1)
    weights = np.log(1 + len(found) / (0.5 + holds.sum(axis=0)))
    heads = [_head(hit) for hit in hits]
    around = np.array(
        [_around(heads[sentence.passage_index], _before(found, plain, at), starts) for at, sentence in enumerate(found)]
    ).reshape(len(found), -1)
    shares = (np.maximum(holds, _CONTEXT_SHARE * around) * weights).sum(axis=1) / max(float(weights.sum()), 1e-9)
    cosines = np.zeros(len(found))
    if embed is not None:
        vectors = embed([question, *(sentence.text for sentence in found)])
        cosines = np.asarray(vectors[1:] @ vectors[0], dtype=np.float64)
    own = holds.sum(axis=1)
    best = max(hit.score for hit in hits) or 1.0
    scored: list[_Scored] = []
    for at, sentence in enumerate(found):
        if not own[at] and cosines[at] < _MIN_COSINE_WITHOUT_WORDS:
            continue
        score = float(shares[at]) + _COSINE_WEIGHT * float(cosines[at])
        score += _RANK_WEIGHT * hits[sentence.passage_index].score / best
        score += _KIND_WEIGHT * _kind_fits(question, sentence.text, asked)
        score -= 0.0 if sentence.row else _penalty(sentence.text)
        shared = frozenset(start for start, held in zip(starts, holds[at], strict=True) if held)
        scored.append(_Scored(sentence, plain[at], score, shared))
    return sorted(scored, key=lambda scored_sentence: -scored_sentence.score)


def _sentences(passage: StoredPassage, index: int, asked: Sequence[str]) -> list[AnswerSentence]:
    """The sentences of a passage and the statements of its tables' rows, in order, without what is struck out."""
    text = passage.text
    in_tables = table_spans(passage)
    found = [
        AnswerSentence(text[start:end], index, start, end)
        for start, end in _quotable(text, asked)
        if not any(start < stop and begin < end for begin, stop in in_tables)
    ]
    starts = [start for start in map(word_start, asked) if start]
    found += [
        AnswerSentence(statement.text, index, statement.start, statement.end, row=True)
        for statement in row_statements(passage, starts)
    ]
    if "~~" in text:
        found = [sentence for sentence in map(_without_struck, found) if _WORD.search(sentence.text)]
    return sorted(found, key=lambda sentence: sentence.start) if in_tables else found


def _without_struck(sentence: AnswerSentence) -> AnswerSentence:
    text = " ".join(STRUCK_OUT.sub(" ", sentence.text).split()) if "~~" in sentence.text else sentence.text
    return replace(sentence, text=_SPACE_BEFORE_STOP.sub("", text))


def _head(hit: SearchHit) -> str:
    """The plain text of a passage's names and headings."""
    passage = hit.passage
    captions = [table.caption for table in passage.tables]
    return plain_text(" ".join((passage.filename, passage.title or "", *passage.headings, *captions)))


def _before(found: Sequence[AnswerSentence], plain: Sequence[str], at: int) -> str:
    """The plain text of the preceding sentence of the same passage."""
    return plain[at - 1] if at and found[at - 1].passage_index == found[at].passage_index else ""


def _around(head: str, before: str, starts: Sequence[str]) -> list[bool]:
    """Which words occur near a sentence: in headings, names, or the preceding sentence."""
    return [start in head or start in before for start in starts]


def _kind_fits(question: str, text: str, asked: Sequence[str]) -> float:
    """1 if the sentence has a new value of the type asked for (number, date, name), 0 if not, 0.5 without a type."""
    if _ASKS_DATE.search(question):
        return 1.0 if _DATE.search(text) else 0.0
    if _ASKS_NUMBER.search(question):
        known = {word for word in asked if _DIGIT.search(word)}
        return 1.0 if set(_NUMBER.findall(text)) - known else 0.0
    if _ASKS_NAME.search(question):
        return 1.0 if any(name.lower() not in asked for name in _NAME.findall(_DATE.sub(" ", text))) else 0.0
    return 0.5


def _penalty(text: str) -> float:
    """Deduction for sentences that make poor quotes: questions, labels, footers, fragments, rows of numbers."""
    words = text.split()
    cost = 0.0
    if text.endswith(("?", "？")):  # noqa: RUF001 - the full-width question mark
        cost += 0.4
    if text.endswith((":", "：")) or _FOOTER.match(text):  # noqa: RUF001 - the full-width colon
        cost += 0.4
    if len(words) < 4 and text.isascii():
        cost += 0.3
    letters = sum(character.isalpha() for character in text)
    return cost + (0.2 if letters < 0.3 * len(text) else 0.0)


def _choose(scored: Sequence[_Scored]) -> list[AnswerSentence]:
    """The best sentence, and sentences with nearly the same score that add a fact."""
    chosen: list[_Scored] = []
    for candidate in scored:
        if len(chosen) == MAX_SENTENCES or (chosen and candidate.score < CLOSE_TO_BEST * chosen[0].score):
            break
        if not any(_repeats(candidate, other) or _is_other_row(candidate, other) for other in chosen):
            chosen.append(candidate)
    return [scored_sentence.sentence for scored_sentence in chosen]


def _is_other_row(candidate: _Scored, chosen: _Scored) -> bool:
    """Whether a row of a table lacks a word asked for that a chosen row has."""
    return candidate.sentence.row and chosen.sentence.row and candidate.asked < chosen.asked


def _repeats(candidate: _Scored, chosen: _Scored) -> bool:
    """Whether a sentence in nearly the words of a chosen one adds no fact to it.

    Parallel statements ("Adults take two tablets.", "Children take one tablet.") share most words and differ in a
    number, a name or a negation: each is a fact. But a parallel statement that lacks a word asked for, such as the
    year, is about something else.
    """
    overlap = _overlap(candidate.plain, chosen.plain)
    if overlap > _PARALLEL_WORDS and candidate.asked < chosen.asked:
        return True
    if overlap <= _SAME_WORDS:
        return False
    added = set(candidate.plain.split()) - set(chosen.plain.split())
    return not any(_is_fact(word, candidate.sentence.text) for word in added)


def _is_fact(word: str, text: str) -> bool:
    """Whether a plain word is a number, a negation, or a name or first word of the text."""
    if _DIGIT.search(word) or word in _NUMBER_WORDS or word in _NEGATIONS:
        return True
    return (
        word not in QUESTION_STOP_WORDS
        and re.search(rf"(?<![^\W_]){word[0].upper()}{re.escape(word[1:])}", text) is not None
    )


def _overlap(first: str, second: str) -> float:
    """The share of the shorter text's words that both texts have."""
    first_words, second_words = set(first.split()), set(second.split())
    return len(first_words & second_words) / max(1, min(len(first_words), len(second_words)))


def _quotable(text: str, asked: Sequence[str]) -> list[Span]:
    """Spans of sentences; of a sentence too long to quote (such as a table), the lines with the most words asked."""
    spans: list[Span] = []
    for start, end in quotable_spans(text):
        if end - start <= MAX_SENTENCE_CHARACTERS:
            spans.append((start, end))
        else:
            spans.append(_window(text, start, end, asked))
    return spans


def _window(text: str, start: int, end: int, asked: Sequence[str]) -> Span:
    """The consecutive lines (or words, if there is one line) with the most words asked, within the maximum length."""
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
