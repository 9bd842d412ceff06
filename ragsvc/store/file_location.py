"""Notes in a data directory where its files are stored, if elsewhere, and in that place to whom the files belong.

With the note, a service that is started without ``files_url`` does not take all files for lost, and a backup says that
it does not hold them. With the owner, two data directories do not take each other's files for their own.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from ragsvc.core.errors import ConfigurationError
from ragsvc.core.ports.file_storage import FileStorage
from ragsvc.store.blobs import BLOBS
from ragsvc.store.durable_names import sync_folder
from ragsvc.store.local_files import LocalFiles

FILE_LOCATION_FILE_NAME: Final = "files.location"
OWNER: Final = "owner.id"
"""The file of a place that holds the id of its data directory."""


def read_file_location(data_dir: Path) -> str | None:
    """Where the files of a data directory are; ``None`` for the directory itself. Raises ``ConfigurationError``."""
    path = data_dir / FILE_LOCATION_FILE_NAME
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError([f"{path} cannot be read ({error.strerror})"]) from error


def require_local_files(data_dir: Path) -> None:
    """Raise ``ConfigurationError`` if the files of a data directory are elsewhere."""
    location = read_file_location(data_dir)
    if location is not None:
        raise ConfigurationError([f"the files of {data_dir} are at {location}: set files_url to it"])


def claim_files(files: FileStorage, data_dir: Path, identity: str) -> None:
    """Make a place elsewhere that of this data directory, or check that it is.

    Raises:
        ConfigurationError: it belongs to another data directory, or it is new and the directory has files somewhere
            else, which would be missing.
        StorageUnavailable: it cannot be used.
    """
    if _read_owner(files) is None:
        _refuse_to_lose_files(files, data_dir)
    own_place(files, data_dir, identity)
    note_location(data_dir, files)


def own_place(files: FileStorage, data_dir: Path, identity: str, *, is_complete: bool = True) -> None:
    """Write to a place elsewhere that its files are those of this data directory, all of them or not yet.

    Raises:
        ConfigurationError: it belongs to another data directory; or it has a part of the files, and ``is_complete``.
        StorageUnavailable: it cannot be used.
    """
    wanted, owner = _owner_text(identity, is_complete), _read_owner(files)
    if owner is None or (not is_complete and owner == identity):
        _write_owner(files, data_dir, wanted)
        owner = _read_owner(files)  # another process may have claimed it meanwhile
    _refuse_other(files, owner, identity)
    if owner != wanted:
        problem = f"files_url: {files.location} has a part of the files, because a move was interrupted"
        raise ConfigurationError([f"{problem}: run 'ragsvc migrate-to' again"])


def complete_place(files: FileStorage, data_dir: Path, identity: str) -> None:
    """Note that a place which ``own_place`` has marked as not complete has all files."""
    _write_owner(files, data_dir, identity)


def require_own_place(files: FileStorage, identity: str) -> None:
    """Raise ``ConfigurationError`` unless a place elsewhere has all files of this data directory."""
    owner = _read_owner(files)
    if owner is None:
        raise ConfigurationError([f"files_url: {files.location} holds no files of a data directory, or is not mounted"])
    _refuse_other(files, owner, identity)
    if owner != identity:
        raise ConfigurationError([f"files_url: {files.location} has a part of the files: a move to it was interrupted"])


def _owner_text(identity: str, is_complete: bool) -> str:  # noqa: FBT001 - private
    return identity if is_complete else f"{identity} incomplete"


def _refuse_other(files: FileStorage, owner: str | None, identity: str) -> None:
    if owner not in (identity, _owner_text(identity, is_complete=False)):
        raise ConfigurationError(
            [f"files_url: {files.location} holds the files of another data directory; choose another prefix or folder"]
        )


def note_location(data_dir: Path, files: FileStorage) -> None:
    """Note in a data directory where its files are."""
    if not files.is_elsewhere:
        (data_dir / FILE_LOCATION_FILE_NAME).unlink(missing_ok=True)
        sync_folder(data_dir)
    elif read_file_location(data_dir) != files.location:
        _write_location(data_dir, files.location)


def _refuse_to_lose_files(files: FileStorage, data_dir: Path) -> None:
    former = read_file_location(data_dir)
    if former is None and next(LocalFiles(data_dir).entries(BLOBS), None) is not None:
        former = f"{data_dir / BLOBS}"
    if former is not None and former != files.location and next(files.entries(BLOBS), None) is None:
        problem = (
            f"files_url: {files.location} is empty, and the files of this data directory are in {former}: copy them "
            "first, as docs/howto/store-files-elsewhere.md says"
        )
        raise ConfigurationError([problem])


def _read_owner(files: FileStorage) -> str | None:
    try:
        with files.local_copy(OWNER, verify=lambda _: None, fresh=True) as path:
            return path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None


def _write_owner(files: FileStorage, data_dir: Path, identity: str) -> None:
    written = _write_synced(data_dir, f"{OWNER}.{secrets.token_hex(8)}.new", identity)
    try:
        files.put(written, OWNER, is_intact=lambda: False)
    finally:
        written.unlink(missing_ok=True)


def _write_location(data_dir: Path, location: str) -> None:
    written = _write_synced(data_dir, f"{FILE_LOCATION_FILE_NAME}.new", location)
    written.rename(data_dir / FILE_LOCATION_FILE_NAME)
    sync_folder(data_dir)


def _write_synced(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    return path
