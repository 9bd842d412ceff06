"""Snapshots on disk: a folder that is there as a whole or not at all, and known to be what was written.

Written under a temporary name, checksummed, synced, then renamed; ``manifest.json`` says what log position and which
embedding model it covers. Knows files, not what is in them.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

SNAPSHOT_FORMAT = 1
_MANIFEST = "manifest.json"
_PREFIX = "vectors-"
_BLOCK_BYTES = 1 << 20


class FileSum(msgspec.Struct, frozen=True):
    """Size and CRC-32 of a file's first ``size_bytes``; a file shared with a growing index may be longer."""

    size_bytes: int
    crc32: int


class SnapshotManifest(msgspec.Struct, frozen=True):
    """What a snapshot is. ``model`` is the embedding model's fingerprint."""

    format: int
    kind: str
    dimension: int
    model: str
    covered_seq: int
    files: dict[str, FileSum]


class Saveable(Protocol):
    """What can be written as a snapshot."""

    @property
    def kind(self) -> str:
        """Which class reads it again."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    def save(self, folder: Path) -> None:
        """Write files into an empty folder."""
        ...


class SnapshotDamaged(Exception):
    """The snapshot is torn or of another format. Never leaves this package: an older one or a rebuild follows."""


def begin_snapshot(parent: Path) -> Path:
    """A fresh temporary folder; what an interrupted writer left is removed."""
    for left in parent.glob("writing-*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = parent / f"writing-{_next_generation(parent):08d}"
    folder.mkdir(parents=True)
    return folder


def finish_snapshot(folder: Path, index: Saveable, *, model: str, covered_seq: int, sizes: dict[str, int]) -> Path:
    """Checksum, sync, rename; older snapshots go. ``sizes`` bounds files that may grow meanwhile."""
    files = {path.name: _checksum(path, sizes.get(path.name)) for path in sorted(folder.iterdir())}
    manifest = SnapshotManifest(SNAPSHOT_FORMAT, index.kind, index.dimension, model, covered_seq, files)
    (folder / _MANIFEST).write_bytes(msgspec.json.encode(manifest))
    for path in folder.iterdir():
        sync(path)
    sync(folder)
    final = folder.parent / folder.name.replace("writing-", _PREFIX)
    folder.rename(final)
    sync(final.parent)
    for older in _snapshots(final.parent):
        if older != final:
            shutil.rmtree(older, ignore_errors=True)
    return final


def find_snapshots(parent: Path) -> Iterator[Path]:
    """Snapshot folders, newest first."""
    yield from _snapshots(parent)


def read_manifest(folder: Path) -> SnapshotManifest:
    """The manifest, after every file was compared with it.

    Raises:
        SnapshotDamaged: a file is missing, short or altered, or the format is another.
    """
    try:
        manifest = msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=SnapshotManifest)
        if manifest.format != SNAPSHOT_FORMAT:
            raise SnapshotDamaged(f"format {manifest.format}")
        for name, expected in manifest.files.items():
            if _checksum(folder / name, expected.size_bytes) != expected:
                raise SnapshotDamaged(f"{name} is not what was written")
    except (OSError, msgspec.DecodeError) as error:
        raise SnapshotDamaged(str(error)) from error
    return manifest


def sync(path: Path) -> None:
    """Wait until a file's or folder's content is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _snapshots(parent: Path) -> list[Path]:
    return sorted(parent.glob(f"{_PREFIX}*"), reverse=True)


def _next_generation(parent: Path) -> int:
    newest = next(iter(_snapshots(parent)), None)
    return int(newest.name.removeprefix(_PREFIX)) + 1 if newest else 1


def _checksum(path: Path, size_bytes: int | None) -> FileSum:
    left = path.stat().st_size if size_bytes is None else size_bytes
    size, crc = 0, 0
    with path.open("rb", buffering=0) as file:
        while left > 0:
            block = file.read(min(_BLOCK_BYTES, left))
            if not block:
                break
            crc = zlib.crc32(block, crc)
            size += len(block)
            left -= len(block)
    return FileSum(size, crc)
