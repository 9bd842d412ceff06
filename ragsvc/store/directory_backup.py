"""Backs a data directory up while a service uses it, and restores it.

A snapshot holds the databases as of one instant, every file that the database names, and the keys of the directory. The
indexes are left out: a start rebuilds them. Files of an encrypted directory are copied as they are, encrypted. Files
that are stored outside of the directory, in a bucket for example, are left out as well; the snapshot names the place.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from ragsvc import __version__
from ragsvc.core.errors import ConfigurationError, Conflict
from ragsvc.core.ids import TenantId
from ragsvc.store.backup import copy_open_database, remove_database
from ragsvc.store.backup_archive import ArchivedFile, BackupArchive, BackupManifest
from ragsvc.store.blob_references import BlobKey, columns_of, required_files
from ragsvc.store.blobs import BlobStore
from ragsvc.store.data_keys import DATABASE_FILE_NAME, KEY_FILE_NAME, DataKeys
from ragsvc.store.directory_identity import DIRECTORY_ID_FILE_NAME, directory_id, write_directory_id
from ragsvc.store.directory_lock import DataDirectoryLock
from ragsvc.store.durable_names import sync_folder
from ragsvc.store.file_location import FILE_LOCATION_FILE_NAME, read_file_location
from ragsvc.store.replay_claims import CLAIMS_FILE_NAME
from ragsvc.store.sealing_key import FORMER_SEALING_KEY_FILE_NAME, SEALING_KEY_FILE_NAME
from ragsvc.store.sqlite_database import connect_raw

MODEL_REVISIONS_FILE_NAME: Final = "hub_models.json"
_SMALL_FILES: Final = (
    SEALING_KEY_FILE_NAME,
    FORMER_SEALING_KEY_FILE_NAME,
    KEY_FILE_NAME,
    MODEL_REVISIONS_FILE_NAME,
    DIRECTORY_ID_FILE_NAME,
    FILE_LOCATION_FILE_NAME,
)
_STAGING: Final = "restore.partial"
_NOT_DATA: Final = frozenset({"README.md", "ragsvc.lock", "ragsvc.pid", "ragsvc.reserve", "lost+found", _STAGING})
_ATTEMPTS: Final = 100
"""How often the files are compared with the database again because documents were deleted meanwhile. An attempt copies
only what was added since the one before, so the second nearly always succeeds."""
_ID_FORMAT: Final = "%Y%m%dT%H%M%SZ"


class BackupResult(msgspec.Struct, frozen=True, kw_only=True):
    """A finished snapshot; ``written_bytes`` is what the archive grew by."""

    manifest: BackupManifest
    written_bytes: int
    removed: list[str]


def back_up_directory(
    data_dir: Path,
    keys: DataKeys | None,
    destination: Path,
    *,
    keep: int | None = None,
    same_directory: bool = False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    on_rows_read: Callable[[], object] = lambda: None,
) -> BackupResult:
    """Make a snapshot of a data directory in the archive at ``destination``; with ``keep``, remove older snapshots.

    An archive belongs to the directory of its first snapshot. ``same_directory`` says that this is the same directory
    although its id differs, for example because a copy by hand left the id out.

    ``on_rows_read`` is called each time the rows were read and before the files that they name are copied.

    Raises:
        ConfigurationError: there is no data, or ``destination`` holds other files or the snapshots of another
            directory, or is inside the directory.
        Conflict: another process works on the archive, or the master key was changed during the backup.
    """
    if not (data_dir / DATABASE_FILE_NAME).is_file():
        raise ConfigurationError([f"{data_dir} holds no database of ragsvc"])
    if destination.resolve().is_relative_to(data_dir.resolve()):
        raise ConfigurationError([f"{destination} is inside the data directory; choose a folder outside {data_dir}"])
    archive = BackupArchive.create(destination)
    with archive.locked():
        archive = BackupArchive(destination)  # another backup may have assigned it before it was locked
        identity = directory_id(data_dir)
        if not same_directory and not archive.belongs_to(identity):
            raise ConfigurationError([_other_directory(archive, data_dir, destination)])
        result = _DirectoryBackup(data_dir, keys, archive, identity, on_rows_read).run(
            now(), before_commit=lambda: archive.assign(identity, add=same_directory)
        )
        removed = [] if keep is None else archive.remove_old(keep=keep)
    return msgspec.structs.replace(result, removed=removed)


def _other_directory(archive: BackupArchive, data_dir: Path, destination: Path) -> str:
    newest = archive.newest()
    other = "another data directory" if newest is None or newest.data_dir is None else f"another, {newest.data_dir}"
    return (
        f"{destination} holds the snapshots of {other}: choose another folder for the snapshots of {data_dir}, or add "
        f"--same-directory if it is the same directory, copied without its {DIRECTORY_ID_FILE_NAME}"
    )


class _DirectoryBackup:
    """One run of a backup."""

    def __init__(
        self,
        data_dir: Path,
        keys: DataKeys | None,
        archive: BackupArchive,
        identity: str | None,
        on_rows_read: Callable[[], object],
    ) -> None:
        self._identity = identity
        self._on_rows_read = on_rows_read
        self._data_dir = data_dir
        self._keys = keys
        self._archive = archive
        self._files_at = read_file_location(data_dir)
        self._blobs = BlobStore(data_dir, keys)
        newest = archive.newest()
        self._known = {} if newest is None else {file.path: file for file in newest.files}
        self._blob_files: dict[BlobKey, ArchivedFile] = {}
        self._files: list[ArchivedFile] = []

    def run(self, started: datetime, *, before_commit: Callable[[], object]) -> BackupResult:
        key_file = _content(self._data_dir / KEY_FILE_NAME)
        documents, missing = self._add_database_and_blobs()
        if (self._data_dir / CLAIMS_FILE_NAME).exists():
            with _snapshot_of(self._data_dir / CLAIMS_FILE_NAME, None) as connection:
                self._add_copy(connection, CLAIMS_FILE_NAME, None)
        for name in _SMALL_FILES:
            if (self._data_dir / name).exists():
                self._add(self._data_dir / name, name)
        if _content(self._data_dir / KEY_FILE_NAME) != key_file:
            raise Conflict("The master key was changed during the backup. Run the backup again.")
        manifest = BackupManifest(
            id=self._archive.free_id(started.strftime(_ID_FORMAT)),
            created_at=started.isoformat(timespec="seconds"),
            release=__version__,
            encrypted=self._keys is not None,
            documents=documents,
            files=(*self._files, *self._blob_files.values()),
            missing=tuple(missing),
            directory_id=self._identity,
            data_dir=str(self._data_dir.resolve()),
            files_at=self._files_at,
        )
        before_commit()
        self._archive.commit(manifest)
        return BackupResult(manifest=manifest, written_bytes=self._archive.written_bytes, removed=[])

    def _add_database_and_blobs(self) -> tuple[int, list[str]]:
        """Add the database, and the files that it names at the same instant.

        A document can be deleted between the reading of its row and the copy of its file. The next attempt reads the
        rows again, and no longer finds it. A file that two successive attempts lack was lost before.
        """
        with _snapshot_of(self._data_dir / DATABASE_FILE_NAME, self._keys) as connection:
            references = required_files(connection)
        # most files are copied here, because an open transaction keeps the write-ahead log from being reset
        lacking_before = self._add_blobs(references)
        for _ in range(_ATTEMPTS):
            with _snapshot_of(self._data_dir / DATABASE_FILE_NAME, self._keys) as connection:
                references = required_files(connection)
                lacking = self._add_blobs(references)
                if not lacking or lacking == lacking_before:
                    self._add_copy(connection, DATABASE_FILE_NAME, self._keys)
                    self._blob_files = {blob: file for blob, file in self._blob_files.items() if blob in references}
                    paths = sorted(str(self._name(blob)) for blob in lacking)
                    return _count_documents(connection), paths
                lacking_before = lacking
        raise Conflict("Documents were deleted throughout the backup. Run the backup again.")

    def _add_blobs(self, references: set[BlobKey]) -> set[BlobKey]:
        """Add files that are not in the archive yet; returns those that do not exist."""
        self._on_rows_read()
        lacking = set[BlobKey]()
        if self._files_at is not None:
            return lacking
        for blob in sorted(references - self._blob_files.keys()):
            name = self._name(blob)
            try:
                self._blob_files[blob] = self._archive.add(
                    self._data_dir / name, name, known=self._known.get(str(name))
                )
            except FileNotFoundError:
                lacking.add(blob)
        return lacking

    def _name(self, blob: BlobKey) -> PurePosixPath:
        path = self._blobs.path(TenantId(blob[0]), blob[1])
        return PurePosixPath(path.relative_to(self._data_dir))

    def _add_copy(self, connection: sqlite3.Connection, name: str, keys: DataKeys | None) -> None:
        scratch = self._archive.scratch_file()
        try:
            copy_open_database(connection, scratch, connect=lambda path: _connect(path, keys))
            _remove_sessions(scratch, keys)
            self._add(scratch, name)
        finally:
            remove_database(scratch)

    def _add(self, path: Path, name: str) -> None:
        self._files.append(self._archive.add(path, PurePosixPath(name)))


def restore_directory(source: Path, data_dir: Path, *, snapshot: str | None = None) -> BackupManifest:
    """Restore a snapshot, by default the newest, into a new or empty data directory.

    Everything is written and checked under a temporary name first; the database gets its name last, so an interrupted
    restore is never taken for a data directory and can be repeated.

    Raises:
        ConfigurationError: there is no such snapshot, or the directory holds data.
        BackupDamaged: a part of the backup is missing or was changed.
        DataDirectoryLocked: a service uses the directory.
    """
    archive = BackupArchive(source)
    manifest = archive.manifest(snapshot)
    lock = DataDirectoryLock(data_dir)
    lock.acquire()
    try:
        staging = data_dir / _STAGING
        interrupted = staging.exists()
        present = {entry.name for entry in data_dir.iterdir()} - _NOT_DATA
        if DATABASE_FILE_NAME in present or (present and not interrupted):
            raise ConfigurationError([f"{data_dir} is not empty; restore into a new directory"])
        if interrupted:
            shutil.rmtree(staging)
            for name in present:
                _remove(data_dir / name)
        staging.mkdir()
        for file in manifest.files:
            archive.extract(file, staging / _checked(file.path))
        if archive.directory_ids and not (staging / DIRECTORY_ID_FILE_NAME).exists():
            # a snapshot of an earlier release: the restored directory continues the archive
            write_directory_id(staging, archive.directory_ids[-1])
        _publish(staging, data_dir)
    finally:
        lock.release()
    return manifest


def _publish(staging: Path, data_dir: Path) -> None:
    """Move the restored files to their places, the database last."""
    for folder, _, _ in os.walk(staging, topdown=False):
        sync_folder(Path(folder))
    entries = sorted(staging.iterdir(), key=lambda path: path.name == DATABASE_FILE_NAME)
    for entry in entries:
        if entry.name == DATABASE_FILE_NAME:
            sync_folder(data_dir)
        entry.rename(data_dir / entry.name)
    sync_folder(data_dir)
    staging.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _checked(path: str) -> PurePosixPath:
    """The path, if it stays inside a folder. A manifest is read from a file that somebody may have changed."""
    checked = PurePosixPath(path)
    if checked.is_absolute() or ".." in checked.parts:
        raise ConfigurationError([f"the backup names a file outside the data directory: {path}"])
    return checked


@contextmanager
def _snapshot_of(path: Path, keys: DataKeys | None) -> Generator[sqlite3.Connection]:
    """A connection that reads one state of a database, whatever other processes write meanwhile."""
    with closing(_connect(path, keys)) as connection:
        connection.execute("BEGIN").close()
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # takes the snapshot
        yield connection
        connection.execute("ROLLBACK").close()


def _connect(path: Path, keys: DataKeys | None) -> sqlite3.Connection:
    return connect_raw(path, key=None if keys is None else keys.database_key)


def _remove_sessions(copy: Path, keys: DataKeys | None) -> None:
    """Remove the sessions of the web pages: a restore would open those again that were ended after the backup."""
    with closing(_connect(copy, keys)) as connection:
        connection.execute("PRAGMA secure_delete=ON").close()
        for table in ("web_sessions", "session_links"):
            if columns_of(connection, table):  # not in a database of an early release
                connection.execute(f"DELETE FROM {table}").close()  # noqa: S608 - constants


def _count_documents(connection: sqlite3.Connection) -> int:
    """The documents that are not being deleted with their collection."""
    if not columns_of(connection, "documents"):
        return 0  # a service that was killed at its first start leaves a database without tables
    doomed = ""
    if "deleted_at" in columns_of(connection, "collections"):  # not in a database of an early release
        doomed = "WHERE collection_id NOT IN (SELECT id FROM collections WHERE deleted_at IS NOT NULL)"
    (count,) = connection.execute(f"SELECT count(*) FROM documents {doomed}").fetchone()  # noqa: S608 - constants
    return int(count)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
