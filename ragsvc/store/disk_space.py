"""Knows whether the file system of the data directory is full, and keeps a reserve for what frees space.

The reserve is a file. It is removed when the disk is full, so that documents can still be deleted, tokens counted and
the service started, and is made again when there is room. Whatever fills the disk can take that space as well; then
nothing can be written, and nothing else is promised. While the disk is full, nothing that takes more space is
begun: uploads are refused and documents are not ingested.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Final

from ragsvc.core.errors import StorageFull
from ragsvc.core.storage_faults import is_storage_fault

logger = logging.getLogger(__name__)

RESERVE_FILE: Final = "ragsvc.reserve"
_SHARE: Final = 0.02
_LEAST_BYTES: Final = 256 << 10
_MOST_BYTES: Final = 8 << 20
_DELETION_BYTES: Final = 128 << 10
"""Free space below which no deletion is promised: its pages first have to fit into the write-ahead log."""
_PIECE: Final = bytes(1 << 16)
_ENOUGH: Final = 2
"""A full disk counts as usable again with this many times the reserve free, so that it does not alternate."""


class DiskSpace:
    """The free space of a data directory. Thread-safe; ``measure`` has to be called repeatedly."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self._reserve = root / RESERVE_FILE
        self._lock = threading.Lock()
        self._full = False
        self._fault = False
        self.reserve_bytes = reserve_of(shutil.disk_usage(root).total)
        """Size of the reserve, and the free space below which the disk counts as full."""

    @property
    def is_full(self) -> bool:
        """Whether the disk was full when it was measured last."""
        return self._full

    def free_bytes(self) -> int:
        """Bytes that this user may still write."""
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    def looks_full(self) -> bool:
        """Whether the disk is full now, without making or removing the reserve."""
        return self._full or self.free_bytes() < self.reserve_bytes

    def check(self) -> None:
        """Raise ``StorageFull`` while the disk is full."""
        if not self._full:
            return
        if self.has_room_to_delete():
            raise StorageFull(
                "The disk is full. Stored documents can be searched and deleted; nothing can be added until there is "
                "room."
            )
        raise StorageFull(
            "The disk is full. Stored documents can be searched; nothing can be added or deleted. Stop what fills the "
            "disk, and free some space outside of the data directory."
        )

    def has_room_to_delete(self) -> bool:
        """Whether deletions can be written: what fills the disk may have taken the space of the reserve as well."""
        return self.free_bytes() >= _DELETION_BYTES

    def report_fault(self) -> bool:
        """Note that a write failed because the disk is full; returns whether the reserve made some room."""
        with self._lock:
            self._fault = True
            return self._become_full()

    def measure(self) -> bool:
        """Measure the free space, and remove or make the reserve accordingly; returns whether the disk is full."""
        with self._lock:
            free = self.free_bytes()
            if not self._full:
                if free < self.reserve_bytes:
                    self._become_full()
                else:
                    self._make_reserve(free)
            elif free >= self._wanted() + self.reserve_bytes and not (
                self._fault and not can_write(self.root, self.reserve_bytes)
            ):
                self._full = self._fault = False
                self._make_reserve(free)
                logger.warning("the disk has room again: uploads and ingest continue")
            return self._full

    def _wanted(self) -> int:
        return _ENOUGH * self.reserve_bytes

    def _become_full(self) -> bool:
        if not self._full:
            self._full = True
            logger.error("the disk of %s is full: uploads are refused, and ingest waits for room", self.root)
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True

    def _make_reserve(self, free: int) -> None:
        """Write the reserve if it does not exist and leaves enough room."""
        if self._reserve.exists() or free < self._wanted() + self.reserve_bytes:
            return
        try:
            _allocate(self._reserve, self.reserve_bytes)
        except OSError as error:
            _remove(self._reserve)
            if not is_storage_fault(error):
                logger.warning("the reserve %s cannot be written (%s)", self._reserve, error.strerror)


def reserve_of(total_bytes: int) -> int:
    """The size of the reserve on a disk: with less free space, the disk counts as full.

    >>> reserve_of(64 << 20), reserve_of(1 << 40)
    (1342177, 8388608)
    """
    return int(min(_MOST_BYTES, max(_LEAST_BYTES, total_bytes * _SHARE)))


def open_disk_space(root: Path) -> DiskSpace:
    """The measured space of a data directory; the reserve makes room for the start if the disk is full."""
    space = DiskSpace(root)
    space.measure()
    return space


def can_write(folder: Path, size_bytes: int = 1 << 20) -> bool:
    """Whether a file of this size can be written: quotas do not show in the free space."""
    probe = folder / "ragsvc.probe"
    try:
        _write(probe, size_bytes)
    except OSError:
        return False
    finally:
        _remove(probe)
    return True


def _allocate(path: Path, size_bytes: int) -> None:
    """Take blocks for a file; where the system cannot do this without writing, write zeros."""
    if sys.platform != "linux":
        _write(path, size_bytes)
        return
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size_bytes)


def _write(path: Path, size_bytes: int) -> None:
    """Write zeros durably."""
    with path.open("wb") as file:
        for _ in range(0, size_bytes, len(_PIECE)):
            file.write(_PIECE)
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
