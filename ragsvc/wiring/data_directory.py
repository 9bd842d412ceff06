"""Opens the parts of a data directory: database, working folders, keys for encrypted requests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ragsvc.config import Settings
from ragsvc.core.errors import ConfigurationError
from ragsvc.services.request_encryption import EncryptionService, open_encryption
from ragsvc.store.data_keys import DataKeys
from ragsvc.store.database import Database
from ragsvc.store.disk_space import DiskSpace


def open_database(path: Path, keys: DataKeys | None, space: DiskSpace) -> Database:
    return Database(path, key=None if keys is None else keys.database_key, make_room=space.report_fault)


@contextmanager
def working_folders(settings: Settings, keys: DataKeys | None) -> Generator[tuple[Path, Path | None], None, None]:
    """The folder of the indexes and the folder for decrypted copies of files (``None`` without encryption at rest).

    For an encrypted data directory both are on a file system in memory, and indexes are rebuilt at each start.
    """
    if keys is None:
        yield settings.data_dir / "derived", None
        return
    prefix = f"ragsvc-{keys.name('memory')[:16]}-"
    try:
        for leftover in settings.memory_dir.glob(f"{prefix}*"):  # of a killed process; this process holds the lock now
            shutil.rmtree(leftover, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=settings.memory_dir))
    except OSError as error:
        raise ConfigurationError([f"memory_dir: {settings.memory_dir} cannot be used ({error.strerror})"]) from error
    try:
        copies = folder / "documents"
        copies.mkdir()
        yield folder / "derived", copies
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def parsing_folder(settings: Settings, memory_folder: Path | None) -> Path:
    """The folder for links to files that are being parsed, without those of a killed process.

    It is on the file system of the files, and made when the first file is parsed: a full disk does not stop a start.
    """
    if memory_folder is not None:
        return memory_folder
    folder = settings.data_dir / "parsing"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def open_request_encryption(settings: Settings) -> EncryptionService:
    return open_encryption(
        settings.data_dir,
        source=settings.encryption_keys,
        key_file=settings.encryption_key_file,
        lifetime_s=settings.encryption_key_lifetime_s,
        overlap_s=settings.encryption_key_overlap_s,
        insecure_sample_dialects=settings.encryption_sample_dialects,
        insecure_literal_rvenc=settings.rvenc_literal,
    )
