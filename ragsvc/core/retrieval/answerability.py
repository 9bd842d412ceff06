"""Estimates how likely it is that the retrieved passages contain an answer.

Three signals are combined. *Names*: whether the names and numbers of the question occur in the best passages. A
question about another company, year or product retrieves similar passages with equally high cosines: on mmlong the
area under the ROC curve is .49 for the cosine alone and .75 for names. *Rarity*: how rare the rarest word of the
question is that the best passages lack. *Relevance*: whether the best passages are about the topic; for questions
asked of the wrong collection the area is .98 for the cosine. An answer needs all three, so they are multiplied; in a
weighted sum a high cosine hides a wrong name (.65).
"""

from __future__ import annotations

# ruff: noqa: RUF001 - quotation marks of several scripts
import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from ragsvc.core.documents import StoredPassage
from ragsvc.core.retrieval.asking_clauses import asking_text
from ragsvc.core.text.content_words import content_words
from ragsvc.core.text.spellings import MONTH_NAMES, SIGNED_WORD
from ragsvc.core.text.stop_words import QUESTION_STOP_WORDS
from ragsvc.core.text.tables import table_context
from ragsvc.core.text.word_starts import plain_text, word_start

ABSTAIN_BELOW: Final = 0.36
"""The bound for ``answerable``. Below it the built-in answerer gives no answer, and other chat models are told in the
prompt that the evidence is weak. This is the only place where the bound is defined."""

NAMES_IN_BEST_SHARE: Final = 0.6
"""Weight of names in the two best passages; names in the six best passages get the rest."""

RARITY_SCALE: Final = 10.0
"""A missing word that one in twenty candidates contains lowers the result by a quarter."""

RELEVANT_FROM: Final = 0.1
RELEVANT_TO: Final = 0.3
"""Between these values of ``AnswerabilitySignals.relevance`` its factor rises from 0 to 1."""

_QUOTED: Final = re.compile(r"[\"“„«]([^\"“”„«»]{2,80})[\"”“»]")
_WORD: Final = r"(?:[A-Z][\w&'’-]*\w|[A-Z]{2,}|\w*\d[\w.,%/-]*)"
_NAME: Final = re.compile(rf"(?<!\w){_WORD}(?: {_WORD})*(?!\w)")
_SIGNED: Final = re.compile(SIGNED_WORD)
_SENTENCE_START: Final = re.compile(r"(?:^|[.?!:]\s+|[\"“]\s*)$")
_PLACE: Final = re.compile(
    r"\b(?:page|slide|figure|table|section|appendix|p)s?\.?\s*\d[\d.]*(?:\s*[-\u2013]\s*\d+)?", re.IGNORECASE
)
_EXAMPLE: Final = re.compile(
    r"(?:\b(?:e\.g\.?|for example|for instance|such as \[|like \[)|\[).*", re.IGNORECASE | re.DOTALL
)
_GENERIC: Final = frozenset(
    "page slide figure table section appendix chapter document report paper email address question answer title year "
    "who pdf docx faq file text usd eur gbp chf ok asap monday tuesday wednesday thursday friday saturday"
    " sunday".split()
)
"""Words for kinds of things, files, currencies and days, which are not names when capitalised. "who" is "Whos" without
the plural ending."""

_GERMAN: Final = re.compile(r"\b(?:der|das|den|dem|wie|wer|wen|wann|wo|und|welche[rsmn]?|ist|wurden?|werden|für|von)\b")
"""Marks a question as German, where a capital does not indicate a name because all nouns have one. Only German words
that are rare in English questions, so not "die", "in", "was" or "hat"."""

_YEAR: Final = re.compile(r" (?:19|20)\d\d ")
_MONTHS: Final = "|".join(sorted(MONTH_NAMES - {"may", "mar", "mars"}, key=len, reverse=True))
_MONTH: Final = re.compile(rf" (?:{_MONTHS}) | may (?=\d)|(?<=\d) may ")
_DAY: Final = re.compile(rf" (\d{{1,2}}) (?:{_MONTHS}|may)(?= )| (?:{_MONTHS}|may) (\d{{1,2}})(?= )")
_DIGIT: Final = re.compile(r"\d")
_PLURAL: Final = re.compile(r"(?<=[a-z]{3})s(?= )")
_BEST: Final = 2
BEST_PASSAGES: Final = 6
_MAX_WORDS: Final = 32

BETWEEN_TEXTS: Final = "\0"
"""Separates joined texts; it occurs in no text."""

RARITY_CANDIDATES: Final = 140
"""Maximum number of candidates over which rarity is computed: all candidates of a search with the default limits."""


class AnswerabilityEvidence(msgspec.Struct, frozen=True):
    """The best passages and their cosines, best first (``BEST_PASSAGES`` suffice; 0 for an unknown cosine).

    ``joined_texts`` returns the texts of 1 to ``RARITY_CANDIDATES`` best candidates in UTF-8 with ``BETWEEN_TEXTS``
    between them. It is called only if a word of the question is missing from the best passages.
    """

    passages: Sequence[StoredPassage]
    cosines: Sequence[float]
    joined_texts: Callable[[], bytes]


class AnswerabilitySignals(msgspec.Struct, frozen=True):
    """``names``, ``names_in_best`` and ``words_in_best`` are shares in 0..1 of the question's names and words.

    ``names`` is over all best passages, ``names_in_best`` and ``words_in_best`` over the best two. ``rarity`` is the
    log of the number of candidates per candidate that contains the rarest word missing from the best two; 0 if none
    is missing.
    """

    names: float
    names_in_best: float
    words_in_best: float
    cosine: float
    rarity: float

    @property
    def relevance(self) -> float:
        """Topical match of the best passages in 0..1, from cosine and shared words."""
        return 0.6 * self.cosine + 0.4 * self.words_in_best


def answerable(query: str, evidence: AnswerabilityEvidence) -> float:
    """The evidence in 0..1 that the passages contain an answer; 0 without passages."""
    if not evidence.passages:
        return 0.0
    signals = signals_of(query, evidence)
    names = NAMES_IN_BEST_SHARE * signals.names_in_best + (1 - NAMES_IN_BEST_SHARE) * signals.names
    relevance = (signals.relevance - RELEVANT_FROM) / (RELEVANT_TO - RELEVANT_FROM)
    relevance = min(1.0, max(0.0, relevance))
    return round(names * math.sqrt(relevance) * math.exp(-signals.rarity / RARITY_SCALE), 4)


def signals_of(query: str, evidence: AnswerabilityEvidence) -> AnswerabilitySignals:
    """The signals that ``answerable`` combines."""
    question = query[: query.rindex("?") + 1] if "?" in query else query  # then follows the form of the answer
    question = asking_text(question)
    best = evidence.passages[:BEST_PASSAGES]
    texts = [
        _plain(
            passage.filename,
            passage.title or "",
            (*passage.headings, table_context(passage.tables, passage.text)),
            passage.text,
        )
        for passage in best
    ]
    names = question_names(question)
    if names and best:
        same = (text for text, passage in zip(texts, best, strict=True) if passage.document_id == best[0].document_id)
        names = _comparable(names, question, " ".join(same))
    singular = [_singular(text) for text in texts] if names else []
    words = [word for word in content_words(question)[:_MAX_WORDS] if word_start(word)]
    starts = [word_start(word) for word in words]
    return AnswerabilitySignals(
        names=_mean([max((_holds(text, name) for text in singular), default=0.0) for name in names]),
        names_in_best=_mean([max((_holds(text, name) for text in singular[:_BEST]), default=0.0) for name in names]),
        words_in_best=max((_mean([float(start in text) for start in starts]) for text in texts[:_BEST]), default=0.0),
        cosine=max(0.0, min(1.0, max(evidence.cosines[:BEST_PASSAGES], default=0.0))),
        rarity=_rarity(
            [_as_written(word) for word in words if not any(word_start(word) in text for text in texts[:_BEST])],
            evidence,
        ),
    )


@lru_cache(maxsize=1024)
def _plain(filename: str, title: str, headings: tuple[str, ...], text: str) -> str:
    """Passage, names and headings as plain text. Cached: consecutive questions often have the same passages."""
    return plain_text(" ".join((filename, title, *headings, text)))


@lru_cache(maxsize=1024)
def _singular(plain: str) -> str:
    return _PLURAL.sub("", plain)


def _as_written(word: str) -> str:
    """The form in which to search a word in texts whose spellings are not unified."""
    start = word_start(word).strip()
    return start if word.startswith(start) else word


