"""The built-in extractive answerer: quotes the sentences that answer a question, or gives no answer.

Pure: takes a question and search hits, returns sentences with their positions. It generates no text.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from ragsvc.core.answers.confidence import UNSURE_BELOW, AnswerSignals, confidence
from ragsvc.core.answers.synonyms import synonym_starts
from ragsvc.core.answers.table_rows import STRUCK_OUT, row_statements, table_spans
from ragsvc.core.answers.text_rows import LIST_ITEM, TextRow, heading_for, is_label, is_separator, text_rows
from ragsvc.core.answers.value_types import (
    ASKS_AUTHOR,
    ASKS_CONDITION,
    ASKS_DATE,
    ASKS_DIFFERENCE,
    ASKS_FIGURE,
    ASKS_MEASURE,
    ASKS_MONEY,
    ASKS_NUMBER,
    ASKS_SHARE,
    NEGATIONS,
    NUMBER_WORDS,
    STATES_DIFFERENCE,
    UNIT_OF_MONEY,
    asks_quantity,
    asks_value,
    counted_things,
    kind_fits,
)
from ragsvc.core.answers.whole_parts import ASKS_PROCEDURE, INSTRUCTS, is_step, procedure, reference_entry
from ragsvc.core.documents import StoredPassage
from ragsvc.core.ports.embedding import Vectors
from ragsvc.core.retrieval.answerability import ABSTAIN_BELOW, MISSING_BELOW
from ragsvc.core.retrieval.asking_clauses import asking_text
from ragsvc.core.retrieval.document_questions import document_question
from ragsvc.core.retrieval.question_names import comparable_names, degree_of, name_text, question_names
from ragsvc.core.retrieval.search_values import SearchHit
from ragsvc.core.text.content_words import content_words, pieces
from ragsvc.core.text.late_patterns import late_pattern
from ragsvc.core.text.sentences import Span, quotable_spans
from ragsvc.core.text.spellings import MONTH_NAMES
from ragsvc.core.text.stop_words import QUESTION_STOP_WORDS, REPHRASED_WORDS
from ragsvc.core.text.word_starts import plain_text, word_start, word_stem

EmbedTexts = Callable[[Sequence[str]], Vectors]
"""Unit vectors ``(n, dim)`` of a few texts, the first of which is the question."""

MAX_SENTENCES: Final = 4
MAX_PASSAGES: Final = 8
"""Number of hits that are read from all documents. With ten instead of eight, the first sentence holds the answer less
often: on xquad in English -0.50 ± 0.24 percentage points of 77.7."""

_MAX_OF_BEST_DOCUMENT: Final = 10
"""Number of hits among which those of the best hit's document are read: the names of a question stand in most passages
of its document, and outweigh there the words that tell the passages apart."""

MAX_SENTENCE_CHARACTERS: Final = 480
CLOSE_TO_BEST: Final = 0.85
"""Minimum score of a further sentence, as a share of the best score."""

_CONTEXT_SHARE: Final = 0.35
_HEADING_SHARE: Final = 0.8
"""Weight of a word in the headings of a table row, or in the heading directly before a sentence."""

_UNDER_HEADING: Final = 3
"""Number of sentences after a heading whose words count as theirs with ``_HEADING_SHARE``."""

_SYNONYM_SHARE: Final = 0.6
"""Weight of a synonym of a word that the sentence lacks."""

_OTHER_LABEL: Final = 0.3
"""Deduction for a table row whose label has other words than the question, as the share of these words."""

_OTHER_YEARS: Final = 0.6
"""Deduction for a sentence about other years than the question's."""

_MIN_SHARE: Final = 0.15
_MIN_NAMES: Final = 0.1
"""Minimum of ``_Scored.share`` and ``_Scored.names`` of the best sentence; below it, the answer is doubtful. With a
minimum share of 0.3 instead of 0.15, 6 % of the correct answers to xquad in English are lost instead of 0.3 %."""

_OF_ONE_DOCUMENT: Final = 3
"""Number of passages from which the names in a document's passages are taken for those of the document."""

_ROW_NAMES: Final = 0.4
"""Added to the score of a table row that has the names of the question, as the mean of their degrees."""

_VALUE_FROM: Final = 0.9
"""If a sentence with this share of the best score has a value of the type asked for, sentences without are dropped."""

_STRICT_VALUE_FROM: Final = 0.6
"""The same for amounts of money and shares, which few sentences have by chance."""

_COUNTED: Final = 0.15
"""Added to the score of a sentence that has a number before the things that the question counts."""

_NEARBY: Final = 250
"""Characters before and after a sentence in which further words of the question are searched."""

_NEIGHBOURS: Final = 2
_FAR: Final = 1000
_DEFINED: Final = 0.1
"""Added to the score of a sentence that begins as a definition of the thing asked about."""

_CASES: Final = 8
"""Number of the best sentences among which the case is searched that a question describes."""

_INSTRUCTIONS: Final = 4
"""Number of sentences that are quoted after such a case."""

_CASE: Final = 0.3
"""Added to the score of a sentence that begins with a case, if the question describes one."""

_OPEN: Final = 0.4
"""Deduction for a sentence that says what is examined ("whether ..."), if the question asks whether it is so."""

_ADDRESSED: Final = 0.5
"""Added to the score of a sentence that says for whom something is, if the question asks it."""

_INSTRUCTS: Final = 0.25
"""Added to the score of an instruction, if the question asks how to do something."""

_CONDITIONAL: Final = 0.1
"""Added to the score of a sentence with a condition, if the question asks for one."""

_RANK_WEIGHT: Final = 0.5
_KIND_WEIGHT: Final = 0.25
_COSINE_WEIGHT: Final = 0.8
_SAME_WORDS: Final = 0.7
_PARALLEL_WORDS: Final = 0.6
_POOR_QUOTE: Final = 0.3
_MIN_COSINE_WITHOUT_WORDS: Final = 0.35
"""Minimum cosine of a sentence that shares no word with the question."""

_REASONS: Final = 2
"""Number of sentences that are quoted after a statement whose reason is asked for."""

_KINDS_OF_TEXTS: Final = frozenset(
    "paper papers document documents report reports article articles brochure slide slides page pages text".split()
)
"""What a question calls the text that it asks about; the text itself rarely says it."""

