"""Server-sent events of RVENC: an ``event`` line, a ``data`` line and a blank line; comments may come in between.

The reader is stricter than a browser on purpose: the server writes nothing else, so anything else was injected.
"""

from __future__ import annotations

import msgspec

from ragsvc.core.defaults import DEFAULT_MAX_BUFFER_BYTES
from ragsvc.core.errors import CryptoFailure
from ragsvc.core.gateway.event_stream import write_event


class RvencEvent(msgspec.Struct, frozen=True):
    """An event's name and data, both ASCII."""

    name: str
    data: str


def encode_rvenc_event(name: str, data: str) -> bytes:
    r"""Encode an event.

    >>> encode_rvenc_event("done", "[DONE]")
    b'event: done\ndata: [DONE]\n\n'
    """
    return write_event(data.encode("ascii"), name=name)


class EventReader:
    """Splits a stream, fed in slices of any size, into events. An event has at most ``max_buffer_bytes``."""

    def __init__(self, *, max_buffer_bytes: int = DEFAULT_MAX_BUFFER_BYTES) -> None:
        self._max_buffer_bytes = max_buffer_bytes
        self._buffer = bytearray()
        self._scanned = 0

    def feed(self, data: bytes) -> list[RvencEvent]:
        """Take the next bytes; return the completed events. Raises ``CryptoFailure`` for malformed or large events."""
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
        """Check that the stream ended after an event. Raises ``CryptoFailure`` otherwise."""
        if self._buffer:
            raise CryptoFailure


def _parse_block(block: bytes) -> RvencEvent | None:
    """Parse the lines before a blank line; ``None`` if all of them are comments."""
    try:
        lines = [line for line in block.decode("ascii").split("\n") if not line.startswith(":")]
    except UnicodeDecodeError as error:
        raise CryptoFailure from error
    if not lines:
        return None
    if len(lines) != 2 or not lines[0].startswith("event: ") or not lines[1].startswith("data: "):
        raise CryptoFailure
    return RvencEvent(lines[0].removeprefix("event: "), lines[1].removeprefix("data: "))
