"""Stores uploaded files under their SHA-256, per tenant.

A file is written to a temporary path, synced, then renamed, so a file under its final name is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import threading
from collections.abc import Generator, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import BinaryIO

from ragsvc.core.errors import CryptoFailure, StorageFull, StoredDataDamaged, TooLarge
from ragsvc.core.ids import TenantId
from ragsvc.core.storage_faults import is_storage_fault
from ragsvc.crypto.at_rest import EncryptedReader, EncryptingWriter, MasterKeys, decrypt_chunks
from ragsvc.store.data_keys import DataKeys

QUARANTINE = "quarantine"
RENDITIONS = "page_renditions"
_PIECE_BYTES = 1 << 18
_SAFE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def check_size(size_bytes: int, *, limit_bytes: int, what: str) -> None:
    """Raise ``TooLarge`` if ``what`` has more than ``limit_bytes`` bytes."""
    if size_bytes > limit_bytes:
        raise TooLarge(f"The {what} is larger than {limit_bytes} bytes.", limit_bytes=limit_bytes, param="file")


class IncomingFile:
    """A file that is being uploaded, hashed while it is written; ``discard`` removes it."""

    def __init__(
        self, path: Path, *, limit_bytes: int, masters: MasterKeys | None = None, what: str = "document"
    ) -> None:
        """``what`` names the file in the error for a file that is too large."""
        self.path = path
        self._what = what
        self.size_bytes = 0
        self.published = False
        self._limit_bytes = limit_bytes
        self._hash = hashlib.sha256()
        self._file: BinaryIO = path.open("xb")
        self._writer = None if masters is None else EncryptingWriter(self._file, masters)

    def expect(self, more_bytes: int) -> None:
        """Check that ``more_bytes`` more are within the limit. Raises ``TooLarge``."""
        check_size(self.size_bytes + more_bytes, limit_bytes=self._limit_bytes, what=self._what)

    def write(self, data: bytes | bytearray) -> None:
        """Append. Raises ``TooLarge`` over the limit and ``StorageFull`` on a full disk."""
        self.expect(len(data))
        self.size_bytes += len(data)
        self._hash.update(data)
        with _full_disk():
            (self._writer or self._file).write(data)

    def finish(self) -> str:
        """Make the bytes durable and return their SHA-256 in hex."""
        with _full_disk():
            if self._writer is not None:
                self._writer.finish(context=self._hash.hexdigest().encode())
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Remove the file; does nothing if it was published or removed before."""
        with contextlib.suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)


class EncryptedFile:
    """The plain content of a file that is encrypted on disk; each iteration reads the file again."""

    def __init__(self, path: Path, masters: MasterKeys, *, context: bytes) -> None:
        self._path = path
        self._masters = masters
        self._context = context

    def __iter__(self) -> Iterator[bytes]:
        return self.pieces()

    def pieces(self, begin: int = 0, end: int | None = None) -> Generator[bytes]:
        """The bytes ``[begin, end)`` in pieces, each authenticated before it is yielded; reads only their chunks.

        Raises:
            CryptoFailure: the file was altered or replaced by another one.
        """
        with self.opened() as reader:
            yield from reader.pieces(begin, end)

    @contextlib.contextmanager
    def opened(self) -> Generator[EncryptedReader]:
        """A reader of the file. Raises ``CryptoFailure``."""
        with self._path.open("rb") as file:
            yield EncryptedReader(file, self._masters, context=self._context)


