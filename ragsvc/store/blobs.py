"""Uploaded files, content-addressed per tenant: written aside, fsynced, renamed. A name appears only when complete."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

from ragsvc.core.errors import StorageFull, TooLarge
from ragsvc.core.ids import TenantId

_SAFE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class IncomingFile:
    """An upload on its way in: hashes while it writes; ``discard`` leaves nothing behind."""

    def __init__(self, path: Path, *, limit_bytes: int) -> None:
        self.path = path
        self.size_bytes = 0
        self._limit_bytes = limit_bytes
        self._hash = hashlib.sha256()
        self._file: BinaryIO = path.open("xb")

    def expect(self, more_bytes: int) -> None:
        """Check that ``more_bytes`` still fit under the limit. Raises ``TooLarge``."""
        if self.size_bytes + more_bytes > self._limit_bytes:
            raise TooLarge(
                f"the document is larger than {self._limit_bytes} bytes", limit_bytes=self._limit_bytes, param="file"
            )

    def write(self, data: bytes | bytearray) -> None:
        """Append. Raises ``TooLarge`` over the limit and ``StorageFull`` on a full disk."""
        self.expect(len(data))
        self.size_bytes += len(data)
        self._hash.update(data)
        with _full_disk():
            self._file.write(data)

    def finish(self) -> str:
        """Make the bytes durable and return their SHA-256 in hex."""
        with _full_disk():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Remove the file; harmless when it was published or removed before."""
        with contextlib.suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)


class BlobStore:
    """Files under ``root/blobs/<tenant>/<2 hex>/<sha256>``; uploads in progress under ``root/uploads``."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._uploads = root / "uploads"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._uploads.mkdir(parents=True, exist_ok=True)

    def incoming(self, *, limit_bytes: int) -> IncomingFile:
        """Begin an upload."""
        with _full_disk():
            return IncomingFile(self._uploads / f"{secrets.token_hex(12)}.part", limit_bytes=limit_bytes)

    def path(self, tenant: TenantId, sha256: str) -> Path:
        """Where the file stands (or would)."""
        return self._blobs / _folder_name(tenant) / sha256[:2] / sha256

    def publish(self, incoming: IncomingFile, tenant: TenantId, sha256: str) -> Path:
        """Move a finished upload to its place, durably; equal bytes that are there already are kept."""
        target = self.path(tenant, sha256)
        with _full_disk():
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                incoming.path.unlink(missing_ok=True)
            else:
                incoming.path.rename(target)
                for folder in (target.parent, target.parent.parent, self._blobs):
                    _fsync_folder(folder)
        return target

    def remove(self, tenant: TenantId, sha256: str) -> None:
        """Delete the file for good; a missing one is fine."""
        target = self.path(tenant, sha256)
        if target.exists():
            target.unlink(missing_ok=True)
            _fsync_folder(target.parent)

    def sweep(self, referenced: set[tuple[str, str]]) -> int:
        """Remove unfinished uploads and files no row refers to; only while nothing else writes here."""
        removed = 0
        for leftover in self._uploads.iterdir():
            leftover.unlink()
            removed += 1
        known = {(_folder_name(TenantId(tenant)), sha256) for tenant, sha256 in referenced}
        for folder in self._blobs.iterdir():
            for file in folder.glob("??/*"):
                if (folder.name, file.name) not in known:
                    file.unlink()
                    removed += 1
        return removed


def _folder_name(tenant: TenantId) -> str:
    """A folder name that no tenant name can steer out of its place and no two tenants share."""
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
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull("the disk has no room for the upload; nothing of it was kept") from error
        raise