_UNMARKED: Final = 4
"""Number of lines without list marks that are quoted after the heading asked for."""

_ANNOUNCED: Final = 3
"""Number of sentences that are quoted after one that announces them ("the following two")."""

_ENUMERATED: Final = 8
"""Number of sentences after an announcement in which "First", "Second" and so on are searched."""

_LABEL: Final = 0.2
"""Deduction for a heading or label."""

_TITLE_WORDS: Final = 3
_LONGEST_HEADING: Final = 20
"""Words of a heading."""

_HEADED: Final = 0.5
"""Share of the question's words in the heading above a sentence, from which the sentence needs none of them."""

_IDENTIFIER_WEIGHT: Final = 2.0
_IDENTIFIER: Final = late_pattern(r"(?<!\w)(?:[A-Z]{2,5}|(?<=[a-z] )[B-HJ-Z]|(?=\w*\d)(?=\w*[^\W\d])\w+)(?!\w)")
"""A code, letter or abbreviation, such as ``NY22``, ``Q`` or ``TD``. It is in the row that a question is about."""
_YEAR: Final = late_pattern(r"(?<= )(?:19|20)\d\d(?= )")
_DECIMAL: Final = late_pattern(r"(?<![\d.,])\d+\.\d{1,2}(?![\d.,]*\d)")
_WORD: Final = late_pattern(r"\w")
_PAGE_LINE: Final = late_pattern(
    r"[^|\n]{1,80}(?:\|[^|\n]{1,80}){0,3}\|\s*(?:page\s*)?\d{1,4}"
    r"|(?:page|seite|стр\.|p\.)\s*\d{1,4}(?:\s*(?:of|von|из|/)\s*\d{1,4})?",
    re.IGNORECASE,
)
"""A line with the page number at the top or bottom of a page, such as ``Apple Inc. | Form 10-Q | 13``."""
_SPACE_BEFORE_STOP: Final = late_pattern(r"(?<=\w) (?=[.,;:!?](?:\s|\Z))")
_DIGIT: Final = late_pattern(r"\d")
_FOOTER: Final = late_pattern(
    r"(?:page|seite|стр\.|p\.)\s*\d+(?:\s*(?:of|von|из|/)\s*\d+)?\Z|.*\|\s*(?:page\s*)?\d+\Z|\d+\s*\|"
    r"|.{0,60}(?:\bcopyright\b|©|\ball rights reserved\b)"
    r"|(?:dear|hello|sehr geehrte\w*|liebe[rs]?|bonjour|ch[eè]re?|madame|monsieur"
    r"|estimad[oa]s?|querid[oa]s?)\b.{0,60},\Z",
    re.IGNORECASE,
)

_NAMES_A_THING: Final = late_pattern(r"\A(?!\S* ?(?:\w*(?:an|ish|ese)|french|dutch|greek|swiss) \Z)[^\d]{7,}\Z")
"""A name without numbers that is no adjective of a country: "the French capital" is often only "the capital"."""

_FRAGMENT: Final = late_pattern(r"(?:When|If|While|Because|Since|Although)\b[^,;:]{1,120}\.")
"""A clause without its main clause, as the items of some lists are."""


_ASKS_DEFINITION: Final = late_pattern(
    r"\W*what (?:is|are|does|do|can) (?:the |an? )?((?:[\w'\u2019-]+ ?){1,4})", re.IGNORECASE
)
_WHETHER: Final = late_pattern(r" whether ")
_ASKS_WHETHER: Final = late_pattern(
    r"\W*(?:is|are|was|were|do|does|did|can|could|will|would|should|has|have|had|may|must)\b", re.IGNORECASE
)
_ASKS_REASON: Final = late_pattern(r"\b(?:why|for what reasons?|wieso|warum|weshalb)\b", re.IGNORECASE)
_REASON: Final = late_pattern(
    r"\b(?:because|since|due to|as a result|owing to|so that|in order to|reasons?|therefore|weil|denn|wegen|deshalb)\b",
    re.IGNORECASE,
)
_ASKS_FOR_WHOM: Final = late_pattern(
    r"\bfor whom\b|\bwho (?:is|are)\b[^?]{1,100}\b(?:meant |intended |designed )?for\W*\Z", re.IGNORECASE
)
_DESCRIBES_CASE: Final = late_pattern(
    r"\bwhat (?:should|can|must|do|could) (?:i|we|you|one) do\b.{0,20}\b(?:if|when)\b", re.IGNORECASE
)
_BEGINS_WITH_CASE: Final = late_pattern(r"\A (?:if|when) ")
_SAYS_FOR_WHOM: Final = late_pattern(
    r"\A for (?!example|instance|more )"
    r"| (?:meant|intended|designed|suitable|open|aimed|targeted) (?:for|to|at) | (?:is|are) for "
)
_STATES_CONDITION: Final = late_pattern(r" (?:if|unless|once|provided that|as soon as) ")
_REFERS_BACK: Final = late_pattern(
    r"\A(?:this|these|that|it|they|therefore|thus|hence|for this reason|as a result|consequently|so)\b"
    r"|\b(?:this|these|such) (?:an? )?(?!(?:report|paper|document|section|study|survey|year|page)s?\b)[a-z]+",
    re.IGNORECASE,
)
_CONDITION: Final = late_pattern(
    r".*\b(?:by|for|in|at|on|with|from|into|through|via) (?!what|which|one\b)"
    r"((?![A-Z])[^\W\d_]+(?:[ -](?![A-Z])[^\W\d_]+){0,3})[ -]?\?",
    re.DOTALL,
)
"""The last phrase of a question, without names and numbers, which are compared apart; matched from its beginning."""

_ASKS_ACTION: Final = late_pattern(
    r"\b(?:what (?:should|can|must|do|could) (?:i|we|you|one) (?:do|check|try)|what to (?:do|check|try)"
    r"|how (?:can|do|should) (?:i|we|you|one) (?:fix|solve|repair)|was (?:kann|soll|muss|mache) ich (?:tun|machen)?)\b",
    re.IGNORECASE,
)
_ANNOUNCES: Final = late_pattern(
    r"\bfollowing (?:[\w-]+ ){1,5}(?:that|which|who|where)\b[^.:]*\.\Z|\b(?:as follows|the following)\b.{0,40}[.:]\Z",
    re.IGNORECASE,
)
_NUMBERED: Final = late_pattern(r"\(?\d{1,2}[.)] ")
_ORDINAL: Final = late_pattern(
    r"(?:first|second|third|fourth|finally|lastly|erstens|zweitens|drittens)\w*\b", re.IGNORECASE
)


