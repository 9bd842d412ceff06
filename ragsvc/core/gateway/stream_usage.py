"""Token usage of a chat stream: as reported by the provider, else counted from the streamed text.

While the stream runs, the cost is a list append per block. Only if the stream ends without a reported usage are tokens
counted, from its text. Of very long streams only the beginning is kept, so that memory and time stay bounded.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ragsvc.core.errors import UpstreamFailed
from ragsvc.core.gateway.chat import CountTokens, TokenUsage
from ragsvc.core.gateway.event_stream import DONE, event_data, split_events
from ragsvc.core.gateway.finish_reasons import has_known_finish

_KEPT_BYTES: Final = 64 << 10
_KEPT_CHARACTERS: Final = 128 << 10


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


class _ChunkChoice(msgspec.Struct):
    delta: _Delta | None = None


class ChunkHead(msgspec.Struct):
    """The fields that all chunks of a stream have in common."""

    id: str = ""
    created: int = 0
    model: str = ""


class _Chunk(ChunkHead):
    choices: list[_ChunkChoice] = []


_CHUNKS: Final = msgspec.json.Decoder(_Chunk)


class StreamedText(msgspec.Struct, frozen=True):
    """The beginning of a streamed text, and the number of characters of the whole text."""

    beginning: str
    characters: int

    def count(self, count_tokens: CountTokens) -> int:
        """Count the tokens; the part that was not kept is assumed to have as many per character as the beginning."""
        if not self.beginning:
            return 0
        tokens = count_tokens(self.beginning)
        return -(-tokens * self.characters // len(self.beginning))


class StreamLedger:
    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._latest = (b"", b"")
        self._size = 0
        self._words: list[str] = []
        self._kept = self._characters = 0
        self.reported: TokenUsage | None = None
        self.head = ChunkHead()

    def add(self, block: bytes) -> None:
        """Record a block of whole events that is sent to the client."""
        self._latest = (self._latest[1], block)
        if self.reported is not None:
            return
        self._blocks.append(block)
        self._size += len(block)
        if self._size > _KEPT_BYTES:
            self._fold()

    def report(self, usage: TokenUsage) -> None:
        """Record the usage reported by the provider; counting stops."""
        self.reported = usage
        self._blocks.clear()
        self._words.clear()
        self._size = 0

    def has_finish(self) -> bool:
        """Whether one of the last two blocks has a finish reason."""
        return any(map(has_known_finish, self._latest))

    def streamed_text(self) -> StreamedText:
        """The text so far; counting its tokens may take milliseconds and belongs in a thread."""
        self._fold()
        return StreamedText("".join(self._words), self._characters)

    def _fold(self) -> None:
        words = "".join(self._texts(b"".join(self._blocks)))
        self._blocks.clear()
        self._size = 0
        self._characters += len(words)
        if self._kept < _KEPT_CHARACTERS:
            self._words.append(words)
            self._kept += len(words)

    def _texts(self, block: bytes) -> list[str]:
        texts: list[str] = []
        for event in split_events(block):
            head, text = read_chunk(event)
            if head is not None and head.id:
                self.head = head
            texts.append(text)
        return texts


def read_chunk(event: bytes) -> tuple[ChunkHead | None, str]:
    """The common fields of a chunk and the text of all its choices; ``None`` for an event that is no chunk."""
    if event == DONE:
        return None, ""
    try:
        chunk = _CHUNKS.decode(event_data(event) or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, UpstreamFailed):
        return None, ""
    head = ChunkHead(id=chunk.id, created=chunk.created, model=chunk.model)
    return head, "".join(word for choice in chunk.choices for word in _words(choice.delta))


def _words(delta: _Delta | None) -> list[str]:
    if delta is None:
        return []
    words = [text for text in (delta.content, delta.reasoning_content, delta.refusal) if text]
    for call in delta.tool_calls or ():
        if call.function is not None:
            words.extend(text for text in (call.function.name, call.function.arguments) if text)
    return words
