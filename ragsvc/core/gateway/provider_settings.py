"""What an operator says about model providers: where they are, what they offer, what they cost, how patient to be."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ragsvc.core.defaults import MAX_MODEL_NAME_LENGTH
from ragsvc.core.gateway.endpoint_families import Family

LOCAL_MODEL: Final = "local/chat-model"
"""The built-in model's name."""

Positive = Annotated[float, Meta(gt=0)]


class Pricing(msgspec.Struct, frozen=True):
    """Price of 1,000 tokens in the operator's currency."""

    input: Annotated[float, Meta(ge=0)] = 0.0
    output: Annotated[float, Meta(ge=0)] = 0.0


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model, or with ``*`` or ``?`` in ``id`` all that match.

    ``upstream`` is the provider's own name (default: ``id``). ``fallback`` lists models to ask, in order, when this
    provider cannot answer; it goes before the provider's list. The name of a provider there means the same model at
    that provider.
    """

    id: Annotated[str, Meta(min_length=1, max_length=MAX_MODEL_NAME_LENGTH)]
    upstream: str | None = None
    aliases: tuple[str, ...] = ()
    pricing: Pricing = Pricing()
    context_tokens: Annotated[int, Meta(ge=256)] = 8192
    fallback: tuple[str, ...] = ()

    @property
    def is_pattern(self) -> bool:
        """Whether ``id`` stands for many models."""
        return any(character in self.id for character in "*?")


class ProviderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One OpenAI-compatible provider.

    ``base_url`` ends where ``/chat/completions`` begins (``https://host/v1``). ``families`` are the endpoints that it
    offers, none meaning all. ``read_timeout_s`` bounds the wait
    for the next bytes, ``total_timeout_s`` a whole exchange. ``retries`` count after the first attempt, all before
    the client has seen a byte. At most ``max_concurrency`` exchanges run and ``max_waiting`` more wait.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    base_url: Annotated[str, Meta(pattern=r"^https?://[^\s/]")]
    api_key: str = ""
    models: tuple[ModelSettings, ...] = ()
    families: tuple[Family, ...] = ()
    fallback: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    connect_timeout_s: Positive = 5.0
    read_timeout_s: Positive = 120.0
    total_timeout_s: Positive = 900.0
    retries: Annotated[int, Meta(ge=0, le=10)] = 2
    max_retry_wait_s: Annotated[float, Meta(ge=0)] = 5.0
    max_concurrency: Annotated[int, Meta(ge=1)] = 1024
    max_waiting: Annotated[int, Meta(ge=0)] = 1024
    queue_timeout_s: Positive = 10.0
    max_reply_bytes: Annotated[int, Meta(ge=1024)] = 64 << 20
    breaker_failures: Annotated[int, Meta(ge=1)] = 5
    breaker_cooldown_s: Positive = 15.0

    def __repr__(self) -> str:
        """Names the provider and keeps its key."""
        return f"ProviderSettings(name={self.name!r}, base_url={self.base_url!r})"