class AnswerSentence(msgspec.Struct, frozen=True):
    """A sentence: ``text`` is ``hits[passage_index].passage.text[start:end]`` without what is struck out.

    The text of a ``row`` of a table consists of its words and those of the headings (``table_rows``).
    """

    text: str
    passage_index: int
    start: int
    end: int
    row: bool = False


class ExtractedAnswer(msgspec.Struct, frozen=True):
    """Sentences, best first; none when ``abstained``.

    ``doubtful`` tells that the best sentences do not state the matter: they have few of the words asked for, their
    passage lacks most names of the question, or the documents state it for other years only. ``confidence`` estimates
    whether the sentences answer the question; see ``core.answers.confidence``.
    """

    sentences: list[AnswerSentence]
    abstained: bool
    doubtful: bool = False
    confidence: float = 1.0

    @property
    def unsure(self) -> bool:
        """Whether the sentences are the nearest ones and may not answer the question."""
        return self.confidence < UNSURE_BELOW


class _Scored(msgspec.Struct, frozen=True):
    sentence: AnswerSentence
    plain: str
    score: float
    asked: frozenset[str]
    """The asked words that the sentence has."""

    share: float
    """The share of the asked words, by rarity, that the sentence and the texts around it have."""

    words: float
    """The same share with equal weights: a word that no sentence has ("opening" for "opens") weighs most by rarity."""

    names: float
    """The mean degree to which the passage has the names of things in the question; see ``degree_of``."""

    other_years: bool
    """Whether it is about other years than the question's."""

    fits: float
    """See ``kind_fits``."""

    has_value: bool
    """Whether it has the number, date or amount of money, or names the people, that the question asks for."""

    heading: AnswerSentence | None
    """What to quote before a table row, so that its cells can be read."""


class _Candidate(msgspec.Struct, frozen=True):
    """A sentence or table row with the texts around it, in plain text."""

    sentence: AnswerSentence
    plain: str
    before: str
    head: str
    """Names and headings of the passage."""

    row: TextRow | None
    """The lines above a table row, if no table was found in the passage's page."""

    above: str
    """The lines above a table row, or the heading directly before a sentence."""

    years: frozenset[str]
    """The years that the passage mentions."""

    names: float
    """See ``_Scored.names``."""


class _Matches(msgspec.Struct, frozen=True):
    """Which candidates have which word starts of the question: ``(candidates, starts)`` and ``(candidates,)``."""

    own: npt.NDArray[np.float64]
    """1 where the sentence has the word."""

    above: npt.NDArray[np.float64]
    """1 where the heading or the lines above have it."""

    shares: npt.NDArray[np.float64]
    """See ``_Scored.share``."""

    words: npt.NDArray[np.float64]
    """See ``_Scored.words``."""


def answer(
    question: str, hits: Sequence[SearchHit], *, answerable: float, embed: EmbedTexts | None = None
) -> ExtractedAnswer:
    """Choose one to four sentences that answer the question, or none.

    Args:
        question: a complete question; see ``core.retrieval.conversation_query``.
        hits: best first; the first ``MAX_PASSAGES`` are read, and the next ones of the best hit's document.
        answerable: ``SearchResult.answerable``. Below ``ABSTAIN_BELOW`` there is no answer. The search computes it over
            all candidates; recomputed over these hits alone it would differ.
        embed: adds semantic similarity to the scores, at the cost of embedding some dozens of sentences.
    """
    if answerable < ABSTAIN_BELOW:
        return ExtractedAnswer([], abstained=True)
    asked = document_question(question)
    if asked is not None and not asked.topic:
        first = _first_sentences(hits)
        return ExtractedAnswer(first, abstained=not first)
    question = asking_text(question)
    asked_words = [piece for word in content_words(question) for piece in pieces(word)]
    scored = _score_sentences(question, asked_words, _read(hits), embed)
    has_strict_type = ASKS_MONEY.search(question) or ASKS_SHARE.search(question) or asks_quantity(question)
    scored = _counted_first(question, scored)
    chosen = _choose(scored, value_from=_STRICT_VALUE_FROM if has_strict_type else _VALUE_FROM)
    doubtful = _is_doubtful(scored, chosen, question, hits)
    if chosen and not chosen[0].has_value and (ASKS_MONEY.search(question) or ASKS_MEASURE.search(question)):
        doubtful = True
    if not chosen:
        return ExtractedAnswer([], abstained=True)
    quoted = _instructions(question, scored, hits) or _continued(question, _quote(chosen), hits)
    sure = confidence(answer_signals(question, scored, chosen[0], quoted, hits, answerable=answerable))
    best = hits[chosen[0].sentence.passage_index]
    if _says_less_than_asked(question, chosen) or _lacks_name(question, best) or _lacks_condition(question, best, hits):
        sure = min(sure, UNSURE_BELOW / 2)
    return ExtractedAnswer(quoted, abstained=False, doubtful=doubtful, confidence=sure)


def _read(hits: Sequence[SearchHit]) -> Sequence[SearchHit]:
    """The hits that are read, from the first on without a gap: their positions are the numbers of the citations."""
    last = MAX_PASSAGES
    while (
        last < min(len(hits), _MAX_OF_BEST_DOCUMENT) and hits[last].passage.document_id == hits[0].passage.document_id
    ):
        last += 1
    return hits[:last]


def _says_less_than_asked(question: str, chosen: Sequence[_Scored]) -> bool:
    """Whether the sentences lack the number or the difference asked for, or all numbers of the group asked about.

    Of a difference, the quoted sentences may state only one side. A share of all people is not that of "ages 18 to 29".
    """
    texts = [candidate.sentence.text for candidate in chosen]
    if ASKS_FIGURE.search(question):
        plain = "".join(candidate.plain for candidate in chosen)
        numbers = [name for name in question_names(question) if name.strip().isdigit() and not _YEAR.search(name)]
        if not any(candidate.has_value for candidate in chosen):
            return True
        has_date = not MONTH_NAMES.isdisjoint(plain_text(question).split())
        if numbers and not has_date and ASKS_SHARE.search(question) and not any(number in plain for number in numbers):
            return True
    return ASKS_DIFFERENCE.search(question) is not None and not any(map(STATES_DIFFERENCE.search, texts))


