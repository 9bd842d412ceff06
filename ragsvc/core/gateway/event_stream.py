"""Server-sent events (WHATWG HTML §9.2): the writer for all streams, and the reader for chat streams of providers.

The reader is our own because a chat stream is passed through in blocks of whole events whose bytes stay as they came:
a library that yields parsed events would take every block apart and write it again. The clients read events with it too
(``client.event_decoding``), Litestar writes those of ``/v1/rag/documents/{id}/events``, and ``crypto.rvenc_events`` has
a stricter reader for security.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from ragsvc.core.errors import UpstreamFailed

DONE: Final = b"data: [DONE]\n\n"
"""The last event of every chat stream."""

MAX_EVENT_BYTES: Final = 16 << 20
"""The longest event of a provider: it is held in memory until its end has arrived."""

_EVENT_ENDS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")
_LONGEST_END: Final = max(map(len, _EVENT_ENDS))
_FIELDS: Final = (b"data:", b":", b"event:", b"id:", b"retry:")

_ESCAPED_LINE_ENDS: Final = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))
"""U+0085, U+2028 and U+2029. They end no line of an event stream (WHATWG HTML §9.2.5), and JSON allows them in strings
(RFC 8259 §7), but readers that split like ``str.splitlines`` cut the event there: ``iter_lines`` of httpx, and clients
that use it.
"""


def write_event(data: bytes, *, name: str = "") -> bytes:
    r"""One event; ``data`` is JSON or ASCII, and neither ``data`` nor ``name`` has a line break.

    >>> write_event(b"[DONE]", name="done")
    b'event: done\ndata: [DONE]\n\n'
    >>> write_event('"Clause 4\u2028ends"'.encode())
    b'data: "Clause 4\\u2028ends"\n\n'
    """
    if not data.isascii():
        for line_end, escaped in _ESCAPED_LINE_ENDS:
            data = data.replace(line_end, escaped)
    event = b"data: " + data + b"\n\n"
    return b"event: " + name.encode() + b"\n" + event if name else event


def encode_event(value: object) -> bytes:
    """One event whose data are ``value`` as JSON."""
    return write_event(msgspec.json.encode(value))


class WholeEvents:
    r"""Cuts a byte stream, sliced anywhere, into whole events without changing a byte; holds one incomplete event.

    Each byte is searched once, however small the slices of a long event are. ``limit_bytes`` bounds one event.

    >>> events = WholeEvents()
    >>> events.feed(b"data: 1\r\n"), events.feed(b"\r\ndata: 2"), events.rest
    (b'', b'data: 1\r\n\r\n', b'data: 2')
    """

    def __init__(self, *, limit_bytes: int = MAX_EVENT_BYTES) -> None:
        self._held = bytearray()
        self._limit_bytes = limit_bytes

    @property
    def rest(self) -> bytes:
        """The bytes after the last whole event."""
        return bytes(self._held)

    def take_rest(self) -> bytes:
        """Return the bytes after the last whole event, and hold nothing any more."""
        rest = self.rest
        self._held.clear()
        return rest

    def feed(self, piece: bytes) -> bytes:
        """Take the next slice; return the events that are complete now.

        Raises:
            UpstreamFailed: an event is longer than the limit.
        """
        since = max(0, len(self._held) - _LONGEST_END + 1)
        self._held += piece
        border = max((at + len(end) for end in _EVENT_ENDS if (at := self._held.rfind(end, since)) >= 0), default=0)
        whole = bytes(self._held[:border])
        del self._held[:border]
        if len(self._held) > self._limit_bytes:
            raise UpstreamFailed("The provider sent an event without an end.")
        return whole


class EventAligner:
    r"""Cuts a byte stream, sliced anywhere, into blocks of whole events; ``\r\n`` becomes ``\n``.

    ``limit_bytes`` bounds one event.
    """

    def __init__(self, *, limit_bytes: int = MAX_EVENT_BYTES) -> None:
        self.tail = b""
        """The bytes after the last whole event."""
        self._limit_bytes = limit_bytes

    def feed(self, piece: bytes) -> bytes:
        """Take the next slice; return the events that are complete now (``b""`` if none is).

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
            raise UpstreamFailed("The provider sent an event without an end.")
        return text[:border]


def split_events(block: bytes) -> Iterator[bytes]:
    """Split a block of whole events; each event keeps its blank line."""
    for event in block.split(b"\n\n"):
        if event.strip(b"\n"):
            yield event.lstrip(b"\n") + b"\n\n"


def event_data(event: bytes) -> bytes | None:
    """The joined ``data`` lines of an event, or ``None`` for a comment.

    Raises:
        UpstreamFailed: a line is not a field of the format.
    """
    data: list[bytes] = []
    for line in event.splitlines():
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif line and not line.startswith(_FIELDS):
            raise UpstreamFailed("The provider sent bytes that are not an event stream.")
    return b"\n".join(data) if data else None
