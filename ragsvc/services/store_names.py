"""Remembers which collections vector stores are, so that a request that names a store needs no read for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ragsvc.core.ids import TenantId

_REMEMBERED: Final = 10_000


class StoreNames:
    """The names of the collections of vector stores, by tenant and the public id of the store.

    A collection keeps its name and public id until it is deleted or expires. Whoever does that calls ``forget`` after
    the commit. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._names: dict[tuple[TenantId, str], str] = {}
        self.revision = 0
        """Changes with every call of ``forget``."""

    def get(self, tenant: TenantId, public_id: str) -> str | None:
        return self._names.get((tenant, public_id))

    def add(self, tenant: TenantId, names: Mapping[str, str], *, revision: int) -> None:
        """Remember names that were read; not if any store was deleted since ``revision``, before the read."""
        if revision != self.revision:
            return
        if len(self._names) + len(names) > _REMEMBERED:
            self._names.clear()
        self._names.update({(tenant, public_id): name for public_id, name in names.items()})

    def forget(self, tenant: TenantId) -> None:
        """Forget the stores of a tenant, because one was deleted or has expired."""
        self.revision += 1
        self._names = {key: name for key, name in self._names.items() if key[0] != tenant}
