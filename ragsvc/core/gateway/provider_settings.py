"""Settings of model providers: base URL, models, prices, timeouts and limits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ragsvc.core.defaults import MAX_MODEL_NAME_LENGTH
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.ids import END_OF_TEXT

"""Name of the built-in model."""

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token (RFC 9110 §5.6.2)."""

Positive = Annotated[float, Meta(gt=0)]


Price = Annotated[float, Meta(ge=0, le=1_000_000)]


class Pricing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prices of a model, in the currency of the operator; what has no price costs nothing.

    ``input`` and ``output`` are for 1,000 tokens, and ``cached_input`` for 1,000 tokens of a prompt that the provider
    reports as cached (default: as ``input``). ``characters`` is for 1,000 characters of a text to speak. ``request`` is
    for each call, and the others for an image made, a second of audio or video, and a page read.
    """

    input: Price = 0.0
    output: Price = 0.0
    cached_input: Price | UnsetType = UNSET
    request: Price | UnsetType = UNSET
    image: Price | UnsetType = UNSET
    second: Price | UnsetType = UNSET
    page: Price | UnsetType = UNSET
    characters: Price | UnsetType = UNSET


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model, or all models that match the pattern if ``id`` has ``*`` or ``?``.

    ``upstream`` is the provider's name of the model (default: ``id``). ``fallback`` lists the models to use instead, in
    order, if this provider cannot answer; it comes before the list of the provider. The name of a provider in it means
    the same model at that provider. ``context_tokens`` limits prompt and reply together; ``None``: the length that the
    provider lists for the model, or no limit if it lists none. ``max_prompt_characters`` limits the texts of a prompt;
    ``None``: the setting of this name.
    """

    id: Annotated[str, Meta(min_length=1, max_length=MAX_MODEL_NAME_LENGTH)]
    upstream: str | None = None
    aliases: tuple[str, ...] = ()
    pricing: Pricing = Pricing()
    context_tokens: Annotated[int, Meta(ge=256)] | None = None
    fallback: tuple[str, ...] = ()
    max_prompt_characters: Annotated[int, Meta(ge=1)] | None = None

    @property
    def is_pattern(self) -> bool:
        """Whether ``id`` is a pattern."""
        return any(character in self.id for character in "*?")


def with_model_objects(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a provider, with models that are given as plain names as objects.

    >>> with_model_objects({"models": ["small", {"id": "large"}]})
    {'models': [{'id': 'small'}, {'id': 'large'}]}
    """
    models = fields.get("models")
    if not isinstance(models, list):
        return dict(fields)
    return {**fields, "models": [{"id": model} if isinstance(model, str) else model for model in models]}


class ProviderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An OpenAI-compatible provider.

    ``base_url`` is the part before ``/chat/completions`` (``https://host/v1``). ``families`` are the endpoint families
    that it offers; empty means all. ``api_key`` is sent in the header ``key_header``, with ``Bearer`` if this is
    ``Authorization``. ``read_timeout_s`` limits the wait for the next bytes, ``total_timeout_s`` a whole
    request. ``retries`` follow the first attempt, all before the first byte is sent to the client. At most
    ``max_concurrency`` requests run at the same time and ``max_waiting`` more wait.
    """

    name: Annotated[str, Meta(pattern=rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,63}}{END_OF_TEXT}")]
    base_url: Annotated[str, Meta(pattern=r"^https?://[^\s/]")]
    api_key: str = ""
    key_header: str = "Authorization"
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
        """Leaves the key out."""
        return f"ProviderSettings(name={self.name!r}, base_url={self.base_url!r})"


def header_problems(settings: ProviderSettings) -> Iterator[tuple[str, str]]:
    r"""The fields of which a part would end a line of the request to the provider, with what is expected.

    RFC 9110 §5.5: a line feed in a value starts another header or the body (request splitting).

    >>> bad = ProviderSettings("p", "http://host/v1", api_key="k\r\nX: y", headers={"X Y": "1", "Z": "ä"})
    >>> [field for field, _ in header_problems(bad)]
    ['api_key', 'headers.X Y', 'headers.Z']
    """
    if any(not letter.isprintable() or letter.isspace() for letter in settings.base_url):
        yield "base_url", "Expected a URL without spaces and control characters"
    if not _HEADER_NAME.fullmatch(settings.key_header):
        yield "key_header", "Expected a header name of letters, digits and hyphens"
    for field, value in (("api_key", settings.api_key), *((f"headers.{n}", v) for n, v in settings.headers.items())):
        name = field.removeprefix("headers.")
        if field != name and not _HEADER_NAME.fullmatch(name):
            yield field, "Expected a header name of letters, digits and hyphens"
        elif not value.isprintable() or not value.isascii():
            yield field, "Expected printable ASCII characters"
