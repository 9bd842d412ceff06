"""Stored files in a folder: that of the data directory, or one that several machines mount.

A file is synced under a temporary name, then renamed, so a file under its final name is complete.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Final

from ragsvc.core.ports.file_storage import StoredEntry
from ragsvc.store.durable_names import sync_folder

_PART: Final = ".part"
_FILE_NAME_LENGTH: Final = 64
"""Of stored files only: hexadecimal digits of a SHA-256 or an HMAC of it."""
_LEFTOVER_AFTER_S: Final = 86_400
"""A copy into a shared folder that is older was interrupted."""


class LocalFiles:
    """Files below ``root``; implements ``FileStorage``."""

    makes_copies = False

    def __init__(self, root: Path, *, is_elsewhere: bool = False) -> None:
        self.root = root
        self.is_elsewhere = is_elsewhere
        self._durable: set[Path] = set()

    @property
    def location(self) -> str:
        return str(self.root)

    @property
    def fault(self) -> str | None:
        """Faults of a local disk are raised as they are."""
        return None

    def path(self, name: str) -> Path:
        """The path of a file, stored or not."""
        return self.root / name

    def put(self, source: Path, name: str, *, is_intact: Callable[[], bool]) -> None:
        target = self.path(name)
        self._make_durably(target.parent)
        if target.exists() and is_intact():
            source.unlink(missing_ok=True)
            return
        try:
            source.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy_durably(source, target)
        sync_folder(target.parent)

    @contextlib.contextmanager
    def local_copy(
        self,
        name: str,
        *,
        verify: Callable[[Path], None],
        fresh: bool = False,
    ) -> Generator[Path]:
        yield self.path(name)

    def find(self, name: str) -> StoredEntry | None:
        try:
            status = self.path(name).stat()
        except FileNotFoundError:
            return None
        return StoredEntry(name, status.st_size, status.st_mtime)

    def entries(self, folder: str) -> Iterator[StoredEntry]:
        """The files below a folder in the order of their names, without unfinished copies."""
        try:
            entries = sorted(os.scandir(self.root / folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            name = f"{folder}/{entry.name}"
            if entry.is_dir():
                yield from self.entries(name)
            elif entry.is_file() and not entry.name.endswith(_PART):
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    status = entry.stat()
                    yield StoredEntry(name, status.st_size, status.st_mtime)

    def delete(self, name: str) -> None:
        target = self.path(name)
        if target.exists():
            target.unlink(missing_ok=True)
            sync_folder(target.parent)

    def move(self, source: str, target: str) -> None:
        """Durably move a file, and remove the folders that it leaves empty."""
        old, new = self.path(source), self.path(target)
        new.parent.mkdir(parents=True, exist_ok=True)
        old.rename(new)
        for folder in (new.parent, new.parent.parent, new.parent.parent.parent, old.parent):
            sync_folder(folder)
        self._durable -= {old.parent, old.parent.parent}
        with contextlib.suppress(OSError):  # another file is in the folder
            old.parent.rmdir()
            old.parent.parent.rmdir()

    def prune(self, folder: str) -> None:
        for path, _, _ in os.walk(self.root / folder, topdown=False):
            empty = Path(path)
            if len(empty.name) == _FILE_NAME_LENGTH:  # something else in the place of a file, which stays a fault
                continue
            self._durable.discard(empty)
            with contextlib.suppress(OSError):  # not empty, or removed meanwhile
                empty.rmdir()

    def remove_leftovers(self) -> None:
        if not self.is_elsewhere:
            return  # files get their place by a rename
        for path in self.root.rglob(f"*{_PART}"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFTOVER_AFTER_S:
                    path.unlink()

    def probe(self) -> bool:
        return self.root.is_dir()

    def _make_durably(self, folder: Path) -> None:
        """Make a folder of the store that survives a crash of the machine.

        A folder that exists may have been made a moment ago by another thread, which has not synced its parent yet. So
        only a folder that this process has synced is known to survive.
        """
        if folder == self.root:
            return
        if folder.parent != self.root and folder.parent not in self._durable:
            self._make_durably(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            self._durable.discard(folder)
        if folder not in self._durable:
            sync_folder(folder.parent)
            self._durable.add(folder)


def _copy_durably(source: Path, target: Path) -> None:
    """Copy to another file system, and remove the source."""
    part = target.with_name(f"{secrets.token_hex(12)}{_PART}")
    try:
        with source.open("rb") as read, part.open("xb") as written:
            shutil.copyfileobj(read, written)
            written.flush()
            os.fsync(written.fileno())
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
    source.unlink()
