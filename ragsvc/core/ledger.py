"""What a chat stream delivered, in tokens: the provider's own figure, or a count of what passed.

Costs one list append per block while the stream runs. Only a stream that ends without the provider's figure is read
afterwards; long ones are read in portions, so that memory stays bounded.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ragsvc.core.chat import CountTokens, Usage
from ragsvc.core.errors import UpstreamFailed
from ragsvc.core.sse import DONE, event_data, split_events

_FINISHES: Final = (b'"finish_reason":"', b'"finish_reason": "')
_KEPT_BYTES: Final = 64 << 10


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None


class ChunkHead(msgspec.Struct):
    """What all chunks of one stream share."""

    id: str = ""
    created: int = 0
    model: str = ""


class _Chunk(ChunkHead):
    choices: list[_Choice] = []


_CHUNKS: Final = msgspec.json.Decoder(_Chunk)


class StreamLedger:
    """Books one stream."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._latest = (b"", b"")
        self._size = 0
        self._folded_tokens = 0
        self.reported: Usage | None = None
        self.head = ChunkHead()

    def add(self, block: bytes, count_tokens: CountTokens) -> None:
        """Note a block of whole events on its way to the client."""
        self._latest = (self._latest[1], block)
        if self.reported is not None:
            return
        self._blocks.append(block)
        self._size += len(block)
        if self._size > _KEPT_BYTES:
            self._fold(count_tokens)

    def report(self, usage: Usage) -> None:
        """Book the provider's own figure; counting ends."""
        self.reported = usage
        self._blocks.clear()
        self._size = 0

    def has_finish(self) -> bool:
        """Whether one of the two latest blocks gave a finish reason."""
        return any(spelled in block for block in self._latest for spelled in _FINISHES)

    def usage(self, prompt_tokens: int, count_tokens: CountTokens) -> Usage:
        """The provider's figure, or the count of what passed with the given size of the prompt."""
        if self.reported is not None:
            return self.reported
        self._fold(count_tokens)
        return Usage.of(prompt_tokens, self._folded_tokens)

    def _fold(self, count_tokens: CountTokens) -> None:
        words = "".join(self._texts(b"".join(self._blocks)))
        self._folded_tokens += count_tokens(words) if words else 0
        self._blocks.clear()
        self._size = 0

    def _texts(self, block: bytes) -> list[str]:
        texts: list[str] = []
        for event in split_events(block):
            if event == DONE:
                continue
            try:
                chunk = _CHUNKS.decode(event_data(event) or b"{}")
            except (msgspec.DecodeError, UnicodeDecodeError, UpstreamFailed):
                continue
            if chunk.id:
                self.head = chunk
            for choice in chunk.choices:
                texts.extend(_words(choice.delta))
        return texts


def _words(delta: _Delta | None) -> list[str]:
    if delta is None:
        return []
    words = [text for text in (delta.content, delta.reasoning_content, delta.refusal) if text]
    for call in delta.tool_calls or ():
        if call.function is not None:
            words.extend(text for text in (call.function.name, call.function.arguments) if text)
    return words
