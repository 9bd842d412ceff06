"""Snapshots on disk: folders that appear atomically and are verified by checksums.

A snapshot is written under a temporary name, checksummed, synced, then renamed. Its ``manifest.json`` names the log
position it covers and its embedding model. The content of the files is not interpreted here.
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
    """Size and CRC-32 of the first ``size_bytes`` of a file; a file shared with a growing index may be longer."""

    size_bytes: int
    crc32: int


class SnapshotManifest(msgspec.Struct, frozen=True):
    """Description of a snapshot. ``model`` is the embedding model's fingerprint."""

    format: int
    kind: str
    dimension: int
    model: str
    covered_seq: int
    files: dict[str, FileSum]


class Saveable(Protocol):
    """An index that can be written as a snapshot."""

    @property
    def kind(self) -> str:
        """Names the class that reads it."""
        ...

    @property
    def dimension(self) -> int: ...

    def save(self, folder: Path) -> None:
        """Write files into an empty folder."""
        ...


class SnapshotDamaged(Exception):
    """The snapshot is incomplete or of another format. Not raised outside this package."""


def begin_snapshot(parent: Path) -> Path:
    """A new temporary folder; folders of interrupted writers are removed."""
    for left in parent.glob("writing-*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = parent / f"writing-{_next_generation(parent):08d}"
    folder.mkdir(parents=True)
    return folder


def finish_snapshot(folder: Path, index: Saveable, *, model: str, covered_seq: int, sizes: dict[str, int]) -> Path:
    """Checksum, sync and rename, then remove older snapshots. ``sizes`` bounds files that may grow meanwhile."""
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
    """Read the manifest and verify every file.

    Raises:
        SnapshotDamaged: a file is missing, short or altered, or the snapshot has another format.
    """
    try:
        manifest = msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=SnapshotManifest)
        if manifest.format != SNAPSHOT_FORMAT:
            raise SnapshotDamaged(f"format {manifest.format}")
        for name, expected in manifest.files.items():
            if _checksum(folder / name, expected.size_bytes) != expected:
                raise SnapshotDamaged(f"{name} was altered")
    except (OSError, msgspec.DecodeError) as error:
        raise SnapshotDamaged(str(error)) from error
    return manifest


def sync(path: Path) -> None:
    """Wait until the content of a file or folder is on disk."""
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
