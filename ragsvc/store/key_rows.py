"""Statements about API keys and their audit log. Callers own the transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec
from sqlalchemy import Connection, RowMapping, Table, bindparam, delete, func, insert, select, update

from ragsvc.core.access.api_keys import ApiKey, KeyLimits, KeyState
from ragsvc.core.access.principal import Scope
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.store.driver_statement import DriverStatement
from ragsvc.store.key_tables import KeyAuditRow, KeyRow, later_revision

_keys = cast("Table", KeyRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time
_find_id = DriverStatement(select(_keys.c.id).where(_keys.c.id == bindparam("key_id")).limit(1))
_audit = cast("Table", KeyAuditRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time

T = TypeVar("T")


class AuditEntry(msgspec.Struct, frozen=True):
    """One change of a key. ``actor`` is a key id or ``local``; ``changes`` maps field names to new values.

    ``key_id`` is empty for changes of the tenant's keys for providers.
    """

    id: int
    at: int
    tenant: str
    key_id: str
    actor: str
    action: str
    changes: dict[str, Any]
    request_id: str | None = None


def insert_key(connection: Connection, key: ApiKey) -> ApiKey:
    """Add a key and give it the next revision."""
    stored = msgspec.structs.replace(key, revision=_next_revision(connection))
    connection.execute(insert(_keys).values(**_to_row(stored)))
    return stored


def replace_key(
    connection: Connection, key: ApiKey, *, set_balance: bool = False, set_money_balance: bool = False
) -> ApiKey:
    """Write a changed key, but not its balances, which the ledgers write, unless they are to be set."""
    values = _to_row(msgspec.structs.replace(key, revision=_next_revision(connection)))
    if not set_balance:
        del values["token_balance"], values["token_grant"]
    if not set_money_balance:
        del values["money_balance"], values["money_grant"]
    connection.execute(update(_keys).where(_keys.c.id == key.id).values(**values))
    changed = fetch_key(connection, key.id)
    return key if changed is None else changed


def delete_key(connection: Connection, key_id: KeyId) -> bool:
    """Remove a key, but not its audit log and usage; ``False`` if it does not exist."""
    return connection.execute(delete(_keys).where(_keys.c.id == key_id)).rowcount > 0


def fetch_key(connection: Connection, key_id: KeyId) -> ApiKey | None:
    row = connection.execute(select(_keys).where(_keys.c.id == key_id)).mappings().first()
    return None if row is None else _from_row(row)


def has_key(connection: Connection, key_id: KeyId) -> bool:
    return _find_id.run(connection, key_id=key_id).fetchone() is not None


def has_secret(connection: Connection, secret_hash: bytes) -> bool:
    """Whether a key accepts, or accepted before its rotation, the secret with this hash."""
    found = (_keys.c.secret_hash == secret_hash) | (_keys.c.previous_secret_hash == secret_hash)
    return connection.execute(select(func.count()).where(found)).scalar_one() > 0


def list_keys(
    connection: Connection, *, tenant: TenantId | None = None, after: KeyId | None = None, limit: int = 100
) -> list[ApiKey]:
    """Keys in order of creation, oldest first, after the key with id ``after``."""
    query = select(_keys).order_by(_keys.c.created_at, _keys.c.id).limit(limit)
    if tenant is not None:
        query = query.where(_keys.c.tenant == tenant)
    if after is not None:
        named = select(_keys.c.created_at, _keys.c.id).where(_keys.c.id == after)
        cursor = (named if tenant is None else named.where(_keys.c.tenant == tenant)).subquery()
        query = query.where(
            (_keys.c.created_at > cursor.c.created_at)
            | ((_keys.c.created_at == cursor.c.created_at) & (_keys.c.id > cursor.c.id))
        )
    return [_from_row(row) for row in connection.execute(query).mappings()]


def changed_keys(connection: Connection, *, since: int) -> list[ApiKey]:
    """Keys whose revision is greater than ``since``."""
    rows = connection.execute(select(_keys).where(_keys.c.revision > since)).mappings()
    return [_from_row(row) for row in rows]


def key_ids(connection: Connection) -> set[KeyId]:
    return {KeyId(row) for row in connection.execute(select(_keys.c.id)).scalars()}


def add_audit(
    connection: Connection,
    *,
    at: int,
    tenant: str,
    key_id: str,
    actor: str,
    action: str,
    changes: Mapping[str, Any],
    request_id: str | None,
) -> None:
    """Record a change; ``changes`` must hold no secret. ``key_id`` is empty if it concerns no key of the service."""
    text = msgspec.json.encode(changes).decode()
    connection.execute(
        insert(_audit).values(
            at=at, tenant=tenant, key_id=key_id, actor=actor, action=action, changes=text, request_id=request_id
        )
    )


def list_audit(
    connection: Connection,
    *,
    tenant: TenantId | None = None,
    key_id: KeyId | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[AuditEntry]:
    """Audit entries of one key, of one tenant or of all, newest first."""
    query = select(_audit).order_by(_audit.c.id.desc()).limit(limit)
    if tenant is not None:
        query = query.where(_audit.c.tenant == tenant)
    if key_id is not None:
        query = query.where(_audit.c.key_id == key_id)
    if before is not None:
        query = query.where(_audit.c.id < before)
    return [
        AuditEntry(
            id=row["id"],
            at=row["at"],
            tenant=row["tenant"],
            key_id=row["key_id"],
            actor=row["actor"],
            action=row["action"],
            changes=msgspec.json.decode(row["changes"]),
            request_id=row["request_id"],
        )
        for row in connection.execute(query).mappings()
    ]


def _next_revision(connection: Connection) -> int:
    highest = connection.execute(select(func.max(_keys.c.revision))).scalar()
    return later_revision(highest)


def _to_row(key: ApiKey) -> dict[str, Any]:
    limits = key.limits
    return {
        "id": key.id,
        "tenant": key.tenant,
        "label": key.label,
        "secret_hash": key.secret_hash,
        "state": key.state.value,
        "scopes": msgspec.json.encode(sorted(key.scopes)).decode(),
        "allowed_models": msgspec.json.encode(key.allowed_models).decode(),
        "allowed_collections": msgspec.json.encode(key.allowed_collections).decode(),
        "requests_per_minute": limits.requests_per_minute,
        "requests_per_hour": limits.requests_per_hour,
        "tokens_per_day": limits.tokens_per_day,
        "token_balance": limits.token_balance,
        "token_grant": key.token_grant,
        "money_per_day": limits.money_per_day,
        "money_balance": limits.money_balance,
        "money_grant": key.money_grant,
        "max_parallel_requests": limits.max_parallel_requests,
        "expires_at": key.expires_at,
        "previous_secret_hash": key.previous_secret_hash,
        "previous_expires_at": key.previous_expires_at,
        "created_at": key.created_at,
        "updated_at": key.updated_at,
        "revision": key.revision,
    }


def _from_row(row: RowMapping) -> ApiKey:
    return ApiKey(
        id=KeyId(row["id"]),
        tenant=TenantId(row["tenant"]),
        label=row["label"],
        secret_hash=row["secret_hash"],
        state=KeyState(row["state"]),
        scopes=frozenset(Scope(scope) for scope in msgspec.json.decode(row["scopes"], type=list[str])),
        allowed_models=tuple(msgspec.json.decode(row["allowed_models"], type=list[str])),
        allowed_collections=tuple(msgspec.json.decode(row["allowed_collections"], type=list[str])),
        limits=KeyLimits(
            requests_per_minute=row["requests_per_minute"],
            requests_per_hour=row["requests_per_hour"],
            tokens_per_day=row["tokens_per_day"],
            token_balance=row["token_balance"],
            money_per_day=row["money_per_day"],
            money_balance=row["money_balance"],
            max_parallel_requests=row["max_parallel_requests"],
        ),
        token_grant=row["token_grant"],
        money_grant=row["money_grant"],
        expires_at=row["expires_at"],
        previous_secret_hash=row["previous_secret_hash"],
        previous_expires_at=row["previous_expires_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        revision=row["revision"],
    )
