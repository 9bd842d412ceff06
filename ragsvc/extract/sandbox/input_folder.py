"""A folder that holds the file of a child's current job, so that the child needs to read no other folder."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from ragsvc.core.errors import StorageFull

_NAME: Final = "input"
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class InputFolder:
    """A temporary folder in ``parent``, which is made if necessary (``None``: the system's folder).

    Landlock's rules are fixed at the start of the child, so they name a folder and not the file of a job.
    A file is hard-linked, which takes 0.02 ms, or copied where that is impossible: on another file system, or for
    another owner, whose file a child without capabilities cannot read.
    """

    def __init__(self, parent: Path | None) -> None:
        """Make the folder. Raises ``StorageFull`` if the disk has no room for it."""
        try:
            if parent is not None:
                parent.mkdir(mode=0o700, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix="parser-", dir=parent)).resolve()
        except OSError as error:
            raise _storage_full(error) from error

    def put(self, path: Path) -> Path:
        """The path of a file in the folder, as the child's only input; ``path`` itself if it cannot be read.

        Raises:
            StorageFull: the disk has no room.
        """
        self.clear()
        target = self.folder / _NAME
        try:
            source = path.resolve(strict=True)
            if source.stat().st_uid != os.geteuid():
                shutil.copyfile(source, target)
            else:
                _link_or_copy(source, target)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise _storage_full(error) from error
            return path
        return target

    def clear(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            (self.folder / _NAME).unlink()

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise
        shutil.copyfile(source, target)


def _storage_full(error: OSError) -> Exception:
    if error.errno in _NO_ROOM:
        return StorageFull("The disk is full. The document is read when it has room.")
    return error
