"""Stores uploaded files under their SHA-256, per tenant, encrypted if the data directory is.

An upload is written to a temporary path and synced, then given to the storage: a folder (``local_files``) or a bucket
(``object_files``).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Generator, Iterator
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from typing import BinaryIO

from ragsvc.core.errors import CryptoFailure, StorageFull, StoredDataDamaged, TooLarge
from ragsvc.core.ids import TenantId
from ragsvc.core.ports.file_storage import FileStorage, StoredEntry, last_part
from ragsvc.core.storage_faults import is_storage_fault
from ragsvc.crypto.at_rest import READ_BYTES, EncryptedReader, EncryptingWriter, MasterKeys, decrypt_chunks
from ragsvc.store.data_keys import DataKeys
from ragsvc.store.local_files import LocalFiles

BLOBS = "blobs"
QUARANTINE = "quarantine"
RENDITIONS = "page_renditions"
_PIECE_BYTES = 1 << 18
_NAME_PARTS = 4
_PREFIX_LENGTH = 2
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


class FetchedFile:
    """The content of a file that is stored elsewhere; each iteration reads its local copy, fetched if there is none."""

    def __init__(self, copy: Callable[[], AbstractContextManager[Path]]) -> None:
        self._copy = copy

    def pieces(self, begin: int, end: int) -> Generator[bytes]:
        """The bytes ``[begin, end)`` in pieces."""
        with self._copy() as path:
            file = path.open("rb")
        with file:  # the copy may be removed while it is read
            file.seek(begin)
            while begin < end and (piece := file.read(min(READ_BYTES, end - begin))):
                begin += len(piece)
                yield piece


class EncryptedFile:
    """The plain content of a file that is encrypted as stored; each iteration reads the file again."""

    def __init__(
        self, path: Path | Callable[[], AbstractContextManager[Path]], masters: MasterKeys, *, context: bytes
    ) -> None:
        """``path``: of the stored file, or what gives a local copy of it."""
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
        with self._opened() as file:
            yield EncryptedReader(file, self._masters, context=self._context)

    def _opened(self) -> BinaryIO:
        if isinstance(self._path, Path):
            return self._path.open("rb")
        with self._path() as copy:
            return copy.open("rb")  # the copy may be removed while it is read


FileContent = Path | EncryptedFile | FetchedFile
"""The content of a stored file for random access: its path, or what reads it."""


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
    """Files under ``blobs/<tenant>/<2 hex>/<sha256>`` of a storage; uploads in progress under ``root/uploads``.

    With ``keys``, files are encrypted before they reach the disk, and their names reveal nothing; ``readable`` then
    needs ``memory_folder``, a folder on an in-memory file system.
    """

    def __init__(
        self,
        root: Path,
        keys: DataKeys | None = None,
        *,
        memory_folder: Path | None = None,
        create: bool = True,
        files: FileStorage | None = None,
    ) -> None:
        """``files``: where complete files are, by default in ``root``. ``create``: make the folders that do not exist.

        ``root`` is the data directory. Uploads in progress and renditions are in it wherever the files are.
        """
        self._keys = keys
        self._memory_folder = memory_folder
        self._compared = ComparedFiles()
        self.root = root
        self.files: FileStorage = LocalFiles(root) if files is None else files
        self.renditions = root / RENDITIONS
        self._uploads = root / "uploads"
        if create:
            if isinstance(self.files, LocalFiles):
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

    @property
    def folder(self) -> Path:
        """The folder of the stored files, of a storage that is a folder."""
        return self._local.path(BLOBS)

    def path(self, tenant: TenantId, sha256: str) -> Path:
        """The path of the file on disk, stored or not, of a storage that is a folder.

        ``readable`` and ``chunks`` give the plain content, of any storage.
        """
        return self._local.path(self.name(tenant, sha256))

    @property
    def _local(self) -> LocalFiles:
        assert isinstance(self.files, LocalFiles)  # noqa: S101 - callers that need a path have local files
        return self.files

    def name(self, tenant: TenantId, sha256: str) -> str:
        """The name of the file in the storage."""
        return stored_name(*self._place(tenant, sha256))

    def exists(self, tenant: TenantId, sha256: str) -> bool:
        """Whether the file is stored, intact or not."""
        return self.files.find(self.name(tenant, sha256)) is not None

    def rendition_folder(self, tenant: TenantId, sha256: str) -> Path:
        """The folder for what is made from a file, pictures of its pages for example; removed with the file."""
        folder, name = self._place(tenant, sha256)
        return self.renditions / folder / name

    @property
    def encrypted(self) -> bool:
        """Whether files are encrypted as stored."""
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
            with self._copy(tenant, sha256) as path:
                yield path
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
        with self._copy(tenant, sha256) as path:
            file = path.open("rb")
        with file:
            if self._keys is not None:
                yield from decrypt_chunks(file, self._keys.masters, context=sha256.encode())
                return
            while piece := file.read(_PIECE_BYTES):
                yield piece

    def content(self, tenant: TenantId, sha256: str) -> FileContent:
        """The content of a file for random access: its path, or a reader if it is encrypted or stored elsewhere."""
        if not self.files.is_elsewhere:
            path = self.path(tenant, sha256)
            return path if self._keys is None else EncryptedFile(path, self._keys.masters, context=sha256.encode())

        def copy() -> AbstractContextManager[Path]:
            return self._copy(tenant, sha256)

        if self._keys is None:
            return FetchedFile(copy)
        return EncryptedFile(copy, self._keys.masters, context=sha256.encode())

    def check(self, tenant: TenantId, sha256: str, *, fresh: bool = False) -> None:
        """Read a stored file completely and compare it with its SHA-256.

        An encrypted file that was compared before, in this process, is only decrypted, which authenticates each byte.
        Of a storage that makes copies, the copy is compared, and fetched again if it is damaged; ``fresh`` fetches it
        in any case.

        Raises:
            StoredDataDamaged: the file is missing, cannot be read, or has other content.
        """
        try:
            if self.files.makes_copies:
                self._check_copy(tenant, sha256, fresh=fresh)
            else:
                with self._copy(tenant, sha256) as path:
                    self._verify(path, sha256)
        except FileNotFoundError as error:
            raise StoredDataDamaged(
                "The stored file of this document is missing. Upload the document again."
            ) from error

    def _check_copy(self, tenant: TenantId, sha256: str, *, fresh: bool) -> None:
        if not fresh:
            with contextlib.suppress(StoredDataDamaged), self._copy(tenant, sha256) as path:
                self._verify(path, sha256)
                return
        with self._copy(tenant, sha256, fresh=True):
            pass  # it was verified when it was fetched

    def _copy(self, tenant: TenantId, sha256: str, *, fresh: bool = False) -> AbstractContextManager[Path]:
        """The file as it is stored, at a local path. Raises ``StoredDataDamaged`` if it was fetched and is damaged."""
        return self.files.local_copy(
            self.name(tenant, sha256), verify=lambda path: self._verify(path, sha256), fresh=fresh
        )

    def _verify(self, path: Path, sha256: str) -> None:
        """Compare a file with its hash.

        Raises:
            FileNotFoundError: there is no file.
            StoredDataDamaged: it cannot be read, or has other content.
        """
        try:
            is_same = self._has_hash(path, sha256)
        except FileNotFoundError:
            raise
        except (OSError, CryptoFailure) as error:
            raise StoredDataDamaged(
                "The stored file of this document cannot be read. Upload the document again."
            ) from error
        if not is_same:
            raise StoredDataDamaged(
                "The stored file of this document is not the file that was uploaded. Upload the document again."
            )

    def _has_hash(self, path: Path, sha256: str) -> bool:
        digest = hashlib.sha256()
        if self._keys is None:
            with path.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    digest.update(piece)
            return digest.hexdigest() == sha256
        with EncryptedFile(path, self._keys.masters, context=sha256.encode()).opened() as reader:
            if (sha256, reader.header) in self._compared:
                reader.feed(lambda _: None)
                return True
            reader.feed(digest.update)
        if digest.hexdigest() != sha256:
            return False
        self._compared.add(sha256, reader.header)
        return True

    def is_intact(self, tenant: TenantId, sha256: str) -> bool:
        """Whether the file is stored completely, as ``check`` finds with ``fresh``."""
        try:
            self.check(tenant, sha256, fresh=True)
        except StoredDataDamaged:
            return False
        return True

    def _place(self, tenant: TenantId, sha256: str) -> tuple[str, str]:
        if self._keys is None:
            return _folder_name(tenant), sha256
        return self._keys.name("tenant", tenant)[:32], self._keys.name("file", tenant, sha256)

    def publish(self, incoming: IncomingFile, tenant: TenantId, sha256: str) -> None:
        """Durably move a finished upload to the storage; a file there with the same content is kept."""
        with _full_disk():
            self.files.put(incoming.path, self.name(tenant, sha256), is_intact=lambda: self.is_intact(tenant, sha256))
        incoming.published = True

    def remove(self, tenant: TenantId, sha256: str) -> None:
        """Durably delete the file if it exists, and what was made from it."""
        shutil.rmtree(self.rendition_folder(tenant, sha256), ignore_errors=True)
        self.files.delete(self.name(tenant, sha256))

    def stored_names(self, tenant: TenantId) -> list[str]:
        """SHA-256 of the stored files of a tenant; none in an encrypted store, where names reveal nothing."""
        if self._keys is not None:
            return []
        return [last_part(entry.name) for entry in self.files.entries(f"{BLOBS}/{_folder_name(tenant)}")]

    def remove_empty_folder(self, tenant: TenantId) -> None:
        """Remove the folder of a tenant if it has no files; its name is the name of the tenant."""
        name = self._place(tenant, "")[0]
        self.files.prune(f"{BLOBS}/{name}")
        with contextlib.suppress(OSError):  # not empty, or there is none
            (self.renditions / name).rmdir()

    def remove_quarantined(self, tenant: TenantId) -> int:
        """Remove the files of a tenant from quarantine; returns their number."""
        name = self._place(tenant, "")[0]
        found = [entry.name for entry in self.files.entries(QUARANTINE) if entry.name.split("/")[2:3] == [name]]
        for file in found:
            self.files.delete(file)
        for day in {file.split("/")[1] for file in found}:
            self.files.prune(f"{QUARANTINE}/{day}/{name}")
        return len(found)

    def remove_unfinished_uploads(self) -> int:
        """Remove uploads that never ended; only while nothing else writes to the store."""
        leftovers = list(self._uploads.glob("*.part"))
        for leftover in leftovers:
            leftover.unlink()
        self.files.remove_leftovers()
        return len(leftovers)

    def entries(self) -> Iterator[StoredEntry]:
        """Every stored file, of a document or not."""
        for entry in self.files.entries(BLOBS):
            parts = entry.name.split("/")
            if len(parts) == _NAME_PARTS and len(parts[2]) == _PREFIX_LENGTH:  # anything else is not ours
                yield entry

    def unknown_files(self, referenced: AbstractSet[tuple[str, str]]) -> list[str]:
        """Names of the stored files that belong to none of the (tenant, sha256) pairs."""
        known = {self.name(TenantId(tenant), sha256) for tenant, sha256 in referenced}
        return [entry.name for entry in self.entries() if entry.name not in known]

    def quarantine(self, name: str, today: date) -> str:
        """Durably move a stored file to quarantine; returns its name there."""
        target = quarantined_name(name, today)
        self.files.move(name, target)
        return target


def stored_name(folder: str, name: str) -> str:
    """The name in the storage of a file in the folder of a tenant."""
    return f"{BLOBS}/{folder}/{name[:_PREFIX_LENGTH]}/{name}"


def quarantined_name(name: str, day: date) -> str:
    """The name that a stored file has in the quarantine of a day."""
    return f"{QUARANTINE}/{day.isoformat()}/{name.removeprefix(f'{BLOBS}/')}"


def _folder_name(tenant: TenantId) -> str:
    """A folder name that is unique per tenant and cannot lead outside the store for any name of a tenant."""
    if _SAFE.fullmatch(tenant):
        return tenant
    return "t-" + hashlib.sha256(tenant.encode()).hexdigest() + ".h"


@contextlib.contextmanager
def _full_disk() -> Generator[None]:
    try:
        yield
    except OSError as error:
        if is_storage_fault(error):
            raise StorageFull("The disk is full. The upload was not stored.") from error
        raise
