"""Copies the stored files of a data directory to another place, and compares each by its SHA-256."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from hashlib import file_digest
from pathlib import Path
from typing import Final

import msgspec

from ragsvc.core.errors import ConfigurationError
from ragsvc.core.ports.file_storage import FileStorage, StoredEntry
from ragsvc.store.blobs import BLOBS, QUARANTINE

_FOLDERS: Final = (BLOBS, QUARANTINE)


class CopiedFiles(msgspec.Struct):
    """What both places have in common after a copy."""

    files: int = 0
    size_bytes: int = 0
    sent: int = 0
    """Files that the target lacked."""
    others: int = 0
    """Files that the target has and the source lacks, of documents that were deleted since an earlier move."""


def stored_files(files: FileStorage) -> list[StoredEntry]:
    """All files of documents, uploads and the quarantine."""
    return [entry for folder in _FOLDERS for entry in files.entries(folder)]


def copy_files(
    source: FileStorage, target: FileStorage, *, work_folder: Path, copied: Callable[[int], None]
) -> CopiedFiles:
    """Copy the files that the target lacks or has with other bytes; the source keeps its files.

    Each file is read back from the target. ``copied`` is called with the number of files that were compared.

    Raises:
        ConfigurationError: a file has other bytes in the target after it was copied.
        StorageUnavailable: one of the places cannot be used.
    """
    total = CopiedFiles()
    work_folder.mkdir(parents=True, exist_ok=True)
    entries = stored_files(source)
    for entry in entries:
        with source.local_copy(entry.name, verify=lambda _: None, fresh=True) as path:
            wanted = _sha256(path)
            if not _has(target, entry, wanted):
                _send(path, target, entry.name, work_folder)
                total.sent += 1
                if not _has(target, entry, wanted):
                    raise ConfigurationError([f"{entry.name} has other bytes in {target.location} after it was copied"])
        total.files += 1
        total.size_bytes += entry.size_bytes
        copied(total.files)
    names = {entry.name for entry in entries}
    total.others = sum(entry.name not in names for entry in stored_files(target))
    return total


def _has(files: FileStorage, entry: StoredEntry, wanted: str) -> bool:
    found = files.find(entry.name)
    if found is None or found.size_bytes != entry.size_bytes:
        return False
    try:
        with files.local_copy(entry.name, verify=lambda _: None, fresh=True) as path:
            return _sha256(path) == wanted
    except FileNotFoundError:
        return False


def _send(path: Path, target: FileStorage, name: str, work_folder: Path) -> None:
    part = work_folder / f"{secrets.token_hex(8)}.part"
    try:
        with path.open("rb") as read, part.open("xb") as written:
            shutil.copyfileobj(read, written)
            written.flush()
            os.fsync(written.fileno())
        target.put(part, name, is_intact=lambda: False)
    finally:
        part.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