class ComparedFiles:
    """Encrypted files whose content was compared with their hash; used from any thread.

    A header has the file's own key, with which nobody else can encrypt. So a file with the same header that is
    authentic has the same content, and need not be hashed again: SHA-256 takes three times as long as decryption.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._headers: dict[tuple[str, bytes], None] = {}
        self._lock = threading.Lock()

    def __contains__(self, file: tuple[str, bytes]) -> bool:
        with self._lock:
            return file in self._headers

    def add(self, sha256: str, header: bytes) -> None:
        with self._lock:
            self._headers[sha256, header] = None
            if len(self._headers) > self._limit:
                del self._headers[next(iter(self._headers))]


class BlobStore:
    """Files under ``root/blobs/<tenant>/<2 hex>/<sha256>``; uploads in progress under ``root/uploads``.

    With ``keys``, files are encrypted before they reach the disk, and their names reveal nothing; ``readable`` then
    needs ``memory_folder``, a folder on an in-memory file system.
    """

    def __init__(
        self, root: Path, keys: DataKeys | None = None, *, memory_folder: Path | None = None, create: bool = True
    ) -> None:
        """``create``: make the folders that do not exist."""
        self._keys = keys
        self._memory_folder = memory_folder
        self._compared = ComparedFiles()
        self.root = root
        self.folder = root / "blobs"
        self.renditions = root / RENDITIONS
        self._uploads = root / "uploads"
        self._durable: set[Path] = set()
        if create:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._uploads.mkdir(parents=True, exist_ok=True)

    def incoming(self, *, limit_bytes: int, what: str = "document") -> IncomingFile:
        """Begin to receive a file; ``what`` names it in errors."""
        with _full_disk():
            path = self._uploads / f"{secrets.token_hex(12)}.part"
            return IncomingFile(
                path,
                limit_bytes=limit_bytes,
                masters=None if self._keys is None else self._keys.masters,
                what=what,
            )

    def path(self, tenant: TenantId, sha256: str) -> Path:
        """The path of the file on disk, stored or not; ``readable`` and ``chunks`` give its plain content."""
        folder, name = self._place(tenant, sha256)
        return self.folder / folder / name[:2] / name

    def rendition_folder(self, tenant: TenantId, sha256: str) -> Path:
        """The folder for what is made from a file, pictures of its pages for example; removed with the file."""
        folder, name = self._place(tenant, sha256)
        return self.renditions / folder / name

    @property
    def encrypted(self) -> bool:
        """Whether files on disk are encrypted."""
        return self._keys is not None

    @contextlib.contextmanager
    def readable(self, tenant: TenantId, sha256: str) -> Generator[Path, None, None]:
        """A path from which the plain content can be read inside the block, also by child processes.

        In an encrypted store this is a copy in memory, removed at the end of the block. The next start removes copies
        that a killed process left.

        Raises:
            CryptoFailure: the file was altered or replaced by another one.
        """
        if self._keys is None or self._memory_folder is None:
            yield self.path(tenant, sha256)
            return
        copy = self._memory_folder / secrets.token_hex(12)
        try:
            with open(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 - with its mode
                for chunk in self.chunks(tenant, sha256):
                    file.write(chunk)
            yield copy
        finally:
            copy.unlink(missing_ok=True)

    @contextlib.contextmanager
    def temporary(self, data: bytes) -> Generator[Path]:
        """A path with these bytes inside the block, for child processes; it belongs to no tenant and is not stored.

        In an encrypted store it is in memory. The next start removes what a killed process left.

        Raises:
            StorageFull: the disk is full.
        """
        folder = self._uploads if self._memory_folder is None else self._memory_folder
        path = folder / f"{secrets.token_hex(12)}.part"
        try:
            with _full_disk(), open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 - with its mode
                file.write(data)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def chunks(self, tenant: TenantId, sha256: str) -> Iterator[bytes]:
        """The plain content in pieces. Raises ``CryptoFailure`` if the file was altered or replaced by another one."""
        with self.path(tenant, sha256).open("rb") as file:
            if self._keys is not None:
                yield from decrypt_chunks(file, self._keys.masters, context=sha256.encode())
                return
            while piece := file.read(_PIECE_BYTES):
                yield piece

    def content(self, tenant: TenantId, sha256: str) -> Path | EncryptedFile:
        """The content of a file for random access: its path, or a reader if it is encrypted on disk."""
        path = self.path(tenant, sha256)
        return path if self._keys is None else EncryptedFile(path, self._keys.masters, context=sha256.encode())

    def check(self, tenant: TenantId, sha256: str) -> None:
        """Read a stored file completely and compare it with its SHA-256.

        An encrypted file that was compared before, in this process, is only decrypted, which authenticates each byte.

        Raises:
            StoredDataDamaged: the file is missing, cannot be read, or has other content.
        """
        try:
            is_same = self._has_hash(tenant, sha256)
        except FileNotFoundError as error:
            raise StoredDataDamaged(
                "The stored file of this document is missing. Upload the document again."
            ) from error
        except (OSError, CryptoFailure) as error:
            raise StoredDataDamaged(
                "The stored file of this document cannot be read. Upload the document again."
            ) from error
        if not is_same:
            raise StoredDataDamaged(
                "The stored file of this document is not the file that was uploaded. Upload the document again."
            )

    def _has_hash(self, tenant: TenantId, sha256: str) -> bool:
        digest = hashlib.sha256()
        content = self.content(tenant, sha256)
        if not isinstance(content, EncryptedFile):
            for chunk in self.chunks(tenant, sha256):
                digest.update(chunk)
            return digest.hexdigest() == sha256
        with content.opened() as reader:
            if (sha256, reader.header) in self._compared:
                reader.feed(lambda _: None)
                return True
            reader.feed(digest.update)
        if digest.hexdigest() != sha256:
            return False
        self._compared.add(sha256, reader.header)
        return True

    def is_intact(self, tenant: TenantId, sha256: str) -> bool:
        """Whether ``check`` finds the file complete."""
        try:
            self.check(tenant, sha256)
        except StoredDataDamaged:
            return False
        return True

    def _place(self, tenant: TenantId, sha256: str) -> tuple[str, str]:
        if self._keys is None:
            return _folder_name(tenant), sha256
        return self._keys.name("tenant", tenant)[:32], self._keys.name("file", tenant, sha256)

    def publish(self, incoming: IncomingFile, tenant: TenantId, sha256: str) -> Path:
        """Durably move a finished upload to its final path; a file there with the same content is kept."""
        target = self.path(tenant, sha256)
        with _full_disk():
            self._make_durably(target.parent)
            if target.exists() and self.is_intact(tenant, sha256):
                incoming.path.unlink(missing_ok=True)
            else:
                incoming.path.rename(target)
                _fsync_folder(target.parent)
        incoming.published = True
        return target

    def _make_durably(self, folder: Path) -> None:
        """Make a folder of the store that survives a crash of the machine.

        A folder that exists may have been made a moment ago by another thread, which has not synced its parent yet. So
        only a folder that this process has synced is known to survive.
        """
        if folder != self.folder and folder.parent not in self._durable:
            self._make_durably(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            self._durable.discard(folder)
        if folder not in self._durable:
            _fsync_folder(folder.parent)
            self._durable.add(folder)

    def remove(self, tenant: TenantId, sha256: str) -> None:
        """Durably delete the file if it exists, and what was made from it."""
        target = self.path(tenant, sha256)
        shutil.rmtree(self.rendition_folder(tenant, sha256), ignore_errors=True)
        if target.exists():
            target.unlink(missing_ok=True)
            _fsync_folder(target.parent)

    def stored_names(self, tenant: TenantId) -> list[str]:
        """SHA-256 of the stored files of a tenant; none in an encrypted store, where names reveal nothing."""
        if self._keys is not None:
            return []
        return [file.name for file in (self.folder / _folder_name(tenant)).glob("??/*")]

    def remove_empty_folder(self, tenant: TenantId) -> None:
        """Remove the folder of a tenant if it has no files; its name is the name of the tenant."""
        name = self._place(tenant, "")[0]
        folder = self.folder / name
        for empty in (*folder.glob("??"), folder, self.renditions / name):
            self._durable.discard(empty)
            with contextlib.suppress(OSError):  # not empty, or removed meanwhile
                empty.rmdir()

    def remove_quarantined(self, tenant: TenantId) -> int:
        """Remove the files of a tenant from quarantine; returns their number."""
        folders = list((self.root / QUARANTINE).glob(f"*/{self._place(tenant, '')[0]}"))
        count = sum(path.is_file() for folder in folders for path in folder.rglob("*"))
        for folder in folders:
            shutil.rmtree(folder)
        return count

    def remove_unfinished_uploads(self) -> int:
        """Remove uploads that never ended; only while nothing else writes to the store."""
        leftovers = list(self._uploads.glob("*.part"))
        for leftover in leftovers:
            leftover.unlink()
        return len(leftovers)

    def unknown_files(self, referenced: AbstractSet[tuple[str, str]]) -> list[Path]:
        """Stored files that belong to none of the (tenant, sha256) pairs."""
        known = {self._place(TenantId(tenant), sha256) for tenant, sha256 in referenced}
        files = (path for path in sorted(self.folder.glob("*/??/*")) if path.is_file())
        return [path for path in files if (path.parent.parent.name, path.name) not in known]

    def move(self, source: Path, target: Path) -> Path:
        """Durably move a file within the data directory, and remove the folders that it leaves empty."""
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        for folder in (target.parent, target.parent.parent, target.parent.parent.parent, source.parent):
            _fsync_folder(folder)
        self._durable -= {source.parent, source.parent.parent}
        with contextlib.suppress(OSError):  # another file is in the folder
            source.parent.rmdir()
            source.parent.parent.rmdir()
        return target


def _folder_name(tenant: TenantId) -> str:
    """A folder name that is unique per tenant and cannot lead outside the store for any name of a tenant."""
    if _SAFE.fullmatch(tenant):
        return tenant
    return "t-" + hashlib.sha256(tenant.encode()).hexdigest() + ".h"


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _full_disk() -> Generator[None]:
    try:
        yield
    except OSError as error:
        if is_storage_fault(error):
            raise StorageFull("The disk is full. The upload was not stored.") from error
        raise
