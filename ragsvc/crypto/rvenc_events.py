"""Server-sent events as RVENC writes them: one ``event`` line, one ``data`` line, a blank line; comments between.

Stricter than a browser on purpose: whatever else stands in the stream was put there by somebody else.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ragsvc.core.errors import CryptoFailure
from ragsvc.core.gateway.event_stream import write_event

DEFAULT_MAX_BUFFER_BYTES: Final = 10 * 1024 * 1024


class RvencEvent(msgspec.Struct, frozen=True):
    """One event: its name and its data, ASCII."""

    name: str
    data: str


def encode_event(name: str, data: str) -> bytes:
    r"""Write one event.

    >>> encode_event("done", "[DONE]")
    b'event: done\ndata: [DONE]\n\n'
    """
    return write_event(data.encode("ascii"), name=name)


class EventReader:
    """Cuts a stream, fed in slices of any size, into events; holds at most ``max_buffer_bytes`` of one event."""

    def __init__(self, *, max_buffer_bytes: int = DEFAULT_MAX_BUFFER_BYTES) -> None:
        self._max_buffer_bytes = max_buffer_bytes
        self._buffer = bytearray()
        self._scanned = 0

    def feed(self, data: bytes) -> list[RvencEvent]:
        """Take bytes; return the events that became whole. Raises ``CryptoFailure`` for anything that is none."""
        self._buffer += data
        events: list[RvencEvent] = []
        while (end := self._buffer.find(b"\n\n", max(0, self._scanned - 1))) >= 0:
            if end > self._max_buffer_bytes:
                raise CryptoFailure
            block = bytes(self._buffer[:end])
            del self._buffer[: end + 2]
            self._scanned = 0
            event = _parse_block(block)
            if event is not None:
                events.append(event)
        self._scanned = len(self._buffer)
        if self._scanned > self._max_buffer_bytes:
            raise CryptoFailure
        return events

    def finish(self) -> None:
        """The stream has ended. Raises ``CryptoFailure`` when it stopped inside an event."""
        if self._buffer:
            raise CryptoFailure


def _parse_block(block: bytes) -> RvencEvent | None:
    """Parse what stands before a blank line; ``None`` for comments alone."""
    try:
        lines = [line for line in block.decode("ascii").split("\n") if not line.startswith(":")]
    except UnicodeDecodeError as error:
        raise CryptoFailure from error
    if not lines:
        return None
    if len(lines) != 2 or not lines[0].startswith("event: ") or not lines[1].startswith("data: "):
        raise CryptoFailure
    return RvencEvent(lines[0].removeprefix("event: "), lines[1].removeprefix("data: "))
