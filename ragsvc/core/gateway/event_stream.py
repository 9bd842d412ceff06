"""Server-sent events as chat streams use them: whole events, their JSON, their end (WHATWG HTML §9.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from ragsvc.core.errors import UpstreamFailed

DONE: Final = b"data: [DONE]\n\n"
"""The last event of every chat stream."""

_FIELDS: Final = (b"data:", b":", b"event:", b"id:", b"retry:")


def encode_event(value: object) -> bytes:
    """One event with a JSON value on its ``data`` line."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


class EventAligner:
    """Cuts a byte stream, whatever its slices, into blocks of whole events with line feeds only.

    ``limit_bytes`` bounds one event.
    """

    def __init__(self, *, limit_bytes: int = 16 << 20) -> None:
        self.tail = b""
        """What came after the last whole event."""
        self._limit_bytes = limit_bytes

    def feed(self, piece: bytes) -> bytes:
        """Take the next slice; return all events that are whole now, maybe none (``b""``).

        Raises:
            UpstreamFailed: an event is longer than the limit.
        """
        text = self.tail + piece if self.tail else piece
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n")
        if text.endswith(b"\n\n"):
            self.tail = b""
            return text
        border = text.rfind(b"\n\n") + 2
        if border == 1:
            border = 0
        self.tail = text[border:]
        if len(self.tail) > self._limit_bytes:
            raise UpstreamFailed("the provider sent an event without end")
        return text[:border]


def split_events(block: bytes) -> Iterator[bytes]:
    """The events of a block of whole events, each with its blank line."""
    for event in block.split(b"\n\n"):
        if event.strip(b"\n"):
            yield event.lstrip(b"\n") + b"\n\n"


def event_data(event: bytes) -> bytes | None:
    """The joined ``data`` of one event, or ``None`` for a comment.

    Raises:
        UpstreamFailed: a line is none of the fields of the format.
    """
    data: list[bytes] = []
    for line in event.splitlines():
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif line and not line.startswith(_FIELDS):
            raise UpstreamFailed("the provider sent something that is no event stream")
    return b"\n".join(data) if data else None