def _lacks_name(question: str, hit: SearchHit) -> bool:
    """Whether the passage lacks one of the names of the question altogether."""
    text = _head(hit) + plain_text(hit.passage.text)
    names = [name for name in question_names(question) if _NAMES_A_THING.search(name)]
    return any(
        degree_of(name, name_text(text)) < MISSING_BELOW
        for name in comparable_names(names, question, text)
        if name.strip() not in MONTH_NAMES
        and not any(other in text for other in synonym_starts(word_start(name.strip())))
    )


def _lacks_condition(question: str, hit: SearchHit, hits: Sequence[SearchHit]) -> bool:
    """Whether the passage has no word of the question's last condition ("interviewed by mail?").

    Nor may another passage of the document have them together: its subject is not repeated on each page.
    """
    condition = _CONDITION.match(question)
    words = [piece for word in content_words(condition[1]) for piece in pieces(word)] if condition is not None else []
    words = [word for word in words if _is_informative(word) and word not in NUMBER_WORDS]
    if not words or _share_met(words, _head(hit) + plain_text(hit.passage.text)) > 0:
        return False
    others = (other for other in hits if other.passage.document_id == hit.passage.document_id)
    stems = [word_stem(word) for word in words]
    return not any(_has_together(plain_text(other.passage.text), stems) for other in others)


def _has_together(text: str, stems: Sequence[str]) -> bool:
    """Whether a plain text has these beginnings of words one after the other, without another word between them."""
    start = text.find(stems[0])
    while start >= 0:
        end = start + len(stems[0])
        for stem in stems[1:]:
            place = text.find(stem, end)
            if place < 0:
                return False
            if " " in text[end:place]:
                break
            end = place + len(stem)
        else:
            return True
        start = text.find(stems[0], start + 1)
    return False


def answer_signals(
    question: str,
    scored: Sequence[_Scored],
    best: _Scored,
    quoted: Sequence[AnswerSentence],
    hits: Sequence[SearchHit],
    *,
    answerable: float,
) -> AnswerSignals:
    """The signals from which the confidence in an answer is computed."""
    asked = [piece for word in content_words(question) for piece in pieces(word)]
    words = [word for word in asked if word not in _KINDS_OF_TEXTS] or asked
    starts = [start for start in dict.fromkeys(map(word_start, words)) if start]
    stems = [stem for stem in dict.fromkeys(map(word_stem, words)) if stem]
    sentence, hit = best.sentence, hits[best.sentence.passage_index]
    heading = plain_text(best.heading.text) if best.heading is not None else ""
    passage = _head(hit) + plain_text(hit.passage.text)
    around = plain_text(hit.passage.text[max(0, sentence.start - _NEARBY) : sentence.end + _NEARBY])
    others = (other.score for other in scored if other.sentence.passage_index != sentence.passage_index)
    asks = asks_value(question) or ASKS_SHARE.search(question) is not None
    return AnswerSignals(
        margin=best.score - max(others, default=0.0),
        in_order=_share_in_order(stems, best.plain),
        in_quotes=_share_in(plain_text(" ".join(quote.text for quote in quoted)), stems),
        in_first=_share_in(best.plain + heading, starts, synonyms=True),
        nearby=_share_in(around + _head(hit) + heading, stems),
        lacks_value=asks and best.fits < 1.0,
        unmet=1 - _share_met([word for word in words if _is_informative(word)], passage),
        answerable=answerable,
    )


def _is_informative(word: str) -> bool:
    return word not in REPHRASED_WORDS and not word[0].isdigit()


def _share_met(words: Sequence[str], text: str) -> float:
    """The share of words of which the text has the stem or a synonym."""
    met = (
        word_stem(word) in text or any(synonym in text for synonym in synonym_starts(word_start(word)))
        for word in words
    )
    return sum(met) / len(words) if words else 1.0


def _share_in(text: str, starts: Sequence[str], *, synonyms: bool = False) -> float:
    if not starts:
        return 1.0
    found = (start in text or (synonyms and any(other in text for other in synonym_starts(start))) for start in starts)
    return sum(found) / len(starts)


def _share_in_order(stems: Sequence[str], text: str) -> float:
    """The share of neighbouring words of the question that are at most two words apart in the text."""
    places = [text[:at].count(" ") if (at := text.find(stem)) >= 0 else -_FAR for stem in stems]
    pairs = list(pairwise(places))
    near = (first >= 0 and second >= 0 and abs(first - second) <= _NEIGHBOURS for first, second in pairs)
    return sum(near) / max(1, len(pairs))


def _continued(question: str, quoted: Sequence[AnswerSentence], hits: Sequence[SearchHit]) -> list[AnswerSentence]:
    """The quotes with the sentences that follow the first one, if it alone is no answer.

    The reason for a statement often stands in the sentences after it. An item of a list is one of several.
    """
    if quoted and (part := _whole_part(question, quoted[0], hits)):
        return [part, *(other for other in quoted[1:] if not _is_within(other, part))]
    if quoted and (cause := _reason_before(question, quoted[0], hits)):
        return [cause, *quoted][:MAX_SENTENCES]
    if quoted and (following := _reasons_or_enumeration(question, quoted[0], hits)):
        return [quoted[0], *following][:MAX_SENTENCES]
    if asks_value(question):
        return list(quoted)
    for at, sentence in enumerate(quoted[:2]):
        whole = _whole_list(question, sentence, hits)
        if whole is not None:
            return [*quoted[:at], whole, *(other for other in quoted[at + 1 :] if not _is_within(other, whole))]
    return list(quoted)


def _whole_part(question: str, sentence: AnswerSentence, hits: Sequence[SearchHit]) -> AnswerSentence | None:
    """The entry of a bibliography of which the sentence is the title, or the steps of a procedure that is asked for."""
    text, span = hits[sentence.passage_index].passage.text, (sentence.start, sentence.end)
    if sentence.row or "~~" in text:
        return None
    whole = _entry_of(sentence, text)
    if whole is None and ASKS_PROCEDURE.search(question):
        spans = _stating_spans(text)
        at = spans.index(span) if span in spans else None
        whole = None if at is None else procedure(text, spans, at, max_characters=MAX_SENTENCE_CHARACTERS)
    return None if whole is None else AnswerSentence(text[slice(*whole)], sentence.passage_index, *whole)


