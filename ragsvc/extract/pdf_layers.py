"""Tells from a file's bytes whether layers (optional content) may be switched off: pdfium has no call for it."""

from __future__ import annotations

import mmap
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

_CATALOG = b"/Catalog"
_LAYERS = b"/OCProperties"
_OFF = re.compile(rb"/OFF\s*(?:\[\s*\d|\d+\s+\d+\s+R)|State\s*/OFF\b")
_OBJECT_STREAM = re.compile(rb"/Type\s*/ObjStm\b")
_STREAM = re.compile(rb"stream\r?\n")
_MAX_DICTIONARY = 2_000
_MAX_STREAM = 4 << 20


def may_hide_layers(path: Path) -> bool:
    """Whether the file has layers, and any of them may be off; ``True`` if an encrypted file cannot be searched."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # empty
            return False
        with data:
            return _may_hide_layers(data)


def _may_hide_layers(data: mmap.mmap) -> bool:
    catalog: bytes | None = None
    layers = data.find(_LAYERS) >= 0
    if not layers and data.find(_CATALOG) < 0:
        catalog = next((part for part in _object_streams(data) if part is None or _CATALOG in part), b"")
        if catalog is None:
            return data.find(b"/Encrypt") >= 0
        layers = _LAYERS in catalog
    if not layers:
        return False
    return _OFF.search(data) is not None or any(part and _OFF.search(part) for part in _object_streams(data))


def _object_streams(data: mmap.mmap) -> Iterator[bytes | None]:
    """The contents of the streams that contain objects; ``None`` if one cannot be read.

    The catalog is often in the first or in one of the last streams, so these come first.
    """
    streams = list(_OBJECT_STREAM.finditer(data))
    for found in (*streams[:1], *reversed(streams[1:])):
        start = _STREAM.search(data, found.end(), found.end() + _MAX_DICTIONARY)
        if start is None:
            continue
        try:
            yield zlib.decompressobj().decompress(data[start.end() : start.end() + _MAX_STREAM], _MAX_STREAM)
        except zlib.error:  # encrypted, or another filter
            yield None
