"""Stored files in a folder outside of the data directory, usually one on another machine.

A folder that is not mounted looks like an empty one: without its owner's file it counts as unavailable, so that no
document is taken for damaged.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Final

from ragsvc.core.errors import StorageUnavailable
from ragsvc.core.ports.file_storage import StoredEntry
from ragsvc.core.storage_faults import is_storage_fault
from ragsvc.store.local_files import LocalFiles

logger = logging.getLogger(__name__)

_RETRY_AFTER_S: Final = 5.0


class SharedFolder(LocalFiles):
    """Files in a folder that may be unreachable for a while; implements ``FileStorage``."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, is_elsewhere=True)
        self._sentinel: Path | None = None
        self._fault: str | None = None

    @property
    def location(self) -> str:
        return self.root.as_uri()

    @property
    def fault(self) -> str | None:
        return self._fault

    def require(self, name: str) -> None:
        """From now on the folder counts as unavailable while it has no file of this name."""
        self._sentinel = self.path(name)

    def put(self, source: Path, name: str, *, is_intact: Callable[[], bool]) -> None:
        with self._reached():
            super().put(source, name, is_intact=is_intact)

    @contextlib.contextmanager
    def local_copy(self, name: str, *, verify: Callable[[Path], None], fresh: bool = False) -> Generator[Path]:
        with self._reached():
            self.path(name).stat()
        with super().local_copy(name, verify=verify, fresh=fresh) as path:
            yield path

    def find(self, name: str) -> StoredEntry | None:
        with self._reached():
            return super().find(name)

    def entries(self, folder: str) -> Iterator[StoredEntry]:
        with self._reached():
            found = list(super().entries(folder))
        yield from found

    def delete(self, name: str) -> None:
        with self._reached():
            super().delete(name)

    def move(self, source: str, target: str) -> None:
        with self._reached():
            super().move(source, target)

    def prune(self, folder: str) -> None:
        with self._reached():
            super().prune(folder)

    def probe(self) -> bool:
        try:
            with self._reached():
                return self.root.is_dir()
        except StorageUnavailable:
            return False

    def _require_mounted(self) -> None:
        if self._sentinel is not None and not self._sentinel.exists():
            raise OSError(errno.ENODEV, f"it has no {self._sentinel.name}, so it is probably not mounted")

    @contextlib.contextmanager
    def _reached(self) -> Generator[None]:
        """Map faults of the folder; what says that one file is missing, or that the disk is full, is passed on."""
        try:
            self._require_mounted()
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if is_storage_fault(error):
                raise
            reason = error.strerror or str(error)
            if self._fault != reason:
                self._fault = reason
                logger.error("the folder %s cannot be used (%s)", self.root, reason)  # noqa: TRY400 - no traceback
            raise StorageUnavailable(
                "The store of the files cannot be used at the moment. Try again later.", retry_after_s=_RETRY_AFTER_S
            ) from error
        if self._fault is not None:
            self._fault = None
            logger.warning("the folder %s can be used again", self.root)
