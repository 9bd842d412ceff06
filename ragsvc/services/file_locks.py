"""Locks that keep a stored file from being published and removed at the same time."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from ragsvc.core.ids import TenantId


class FileLocks:
    """A lock for each file in use; a lock that nobody holds is forgotten."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def of(self, tenant: TenantId, sha256: str) -> asyncio.Lock:
        key = (tenant, sha256)
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock
