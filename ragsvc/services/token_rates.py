"""Tokens per unit that the answers of a model had, to reserve for requests whose tokens nobody can know in advance.

An image, a minute of speech or a page costs tokens at some providers and none at others. The first request of a model
reserves a default, or what is left of the budget; later ones reserve what the requests before them used.
"""

from __future__ import annotations

from collections import OrderedDict
from math import ceil
from typing import Final

_MOST_MODELS: Final = 1024
_FORGETTING: Final = 0.9
"""The share of a higher rate that is kept at each request, so that a single expensive one is not remembered forever."""


class TokenRates:
    """The highest recent rate of tokens per unit, by model and endpoint."""

    def __init__(self) -> None:
        self._rates: OrderedDict[tuple[str, str], float] = OrderedDict()

    def expected(self, model: str, path: str, units: float) -> int | None:
        """The tokens of a request of so many units; ``None`` before the first answer of the model."""
        rate = self._rates.get((model, path))
        return None if rate is None else ceil(rate * units - 1e-9)

    def learn(self, model: str, path: str, units: float, tokens: int) -> None:
        """Record the tokens of an answer."""
        key = (model, path)
        before = self._rates.pop(key, 0.0)
        self._rates[key] = max(tokens / max(units, 1e-3), before * _FORGETTING)
        if len(self._rates) > _MOST_MODELS:
            self._rates.popitem(last=False)
