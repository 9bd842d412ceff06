"""How likely it is that the passages found hold an answer at all.

Two signals, each with a meaning of its own. *Names*: whether the question's names and numbers stand in the best
passages. A question about another company, year or product finds similar passages as well, with cosines as high; on
mmlong the cosine alone tells nothing (area under the ROC curve .48), names tell .79. *Relevance*: whether the best
passages are about the question at all; on questions asked of the wrong collection the cosine tells .98. An answer
needs both, so they are multiplied; a weighted sum let a good cosine hide a wrong name (.65).
"""

from __future__ import annotations

# ruff: noqa: RUF001 - quotation marks of several scripts
import math
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from ragsvc.core.documents import StoredPassage
from ragsvc.core.queries import STOP_WORDS
from ragsvc.core.words import plain_text, word_start

ABSTAIN_BELOW: Final = 0.35
"""Below this ``answerable`` the built-in answerer says that the documents hold no answer."""

NAMES_EXPONENT: Final = 1.5
"""One of two names missing weighs more than half."""

RELEVANT_FROM: Final = 0.1
RELEVANT_TO: Final = 0.3
"""Between these values of ``Signals.relevance`` the evidence rises from none to full."""

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
    "how what which who when where please".split()
)
_GERMAN: Final = re.compile(r"\b(?:der|das|den|dem|wie|wer|wen|wann|wo|und|welche[rsmn]?|ist|wurden?|werden|für|von)\b")
"""German writes all nouns with capitals."""

_PLURAL: Final = re.compile(r"(?<=[a-z]{3})s(?= )")
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
    words_in_best: float
    cosine: float

    @property
    def relevance(self) -> float:
        """How far the best passages are about what is asked, by meaning and words."""
        return 0.6 * self.cosine + 0.4 * self.words_in_best


def answerable(query: str, evidence: Evidence) -> float:
    """Evidence in 0..1 that an answer is there; 0 without passages."""
    if not evidence.passages:
        return 0.0
    signals = signals_of(query, evidence)
    names = math.pow((signals.names + signals.names_in_best) / 2, NAMES_EXPONENT)
    relevance = (signals.relevance - RELEVANT_FROM) / (RELEVANT_TO - RELEVANT_FROM)
    return round(names * min(1.0, max(0.0, relevance)), 4)


def signals_of(query: str, evidence: Evidence) -> Signals:
    """The signals that ``answerable`` weighs."""
    texts = [
        plain_text(" ".join((passage.filename, passage.title or "", *passage.headings, passage.text)))
        for passage in evidence.passages
    ]
    singular = [_PLURAL.sub("", text) for text in texts]
    names = question_names(query)
    words = [start for start in map(word_start, evidence.asked) if start]
    return Signals(
        names=_mean([max((_holds(text, name) for text in singular), default=0.0) for name in names]),
        names_in_best=_mean([max((_holds(text, name) for text in singular[:_BEST]), default=0.0) for name in names]),
        words_in_best=max((_mean([float(word in text) for word in words]) for text in texts[:_BEST]), default=0.0),
        cosine=max(0.0, min(1.0, max(evidence.cosines, default=0.0))),
    )


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
        words = [word for word in words if word.lower() not in STOP_WORDS and word.lower().rstrip("s") not in _GENERIC]
        if not capitals_tell:
            words = [word for word in words if not word.isalpha() or (len(word) > 1 and word.isupper())]
        found.append(" ".join(re.sub(r"['’]s$", "", word) for word in words))
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
