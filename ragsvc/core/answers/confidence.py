"""Estimates whether the quoted sentences answer the question, or only have its subject. Pure.

A logistic function of eight signals. Its weights were fitted to 1,284 answers of the extractive answerer: to every
second question of xquad in English, the questions of mmlong and of ``fixtures/documents``, and 210 of our own questions
about mmlong's documents. Right answers are those that contain the answer. Wrong answers are the others, the answers to
questions without an answer, and the answers to the same questions after the pages with the answer had been removed from
the hits (with half the weight). ``docs/benchmarks.md`` gives the figures of each set with weights fitted to the others.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

UNSURE_BELOW: Final = 0.38
"""Below this confidence the built-in answerer shows the sentences as the nearest ones and claims no answer."""


class AnswerSignals(msgspec.Struct, frozen=True):
    """The signals, as shares in 0..1 except ``margin``.

    ``margin`` is the score of the first sentence less the best score in another passage. ``in_order`` is the share of
    the question's neighbouring words that are neighbours in the first sentence. ``in_quotes``, ``in_first`` and
    ``nearby`` are the shares of the question's words in all quoted sentences, in the first one (synonyms count), and in
    the first one with its headings and the text around it. ``lacks_value``: the question asks for a number, date or
    name, and the first sentence has none. ``unmet`` is the share of the
    question's words, except common words that are often replaced, that neither the passage nor its headings have, nor
    synonyms of them. ``answerable``: as the search judges.
    """

    margin: float
    in_order: float
    in_quotes: float
    in_first: float
    nearby: float
    lacks_value: bool
    unmet: float
    answerable: float


_CONSTANT: Final = -1.15
_MARGIN: Final = 2.03
_IN_ORDER: Final = 1.76
_IN_QUOTES: Final = 1.07
_IN_FIRST: Final = 0.56
_NEARBY: Final = 0.25
_LACKS_VALUE: Final = -0.91
_UNMET: Final = -2.01
_LOG_ANSWERABLE: Final = 0.77


def confidence(signals: AnswerSignals) -> float:
    """The estimated probability, 0..1, that the quoted sentences answer the question.

    >>> good = AnswerSignals(0.5, 0.7, 1.0, 1.0, 1.0, lacks_value=False, unmet=0.0, answerable=1.0)
    >>> poor = AnswerSignals(0.0, 0.0, 0.3, 0.3, 0.3, lacks_value=True, unmet=0.5, answerable=0.5)
    >>> confidence(good) > UNSURE_BELOW > confidence(poor)
    True
    """
    weighted = (
        _CONSTANT
        + _MARGIN * signals.margin
        + _IN_ORDER * signals.in_order
        + _IN_QUOTES * signals.in_quotes
        + _IN_FIRST * signals.in_first
        + _NEARBY * signals.nearby
        + _LACKS_VALUE * signals.lacks_value
        + _UNMET * signals.unmet
        + _LOG_ANSWERABLE * math.log(max(signals.answerable, 0.01))
    )
    return 1 / (1 + math.exp(-weighted))
