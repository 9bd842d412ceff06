"""What a request costs: its tokens and other quantities at the prices of a model, in millionths of a unit of money."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import UNSET

from ragsvc.core.access.money import MAX_AMOUNT, MICROS
from ragsvc.core.gateway.chat import TokenUsage
from ragsvc.core.gateway.provider_settings import Pricing

FREE: Final = Pricing()
_PER_THOUSAND: Final = 1000


class Quantities(msgspec.Struct, frozen=True, kw_only=True):
    """What a request uses besides tokens. ``characters`` are those of a text to speak."""

    requests: int = 1
    images: int = 0
    seconds: float = 0.0
    pages: int = 0
    characters: int = 0


ONE_REQUEST: Final = Quantities()
NO_TOKENS: Final = TokenUsage.of(0, 0)


class _Rates(msgspec.Struct, frozen=True):
    """Prices of single units, in millionths."""

    prompt_token: Decimal
    cached_token: Decimal
    completion_token: Decimal
    request: Decimal
    image: Decimal
    second: Decimal
    page: Decimal
    character: Decimal


@lru_cache(maxsize=1024)
def _rates(pricing: Pricing) -> _Rates:
    def rate(price: float | msgspec.UnsetType, units: int = 1) -> Decimal:
        return Decimal(0) if price is UNSET else Decimal(repr(price)) * MICROS / units

    cached = pricing.input if pricing.cached_input is UNSET else pricing.cached_input
    return _Rates(
        rate(pricing.input, _PER_THOUSAND),
        rate(cached, _PER_THOUSAND),
        rate(pricing.output, _PER_THOUSAND),
        rate(pricing.request),
        rate(pricing.image),
        rate(pricing.second),
        rate(pricing.page),
        rate(pricing.characters, _PER_THOUSAND),
    )


def cost_micros(pricing: Pricing, usage: TokenUsage, quantities: Quantities = ONE_REQUEST) -> int:
    """The cost of a request, exact and then rounded up to a millionth; at most ``MAX_AMOUNT``.

    >>> cost_micros(Pricing(input=0.005, output=0.015), TokenUsage.of(11, 5))
    130
    >>> cost_micros(Pricing(image=0.04), NO_TOKENS, Quantities(images=3))
    120000
    >>> cost_micros(Pricing(input=0.00015), TokenUsage.of(1, 0))
    1
    """
    if pricing == FREE:
        return 0
    rates = _rates(pricing)
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    total = (
        (usage.prompt_tokens - cached) * rates.prompt_token
        + cached * rates.cached_token
        + usage.completion_tokens * rates.completion_token
        + quantities.requests * rates.request
        + quantities.images * rates.image
        + quantities.pages * rates.page
        + quantities.characters * rates.character
    )
    if quantities.seconds:
        total += Decimal(round(quantities.seconds * 1000)) / 1000 * rates.second
    return min(int(total.to_integral_value(rounding=ROUND_CEILING)), MAX_AMOUNT * MICROS)


def reply_tokens_worth(pricing: Pricing, prompt_tokens: int) -> int:
    """The reply tokens that cost at most as much as tokens of a prompt, and are not more.

    >>> reply_tokens_worth(Pricing(input=1, output=4), 100), reply_tokens_worth(Pricing(input=2, output=1), 100)
    (25, 100)
    """
    if not pricing.output or pricing.input >= pricing.output:
        return prompt_tokens
    rates = _rates(pricing)
    return int(prompt_tokens * rates.prompt_token / rates.completion_token)