def _instructions(question: str, scored: Sequence[_Scored], hits: Sequence[SearchHit]) -> list[AnswerSentence] | None:
    """The case that the question describes ("Charging time is too long.") and the sentences that follow it.

    Guides to problems have the case as a heading, and what to do under it in other words.
    """
    if not _ASKS_ACTION.search(question):
        return None
    starts = [start for start in map(word_start, content_words(question)) if start]
    for candidate in scored[:_CASES]:
        case = candidate.sentence
        others = sum(not _is_asked(word, starts) for word in content_words(case.text))
        if others or not _has_most(case.text, question):
            continue
        text, end = hits[case.passage_index].passage.text, case.end
        following = _following(case, hits)
        for instruction in following[:_INSTRUCTIONS]:
            if is_label(instruction.text) or instruction.end - following[0].start > MAX_SENTENCE_CHARACTERS:
                break
            end = instruction.end
        if end > case.end:
            start = following[0].start
            return [case, AnswerSentence(text[start:end], case.passage_index, start, end)]
    return None


def _following(sentence: AnswerSentence, hits: Sequence[SearchHit]) -> list[AnswerSentence]:
    """The sentences of the passage after a sentence; none after the row of a table or beside struck-out text."""
    text = hits[sentence.passage_index].passage.text
    if sentence.row or "~~" in text:
        return []
    return [
        AnswerSentence(text[start:end], sentence.passage_index, start, end)
        for start, end in _stating_spans(text)
        if start >= sentence.end
    ]


def _reason_before(question: str, sentence: AnswerSentence, hits: Sequence[SearchHit]) -> AnswerSentence | None:
    """The sentence before, if the reason is asked for and the sentence refers to it ("this type of exposure")."""
    text = hits[sentence.passage_index].passage.text
    if not _ASKS_REASON.search(question) or sentence.row or "~~" in text or not _REFERS_BACK.search(sentence.text):
        return None
    before = [span for span in _stating_spans(text) if span[1] <= sentence.start][-1:]
    if not before or before[0][1] - before[0][0] > MAX_SENTENCE_CHARACTERS or is_label(text[slice(*before[0])]):
        return None
    return AnswerSentence(text[slice(*before[0])], sentence.passage_index, *before[0])


def _start_of_next(sentence: AnswerSentence, hits: Sequence[SearchHit]) -> list[AnswerSentence]:
    """The sentences of the passage after the sentence's passage, if it was found."""
    passage = hits[sentence.passage_index].passage
    for index, hit in enumerate(hits):
        other = hit.passage
        if other.document_id == passage.document_id and other.ordinal == passage.ordinal + 1:
            return _following(AnswerSentence("", index, 0, 0), hits)
    return []


def _reasons_or_enumeration(question: str, sentence: AnswerSentence, hits: Sequence[SearchHit]) -> list[AnswerSentence]:
    """The sentences with the reasons for the first one, or those with "First", "Second" and so on that it announces."""
    following = _following(sentence, hits)
    if _ASKS_REASON.search(question) and not is_label(sentence.text) and not _REASON.search(sentence.text):
        found = following[:_REASONS]
    elif following and _ANNOUNCES.search(sentence.text) and not asks_value(question):
        items = [other for other in following if _NUMBERED.match(other.text)]
        found = (items if _NUMBERED.match(following[0].text) else following)[:_ANNOUNCED]
    elif following and _ORDINAL.match(following[0].text):
        following += _start_of_next(sentence, hits)
        found = [other for other in following[:_ENUMERATED] if _ORDINAL.match(other.text)]
    else:
        return []
    return [other for other in found if len(other.text) <= MAX_SENTENCE_CHARACTERS]


def _whole_list(question: str, sentence: AnswerSentence, hits: Sequence[SearchHit]) -> AnswerSentence | None:
    """The item or heading of a list together with the items after it; ``None`` if it is the item asked about."""
    if not is_label(sentence.text) or (LIST_ITEM.match(sentence.text) and _has_most(sentence.text, question)):
        return None
    end = sentence.end
    following = _following(sentence, hits)
    unmarked = _UNMARKED if not LIST_ITEM.match(sentence.text) and _has_most(sentence.text, question) else 0
    if following and LIST_ITEM.match(following[0].text):
        unmarked = 0
    for at, item in enumerate(following):
        is_item = is_label(item.text) if at < unmarked else LIST_ITEM.match(item.text)
        if not is_item or item.end - sentence.start > MAX_SENTENCE_CHARACTERS:
            break
        end = item.end
    text = hits[sentence.passage_index].passage.text
    return replace(sentence, text=text[sentence.start : end], end=end) if end > sentence.end else None


def _has_most(text: str, question: str) -> bool:
    starts = [start for start in map(word_start, content_words(question)) if start]
    return sum(start in plain_text(text) for start in starts) > len(starts) / 2


def _is_within(sentence: AnswerSentence, whole: AnswerSentence) -> bool:
    return sentence.passage_index == whole.passage_index and whole.start <= sentence.start < whole.end


def _is_doubtful(
    scored: Sequence[_Scored], chosen: Sequence[_Scored], question: str, hits: Sequence[SearchHit]
) -> bool:
    """See ``ExtractedAnswer``."""
    best = next((candidate for candidate in chosen if not candidate.other_years), None)
    if best is None:
        return bool(chosen)
    of_other_years = max((candidate.share for candidate in scored if candidate.other_years), default=0.0)
    years = _YEAR.findall(plain_text(question))
    is_row = best.sentence.row or best.heading is not None
    is_row_of_year = is_row and any(f" {year} " in best.plain for year in years)
    if best.share < of_other_years and not is_row_of_year:
        return True
    if best.names < _MIN_NAMES and not _document_is_about(question, hits[best.sentence.passage_index], hits):
        return True
    return max(best.share, best.words) < _MIN_SHARE and any(candidate.asked for candidate in scored)


