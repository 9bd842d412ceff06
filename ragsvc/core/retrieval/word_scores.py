"""BM25 over a given list of texts, scaled to 0..1."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"\w+")
_K1 = 1.2
_B = 0.75


def word_scores(query: str, texts: Sequence[str]) -> list[float]:
    """One score per text. 1 is the limit for a text that repeats every query word (Robertson 2009, k1 = 1.2).

    >>> [round(score, 2) for score in word_scores("blue whale", ["A blue whale.", "A blue car.", "Rain."])]
    [0.41, 0.13, 0.0]
    """
    counts = [Counter(_WORD.findall(text.lower())) for text in texts]
    lengths = [sum(count.values()) for count in counts]
    mean = max(1.0, sum(lengths) / max(1, len(lengths)))
    words = set(_WORD.findall(query.lower()))
    weights = {word: _weight(sum(word in count for count in counts), len(texts)) for word in words}
    ideal = sum(weights.values()) * (_K1 + 1)
    scores: list[float] = []
    for count, length in zip(counts, lengths, strict=True):
        norm = _K1 * (1 - _B + _B * length / mean)
        score = sum(weights[word] * count[word] * (_K1 + 1) / (count[word] + norm) for word in words & count.keys())
        scores.append(score / ideal if ideal else 0.0)
    return scores


def _weight(documents: int, total: int) -> float:
    return math.log(1 + (total - documents + 0.5) / (documents + 0.5))
