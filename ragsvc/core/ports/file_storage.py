"""The port of durable storage for uploaded files, by name. All methods block, and may be called from any thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import msgspec


class StoredEntry(msgspec.Struct, frozen=True):
    """A stored file: its size as stored, and when it was stored, in Unix seconds."""

    name: str
    size_bytes: int
    modified_at: float


def last_part(name: str) -> str:
    """The part of a stored file's name after the last ``/``."""
    return name.rpartition("/")[2]


class FileStorage(Protocol):
    """Files by name: parts of letters, digits, ``-``, ``_`` and ``.``, separated by ``/``.

    All methods raise ``StorageUnavailable`` if the storage cannot be reached or refuses its credentials.
    """

    @property
    def location(self) -> str:
        """Where the files are, for people; never with a credential."""
        ...

    @property
    def is_elsewhere(self) -> bool:
        """Whether the files are outside of the data directory, where others may store files at the same time."""
        ...

    @property
    def makes_copies(self) -> bool:
        """Whether ``local_copy`` fetches files. Without this, it gives the stored file itself."""
        ...

    @property
    def fault(self) -> str | None:
        """Why the last request failed, in a few words for the operator; ``None`` if it did not."""
        ...

    def put(self, source: Path, name: str, *, is_intact: Callable[[], bool]) -> None:
        """Store a synced local file and take it away. When this returns, the file survives any crash.

        If there is a file with this name, it is kept if ``is_intact``, and replaced otherwise.
        """
        ...

    def local_copy(
        self, name: str, *, verify: Callable[[Path], None], fresh: bool = False
    ) -> AbstractContextManager[Path]:
        """A local path of the file, valid inside the block.

        ``verify`` raises if a copy that was fetched is not the file; the copy is then dropped. ``fresh`` fetches it
        again. A storage that makes no copies gives the path of the stored file, which may not exist.

        Raises:
            FileNotFoundError: there is no such file.
            StorageFull: the local disk has no room for a copy.
        """
        ...

    def find(self, name: str) -> StoredEntry | None:
        """The entry of a file; ``None`` if there is none."""
        ...

    def entries(self, folder: str) -> Iterator[StoredEntry]:
        """The files below a folder, read page by page."""
        ...

    def delete(self, name: str) -> None:
        """Durably delete a file; does nothing if there is none."""
        ...

    def move(self, source: str, target: str) -> None:
        """Durably rename a file."""
        ...

    def prune(self, folder: str) -> None:
        """Remove a folder and those below it, as far as they hold no files."""
        ...

    def remove_leftovers(self) -> None:
        """Remove what interrupted calls of ``put`` have left, and nobody can still be writing."""
        ...

    def probe(self) -> bool:
        """Whether the storage can be used now; never raises ``StorageUnavailable``."""
        ...