def _document_is_about(question: str, hit: SearchHit, hits: Sequence[SearchHit]) -> bool:
    """Whether other passages of the document have all names of things in the question: the passage may repeat none."""
    names = [name for name in question_names(question) if _NAMES_A_THING.search(name)]
    same = [other for other in hits if other.passage.document_id == hit.passage.document_id]
    text = name_text("".join(_head(other) + plain_text(other.passage.text) for other in same))
    return len(same) >= _OF_ONE_DOCUMENT and all(degree_of(name, text) == 1.0 for name in names)


def _first_sentences(hits: Sequence[SearchHit]) -> list[AnswerSentence]:
    """The first sentences of the pages or documents asked for, which have the highest score, in reading order."""
    found = [
        candidate.sentence
        for index, hit in enumerate(hits)
        if hit.score >= hits[0].score
        for candidate in _candidates(hit, index, (), (), "")
    ]
    good = [sentence for sentence in found if _penalty(sentence.text) < _POOR_QUOTE]
    return (good or found)[:MAX_SENTENCES]


def _score_sentences(
    question: str, asked: Sequence[str], hits: Sequence[SearchHit], embed: EmbedTexts | None
) -> list[_Scored]:
    """Sentences and table rows, best first."""
    all_names = question_names(question)
    names = [name for name in all_names if _NAMES_A_THING.search(name)]
    found = [
        candidate for index, hit in enumerate(hits) for candidate in _candidates(hit, index, asked, names, question)
    ]
    if not found:
        return []
    starts = [start for start in map(word_start, asked) if start]
    matches = _match(question, found, starts)
    cosines = np.zeros(len(found))
    if embed is not None:
        vectors = embed([question, *(candidate.sentence.text for candidate in found)])
        cosines = np.asarray(vectors[1:] @ vectors[0], dtype=np.float64)
    best = max(hit.score for hit in hits) or 1.0
    years = frozenset(_YEAR.findall(plain_text(question)))
    asks_number = any(pattern.search(question) for pattern in (ASKS_DATE, ASKS_NUMBER, ASKS_MONEY))
    asks_number = asks_number or asks_quantity(question)
    coded = [start for start in starts if any(map(str.isdigit, start)) and not _YEAR.search(start)]
    numbers = [start for start in coded if start.strip().isdigit()] or coded
    has_number = [any(number in candidate.plain for number in numbers) for candidate in found]
    asks_definition = _ASKS_DEFINITION.match(question) is not None
    asks_procedure = ASKS_PROCEDURE.search(question) is not None
    asks_for_whom = _ASKS_FOR_WHOM.search(question) is not None
    preferred = _preferred_forms(question)
    scored: list[_Scored] = []
    for at, candidate in enumerate(found):
        own = matches.own[at]
        under_heading = matches.above[at].sum() >= _HEADED * len(starts)
        if not own.any() and not under_heading and cosines[at] < _MIN_COSINE_WITHOUT_WORDS:
            continue
        sentence = candidate.sentence
        text = hits[sentence.passage_index].passage.text
        if any(has_number) and not has_number[at] and _is_heading(sentence):
            continue  # the heading above the rows of which a number identifies the row
        fits = _fits(question, candidate, asked, text)
        if fits < 1.0 and (
            _is_echo(candidate, starts)
            or (asks_procedure and _is_only_label(candidate))
            or (asks_definition and _is_title(candidate, starts))
        ):
            continue
        share = float(matches.shares[at])
        score = share + _COSINE_WEIGHT * float(cosines[at]) + _KIND_WEIGHT * fits
        score += _RANK_WEIGHT * hits[sentence.passage_index].score / best
        score += sum(weight for weight, form in preferred if form.search(candidate.plain))
        if (candidate.row is not None or sentence.row) and all_names:
            score += _ROW_NAMES * _mean_degree(all_names, candidate.plain)
        other_years = _is_of_other_years(candidate, years)
        score -= _deduction(candidate, starts, fits=fits) + (_OTHER_YEARS if other_years else 0.0)
        shared = frozenset(start for start, has in zip(starts, own, strict=True) if has)
        scored.append(
            _Scored(
                sentence,
                candidate.plain,
                score,
                shared,
                share=share,
                words=float(matches.words[at]),
                names=candidate.names,
                other_years=other_years,
                fits=fits,
                has_value=(fits == 1.0 and asks_number)
                or (asks_for_whom and _SAYS_FOR_WHOM.search(candidate.plain) is not None),
                heading=_heading(candidate, text, [start for start in starts if start not in shared]),
            )
        )
    return sorted(scored, key=lambda scored_sentence: -scored_sentence.score)


def _match(question: str, found: Sequence[_Candidate], starts: Sequence[str]) -> _Matches:
    """Match the candidates with the word starts of the question."""
    texts = [candidate.plain for candidate in found]
    own = _matrix(texts, starts)
    for column, start in enumerate(starts):
        if start.strip().isdigit():
            own[:, column] *= [_has_number(start.strip(), candidate.sentence.text) for candidate in found]
    identifiers = [plain_text(word) for word in _IDENTIFIER.findall(question)]
    emphasis = np.array([_IDENTIFIER_WEIGHT if _is_any(start, identifiers) else 1.0 for start in starts], np.float64)
    weights = np.log(1 + len(found) / (0.5 + own.sum(axis=0))) * emphasis
    near = _matrix([candidate.head + candidate.before for candidate in found], starts)
    above = _matrix([candidate.above for candidate in found], starts) * _no_label_of_other_rows(found, own)
    synonyms = _synonym_matrix(texts, starts)
    held = np.maximum.reduce([own, _SYNONYM_SHARE * synonyms, _CONTEXT_SHARE * near, _HEADING_SHARE * above])
    shares = (held * weights).sum(axis=1) / max(float(weights.sum()), 1e-9)
    return _Matches(own, above, shares, words=held.mean(axis=1) if starts else np.ones(len(found)))


def _fits(question: str, candidate: _Candidate, asked: Sequence[str], passage: str) -> float:
    """See ``kind_fits``. The title of a bibliography's entry stands for the authors with which it is quoted."""
    sentence = candidate.sentence
    if ASKS_AUTHOR.search(question) and _entry_of(sentence, passage) is not None:
        return 1.0
    in_table = sentence.row or candidate.row is not None
    has_unit = UNIT_OF_MONEY.search(passage if in_table else sentence.text) is not None
    is_row = sentence.row or (candidate.row is not None and candidate.row.has_numbers)
    return kind_fits(question, sentence.text, asked, is_row=is_row, has_unit=has_unit)


