"""The port of models that answer chats."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from ragsvc.core.gateway.chat import ChatCall, TokenUsage


class ChatReply(msgspec.Struct, frozen=True):
    """A complete answer: ``body`` is the JSON for the client (OpenAI: the chat completion object)."""

    body: bytes
    usage: TokenUsage


class ChatStream(Protocol):
    """An answer in blocks of whole server-sent events, without the final ``[DONE]``.

    Iteration raises ``UpstreamFailed`` or ``UpstreamTimeout`` if the answer breaks off.
    """

    @property
    def finished(self) -> bool:
        """Whether iteration has yielded the last block."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes:
        """The next block, as soon as it arrives."""
        ...

    async def usage(self) -> TokenUsage:
        """Tokens so far: as reported by the model, else counted from the blocks yielded."""
        ...

    async def prompt_tokens(self) -> int:
        """Tokens of the prompt: as reported by the model, else counted. Cheaper than ``usage``."""
        ...

    async def aclose(self) -> None:
        """Stop the model if it still runs, and release the resources of the stream; may be called twice."""
        ...


class ChatBackend(Protocol):
    """A model that answers chats. Both methods raise before the first byte of the answer."""

    async def complete(self, call: ChatCall) -> ChatReply:
        """Return the complete answer.

        Raises:
            InvalidRequest: the model refuses the request; ``UnsupportedParameter`` for a feature it lacks.
            ModelUnavailable: the backend is unreachable, overloaded, or its circuit breaker is open.
            UpstreamFailed: the answer is invalid. ``UpstreamTimeout``: it did not arrive in time.
            Overloaded: too many requests wait for this backend.
        """
        ...

    async def stream(self, call: ChatCall) -> ChatStream:
        """Begin to answer; returns once the first block has arrived. Raises as ``complete`` does."""
        ...
