"""A copy of a data directory without its files, on which ``ragsvc doctor`` may open the services.

Opening the services writes: SQLite moves its write-ahead log into the database, the indexes follow the log, jobs are
queued again. On a copy, none of this changes the directory that is examined.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ragsvc.cli.failures import CommandFailed
from ragsvc.core.byte_sizes import size

_NOT_COPIED: Final = frozenset(
    {
        "blobs",
        "file_cache",
        "files.location",
        "uploads",
        "quarantine",
        "models",
        "ragsvc.lock",
        "ragsvc.pid",
        "ragsvc.reserve",
    }
)
_LARGE_MODEL_FILE: Final = 1 << 20
_SPARE_BYTES: Final = 64 << 20


@contextmanager
def examined_copy(data_dir: Path) -> Generator[Path]:
    """Copy databases, keys and indexes to a temporary folder; the caller holds the lock of ``data_dir``.

    Raises:
        CommandFailed: there is no room for the copy.
    """
    files = list(_files(data_dir))
    needed = sum(path.stat().st_size for path in files) + _SPARE_BYTES
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < needed:
        raise CommandFailed(
            f"{tempfile.gettempdir()} has {size(free)} free, and a copy of the database and the indexes takes "
            f"{size(needed)}; set TMPDIR to a folder with more room",
            code="no_room",
        )
    with tempfile.TemporaryDirectory(prefix="ragsvc-doctor-") as folder:
        copy = Path(folder, "data")
        for path in files:
            target = copy / path.relative_to(data_dir)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        _link_models(data_dir / "models", copy / "models")
        yield copy


def _files(data_dir: Path) -> Iterator[Path]:
    for entry in sorted(data_dir.iterdir()):
        if entry.name in _NOT_COPIED or ".sqlite.before-" in entry.name:
            continue
        if entry.is_file():
            yield entry
        elif entry.is_dir():
            yield from (path for path in entry.rglob("*") if path.is_file())


def _link_models(models: Path, copy: Path) -> None:
    """Link large files; copy small ones, such as the cache of fingerprints, because these are rewritten in place."""
    copy.mkdir(parents=True, exist_ok=True)
    for path in models.rglob("*") if models.is_dir() else ():
        target = copy / path.relative_to(models)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif path.stat().st_size > _LARGE_MODEL_FILE:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path.resolve())
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
