"""The measures, each from a ranking and a question's gold. Pure."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Item = TypeVar("Item", bound=Hashable)
Text = TypeVar("Text", bound=Hashable)


def unique(ranking: Sequence[Item]) -> list[Item]:
    """The ranking without repeats, first places kept."""
    return list(dict.fromkeys(ranking))


def first_rank(ranking: Sequence[Item], gold: frozenset[Item] | set[Item]) -> int | None:
    """The place (from 1) of the first right item."""
    return next((place for place, item in enumerate(ranking, start=1) if item in gold), None)


def ndcg(ranking: Sequence[Item], grades: Mapping[Item, int], *, k: int = 10) -> float:
    """Normalised discounted cumulative gain with gain ``2^grade - 1`` (Burges 2005)."""
    gains = [(2 ** grades.get(item, 0) - 1) / math.log2(place + 1) for place, item in enumerate(ranking[:k], start=1)]
    ideal = sorted(grades.values(), reverse=True)[:k]
    best = sum((2**grade - 1) / math.log2(place + 1) for place, grade in enumerate(ideal, start=1))
    return sum(gains) / best if best else 0.0


def range_overlap(
    found: Sequence[tuple[Text, int, int]], gold: Sequence[tuple[Text, int, int]]
) -> tuple[float, float, float]:
    """Recall, precision and intersection over union in characters of ``(text, start, end)`` ranges; gold has some."""
    right = _characters(gold)
    got = _characters(found)
    common = len(right & got)
    return common / len(right), common / len(got) if got else 0.0, common / len(right | got)


def _characters(ranges: Sequence[tuple[Text, int, int]]) -> set[tuple[Text, int]]:
    return {(text, offset) for text, start, end in ranges for offset in range(start, end)}


def auroc(scores: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """The chance that a positive scores above a negative (ties count half); there are some of both."""
    return float(np.mean(wins(scores, positive)))


def wins(scores: npt.ArrayLike, positive: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Whether each positive scores above each negative: (positives, negatives), ties a half."""
    values, labels = np.asarray(scores, float), np.asarray(positive, bool)
    above = values[labels][:, None] - values[~labels][None, :]
    return np.where(above == 0, 0.5, above > 0)


def normalise_answer(text: str) -> list[str]:
    """Words for answer comparison: lower case, no punctuation, no articles (SQuAD)."""
    plain = "".join(" " if c in string.punctuation else c for c in text.lower())
    return [word for word in re.sub(r"\b(a|an|the)\b", " ", plain).split() if word]


def token_f1(answer: str, gold: str) -> float:
    """Overlap of words of two answers (SQuAD)."""
    ours, theirs = Counter(normalise_answer(answer)), Counter(normalise_answer(gold))
    common = sum((ours & theirs).values())
    if not common:
        return 0.0
    precision, recall = common / sum(ours.values()), common / sum(theirs.values())
    return 2 * precision * recall / (precision + recall)


def contains(answer: str, gold: str) -> bool:
    """Whether the gold's words stand in the answer, in order and together."""
    ours, theirs = " ".join(normalise_answer(answer)), " ".join(normalise_answer(gold))
    return f" {theirs} " in f" {ours} "
