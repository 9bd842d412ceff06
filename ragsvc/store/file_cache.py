"""Keeps local copies of files that are stored elsewhere, up to a number of bytes; the longest unused are removed first.

A copy belongs to one process: nothing is synced, so a start begins with an empty folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import shutil
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from ragsvc.core.errors import StorageFull, StoredDataDamaged
from ragsvc.core.storage_faults import is_storage_fault

_PART: Final = ".part"


class FileCache:
    """Copies in ``folder``; may be used by several threads. Copies in use may exceed ``max_bytes``."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        """Empty the folder. ``max_bytes``: 0 keeps a copy only while it is used."""
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._total = 0
        self._uses: Counter[str] = Counter()
        self._fetching: WeakValueDictionary[str, _FetchLock] = WeakValueDictionary()

    @property
    def size_bytes(self) -> int:
        """Bytes of all copies."""
        return self._total

    @contextlib.contextmanager
    def copy(self, name: str, fetch: Callable[[Path], None], *, fresh: bool = False) -> Generator[Path]:
        """The copy of a file, which stays inside the block; ``fetch`` writes it to a path if there is none.

        Requests for the same file wait for each other and fetch it once. ``fresh`` fetches it in any case.

        Raises:
            StorageFull: the disk has no room for the copy.
        """
        fetching = self._fetch_lock(name)  # the reference keeps the lock known to others
        with fetching.lock:
            path = self._path(name)
            if fresh or not self._use_known(name, path):
                self._fetch(name, path, fetch)
        try:
            yield path
        finally:
            with self._lock:
                self._uses[name] -= 1
                self._shrink()

    def adopt(self, name: str, source: Path) -> None:
        """Take a local file as the copy, or remove it if it is too large; a failure only means that there is none."""
        try:
            size = source.stat().st_size
            if size <= self._max_bytes:
                self._folder.mkdir(parents=True, exist_ok=True)
                source.rename(self._path(name))
                with self._lock:
                    self._keep(name, size)
                    self._shrink()
                return
        except OSError:
            pass
        with contextlib.suppress(OSError):
            source.unlink(missing_ok=True)

    def forget(self, name: str) -> None:
        """Remove the copy of a file."""
        fetching = self._fetch_lock(name)
        with fetching.lock, self._lock:
            self._drop(name)

    def _fetch_lock(self, name: str) -> _FetchLock:
        with self._lock:
            lock = self._fetching.get(name)
            if lock is None:
                lock = self._fetching[name] = _FetchLock()
            return lock

    def _use_known(self, name: str, path: Path) -> bool:
        with self._lock:
            if name not in self._sizes:
                return False
            if not path.exists():
                self._drop(name)
                return False
            self._sizes.move_to_end(name)
            self._uses[name] += 1
            return True

    def _fetch(self, name: str, path: Path, fetch: Callable[[Path], None]) -> None:
        part = path.with_name(f"{secrets.token_hex(12)}{_PART}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            fetch(part)
            size = part.stat().st_size
            part.rename(path)
        except StoredDataDamaged:  # a former copy is not better than what is stored
            with self._lock:
                self._drop(name)
            raise
        except OSError as error:
            if not is_storage_fault(error):
                raise
            raise StorageFull("The disk is full. The stored file cannot be fetched.") from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        with self._lock:
            self._keep(name, size)
            self._uses[name] += 1
            self._shrink()

    def _path(self, name: str) -> Path:
        return self._folder / hashlib.sha256(name.encode()).hexdigest()[:40]

    def _keep(self, name: str, size: int) -> None:
        self._total += size - self._sizes.pop(name, 0)
        self._sizes[name] = size

    def _drop(self, name: str) -> None:
        self._total -= self._sizes.pop(name, 0)
        with contextlib.suppress(OSError):
            self._path(name).unlink(missing_ok=True)

    def _shrink(self) -> None:
        """Remove copies that nobody uses until the others fit; the caller holds the lock."""
        self._uses = +self._uses  # without those at zero
        if self._total <= self._max_bytes:
            return
        for name in list(self._sizes):
            if self._total <= self._max_bytes:
                return
            if not self._uses[name]:
                self._drop(name)


class _FetchLock:
    """A lock that can be weakly referenced."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
