"""Keeps pictures of pages and other results of reading pages on disk, up to a number of bytes; a cache.

A rendition belongs to a stored file and is removed with it (``BlobStore.remove``). In an encrypted data directory it is
encrypted. One that is missing, damaged, or sealed with a former master key is made again.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO, Final
from zlib import crc32

from ragsvc.core.errors import CryptoFailure, StorageUnavailable
from ragsvc.core.ids import TenantId
from ragsvc.crypto.at_rest import decrypt_chunks, encrypt
from ragsvc.store.blobs import BlobStore, stored_name
from ragsvc.store.data_keys import DataKeys

_PART: Final = ".part"
_CHECK_BYTES: Final = 4


class PageRenditions:
    """Renditions by file and name; the longest unused are removed first. Blocking; may be used by several threads."""

    def __init__(self, blobs: BlobStore, keys: DataKeys | None, *, max_bytes: int) -> None:
        """``max_bytes``: 0 keeps nothing."""
        self._blobs = blobs
        self._keys = keys
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._sizes: OrderedDict[Path, int] | None = None
        self._total = 0

    def read(self, tenant: TenantId, sha256: str, name: str) -> bytes | None:
        """A rendition of a stored file; ``None`` if it is not kept."""
        path = self._path(tenant, sha256, name)
        try:
            with path.open("rb") as file:
                data = _checked(file.read()) if self._keys is None else self._decrypted(file, sha256, name)
        except (OSError, CryptoFailure):
            return None
        if data is None:
            return None
        with self._lock:
            sizes = self._known()
            if path in sizes:
                sizes.move_to_end(path)
        return data

    def write(self, tenant: TenantId, sha256: str, name: str, data: bytes) -> None:
        """Keep a rendition, unless its file was removed, it is larger than all may be, or the disk has no room.

        The caller holds the lock of the file.
        """
        if len(data) > self._max_bytes or not self._is_stored(tenant, sha256):
            return
        path = self._path(tenant, sha256, name)
        if self._keys is None:
            data += crc32(data).to_bytes(_CHECK_BYTES)
        else:
            data = encrypt(data, self._keys.masters, context=_context(sha256, name))
        part = path.with_name(f"{secrets.token_hex(8)}{_PART}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
            part.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            return
        with self._lock:
            self._keep(path, len(data))

    def _is_stored(self, tenant: TenantId, sha256: str) -> bool:
        try:
            return self._blobs.exists(tenant, sha256)
        except StorageUnavailable:
            return False

    def _decrypted(self, file: BinaryIO, sha256: str, name: str) -> bytes:
        assert self._keys is not None  # noqa: S101 - by the caller
        return b"".join(decrypt_chunks(file, self._keys.masters, context=_context(sha256, name)))

    def _path(self, tenant: TenantId, sha256: str, name: str) -> Path:
        shown = name if self._keys is None else self._keys.name("rendition", sha256, name)
        return self._blobs.rendition_folder(tenant, sha256) / shown

    def _keep(self, path: Path, size: int) -> None:
        sizes = self._known()
        self._total += size - sizes.pop(path, 0)
        sizes[path] = size
        while self._total > self._max_bytes and sizes:
            oldest, removed = sizes.popitem(last=False)
            self._total -= removed
            with contextlib.suppress(OSError):
                oldest.unlink(missing_ok=True)
                oldest.parent.rmdir()

    def _known(self) -> OrderedDict[Path, int]:
        """The renditions on disk, those of former processes first; without those whose file does not exist."""
        if self._sizes is None:
            found: list[tuple[float, Path, int]] = []
            for folder in self._blobs.renditions.glob("*/*"):
                if self._has_lost_its_file(folder):
                    shutil.rmtree(folder, ignore_errors=True)
                    continue
                with contextlib.suppress(OSError):  # removed meanwhile
                    for path in folder.iterdir():
                        status = path.stat()
                        found.append((status.st_mtime, path, status.st_size))
            self._sizes = OrderedDict((path, size) for _, path, size in sorted(found))
            self._total = sum(self._sizes.values())
        return self._sizes

    def _has_lost_its_file(self, folder: Path) -> bool:
        """Whether the file of a folder is gone; not asked of a storage elsewhere, one request for each."""
        files = self._blobs.files
        return not files.is_elsewhere and files.find(stored_name(folder.parent.name, folder.name)) is None


def _checked(stored: bytes) -> bytes | None:
    """The data before their checksum; ``None`` if they are damaged, as after a power failure: nothing is synced."""
    data, check = stored[:-_CHECK_BYTES], stored[-_CHECK_BYTES:]
    return data if check == crc32(data).to_bytes(_CHECK_BYTES) and len(check) == _CHECK_BYTES else None


def _context(sha256: str, name: str) -> bytes:
    return f"rendition {sha256} {name}".encode()
