"""Encrypts a plain data directory, and moves an encrypted one to a new master key.

Both continue after an interruption when they are run again. Nothing else may use the directory meanwhile. The blocks of
the removed plain files stay on the disk until the file system overwrites them.
"""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path

from ragsvc.core.errors import ConfigurationError, CryptoFailure
from ragsvc.core.ids import TenantId
from ragsvc.crypto.at_rest import EncryptedReader, EncryptingWriter, MasterKey, MasterKeys, add_key, rewrap
from ragsvc.store.backup import remove_plain_backups
from ragsvc.store.blob_references import referenced_files
from ragsvc.store.blobs import RENDITIONS, BlobStore
from ragsvc.store.data_keys import (
    DATABASE_FILE_NAME,
    KEY_FILE_CONTEXT,
    KEY_FILE_NAME,
    DataKeys,
    create_data_keys,
    is_plain_database,
    read_data_keys,
)
from ragsvc.store.durable_names import sync_folder
from ragsvc.store.file_location import require_local_files
from ragsvc.store.file_sweep import quarantined_files
from ragsvc.store.sqlite_database import connect_raw

_PIECE_BYTES = 1 << 20
_UNFINISHED = ".new"


def encrypt_directory(data_dir: Path, master: MasterKey) -> int:
    """Encrypt all files and the database of a plain data directory; returns how many files were encrypted.

    The database is encrypted last: until then, the service refuses to start, with the key and without it.

    Raises:
        ConfigurationError: there is no database, the encryption was begun with another master key, or files of the
            directory belong to no document: whether they may be removed is not decided here.
    """
    require_local_files(data_dir)
    database = data_dir / DATABASE_FILE_NAME
    if not database.exists():
        raise ConfigurationError(
            [f"{data_dir} holds no database; a service that starts there with a master key creates an encrypted one"]
        )
    masters = MasterKeys(master)
    has_keys = (data_dir / KEY_FILE_NAME).exists()
    if not has_keys:
        _refuse_unknown_files(data_dir, None)
    keys = read_data_keys(data_dir, masters) if has_keys else create_data_keys(data_dir, masters)
    _refuse_unknown_files(data_dir, keys)
    encrypted = 0
    if is_plain_database(database):
        plain, sealed = BlobStore(data_dir), BlobStore(data_dir, keys)
        for tenant, sha256 in _references(database, None):
            old, new = plain.path(TenantId(tenant), sha256), sealed.path(TenantId(tenant), sha256)
            if old.exists():
                _encrypt_file(old, new, keys, sha256)
                encrypted += 1
        _encrypt_database(database, keys)
    _remove_plain_leftovers(data_dir, keys)
    return encrypted


def _refuse_unknown_files(data_dir: Path, keys: DataKeys | None) -> None:
    """Raise ``ConfigurationError`` if there are files that no document refers to: their context is not known."""
    database = data_dir / DATABASE_FILE_NAME
    is_plain = is_plain_database(database)
    if keys is None and not is_plain:
        return
    references = set(_references(database, None if keys is None or is_plain else keys.database_key))
    unknown = [*_unknown_files(data_dir, keys, references), *quarantined_files(data_dir)]
    if unknown:
        problem = (
            f"{len(unknown)} stored files of {data_dir} belong to no document and would keep their present key, or "
            f"none: move them out of the directory first, {unknown[0]} for example"
        )
        raise ConfigurationError([problem])


def _unknown_files(data_dir: Path, keys: DataKeys | None, references: set[tuple[str, str]]) -> list[Path]:
    """Stored files that are neither the plain nor the encrypted file of a document."""
    unknown = set(BlobStore(data_dir).unknown_files(references))
    if keys is not None:
        unknown &= set(BlobStore(data_dir, keys).unknown_files(references))
    return [data_dir / name for name in sorted(unknown) if not name.endswith(_UNFINISHED)]


