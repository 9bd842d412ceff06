"""Answers with a stored file: validators, conditional requests and byte ranges (RFC 9110 §8.8.3, §13, §14)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

import anyio.to_thread
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from ragsvc.core.file_types import PDF, PICTURES
from ragsvc.crypto.at_rest import READ_BYTES
from ragsvc.store.blobs import FileContent
from ragsvc.web.disconnects import DisconnectWatcher

_RANGE: Final = re.compile(r"bytes=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII | re.IGNORECASE)
_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')


class ByteRange(NamedTuple):
    """Bytes ``[begin, end)`` of a file."""

    begin: int
    end: int


def asked_range(header: str | None, size: int) -> ByteRange | None:
    """The single range that a header ``Range`` asks for; ``None`` for the whole file, also for headers to ignore.

    An empty range means that the file has none of the bytes.

    >>> [asked_range(header, 10) for header in ("bytes=0-3", "bytes=8-", "bytes=-2", "bytes=2-99")]
    [ByteRange(begin=0, end=4), ByteRange(begin=8, end=10), ByteRange(begin=8, end=10), ByteRange(begin=2, end=10)]
    >>> [asked_range(header, 10) for header in (None, "pages=1-2", "bytes=3-2", "bytes=0-1,4-5", "bytes=-")]
    [None, None, None, None, None]
    >>> asked_range("bytes=10-", 10)
    ByteRange(begin=0, end=0)
    """
    found = _RANGE.fullmatch(header) if header else None
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        begin, end = max(0, size - int(found[2])), size
    else:
        begin = int(found[1])
        if found[2] and int(found[2]) < begin:
            return None
        end = min(size, int(found[2]) + 1) if found[2] else size
    return ByteRange(begin, end) if begin < end else ByteRange(0, 0)


def matches_tag(header: str | None, tag: str) -> bool:
    """Whether ``If-None-Match`` lists the tag, by weak comparison."""
    return header is not None and (header.strip() == "*" or tag in _TAG.findall(header))


def download_headers(filename: str, media_type: str, *, inline: bool = False) -> dict[str, str]:
    """The headers of a download: browsers store it under its name, and neither guess its type nor run it.

    ``inline``: browsers show a PDF or a picture, which cannot run script in the service's origin. The viewers of
    browsers do not work in a sandbox.
    """
    media_type, _, charset = media_type.partition("; charset=")
    if inline and (media_type == PDF or media_type in PICTURES):
        return {
            "content-type": media_type,
            "content-disposition": f"inline; filename*=UTF-8''{quote(filename, safe='')}",
            "x-content-type-options": "nosniff",
            "content-security-policy": "frame-ancestors 'self'",
        }
    if media_type.startswith("text/"):
        media_type = f"{media_type}; charset={charset or 'utf-8'}"
    return {
        "content-type": media_type,
        "content-disposition": f"attachment; filename*=UTF-8''{quote(filename, safe='')}",
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox",
    }


class StoredFile(ASGIResponse):
    """A file whose bytes never change, under its hash; ``content`` is its path, or what reads it."""

    __slots__ = ("_content", "_headers", "_size", "_tag")

    def __init__(self, content: FileContent, *, size: int, sha256: str, headers: dict[str, str]) -> None:
        # the parent's __init__ prepares attributes that __call__ below does not use
        self.body = b""
        self._content = content
        self._size = size
        self._tag = f'"{sha256}"'
        self._headers = {**headers, "etag": self._tag, "accept-ranges": "bytes", "cache-control": "private, no-cache"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if matches_tag(asked.get(b"if-none-match"), self._tag):
            await self._start(send, 304, {})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        is_current = asked.get(b"if-range") in (None, self._tag)
        part = asked_range(asked.get(b"range"), self._size) if is_current else None
        if part is not None and part.begin == part.end:
            await self._start(send, 416, {"content-range": f"bytes */{self._size}", "content-length": "0"})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        whole = ByteRange(0, self._size)
        begin, end = part or whole
        headers = {"content-length": str(end - begin)}
        if part is not None:
            headers["content-range"] = f"bytes {begin}-{end - 1}/{self._size}"
        status = 200 if part is None else 206
        if scope.get("method") == "HEAD" or begin == end:
            await self._start(send, status, headers)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        pieces = self._pieces(begin, end)
        try:
            piece = await anyio.to_thread.run_sync(next, pieces, b"")  # before the status: the file may be unreadable
            await self._start(send, status, headers)
            with DisconnectWatcher(receive):
                await _send_pieces(send, piece, pieces, end - begin)
        finally:
            with contextlib.suppress(ValueError):  # a thread still reads a piece, and closes the file afterwards
                pieces.close()

    async def _start(self, send: Send, status: int, headers: dict[str, str]) -> None:
        lines = [(name.encode(), value.encode("latin-1")) for name, value in {**self._headers, **headers}.items()]
        await send({"type": "http.response.start", "status": status, "headers": lines})

    def _pieces(self, begin: int, end: int) -> Generator[bytes]:
        if not isinstance(self._content, Path):
            yield from self._content.pieces(begin, end)
            return
        with self._content.open("rb") as file:
            file.seek(begin)
            while begin < end and (piece := file.read(min(READ_BYTES, end - begin))):
                begin += len(piece)
                yield piece


async def _send_pieces(send: Send, piece: bytes, pieces: Generator[bytes], left_bytes: int) -> None:
    """Send ``piece`` and those after it. Each is read when the one before was sent, so one is in memory."""
    while piece:
        left_bytes -= len(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": left_bytes > 0})
        if not left_bytes:
            return
        piece = await anyio.to_thread.run_sync(next, pieces, b"")
    await send({"type": "http.response.body", "body": b"", "more_body": False})