def _comparable(names: Sequence[str], question: str, text: str) -> list[str]:
    """The names without years, months and days where the text mentions no year or month.

    A question about 2019 has no answer in a report on 2023; but "a boat costs 12 euros" is true of any date.
    """
    days = {f" {day} " for pair in _DAY.findall(plain_text(question)) for day in pair if day}
    without = [
        name
        for name in names
        if (_YEAR.fullmatch(name) and not _YEAR.search(text))
        or ((name in days or _MONTH.search(name)) and not _MONTH.search(text))
    ]
    return [name for name in names if name not in without]


def _rarity(missing: Sequence[str], evidence: AnswerabilityEvidence) -> float:
    """The rarity of the rarest of these word starts among the candidates; see ``AnswerabilitySignals``."""
    if not missing:
        return 0.0
    joined = evidence.joined_texts()
    count = joined.count(BETWEEN_TEXTS.encode()) + 1
    least = fewest_texts_with(missing, joined, count=count)
    return max(0.0, math.log(count / (least + 0.5)))


def fewest_texts_with(words: Sequence[str], joined: bytes, *, count: int) -> int:
    """The number of texts, out of ``count``, that contain the rarest of the words, ignoring case.

    ``joined`` has the texts in UTF-8 with ``BETWEEN_TEXTS`` between them. ASCII words are searched in bytes, whose
    conversion to lower case is ten times as fast. Long words come first: they are rare, and counting the other words
    stops at the minimum so far.
    """
    least = count
    if plain := [word for word in words if word.isascii()]:
        least = _fewest(plain, joined.lower(), most=least)
    if others := [word for word in words if not word.isascii()]:
        least = _fewest(others, joined.decode().lower().encode(), most=least)
    return least


def _fewest(words: Sequence[str], joined: bytes, *, most: int) -> int:
    """The same for words and texts in lower case; returns at most ``most``."""
    border = BETWEEN_TEXTS.encode()
    for word in sorted((word.encode() for word in words), key=len, reverse=True):
        found, at = 0, joined.find(word)
        while at >= 0 and found < most:
            found += 1
            end = joined.find(border, at)
            at = joined.find(word, end) if end >= 0 else -1
        most = found
    return most


def question_names(query: str) -> list[str]:
    """The names in a question, in the form of ``plain_text``: quotations, capitalised words, numbers.

    >>> question_names('What did Tim Cook say of "net sales" in 2022?')
    [' net sale ', ' tim cook ', ' 2022 ']
    """
    text = _EXAMPLE.sub(" ", _PLACE.sub(" ", query))
    found = [match.group(1) for match in _QUOTED.finditer(text)]
    text = _QUOTED.sub(" ", text)
    found.extend(match.group() for match in _SIGNED.finditer(text))
    capitals_tell = sum(map(str.isupper, text)) < sum(map(str.islower, text)) and not _GERMAN.search(text)
    for match in _NAME.finditer(text):
        words = match.group().split(" ")
        if _SENTENCE_START.search(text, 0, match.start()) and not (len(words[0]) > 1 and words[0].isupper()):
            words = words if words[0][0].isdigit() else words[1:]
        words = [
            word
            for word in words
            if word.lower() not in QUESTION_STOP_WORDS and word.lower().rstrip("s") not in _GENERIC
        ]
        if not capitals_tell:
            words = [word for word in words if not word.isalpha() or (len(word) > 1 and word.isupper())]
        found.append(" ".join(re.sub(r"['’]s$", "", word) for word in words if not _DIGIT.search(word)))
        found.extend(word for word in words if _DIGIT.search(word))  # "Q3 2023" may appear as "2023 Q3"
    plain = (_PLURAL.sub("", plain_text(name)) for name in found)
    return [name for name in dict.fromkeys(plain) if name.strip()]


def _holds(text: str, name: str) -> float:
    """1 if the text contains the name, 0.5 if it contains all of its words separately, else 0."""
    if name in text:
        return 1.0
    return 0.5 if " " in name.strip() and all(f" {word} " in text for word in name.split()) else 0.0


def _mean(found: Sequence[float]) -> float:
    """The mean; 1 for an empty sequence, because nothing is missing."""
    return sum(found) / len(found) if found else 1.0
