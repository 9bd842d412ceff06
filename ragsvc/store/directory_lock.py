"""A lock on the data directory: one process at a time uses it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from ragsvc.core.errors import DataDirectoryLocked

_held: Final = set[Path]()
"""Data directories whose lock this process holds. The kernel reports only that some process holds a lock."""


class DataDirectoryLock:
    """An advisory lock that the kernel releases when the process ends, also when it is killed."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root
        self._owner = root / "ragsvc.pid"
        self._lock = FileLock(root / "ragsvc.lock", timeout=0)

    def acquire(self) -> None:
        """Take the lock. Raises ``DataDirectoryLocked`` naming the process that holds it."""
        try:
            self._lock.acquire()
        except Timeout as error:
            raise DataDirectoryLocked(
                f"The data directory {self._root} is in use by another ragsvc process{self._holder()}. "
                "Stop it, talk to it with --url, or set RAGSVC_DATA_DIR to another directory."
            ) from error
        with contextlib.suppress(OSError):  # a full disk: the file only names the process in an error message
            self._owner.write_text(f"{os.getpid()}\n")
        _held.add(self._root.resolve())

    @property
    def is_held_by_this_process(self) -> bool:
        """Whether some lock object of this process has acquired it."""
        return self._root.resolve() in _held

    def _holder(self) -> str:
        try:
            return f" (pid {int(self._owner.read_text())})"
        except (OSError, ValueError):
            return ""

    def release(self) -> None:
        if self._lock.is_locked:
            _held.discard(self._root.resolve())
            self._owner.unlink(missing_ok=True)
            self._lock.release()
