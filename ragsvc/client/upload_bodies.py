"""Bodies of uploads: files, bytes and streams, raw or as a form, read in slices by threads or by an event loop."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

import anyio.to_thread

READ_BYTES: Final = 1 << 18

UploadSource = Path | str | bytes | BinaryIO
"""A file (``Path`` or its name), its content, or an open binary file."""


class UploadBody:
    """The bytes ``head``, those of ``source``, and the bytes ``tail``. A path is opened for each attempt to send."""

    def __init__(self, source: UploadSource, *, head: bytes = b"", tail: bytes = b"") -> None:
        self._source = Path(source) if isinstance(source, str) else source
        self._head = head
        self._tail = tail
        self._start: int | None = None
        if not isinstance(self._source, Path | bytes) and self._source.seekable():
            self._start = self._source.tell()

    @property
    def repeatable(self) -> bool:
        """Whether the body can be sent again."""
        return isinstance(self._source, Path | bytes) or self._start is not None

    @property
    def size_bytes(self) -> int | None:
        """The size of the whole body; ``None`` if the source does not know its own. Raises ``OSError``."""
        around = len(self._head) + len(self._tail)
        if isinstance(self._source, Path):
            return around + self._source.stat().st_size
        if isinstance(self._source, bytes):
            return around + len(self._source)
        if self._start is None:
            return None
        end = self._source.seek(0, os.SEEK_END)
        self._source.seek(self._start)
        return around + end - self._start

    def slices(self) -> Iterator[bytes]:
        """The bytes in slices, from the beginning. Raises ``OSError``."""
        yield self._head
        if isinstance(self._source, bytes):
            yield self._source
        elif isinstance(self._source, Path):
            with self._source.open("rb") as opened:
                yield from iter(lambda: opened.read(READ_BYTES), b"")
        else:
            self._rewind(self._source)
            yield from iter(self._read, b"")
        yield self._tail

    async def slices_async(self) -> AsyncIterator[bytes]:
        """``slices``, read by a worker thread."""
        yield self._head
        if isinstance(self._source, bytes):
            yield self._source
        elif isinstance(self._source, Path):
            async with await anyio.open_file(self._source, "rb") as opened:
                while part := await opened.read(READ_BYTES):
                    yield part
        else:
            self._rewind(self._source)
            while part := await anyio.to_thread.run_sync(self._read):
                yield part
        yield self._tail

    def _rewind(self, source: BinaryIO) -> None:
        if self._start is not None:
            source.seek(self._start)

    def _read(self) -> bytes:
        if isinstance(self._source, Path | bytes):
            raise TypeError("a source that is not an open file")
        return self._source.read(READ_BYTES)


def form_body(source: UploadSource, *, media_type: str, fields: Mapping[str, str]) -> tuple[UploadBody, str]:
    """A form with ``fields`` and the part ``file``; returns the body and its media type (RFC 7578).

    Names of files and metadata stay inside the body, so that encrypted requests do not reveal them.
    """
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n'
        f"Content-Type: {media_type}\r\n\r\n"
    )
    body = UploadBody(source, head="".join(parts).encode(), tail=f"\r\n--{boundary}--\r\n".encode())
    return body, f"multipart/form-data; boundary={boundary}"


def name_of_source(source: UploadSource) -> str | None:
    """The file name of a path or of an open file; ``None`` for bytes. Undecodable bytes are replaced."""
    name = source if isinstance(source, Path | str) else None if isinstance(source, bytes) else _name_of_file(source)
    return None if name is None else os.fsencode(Path(name).name).decode("utf-8", "replace") or None


def _name_of_file(file: BinaryIO) -> str | None:
    name: object = getattr(file, "name", None)  # io.BytesIO has none; the name of a pipe is a number
    return name if isinstance(name, str) else None
