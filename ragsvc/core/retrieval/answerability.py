"""How likely it is that the passages found hold an answer at all.

Three signals, each with a meaning of its own. *Names*: whether the question's names and numbers stand in the best
passages. A question about another company, year or product finds similar passages as well, with cosines as high; on
mmlong the cosine alone tells nothing (area under the ROC curve .49), names tell .75. *Rarity*: how special the most
special word of the question is that the best passages lack. *Relevance*: whether the best passages are about the
question at all; on questions asked of the wrong collection the cosine tells .98. An answer needs all of them, so they
are multiplied; a weighted sum let a good cosine hide a wrong name (.65).
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
from ragsvc.core.retrieval.conversation_query import content_words
from ragsvc.core.text.stop_words import QUESTION_STOP_WORDS
from ragsvc.core.text.word_starts import plain_text, word_start

ABSTAIN_BELOW: Final = 0.36
"""Below this ``answerable`` the built-in answerer says that the documents hold no answer."""

NAMES_IN_BEST_SHARE: Final = 0.6
"""Names count more in the two best passages than in the six best."""

RARITY_SCALE: Final = 10.0
"""A missing word that one in twenty candidates holds takes away a quarter."""

RELEVANT_FROM: Final = 0.1
RELEVANT_TO: Final = 0.3
"""Between these values of ``AnswerabilitySignals.relevance`` the evidence rises from none to full."""

_QUOTED: Final = re.compile(r"[\"“„«]([^\"“”„«»]{2,80})[\"”“»]")
_WORD: Final = r"(?:[A-Z][\w&'’-]*\w|[A-Z]{2,}|\w*\d[\w.,%/-]*)"
_NAME: Final = re.compile(rf"(?<!\w){_WORD}(?: {_WORD})*(?!\w)")
_SENTENCE_START: Final = re.compile(r"(?:^|[.?!:]\s+|[\"“]\s*)$")
_PLACE: Final = re.compile(r"\b(?:page|slide|figure|table|section|appendix|p)s?\.?\s*\d[\d.]*", re.IGNORECASE)
_EXAMPLE: Final = re.compile(
    r"(?:\b(?:e\.g\.?|for example|for instance|such as \[|like \[)|\[).*", re.IGNORECASE | re.DOTALL
)
_GENERIC: Final = frozenset(
    "page slide figure table section appendix chapter document report paper email address question answer title year "
    "who".split()
)
"""Words that name a kind of thing and no particular thing; "who" is left of "Whos" when its ending is cut."""

_GERMAN: Final = re.compile(r"\b(?:der|das|den|dem|wie|wer|wen|wann|wo|und|welche[rsmn]?|ist|wurden?|werden|für|von)\b")
"""German writes all nouns with capitals."""

_DIGIT: Final = re.compile(r"\d")
_PLURAL: Final = re.compile(r"(?<=[a-z]{3})s(?= )")
_BEST: Final = 2
BEST_PASSAGES: Final = 6
_MAX_WORDS: Final = 32

BETWEEN_TEXTS: Final = "\0"
"""No text holds it."""

RARITY_CANDIDATES: Final = 140
"""Among how many candidates a word's rarity is judged: all of an ordinary search's, and no more of a larger one's."""


class AnswerabilityEvidence(msgspec.Struct, frozen=True):
    """The best passages (``BEST_PASSAGES`` are enough) with their cosines (0 where unknown), and what tells rarity.

    ``joined_texts`` gives the texts of the best candidates (at least one, ``RARITY_CANDIDATES`` at most) in UTF-8 with
    ``BETWEEN_TEXTS`` between them; it is asked only where a word is missing from the best passages.
    """

    passages: Sequence[StoredPassage]
    cosines: Sequence[float]
    joined_texts: Callable[[], bytes]


class AnswerabilitySignals(msgspec.Struct, frozen=True):
    """Shares in 0..1 of the question's names, and of its words, that the (best two) passages hold.

    ``rarity`` is the logarithm of how many candidates there are for one that holds the rarest word of the question
    that the best two lack; 0 when they lack none.
    """

    names: float
    names_in_best: float
    words_in_best: float
    cosine: float
    rarity: float

    @property
    def relevance(self) -> float:
        """How far the best passages are about what is asked, by meaning and words."""
        return 0.6 * self.cosine + 0.4 * self.words_in_best


