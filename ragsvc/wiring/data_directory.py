"""Opens the parts of a data directory: working folders, keys for encrypted requests."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from ragsvc.config import Settings
from ragsvc.core.errors import ConfigurationError
from ragsvc.services.request_encryption import EncryptionService, open_encryption
from ragsvc.store.data_keys import DataKeys

_LOCK: Final = "in-use.lock"


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
        for leftover in settings.memory_dir.glob(f"{prefix}*"):
            _remove_unused(leftover)
        folder, lock = _locked_folder(settings.memory_dir, prefix)
    except OSError as error:
        raise ConfigurationError([f"memory_dir: {settings.memory_dir} cannot be used ({error.strerror})"]) from error
    try:
        copies = folder / "documents"
        copies.mkdir()
        yield folder / "derived", copies
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _locked_folder(parent: Path, prefix: str) -> tuple[Path, FileLock]:
    """A new folder whose lock this process holds. It gets its name only then, so that no other start removes it."""
    unnamed = Path(tempfile.mkdtemp(prefix="ragsvc-new-", dir=parent))
    lock = FileLock(unnamed / _LOCK, timeout=0)
    lock.acquire()
    return unnamed.rename(parent / f"{prefix}{secrets.token_hex(8)}"), lock


def _remove_unused(folder: Path) -> None:
    """Remove the folder of a killed process. A restored copy of the data directory may be served beside this one."""
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError):  # in use, removed meanwhile, or of another user
        return
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()


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
