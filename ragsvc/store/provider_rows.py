"""Tables and statements of providers added by the admin API, and of tenants' keys for providers. Values are sealed."""

from __future__ import annotations

from typing import NamedTuple, cast

from sqlalchemy import Column, Connection, LargeBinary, Table, delete, select
from sqlmodel import Field, SQLModel

from ragsvc.store.engines import engine_of


class ProviderRow(SQLModel, table=True):
    """A provider: its sealed settings, which include its API key. Times are Unix seconds."""

    __tablename__ = "providers"  # pyright: ignore[reportAssignmentType]  # SQLModel takes a plain name

    name: str = Field(primary_key=True)
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: int
    updated_at: int


class ProviderKeyRow(SQLModel, table=True):
    """A tenant's sealed key for a provider."""

    __tablename__ = "provider_keys"  # pyright: ignore[reportAssignmentType]  # SQLModel takes a plain name

    tenant: str = Field(primary_key=True)
    provider: str = Field(primary_key=True)
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    updated_at: int


_providers = cast("Table", ProviderRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time
_keys = cast("Table", ProviderKeyRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time


class StoredProvider(NamedTuple):
    name: str
    sealed: bytes


class StoredProviderKey(NamedTuple):
    tenant: str
    provider: str
    sealed: bytes
    updated_at: int


def stored_providers(connection: Connection) -> list[StoredProvider]:
    """All providers, oldest first."""
    rows = connection.execute(select(_providers.c.name, _providers.c.sealed).order_by(_providers.c.created_at))
    return [StoredProvider(*row) for row in rows]


def put_provider(connection: Connection, name: str, sealed: bytes, *, now: int) -> None:
    values = {"name": name, "sealed": sealed, "created_at": now, "updated_at": now}
    changes = {"sealed": sealed, "updated_at": now}
    connection.execute(engine_of(connection).upsert(_providers, values, changes))


def drop_provider(connection: Connection, name: str) -> None:
    """Remove a provider and all tenants' keys for it."""
    connection.execute(delete(_providers).where(_providers.c.name == name))
    connection.execute(delete(_keys).where(_keys.c.provider == name))


def stored_keys(connection: Connection) -> list[StoredProviderKey]:
    rows = connection.execute(select(_keys.c.tenant, _keys.c.provider, _keys.c.sealed, _keys.c.updated_at))
    return [StoredProviderKey(*row) for row in rows]


def put_key(connection: Connection, tenant: str, provider: str, sealed: bytes, *, now: int) -> None:
    """Store a tenant's key, replacing an existing one."""
    values = {"tenant": tenant, "provider": provider, "sealed": sealed, "updated_at": now}
    connection.execute(engine_of(connection).upsert(_keys, values, {"sealed": sealed, "updated_at": now}))


def drop_key(connection: Connection, tenant: str, provider: str) -> bool:
    """Remove a tenant's key; ``False`` if it does not exist."""
    found = delete(_keys).where(_keys.c.tenant == tenant, _keys.c.provider == provider)
    return connection.execute(found).rowcount > 0
