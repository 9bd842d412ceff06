"""Checksums of stored texts: which pages and passages changed since they were stored."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

import msgspec

_CHECKSUM_BYTES: Final = 8
_INVALID_BYTE: Final = re.compile("[\udc80-\udcff]")
_PAGES: Final = (
    "SELECT d.public_id, d.tenant, p.number, CAST(p.text AS BLOB), p.checksum "
    "FROM pages p JOIN documents d ON d.id = p.document_id WHERE p.checksum IS NOT NULL ORDER BY d.id, p.number"
)
_PASSAGES: Final = (
    "SELECT d.public_id, d.tenant, p.page, CAST(p.text AS BLOB), p.checksum "
    "FROM passages p JOIN documents d ON d.id = p.document_id WHERE p.checksum IS NOT NULL ORDER BY p.id"
)


class DamagedText(msgspec.Struct, frozen=True):
    """A page or passage whose text is not the text that was stored. ``kind``: ``page`` or ``passage``."""

    kind: str
    document: str
    tenant: str
    page: int


def is_readable(text: str) -> bool:
    """Whether a stored text was valid UTF-8.

    >>> is_readable("Zürich"), is_readable(bytes([0xFC]).decode("utf-8", "surrogateescape"))
    (True, False)
    """
    return text.isascii() or _INVALID_BYTE.search(text) is None


def readable(text: str) -> str:
    """The text with U+FFFD in place of invalid bytes."""
    return text if is_readable(text) else _INVALID_BYTE.sub("\N{REPLACEMENT CHARACTER}", text)


def text_checksum(text: bytes) -> bytes:
    """BLAKE2b-64 of a text in UTF-8."""
    return blake2b(text, digest_size=_CHECKSUM_BYTES).digest()


def damaged_texts(connection: sqlite3.Connection) -> Iterator[DamagedText]:
    """Every page and passage whose text does not match its checksum, of all tenants."""
    for kind, statement in (("page", _PAGES), ("passage", _PASSAGES)):
        for document, tenant, page, text, checksum in connection.execute(statement):
            if text_checksum(text) != checksum:
                yield DamagedText(kind, document, tenant, page)
