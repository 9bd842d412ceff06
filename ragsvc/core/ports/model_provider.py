"""The port of model providers: chats, and requests of the other endpoint families."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import msgspec

from ragsvc.core.gateway.circuit_breaker import Circuit
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.ports.chat_backend import ChatBackend


class ForwardRequest(msgspec.Struct, frozen=True):
    """A request of any endpoint family; ``path`` follows the base URL. Only a ``bytes`` body can be sent again.

    ``model`` is the provider's name of the model. Without ``family``, the request is for no model (a list of models).
    """

    method: str
    path: str
    body: bytes | AsyncIterator[bytes]
    headers: Mapping[str, str]
    family: Family | None = None
    model: str = ""


class ForwardReply(Protocol):
    """An answer of a provider with a status below 300; its body is iterated."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers to pass on to the client, names in lower case."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None:
        """Abort the answer, or release the connection if the answer has ended."""
        ...


class ModelProvider(ChatBackend, Protocol):
    """A chat backend that may also serve the other endpoint families."""

    @property
    def circuits(self) -> Mapping[Family, Circuit]:
        """State of the circuit breaker of each endpoint family that was requested so far."""
        ...

    async def context_tokens(self, model: str) -> int | None:
        """The context length of a model in tokens (of prompt and reply together), or ``None`` if it is unknown."""
        ...

    async def forward(self, request: ForwardRequest) -> ForwardReply:
        """Pass a request on unchanged. Raises as ``complete`` does."""
        ...

    def with_key(self, api_key: str, *, from_caller: bool = False) -> ModelProvider:
        """The same provider with another key; ``from_caller``: the request supplied it, so a refused key is a 400."""
        ...

    async def aclose(self) -> None:
        """Close connections of this provider."""


class ProvidersByUrl(Protocol):
    """Providers that a request names by base URL."""

    def provider(self, base_url: str) -> ModelProvider:
        """The provider at a base URL. Raises ``PolicyDenied`` if the URL is not allowed."""
        ...


class ProxyBody(Protocol):
    """A request body in which the name of the model can be replaced."""

    @property
    def spent(self) -> bool:
        """Whether a part was sent that cannot be sent again."""
        ...

    def for_model(self, model: str) -> tuple[bytes | AsyncIterator[bytes], Mapping[str, str]]:
        """The body with the provider's name of the model, and the headers that describe the body."""
        ...
