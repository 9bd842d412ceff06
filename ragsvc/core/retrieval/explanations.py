"""Why a passage has its score: the parts of the score, and the words of the question that the passage contains."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ragsvc.core.text.content_words import content_words
from ragsvc.core.text.word_starts import WordText, count_starts, word_start

if TYPE_CHECKING:  # wire formats and settings are imported before the port opens, without numpy
    import numpy as np
    import numpy.typing as npt

_MAX_WORDS: Final = 32


class ScorePartName(StrEnum):
    """What a part of a score measures.

    ``other_meaning`` and ``other_words`` compare the words of the question that do not name a document. ``comparison``
    is added for documents that the question compares. ``not_reranked`` is negative: the passage was not reranked in
    time and gets at most the lowest score of those that were.
    """

    MEANING = "meaning"
    WORDS = "words"
    OTHER_MEANING = "other_meaning"
    OTHER_WORDS = "other_words"
    DOCUMENT = "document"
    PAGE = "page"
    COMPARISON = "comparison"
    REQUESTED = "requested"
    RERANKER = "reranker"
    NOT_RERANKED = "not_reranked"


class ScorePart(msgspec.Struct, frozen=True):
    """A part of a score: ``points`` = ``value`` (0..1) times ``weight``. All points add up to the score."""

    name: ScorePartName
    value: float
    weight: float
    points: float


class PartColumn(msgspec.Struct, frozen=True):
    """A part of the scores of several passages: points ``(n,)``, and the most that this part can add."""

    name: ScorePartName
    points: npt.NDArray[np.floating[Any]]
    weight: float

    def scaled(self, maximum: float) -> PartColumn:
        return PartColumn(self.name, self.points / maximum, self.weight / maximum)


def parts_at(columns: Sequence[PartColumn], row: int) -> tuple[ScorePart, ...]:
    """The parts of one passage's score, without parts that cannot add anything."""
    return tuple(
        score_part(column.name, float(column.points[row]), weight=column.weight)
        for column in columns
        if column.weight > 0
    )


def score_part(name: ScorePartName, points: float, *, weight: float = 1.0) -> ScorePart:
    return ScorePart(name, round(points / weight, 4), round(weight, 4), round(points, 4))


def words_to_find(query: str) -> list[tuple[str, str]]:
    """The first words of a question, each with the start that its inflections share."""
    asked = content_words(query)[:_MAX_WORDS]
    return [(word, start) for word in asked if (start := word_start(word))]


def found_words(asked: Sequence[tuple[str, str]], text: str) -> list[str]:
    """Those of ``words_to_find``, in their order, that a text contains in this or another inflection."""
    if not asked:
        return []
    (counts,) = count_starts([start for _, start in asked], [WordText.of(text)])
    return [word for (word, _), count in zip(asked, counts, strict=True) if count]