def _entry_of(sentence: AnswerSentence, passage: str) -> Span | None:
    if sentence.row or "~~" in passage:
        return None
    return reference_entry(passage, (sentence.start, sentence.end), max_characters=MAX_SENTENCE_CHARACTERS)


def _preferred_forms(question: str) -> list[tuple[float, re.Pattern[str]]]:
    """What is added to the score of sentences that match."""
    defined, counted = _defined_thing(question), counted_things(question)
    forms = [
        (_DEFINED, defined),
        (_COUNTED, counted),
        (-_OPEN, _WHETHER if _ASKS_WHETHER.match(question) else None),
        (_ADDRESSED, _SAYS_FOR_WHOM if _ASKS_FOR_WHOM.search(question) else None),
        (_CASE, _BEGINS_WITH_CASE if _DESCRIBES_CASE.search(question) else None),
        (_INSTRUCTS, INSTRUCTS if ASKS_PROCEDURE.search(question) else None),
        (_CONDITIONAL, _STATES_CONDITION if ASKS_CONDITION.search(question) else None),
    ]
    return [(weight, form) for weight, form in forms if form is not None]


def _candidates(
    hit: SearchHit, index: int, asked: Sequence[str], names: Sequence[str], question: str
) -> Iterator[_Candidate]:
    """The sentences and table rows of a passage, without what is struck out."""
    text = hit.passage.text
    head = _head(hit)
    whole = head + plain_text(text)
    years = frozenset(_YEAR.findall(whole))
    names = comparable_names(names, question, whole)
    degree = _mean_degree(names, whole) if names else 1.0
    in_tables = table_spans(hit.passage)
    yield from (
        _Candidate(sentence, plain_text(sentence.text), "", head, None, "", years, degree)
        for sentence in _row_sentences(hit.passage, index, asked)
    )
    spans = [span for span in _quotable(text, asked) if not _overlaps(span, in_tables)]
    rows = text_rows(text, spans)
    plain = [plain_text(text[start:end]) for start, end in spans]
    labels = [is_label(text[start:end]) for start, end in spans]
    silent = _silent_spans(text, spans)
    for at, (start, end) in enumerate(spans):
        row = rows.get(at)
        if at in silent or (row is not None and (row.is_heading or is_separator(text[start:end]))):
            continue
        before = plain[at - 1] if at else ""
        above = next((plain[line] for line in range(at - 1, max(-1, at - 1 - _UNDER_HEADING), -1) if labels[line]), "")
        if row is not None:
            above = "".join(plain_text(text[first:last]) for first, last in row.above)
        sentence = AnswerSentence(text[start:end], index, start, end)
        if "~~" in sentence.text:
            sentence = _without_struck(sentence)
            if not _WORD.search(sentence.text):
                continue
            plain[at] = plain_text(sentence.text)
        yield _Candidate(sentence, plain[at], before, head, row, above, years, degree)


def _stating_spans(text: str) -> list[Span]:
    """The spans of ``quotable_spans`` that can state something."""
    spans = quotable_spans(text)
    silent = _silent_spans(text, spans)
    return [span for at, span in enumerate(spans) if at not in silent]


def _silent_spans(text: str, spans: Sequence[Span]) -> set[int]:
    """The spans without a letter or digit, as signs apart from their words, and the page's running head and foot."""
    silent = {at for at, (start, end) in enumerate(spans) if not _WORD.search(text[start:end])}
    stating = [at for at in range(len(spans)) if at not in silent]
    for at, neighbour in ((stating[0], stating[1]), (stating[-1], stating[-2])) if len(stating) > 1 else ():
        if _PAGE_LINE.fullmatch(text[slice(*spans[at])]) and "|" not in text[slice(*spans[neighbour])]:
            silent.add(at)
    return silent


def _row_sentences(passage: StoredPassage, index: int, asked: Sequence[str]) -> Iterator[AnswerSentence]:
    """Statements of the rows of the passage's tables."""
    starts = [start for start in map(word_start, asked) if start]
    for statement in row_statements(passage, starts):
        yield AnswerSentence(statement.text, index, statement.start, statement.end, row=True)


def _overlaps(span: Span, others: Sequence[Span]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in others)


def _without_struck(sentence: AnswerSentence) -> AnswerSentence:
    text = " ".join(STRUCK_OUT.sub(" ", sentence.text).split())
    return replace(sentence, text=_SPACE_BEFORE_STOP.sub("", text))


def _mean_degree(names: Sequence[str], plain: str) -> float:
    text = name_text(plain)
    return sum(degree_of(name, text) for name in names) / len(names)