def answerable(query: str, evidence: AnswerabilityEvidence) -> float:
    """Evidence in 0..1 that an answer is there; 0 without passages."""
    if not evidence.passages:
        return 0.0
    signals = signals_of(query, evidence)
    names = NAMES_IN_BEST_SHARE * signals.names_in_best + (1 - NAMES_IN_BEST_SHARE) * signals.names
    relevance = (signals.relevance - RELEVANT_FROM) / (RELEVANT_TO - RELEVANT_FROM)
    relevance = min(1.0, max(0.0, relevance))
    return round(names * math.sqrt(relevance) * math.exp(-signals.rarity / RARITY_SCALE), 4)


def signals_of(query: str, evidence: AnswerabilityEvidence) -> AnswerabilitySignals:
    """The signals that ``answerable`` weighs."""
    question = query[: query.rindex("?") + 1] if "?" in query else query  # what follows says how to answer
    best = evidence.passages[:BEST_PASSAGES]
    texts = [_plain(one.filename, one.title or "", one.headings, one.text) for one in best]
    names = question_names(question)
    singular = [_singular(text) for text in texts] if names else []
    starts = [start for start in map(word_start, content_words(question)[:_MAX_WORDS]) if start]
    return AnswerabilitySignals(
        names=_mean([max((_holds(text, name) for text in singular), default=0.0) for name in names]),
        names_in_best=_mean([max((_holds(text, name) for text in singular[:_BEST]), default=0.0) for name in names]),
        words_in_best=max((_mean([float(start in text) for start in starts]) for text in texts[:_BEST]), default=0.0),
        cosine=max(0.0, min(1.0, max(evidence.cosines[:BEST_PASSAGES], default=0.0))),
        rarity=_rarity([start for start in starts if not any(start in text for text in texts[:_BEST])], evidence),
    )


@lru_cache(maxsize=1024)
def _plain(filename: str, title: str, headings: tuple[str, ...], text: str) -> str:
    """What is known of a passage, as plain text; the best passages of one question are often those of the next."""
    return plain_text(" ".join((filename, title, *headings, text)))


@lru_cache(maxsize=1024)
def _singular(plain: str) -> str:
    return _PLURAL.sub("", plain)


def _rarity(missing: Sequence[str], evidence: AnswerabilityEvidence) -> float:
    """How rare the rarest of these word beginnings is among the candidates."""
    if not missing:
        return 0.0
    joined = evidence.joined_texts()
    count = joined.count(BETWEEN_TEXTS.encode()) + 1
    least = fewest_texts_with([start.strip() for start in missing], joined, count=count)
    return max(0.0, math.log(count / (least + 0.5)))


def fewest_texts_with(words: Sequence[str], joined: bytes, *, count: int) -> int:
    """How many of ``count`` texts hold the word that the fewest hold, whatever their case.

    The texts are in UTF-8 with ``BETWEEN_TEXTS`` between them.

    ASCII words are looked up in bytes, which are lowered ten times as quickly as letters of all scripts. Long words
    come first: they are rare, and the counting of the others ends at the least found so far.
    """
    least = count
    if plain := [word for word in words if word.isascii()]:
        least = _fewest(plain, joined.lower(), most=least)
    if others := [word for word in words if not word.isascii()]:
        least = _fewest(others, joined.decode().lower().encode(), most=least)
    return least


def _fewest(words: Sequence[str], joined: bytes, *, most: int) -> int:
    """``fewest_texts_with``, in one case; ``most`` at most."""
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
    """What the question calls by name, as it would stand in plain text: quotations, capitalised words, numbers.

    >>> question_names('What did Tim Cook say of "net sales" in 2022?')
    [' net sale ', ' tim cook ', ' 2022 ']
    """
    text = _EXAMPLE.sub(" ", _PLACE.sub(" ", query))
    found = [match.group(1) for match in _QUOTED.finditer(text)]
    text = _QUOTED.sub(" ", text)
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
        found.extend(word for word in words if _DIGIT.search(word))  # "Q3 2023" is printed as "2023 Q3" as well
    plain = (_PLURAL.sub("", plain_text(name)) for name in found)
    return [name for name in dict.fromkeys(plain) if name.strip()]


def _holds(text: str, name: str) -> float:
    """1 where the name stands in the text, a half where its words stand apart."""
    if name in text:
        return 1.0
    return 0.5 if " " in name.strip() and all(f" {word} " in text for word in name.split()) else 0.0


def _mean(found: Sequence[float]) -> float:
    """Nothing asked for is nothing missed."""
    return sum(found) / len(found) if found else 1.0
