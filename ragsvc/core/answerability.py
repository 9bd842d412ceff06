"""How likely it is that the passages found hold an answer at all.

A logistic function of a few signals that mean something by themselves. The strongest is whether the names and numbers
of the question stand in the best passages: a question about another company, year or product finds similar passages
as well, with cosines as high (alone, the cosine tells nothing: area under the ROC curve .46 on mmlong).
"""

from __future__ import annotations

# ruff: noqa: RUF001 - quotation marks of several scripts
import math
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from ragsvc.core.documents import StoredPassage
from ragsvc.core.queries import STOP_WORDS, content_words
from ragsvc.core.words import plain_text, word_start

ABSTAIN_BELOW: Final = 0.35
"""Below this ``answerable`` the built-in answerer says that the documents hold no answer."""

_QUOTED: Final = re.compile(r"[\"“„«]([^\"“”„«»]{2,80})[\"”“»]")
_NAME: Final = re.compile(r"(?<!\w)(?:[A-Z][\w&'’-]*\w|[A-Z]{2,}|\w*\d[\w.,%/-]*)(?!\w)")
_SENTENCE_START: Final = re.compile(r"(?:^|[.?!:]\s+|[\"“]\s*)$")
_PAGE_NUMBER: Final = re.compile(r"\b(?:page|slide|figure|table|section|p)s?\.?\s*\d[\d.]*", re.IGNORECASE)
_BEST: Final = 3


class Evidence(msgspec.Struct, frozen=True):
    """The best passages (about ten, in order) with their cosines, and the question's content words."""

    asked: Sequence[str]
    passages: Sequence[StoredPassage]
    cosines: Sequence[float]


class Signals(msgspec.Struct, frozen=True):
    """All in 0..1: shares of the question's names, and of its words, that the (best three) passages hold; cosine."""

    names: float
    names_in_best: float
    words: float
    words_in_best: float
    cosine: float


WEIGHTS: Final = Signals(names=2.0, names_in_best=1.0, words=2.0, words_in_best=0.5, cosine=2.0)
BIAS: Final = -4.0


def answerable(query: str, evidence: Evidence) -> float:
    """Probability-like evidence (0..1) that an answer is there; 0 without passages."""
    if not evidence.passages:
        return 0.0
    signals, weights = signals_of(query, evidence), msgspec.structs.astuple(WEIGHTS)
    total = BIAS + sum(w * value for w, value in zip(weights, msgspec.structs.astuple(signals), strict=True))
    return round(1 / (1 + math.exp(-total)), 4)


def signals_of(query: str, evidence: Evidence) -> Signals:
    """The signals that ``answerable`` weighs."""
    texts = [
        plain_text(" ".join((passage.filename, passage.title or "", *passage.headings, passage.text)))
        for passage in evidence.passages
    ]
    names = question_names(query)
    words = [word_start(word) for word in evidence.asked]
    return Signals(
        names=_share([any(_holds(text, name) for text in texts) for name in names]),
        names_in_best=_share([any(_holds(text, name) for text in texts[:_BEST]) for name in names]),
        words=_share([any(word in text for text in texts) for word in words]),
        words_in_best=max((_share([word in text for word in words]) for text in texts[:_BEST]), default=0.0),
        cosine=max(0.0, min(1.0, max(evidence.cosines, default=0.0))),
    )


def question_names(query: str) -> list[list[str]]:
    """What the question calls by name: quoted phrases, capitalised words inside sentences, numbers; as word starts.

    >>> question_names('What did Tim Cook say of "net sales" in 2022?')
    [[' net', ' sal'], [' tim'], [' cook'], [' 2022 ']]
    """
    text = _PAGE_NUMBER.sub(" ", query)
    found = [match.group(1) for match in _QUOTED.finditer(text)]
    text = _QUOTED.sub(" ", text)
    for match in _NAME.finditer(text):
        name = match.group().strip(".,")
        first = _SENTENCE_START.search(text, 0, match.start()) is not None
        if name.lower() not in STOP_WORDS and not (first and name[0].isalpha() and not name.isupper()):
            found.append(re.sub(r"['’]s$", "", name))
    names = [[word_start(word) for word in content_words(name) or [name]] for name in dict.fromkeys(found)]
    return [name for name in names if any(part.strip() for part in name)]


def _holds(text: str, name: Sequence[str]) -> bool:
    return all(part in text for part in name)


def _share(found: Sequence[bool]) -> float:
    """The share of what was found; nothing asked for is nothing missed."""
    return sum(found) / len(found) if found else 1.0
