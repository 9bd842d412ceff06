"""Vectors in an append-only file that is mapped for reading, so that they take disk space instead of memory."""

from __future__ import annotations

import mmap
import os
import shutil
import weakref
from pathlib import Path

import numpy as np

from ragsvc.core.ports.indexes import Ids
from ragsvc.index.float16_scan import Float16Rows

_GROW_ROWS = 1 << 16
_RELEASE_BYTES = 32 << 20
_FAULT_BYTES = 1 << 16
"""Bytes that one page fault maps (Linux: ``fault_around_bytes``)."""


class RowFile:
    """Append-only float16 rows. One writer appends; readers hold views of the rows that they know.

    Pages that searches read count as memory of this process until they are released. ``touched`` adds them up, and
    releases the mapping's pages after every 32 MB; the system's page cache keeps them.
    """

    def __init__(self, path: Path, dimension: int, *, rows: int = 0) -> None:
        self.path = path
        self.dimension = dimension
        self._row_bytes = 2 * dimension
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        weakref.finalize(self, os.close, self._descriptor)
        self._rows = rows
        self._touched_bytes = 0
        self._capacity = 0
        os.ftruncate(self._descriptor, rows * self._row_bytes)
        self._map(rows)

    def append(self, vectors: Float16Rows) -> None:
        """Write rows at the end; ``OSError`` if the disk is full."""
        data = memoryview(np.ascontiguousarray(vectors, dtype="<f2").data).cast("B")
        offset = self._rows * self._row_bytes
        rows = self._rows + len(vectors)
        if rows > self._capacity:
            self._map(rows)
        while len(data):
            written = os.pwrite(self._descriptor, data, offset)
            data, offset = data[written:], offset + written
        self._rows = rows

    def view(self) -> Float16Rows:
        """All rows so far ``(n, dim)``, read-only."""
        return self._mapped[: self._rows]

    def take(self, vectors: Float16Rows, rows: Ids) -> Float16Rows:
        """Copy rows of a view, and count the pages that this maps."""
        taken = np.take(vectors, rows, axis=0)
        self.touched(len(rows) * _FAULT_BYTES)
        return taken

    def touched(self, size_bytes: int) -> None:
        """Count about ``size_bytes`` of the mapping as read."""
        self._touched_bytes += size_bytes  # a lost update of concurrent readers only delays the release
        if self._touched_bytes > _RELEASE_BYTES:
            self._touched_bytes = 0
            self._map_object.madvise(mmap.MADV_DONTNEED)

    def share(self, path: Path) -> None:
        """Hard-link the file to ``path``, or copy it if the file system has no links."""
        share_file(self.path, path)

    def _map(self, rows: int) -> None:
        """Map capacity for ``rows`` and some more; existing views keep the previous mapping."""
        self._capacity = rows + max(_GROW_ROWS, rows // 8)
        size = self._capacity * self._row_bytes
        os.ftruncate(self._descriptor, size)
        self._map_object = mmap.mmap(self._descriptor, size, access=mmap.ACCESS_READ)
        self._mapped: Float16Rows = np.frombuffer(self._map_object, "<f2").reshape(-1, self.dimension)


def share_file(source: Path, target: Path) -> None:
    """Hard-link, or copy if the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
