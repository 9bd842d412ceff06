"""Providers that were added by the admin API, and tenants' own keys for any provider; all values are sealed."""

from __future__ import annotations

from typing import NamedTuple, cast

from sqlalchemy import Column, Connection, LargeBinary, Table, delete, select
from sqlalchemy.dialects.sqlite import insert
from sqlmodel import Field, SQLModel


class ProviderRow(SQLModel, table=True):
    """One provider: its settings with its key, sealed. Times are Unix seconds."""

    __tablename__ = "providers"  # pyright: ignore[reportAssignmentType]  # SQLModel takes a plain name

    name: str = Field(primary_key=True)
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: int
    updated_at: int


class ProviderKeyRow(SQLModel, table=True):
    """A tenant's own key for a provider, sealed."""

    __tablename__ = "provider_keys"  # pyright: ignore[reportAssignmentType]  # SQLModel takes a plain name

    tenant: str = Field(primary_key=True)
    provider: str = Field(primary_key=True)
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    updated_at: int


_providers = cast("Table", ProviderRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time
_keys = cast("Table", ProviderKeyRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time


class StoredProvider(NamedTuple):
    """A provider's row."""

    name: str
    sealed: bytes


class StoredProviderKey(NamedTuple):
    """A tenant's key."""

    tenant: str
    provider: str
    sealed: bytes
    updated_at: int


def stored_providers(connection: Connection) -> list[StoredProvider]:
    """All of them, oldest first."""
    rows = connection.execute(select(_providers.c.name, _providers.c.sealed).order_by(_providers.c.created_at))
    return [StoredProvider(*row) for row in rows]


def put_provider(connection: Connection, name: str, sealed: bytes, *, now: int) -> None:
    """Add or change a provider."""
    row = insert(_providers).values(name=name, sealed=sealed, created_at=now, updated_at=now)
    connection.execute(row.on_conflict_do_update(index_elements=["name"], set_={"sealed": sealed, "updated_at": now}))


def drop_provider(connection: Connection, name: str) -> None:
    """Remove a provider and all tenants' keys for it."""
    connection.execute(delete(_providers).where(_providers.c.name == name))
    connection.execute(delete(_keys).where(_keys.c.provider == name))


def stored_keys(connection: Connection) -> list[StoredProviderKey]:
    """All tenants' keys."""
    rows = connection.execute(select(_keys.c.tenant, _keys.c.provider, _keys.c.sealed, _keys.c.updated_at))
    return [StoredProviderKey(*row) for row in rows]


def put_key(connection: Connection, tenant: str, provider: str, sealed: bytes, *, now: int) -> None:
    """Store a tenant's key in place of a former one."""
    row = insert(_keys).values(tenant=tenant, provider=provider, sealed=sealed, updated_at=now)
    connection.execute(
        row.on_conflict_do_update(index_elements=["tenant", "provider"], set_={"sealed": sealed, "updated_at": now})
    )


def drop_key(connection: Connection, tenant: str, provider: str) -> bool:
    """Remove a tenant's key; false when there was none."""
    found = delete(_keys).where(_keys.c.tenant == tenant, _keys.c.provider == provider)
    return connection.execute(found).rowcount > 0
