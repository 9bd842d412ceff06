"""Cuts a stream whose text passes the tokens reserved for it, so that a provider cannot overdraw a balance.

A provider may ignore ``max_tokens``. The text is counted while it streams, but rarely: a text has at most as many
tokens as characters, so nothing is counted before the characters since the last count reach the tokens left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any

import anyio.to_thread
import msgspec

from ragsvc.core.defaults import BYTES_PER_TOKEN
from ragsvc.core.gateway.chat import ChatRequest, CountTokens, TokenUsage
from ragsvc.core.gateway.event_stream import encode_event, split_events
from ragsvc.core.gateway.stream_usage import ChunkHead, read_chunk

_STEP_TOKENS = 256
_PART_CHARACTERS = 4_096
_MOST_UNCOUNTED = 32_768
"""Characters that are kept until they are counted, also far from the end of the budget: they take memory per stream."""
_INLINE_CHARACTERS = 2_000
"""Longer texts are counted in a worker thread; 2,000 characters take less than a millisecond."""


class StreamBudget:
    """The tokens that the text of one stream may have.

    Tokens are counted with our tokenizer, but never more than one for ``BYTES_PER_TOKEN`` bytes: for many languages it
    counts up to twice the tokens of a provider, whose answer must not be cut within its limit.
    """

    def __init__(
        self,
        *,
        reply_tokens: int,
        may_grow: bool,
        read_text: Callable[[bytes], str],
        count_tokens: CountTokens,
        unused_prompt: Callable[[], Awaitable[int]],
        extend: Callable[[int], Awaitable[bool]],
    ) -> None:
        """``read_text`` returns the text of an event.

        ``unused_prompt`` returns how many tokens were reserved for the prompt and not used; it is slow. ``extend``
        reserves more tokens (``False`` if the balance does not cover them); it is called if the stream ``may_grow``,
        because the request does not limit the reply.
        """
        self._left = reply_tokens
        self._may_grow = may_grow
        self._read_text = read_text
        self._count_tokens = count_tokens
        self._unused_prompt: Callable[[], Awaitable[int]] | None = unused_prompt
        self._extend = extend
        self._uncounted = ""
        self.counted = 0
        """Tokens of the text at the last count; of all text that was sent if the stream was cut."""

    async def take(self, block: bytes) -> tuple[bytes, bool]:
        """The events of a block within the budget, and whether the stream has to be cut after them.

        At most the last of these events passes the budget.
        """
        for count, event in enumerate(split_events(block), start=1):
            self._uncounted += self._read_text(event)
            if len(self._uncounted) >= min(self._left, _MOST_UNCOUNTED) and await self._passes():
                return b"".join(islice(split_events(block), count)), True
        return block, False

    async def _passes(self) -> bool:
        """Count the text since the last count; whether the budget is used up and cannot be extended."""
        text, self._uncounted = self._uncounted, ""
        if len(text) <= _INLINE_CHARACTERS:
            tokens = self._count_tokens(text)
        else:
            tokens = await anyio.to_thread.run_sync(self._count_in_parts, text)
        tokens = min(tokens, len(text.encode(errors="replace")) // BYTES_PER_TOKEN + 1)
        self.counted += tokens
        self._left -= tokens
        if self._left <= 0 and self._unused_prompt is not None:
            self._left += max(0, await self._unused_prompt())
            self._unused_prompt = None
        while self._left <= 0 and self._may_grow and await self._extend(_STEP_TOKENS):
            self._left += _STEP_TOKENS
        return self._left <= 0

    def _count_in_parts(self, text: str) -> int:
        """Count parts, because a tokenizer takes two hundred times the memory of a text while it counts."""
        return sum(
            self._count_tokens(text[begin : begin + _PART_CHARACTERS])
            for begin in range(0, len(text), _PART_CHARACTERS)
        )


class _LastChoice(msgspec.Struct, frozen=True):
    index: int
    delta: dict[str, str] = {}
    finish_reason: str = "length"


class ChatStreamEnd:
    """The end of a chat stream that was cut, made from the fields that its chunks have in common."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._head = ChunkHead()

    def read_text(self, event: bytes) -> str:
        """The text of a chunk."""
        head, text = read_chunk(event)
        if head is not None and head.id:
            self._head = head
        return text

    def finish_event(self) -> bytes:
        """The event that ends the answer: the finish reason of all choices is ``length``."""
        choices = [_LastChoice(index) for index in range(self._request.choices)]
        return encode_event({**self._common(), "choices": choices})

    def usage_event(self, usage: TokenUsage) -> bytes:
        """The event with the usage, ``b""`` if the client does not want it."""
        return encode_event({**self._common(), "choices": [], "usage": usage}) if self._request.wants_usage else b""

    def _common(self) -> dict[str, Any]:
        return {**msgspec.structs.asdict(self._head), "object": "chat.completion.chunk"}