def _matrix(texts: Sequence[str], starts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Which texts contain which word starts, ``(texts, starts)``."""
    return np.array([[start in text for start in starts] for text in texts], np.float64).reshape(len(texts), -1)


def _has_number(number: str, text: str) -> bool:
    """Whether the text has the number other than as a part of a decimal: "5.6" and "2.5" have no 5."""
    without_decimals = _DECIMAL.sub(" ", text)
    return number not in text or number in without_decimals


def _no_label_of_other_rows(found: Sequence[_Candidate], holds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """0 where a row lacks a word that another row of the passage has: the word tells the rows apart."""
    tables: dict[int, list[int]] = defaultdict(list)
    for at, candidate in enumerate(found):
        if candidate.row is not None and candidate.row.has_numbers:
            tables[candidate.sentence.passage_index].append(at)
    counts = np.ones_like(holds)
    for rows in tables.values():
        counts[rows] = (holds[rows] > 0) | ~(holds[rows] > 0).any(axis=0)
    return counts


def _defined_thing(question: str) -> re.Pattern[str] | None:
    """Matches a definition of the thing that a question is about: "Multipoint is a function"."""
    asked = _ASKS_DEFINITION.match(question)
    starts = [word_start(word).strip() for word in content_words(asked.group(1))[:3]] if asked is not None else []
    if not (starts := [start for start in starts if start]):
        return None
    things = "|".join(re.escape(start) for start in starts)
    return late_pattern(
        rf"\A (?:(?:the|an?) )?(?:\w+ ){{0,2}}(?:{things})\w*(?: \w+){{0,2}}"
        r" (?:is|are|means|refers|allows|lets|enables|provides|uses|helps)(?= )"
    )


def _synonym_matrix(texts: Sequence[str], starts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Which texts contain a synonym of which word start, ``(texts, starts)``."""
    found = np.zeros((len(texts), len(starts)))
    for column, start in enumerate(starts):
        if synonyms := synonym_starts(start):
            found[:, column] = [any(synonym in text for synonym in synonyms) for text in texts]
    return found


def _heading(candidate: _Candidate, text: str, missing: Sequence[str]) -> AnswerSentence | None:
    if candidate.row is None or (span := heading_for(text, candidate.row, missing)) is None:
        return None
    if not candidate.row.has_numbers and " " not in text[slice(*span)]:
        return None  # a single word above a line of words is mostly the end of another line
    return AnswerSentence(text[span[0] : span[1]], candidate.sentence.passage_index, *span)


def _is_of_other_years(candidate: _Candidate, asked: AbstractSet[str]) -> bool:
    """Whether a sentence, its table or else its passage mentions years, and none of those asked for stands near."""
    own = set(_YEAR.findall(candidate.plain + candidate.above)) or candidate.years
    return bool(asked and own) and not asked & (own | set(_YEAR.findall(candidate.before + candidate.head)))


def _deduction(candidate: _Candidate, starts: Sequence[str], *, fits: float) -> float:
    """Deductions for poor quotes, and for other labels of table rows."""
    cost = 0.0
    if candidate.sentence.row:
        return cost
    if candidate.row is None:
        cost += _penalty(candidate.sentence.text)
        return cost + (_LABEL if fits < 1.0 and is_label(candidate.sentence.text) else 0.0)
    if not candidate.row.has_numbers:
        return cost
    label = [word for word in candidate.plain.split() if not word.isdigit() and word not in QUESTION_STOP_WORDS]
    other = sum(not _is_asked(word, starts) for word in label)
    return cost + _OTHER_LABEL * other / max(1, len(label))


def _is_heading(sentence: AnswerSentence) -> bool:
    """Whether a sentence may be a heading, also a long one: it does not end as a sentence, and is no row of a table."""
    return not sentence.row and sentence.text[-1] not in ".!?;" and len(sentence.text.split()) <= _LONGEST_HEADING


def _is_echo(candidate: _Candidate, starts: Sequence[str]) -> bool:
    """Whether a heading or label has hardly more than the words of the question."""
    text = candidate.sentence.text
    if candidate.sentence.row or not is_label(text) or (candidate.row is not None and candidate.row.has_numbers):
        return False
    if not NEGATIONS.isdisjoint(candidate.plain.split()):
        return False  # "Do not store it face down." answers whether it may be stored so
    return sum(not _is_asked(word, starts) for word in content_words(text)) < (2 if candidate.row is None else 1)


def _is_title(candidate: _Candidate, starts: Sequence[str]) -> bool:
    """Whether a heading or label names the thing asked about, with at most two other words."""
    text = candidate.sentence.text
    if candidate.sentence.row or not is_label(text) or (candidate.row is not None and candidate.row.has_numbers):
        return False
    others = [word for word in content_words(text) if not _is_asked(word, starts)]
    return len(others) < _TITLE_WORDS and all(start in candidate.plain for start in starts)


def _is_only_label(candidate: _Candidate) -> bool:
    """Whether a heading or label is neither a step, an item of a list nor an instruction."""
    text = candidate.sentence.text
    return not (
        candidate.sentence.row or is_step(text) or LIST_ITEM.match(text) or INSTRUCTS.match(candidate.plain)
    ) and is_label(text)


def _is_any(start: str, identifiers: Sequence[str]) -> bool:
    return any(f"{start.strip()} ".startswith(identifier.lstrip()) for identifier in identifiers)


def _is_asked(word: str, starts: Sequence[str]) -> bool:
    plain = plain_text(word)
    return any(start in plain for start in starts)


def _head(hit: SearchHit) -> str:
    """The plain text of a passage's names and headings."""
    passage = hit.passage
    captions = [table.caption for table in passage.tables]
    return plain_text(" ".join((passage.filename, passage.title or "", *passage.headings, *captions)))


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
    if _FRAGMENT.fullmatch(text):
        cost += 0.2
    letters = sum(character.isalpha() for character in text)
    return cost + (0.2 if letters < 0.3 * len(text) else 0.0)


def _counted_first(question: str, scored: list[_Scored]) -> list[_Scored]:
    """The candidates; first that with a number of the things counted, if the best of its passage has another number.

    Of a list of figures, the first line has the words of its heading: "Station plan, 20,000 jobs" and "2,600 homes".
    """
    form = counted_things(question)
    if form is None or not scored or form.search(scored[0].plain):
        return scored
    best = scored[0]
    for at, candidate in enumerate(scored):
        if candidate.score < CLOSE_TO_BEST * best.score:
            break
        if candidate.sentence.passage_index == best.sentence.passage_index and form.search(candidate.plain):
            return [replace(candidate, score=best.score), *scored[:at], *scored[at + 1 :]]
    return scored


def _choose(scored: Sequence[_Scored], *, value_from: float) -> list[_Scored]:
    """The best sentence, and sentences with nearly the same score that add a fact."""
    best = scored[0].score if scored else 0.0
    if any(candidate.has_value and candidate.score >= value_from * best for candidate in scored):
        scored = [candidate for candidate in scored if candidate.has_value]
    chosen: list[_Scored] = []
    for candidate in scored:
        if len(chosen) == MAX_SENTENCES or (chosen and candidate.score < CLOSE_TO_BEST * chosen[0].score):
            break
        if not any(_repeats(candidate, other) or _is_other_row(candidate, other) for other in chosen):
            chosen.append(candidate)
    return chosen


def _quote(chosen: Sequence[_Scored]) -> list[AnswerSentence]:
    """The sentences, and before a table row its headings."""
    quoted: list[AnswerSentence] = []
    for candidate in chosen:
        for part in (candidate.heading, candidate.sentence):
            if part is not None and (part.row or not any(_is_within(part, other) for other in quoted)):
                quoted.append(part)
    return quoted[:MAX_SENTENCES]


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
    if _DIGIT.search(word) or word in NUMBER_WORDS or word in NEGATIONS:
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
