"""Measures of rankings and answers. Pure."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.metrics import ndcg_score, roc_auc_score

RankedItem = TypeVar("RankedItem", bound=Hashable)
Text = TypeVar("Text", bound=Hashable)


def unique(ranking: Sequence[RankedItem]) -> list[RankedItem]:
    """The ranking without repeats; the first occurrence of each item stays."""
    return list(dict.fromkeys(ranking))


def first_rank(ranking: Sequence[RankedItem], gold: frozenset[RankedItem] | set[RankedItem]) -> int | None:
    """The rank (from 1) of the first correct item."""
    return next((rank for rank, item in enumerate(ranking, start=1) if item in gold), None)


def ndcg(ranking: Sequence[Hashable], grades: Mapping[RankedItem, int], *, k: int = 10) -> float:
    """Normalised discounted cumulative gain of a ranking without repeats, with gain ``2^grade - 1`` (Burges 2005).

    ``ndcg_score`` takes a score for every item, where we have a ranking. The ranking is padded with irrelevant items
    to ``k``, and the items that it lacks follow, so that they count in the ideal ranking only.
    """
    ranked = ranking[:k]
    gains: dict[Hashable, int] = {item: 2**grade - 1 for item, grade in grades.items()}
    relevance = [gains.get(item, 0) for item in ranked] + [0] * (k - len(ranked))
    relevance += [gain for item, gain in gains.items() if item not in ranked]
    scores = range(len(relevance), 0, -1)
    return float(ndcg_score([relevance], [list(scores)], k=k, ignore_ties=True))


def range_overlap(
    found: Sequence[tuple[Text, int, int]], gold: Sequence[tuple[Text, int, int]]
) -> tuple[float, float, float]:
    """Recall, precision and intersection over union, in characters, of ``(text, start, end)`` ranges.

    ``gold`` is not empty.
    """
    gold_characters = _characters(gold)
    found_characters = _characters(found)
    common = len(gold_characters & found_characters)
    precision = common / len(found_characters) if found_characters else 0.0
    return common / len(gold_characters), precision, common / len(gold_characters | found_characters)


def _characters(ranges: Sequence[tuple[Text, int, int]]) -> set[tuple[Text, int]]:
    return {(text, offset) for text, start, end in ranges for offset in range(start, end)}


def auroc(scores: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """Area under the ROC curve: the probability that a positive scores above a negative (ties count half).

    ``positive`` has at least one ``True`` and one ``False``.
    """
    return float(roc_auc_score(np.asarray(positive, bool), np.asarray(scores, float)))


def wins(scores: npt.ArrayLike, positive: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Whether each positive scores above each negative, ties .5: (positives, negatives). The mean is ``auroc``."""
    values, labels = np.asarray(scores, float), np.asarray(positive, bool)
    above = values[labels][:, None] - values[~labels][None, :]
    return np.where(above == 0, 0.5, above > 0)


def normalise_answer(text: str) -> list[str]:
    """Words for comparing answers: lower case, without punctuation and articles (SQuAD)."""
    plain = "".join(" " if c in string.punctuation else c for c in text.lower())
    return [word for word in re.sub(r"\b(a|an|the)\b", " ", plain).split() if word]


def token_f1(answer: str, gold: str) -> float:
    """F1 of the words of an answer and the gold answer (SQuAD)."""
    answer_words, gold_words = Counter(normalise_answer(answer)), Counter(normalise_answer(gold))
    common = sum((answer_words & gold_words).values())
    if not common:
        return 0.0
    precision, recall = common / sum(answer_words.values()), common / sum(gold_words.values())
    return 2 * precision * recall / (precision + recall)


def contains(answer: str, gold: str) -> bool:
    """Whether the answer contains the gold answer's words as a contiguous sequence."""
    answer_words, gold_words = " ".join(normalise_answer(answer)), " ".join(normalise_answer(gold))
    return f" {gold_words} " in f" {answer_words} "
