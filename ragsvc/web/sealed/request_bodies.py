"""Bodies of sealed requests: read from the connection within limits, and replayed to the application as plaintext."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from litestar import Litestar
from litestar.types import Receive, ReceiveMessage

from ragsvc.core.errors import CryptoFailure, InvalidRequest, TooLarge
from ragsvc.crypto import ehbp
from ragsvc.web.sealed.offloading import run_in_thread_if_large

BodyLimit = Callable[[str, str], int]
"""Maps method and path to the largest plain body, in bytes."""

FORM_OVERHEAD_BYTES: Final = 256 * 1024
"""Allowance for the parts of a form other than its file: fields and boundaries."""
_PIECE_BYTES = 256 * 1024


class SealedBody:
    """The encrypted body of a request, read from the connection.

    ``limit_bytes`` bounds the plaintext, ``wire_limit_bytes`` the encrypted body. ``take`` is called with the size of
    each piece (see ``MemoryBudget.share``).
    """

    def __init__(
        self, receive: Receive, take: Callable[[int], None], *, limit_bytes: int, wire_limit_bytes: int
    ) -> None:
        self.limit_bytes = limit_bytes
        self.ended = False
        self._receive = receive
        self._take = take
        self._wire_limit_bytes = wire_limit_bytes
        self._read_bytes = 0

    async def read(self) -> bytes:
        """Read the next piece.

        Raises:
            TooLarge: the body exceeds the limit.
            Overloaded: the memory budget is used up.
            InvalidRequest: the client disconnected.
        """
        message = await self._receive()
        if message["type"] != "http.request":
            raise InvalidRequest("The client disconnected before the request was complete.")
        self.ended = not message["more_body"]
        piece = message["body"]
        self._read_bytes += len(piece)
        if self._read_bytes > self._wire_limit_bytes:
            raise TooLarge(f"The request body may have {self.limit_bytes} bytes.", limit_bytes=self.limit_bytes)
        self._take(len(piece))
        return piece

    async def read_all(self) -> bytes:
        """Read the whole body. Raises as ``read`` does."""
        pieces = [await self.read()]
        while not self.ended:
            pieces.append(await self.read())
        return b"".join(pieces)

    async def receive_after(self) -> ReceiveMessage:
        """Receive the connection's next message, once the body has ended."""
        return await self._receive()


class OpenedBody:
    """ASGI ``receive`` for the application: the plaintext in pieces, then the connection's own messages."""

    def __init__(self, plaintext: bytes, sealed: SealedBody) -> None:
        self._plaintext: memoryview | None = memoryview(plaintext)
        self._sealed = sealed

    async def __call__(self) -> ReceiveMessage:
        rest = self._plaintext
        if rest is None:
            return await self._sealed.receive_after()
        piece, rest = bytes(rest[:_PIECE_BYTES]), rest[_PIECE_BYTES:]
        self._plaintext = rest if len(rest) else None
        return {"type": "http.request", "body": piece, "more_body": self._plaintext is not None}


class KeyConfigMismatch(Exception):
    """An EHBP request was sealed for a key that this server does not accept (any more)."""


class EhbpBody:
    """ASGI ``receive`` for the application: EHBP frames, opened as they arrive.

    A frame that does not open raises ``CryptoFailure`` in the application that reads the body.
    """

    def __init__(self, frames: ehbp.FrameOpener, sealed: SealedBody) -> None:
        self._frames = frames
        self._sealed = sealed
        self._first: bytes | None = None
        self._finished = False

    async def open_first(self) -> None:
        """Read until one frame has opened, which shows that the sender used a key of this server.

        Raises:
            KeyConfigMismatch: the first frame does not open.
            CryptoFailure: the body has no frame.
        """
        while not self._frames.opened_frames:
            if self._sealed.ended:
                raise CryptoFailure
            data = await self._sealed.read()
            try:
                self._first = await self._feed(data)
            except CryptoFailure as error:
                raise KeyConfigMismatch from error

    async def _feed(self, data: bytes) -> bytes:
        size = self._frames.buffered_bytes + len(data)
        return await run_in_thread_if_large(self._frames.feed, data, size_bytes=size)

    async def __call__(self) -> ReceiveMessage:
        if self._finished:
            return await self._sealed.receive_after()
        if self._first is not None:
            plaintext, self._first = self._first, None
        else:
            plaintext = await self._feed(await self._sealed.read())
        if self._sealed.ended:
            self._frames.finish()
            self._finished = True
        return {"type": "http.request", "body": plaintext, "more_body": not self._finished}


def body_limit_of(app: Litestar, *, body_bytes: int, document_bytes: int, files_bytes: int) -> BodyLimit:
    """Return the limits by route.

    ``document_bytes`` and room for a form where a handler has ``opt["streams_body"]``, ``files_bytes`` where it has
    ``opt["takes_files"]``, ``body_bytes`` elsewhere.
    """
    special = [
        (method, re.compile(re.sub(r"\{[^}]*\}", "[^/]+", route.path_format) + "/?"), size_bytes)
        for option, size_bytes in (("streams_body", document_bytes + FORM_OVERHEAD_BYTES), ("takes_files", files_bytes))
        for route in app.routes
        for handler in _handlers(route)
        if handler.opt.get(option)
        for method in handler.http_methods
    ]

    def limit(method: str, path: str) -> int:
        return next(
            (size for known, pattern, size in special if method == known and pattern.fullmatch(path)), body_bytes
        )

    return limit


def _handlers(route: Any) -> Iterable[Any]:  # noqa: ANN401 - Litestar's kinds of routes share no such attribute
    return getattr(route, "route_handlers", ())
