"""The port of a model provider: chats, and requests of the other endpoint families."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import msgspec

from ragsvc.core.gateway.circuit_breaker import Circuit
from ragsvc.core.ports.chat_backend import ChatBackend


class ForwardRequest(msgspec.Struct, frozen=True):
    """A request of any endpoint family; ``path`` follows the base URL. Only a ``bytes`` body can be sent again."""

    method: str
    path: str
    body: bytes | AsyncIterator[bytes]
    headers: Mapping[str, str]


class ForwardReply(Protocol):
    """A provider's answer (status below 400), its body still to come."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that concern the client, names in lower case."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        ...

    async def __anext__(self) -> bytes:
        """The next bytes."""
        ...

    async def aclose(self) -> None:
        """Break off, or free the connection when the end was reached."""
        ...


class ModelProvider(ChatBackend, Protocol):
    """A backend that may also serve the other endpoint families."""

    @property
    def circuit(self) -> Circuit:
        """Whether it is being asked at all."""
        ...

    async def forward(self, request: ForwardRequest) -> ForwardReply:
        """Pass a request on as it is. Raises as ``complete`` does."""
        ...

    def with_key(self, api_key: str, *, callers: bool = False) -> ModelProvider:
        """The same provider asked with another key; ``callers``: the request brought it, so its refusal is theirs."""
        ...

    async def aclose(self) -> None:
        """End what is open."""
