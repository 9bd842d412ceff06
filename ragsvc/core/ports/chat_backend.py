"""The port of a model that answers chats."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from ragsvc.core.gateway.chat import ChatCall, TokenUsage


class ChatReply(msgspec.Struct, frozen=True):
    """A whole answer: ``body`` is the JSON a client gets (OpenAI: the chat completion object)."""

    body: bytes
    usage: TokenUsage


class ChatStream(Protocol):
    """An answer that arrives in blocks of whole server-sent events, the final ``[DONE]`` excepted.

    Iteration raises ``UpstreamFailed`` or ``UpstreamTimeout`` when the answer breaks off.
    """

    @property
    def finished(self) -> bool:
        """Whether the last block has been handed out."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The stream itself."""
        ...

    async def __anext__(self) -> bytes:
        """The next block, as soon as it is there."""
        ...

    async def usage(self) -> TokenUsage:
        """Tokens so far: the model's own figure where it gave one, else a count of what was handed out."""
        ...

    async def aclose(self) -> None:
        """Stop the model if it still works, and free what the stream holds; may be called twice."""
        ...


class ChatBackend(Protocol):
    """A model that answers chats. Everything raised by the two methods is raised before the first byte."""

    async def complete(self, call: ChatCall) -> ChatReply:
        """Answer in one piece.

        Raises:
            InvalidRequest: the model refuses the request; ``UnsupportedParameter`` when it lacks an ability.
            ModelUnavailable: refused, broken, overloaded or switched off for now.
            UpstreamFailed: the answer is not one. ``UpstreamTimeout``: it did not come in time.
            Overloaded: too many requests wait for this backend.
        """
        ...

    async def stream(self, call: ChatCall) -> ChatStream:
        """Begin to answer; returns when the first block is there. Raises as ``complete`` does."""
        ...