def rotate_master_key(data_dir: Path, current: MasterKey, new: MasterKey) -> int:
    """Wrap all keys of an encrypted data directory under ``new``; returns how many files changed.

    Raises:
        ConfigurationError: neither key opens the directory, or it is not encrypted.
    """
    require_local_files(data_dir)
    if not (data_dir / KEY_FILE_NAME).exists() or is_plain_database(data_dir / DATABASE_FILE_NAME):
        raise ConfigurationError([f"{data_dir} is not encrypted: run 'ragsvc encrypt'"])
    masters = MasterKeys(new, current)
    keys = read_data_keys(data_dir, masters)
    _refuse_unknown_files(data_dir, keys)
    blobs = BlobStore(data_dir, keys)
    changed = 0
    with (data_dir / KEY_FILE_NAME).open(
        "r+b"
    ) as file:  # from here to the end, the service refuses to start with either key
        add_key(file, masters, context=KEY_FILE_CONTEXT)
    for tenant, sha256 in _references(data_dir / DATABASE_FILE_NAME, keys.database_key):
        path = blobs.path(TenantId(tenant), sha256)
        if path.exists():
            changed += _rewrap(path, masters, sha256.encode())
    return changed + _rewrap(data_dir / KEY_FILE_NAME, masters, KEY_FILE_CONTEXT)


def _rewrap(path: Path, masters: MasterKeys, context: bytes) -> bool:
    with path.open("r+b") as file:
        return rewrap(file, masters, context=context)


def _references(database: Path, key: bytes | None) -> list[tuple[str, str]]:
    with closing(connect_raw(database, key=key)) as connection:
        return sorted(referenced_files(connection))


def _encrypt_file(old: Path, new: Path, keys: DataKeys, sha256: str) -> None:
    """Write and check the encrypted file under a temporary name, rename it, then remove the plain file."""
    new.parent.mkdir(parents=True, exist_ok=True)
    written = new.with_name(f"{new.name}{_UNFINISHED}")
    with old.open("rb") as source, written.open("wb") as target:
        os.fchmod(target.fileno(), 0o600)
        writer = EncryptingWriter(target, keys.masters)
        while piece := source.read(_PIECE_BYTES):
            writer.write(piece)
        writer.finish(context=sha256.encode())
        os.fsync(target.fileno())
    with written.open("rb") as check:
        if EncryptedReader(check, keys.masters, context=sha256.encode()).size_bytes != old.stat().st_size:
            raise CryptoFailure
    written.rename(new)
    sync_folder(new.parent)
    old.unlink()


def _encrypt_database(database: Path, keys: DataKeys) -> None:
    """Copy the rows into an encrypted file, which then replaces the plain one."""
    written = database.with_name(f"{database.name}.new")
    written.unlink(missing_ok=True)
    with closing(connect_raw(database, key=None, encryptable=True)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.execute("PRAGMA journal_mode=DELETE").fetchall()
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        key = f"x'{keys.database_key.hex()}'"
        connection.execute("ATTACH DATABASE ? AS encrypted KEY ?", (str(written), key))
        connection.execute("SELECT sqlcipher_export('encrypted')").fetchall()
        connection.execute(f"PRAGMA encrypted.user_version={int(version)}")
        connection.execute("DETACH DATABASE encrypted")
    descriptor = os.open(written, os.O_RDONLY)
    try:
        os.fchmod(descriptor, 0o600)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    written.rename(database)
    for suffix in ("-wal", "-shm", "-journal"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    sync_folder(database.parent)


def _remove_plain_leftovers(data_dir: Path, keys: DataKeys) -> None:
    """Remove indexes, page pictures, plain database backups, unfinished uploads, and plain files of encrypted ones."""
    remove_plain_backups(data_dir / DATABASE_FILE_NAME)
    shutil.rmtree(data_dir / "derived", ignore_errors=True)
    shutil.rmtree(data_dir / RENDITIONS, ignore_errors=True)
    plain, sealed = BlobStore(data_dir), BlobStore(data_dir, keys)
    plain.remove_unfinished_uploads()
    for tenant, sha256 in _references(data_dir / DATABASE_FILE_NAME, keys.database_key):
        if sealed.path(TenantId(tenant), sha256).exists():
            plain.path(TenantId(tenant), sha256).unlink(missing_ok=True)
    for unfinished in (data_dir / "blobs").glob(f"*/??/*{_UNFINISHED}"):
        unfinished.unlink()
    for folder in sorted((data_dir / "blobs").glob("*/**"), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
