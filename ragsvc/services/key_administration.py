"""Administration of API keys: create, change, rotate, revoke, delete; each change is recorded in the audit trail.

A change is a durable transaction; it then takes effect at once in this process (``Access.take``).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from ragsvc.core.access.api_keys import ApiKey, KeyLimits, KeyState, draw_secret
from ragsvc.core.access.limits import DAY_S
from ragsvc.core.access.money import show_amount, to_amount
from ragsvc.core.access.principal import DEFAULT_SCOPES, Scope, covers_models
from ragsvc.core.errors import Conflict, KeyNotFound, PolicyDenied
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.services.access_control import Access, write_to_the_end
from ragsvc.services.idempotency import IdempotentRequest, once
from ragsvc.store import key_rows, key_usage_rows
from ragsvc.store.key_rows import AuditEntry
from ragsvc.store.key_usage_rows import KeyUsage, SummedUsage, UsageDimension, UsageFilter

LOCAL_ACTOR = "local"
"""The name of the actor of commands on the data directory."""


class Actor(msgspec.Struct, frozen=True):
    """Who changes a key: the id of the caller's key, or ``LOCAL_ACTOR``."""

    name: str = LOCAL_ACTOR
    request_id: str | None = None


LOCAL = Actor()
"""A command on the data directory."""


class KeyDraft(msgspec.Struct, frozen=True, kw_only=True):
    tenant: TenantId
    label: str
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    allowed_models: tuple[str, ...] = ()
    allowed_collections: tuple[str, ...] = ()
    limits: KeyLimits = KeyLimits()
    expires_at: int | None = None
    state: KeyState = KeyState.ACTIVE
    secret_hash: bytes | None = None
    """SHA-256 of an existing secret, which the key then accepts; otherwise a secret is drawn."""


class KeyChange(msgspec.Struct, frozen=True, kw_only=True):
    """Fields to change; ``UNSET`` fields stay as they are."""

    label: str | UnsetType = UNSET
    state: KeyState | UnsetType = UNSET
    scopes: frozenset[Scope] | UnsetType = UNSET
    allowed_models: tuple[str, ...] | UnsetType = UNSET
    allowed_collections: tuple[str, ...] | UnsetType = UNSET
    requests_per_minute: int | UnsetType | None = UNSET
    requests_per_hour: int | UnsetType | None = UNSET
    tokens_per_day: int | UnsetType | None = UNSET
    token_balance: int | UnsetType | None = UNSET
    money_per_day: int | UnsetType | None = UNSET
    money_balance: int | UnsetType | None = UNSET
    max_parallel_requests: int | UnsetType | None = UNSET
    expires_at: int | UnsetType | None = UNSET


class IssuedKey(msgspec.Struct, frozen=True):
    """A key with its secret text, which is not stored; ``None`` if the secret was imported by its hash."""

    key: ApiKey
    text: str | None


_LIMITS = frozenset(KeyLimits.__struct_fields__)
MONEY_LIMITS = frozenset({"money_per_day", "money_balance"})
"""Limits in millionths of a unit of money."""
_GRANTS: dict[str, Callable[[ApiKey], int | None]] = {
    "token_balance": lambda key: key.token_grant,
    "money_balance": lambda key: key.money_grant,
}
"""Balances decrease, so what was granted counts instead of what is left."""


def create_key(connection: Connection, draft: KeyDraft, *, actor: Actor, now: int) -> IssuedKey:
    """Create a key within a transaction; also used by commands that run without a service.

    Raises:
        Conflict: a key with the imported secret exists.
    """
    secret = draw_secret(secrets.token_bytes)
    if draft.secret_hash is not None and key_rows.has_secret(connection, draft.secret_hash):
        raise Conflict("A key with this secret exists already.")
    key = ApiKey(
        id=secret.key_id,
        tenant=draft.tenant,
        label=draft.label,
        secret_hash=draft.secret_hash or secret.digest,
        state=draft.state,
        scopes=draft.scopes,
        allowed_models=draft.allowed_models,
        allowed_collections=draft.allowed_collections,
        limits=draft.limits,
        token_grant=draft.limits.token_balance,
        money_grant=draft.limits.money_balance,
        expires_at=draft.expires_at,
        created_at=now,
        updated_at=now,
    )
    stored = key_rows.insert_key(connection, key)
    changes = msgspec.to_builtins(msgspec.structs.replace(draft, secret_hash=None))
    del changes["secret_hash"]
    _audit(connection, stored, actor, "create" if draft.secret_hash is None else "import", changes, now=now)
    return IssuedKey(stored, secret.text if draft.secret_hash is None else None)


def check_grant(
    grantor: ApiKey,
    *,
    scopes: Iterable[Scope],
    limits: KeyLimits,
    collections: Sequence[str],
    models: Sequence[str],
    expires_at: int | None,
) -> None:
    """Check what a tenant administrator grants with a key: no scope ``admin``, and not more than its own key has.

    A key is granted by creating it, by changing it and by rotating it, because the rotation returns its new secret.

    Raises:
        PolicyDenied: names the field.
    """
    if Scope.ADMIN in scopes:
        raise PolicyDenied("Only a key with the scope 'admin' can grant the scope 'admin'.", param="scopes")
    for name in KeyLimits.__struct_fields__:
        own, granted = getattr(grantor.limits, name), getattr(limits, name)
        own = _GRANTS[name](grantor) if name in _GRANTS else own
        if own is not None and (granted is None or granted > own):
            shown = show_amount(own) if name in MONEY_LIMITS else own
            raise PolicyDenied(f"A tenant administrator can grant at most its own limit, {shown}.", param=name)
    own_collections = grantor.allowed_collections
    if own_collections and (not collections or not set(collections) <= set(own_collections)):
        raise PolicyDenied(
            "A tenant administrator can grant only the collections of its own key.", param="allowed_collections"
        )
    if grantor.expires_at is not None and (expires_at is None or expires_at > grantor.expires_at):
        raise PolicyDenied(
            "A tenant administrator can grant no key that expires later than its own.", param="expires_at"
        )
    if not covers_models(grantor.allowed_models, models):
        raise PolicyDenied("A tenant administrator can grant only the models of its own key.", param="allowed_models")


class KeyAdministration:
    """Creates, changes, lists and deletes API keys."""

    def __init__(self, access: Access, *, default_limits: KeyLimits | None = None) -> None:
        """``default_limits`` apply to new keys whose draft sets no limits."""
        self._access = access
        self._default_limits = default_limits or KeyLimits()
        self._database = access.database

    def _now(self) -> int:
        return int(self._access.clock())

    def limits(self, **values: int | UnsetType | None) -> KeyLimits:
        """The given limits, with the defaults for ``UNSET`` ones; ``None`` means unlimited."""
        given = {name: value for name, value in values.items() if value is not UNSET}
        return msgspec.structs.replace(self._default_limits, **given)

    async def create(self, draft: KeyDraft, *, actor: Actor, request: IdempotentRequest | None = None) -> IssuedKey:
        """Create a key.

        Raises:
            Conflict: a key with the imported secret exists, or the key of the actor was deleted in the meantime.
        """
        now = self._now()

        def write(connection: Connection) -> IssuedKey:
            if actor.name != LOCAL_ACTOR:
                self._access.require_key(connection, KeyId(actor.name))
            return once(
                connection,
                request,
                now=now,
                kind=IssuedKey,
                change=lambda: create_key(connection, draft, actor=actor, now=now),
            )

        issued = await write_to_the_end(self._database, write)
        current = await self._database.read(lambda connection: key_rows.fetch_key(connection, issued.key.id))
        if current is not None:  # the key of a repeated request may have been changed or deleted
            self._access.take(current)
        return issued

    async def get(self, key_id: KeyId) -> ApiKey:
        """Fetch a key. Raises ``KeyNotFound``."""
        return await self._database.read(lambda connection: _fetch(connection, key_id))

    async def page(self, *, tenant: TenantId | None, after: KeyId | None, limit: int) -> list[ApiKey]:
        """List keys after ``after``, oldest first."""
        return await self._database.read(
            lambda connection: key_rows.list_keys(connection, tenant=tenant, after=after, limit=limit)
        )

    async def update(self, key_id: KeyId, change: KeyChange, *, actor: Actor) -> ApiKey:
        """Change fields of a key; of a revoked key only the label.

        Raises:
            KeyNotFound: no key has this id.
            Conflict: the key is revoked.
        """
        wanted = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}

        def write(connection: Connection) -> ApiKey:
            before = _fetch(connection, key_id)
            if before.state is KeyState.REVOKED and wanted.keys() - {"label"}:
                raise Conflict("A revoked key cannot be changed. Create a new key.")
            after = _changed(before, wanted, now=self._now())
            stored = key_rows.replace_key(
                connection, after, set_balance="token_balance" in wanted, set_money_balance="money_balance" in wanted
            )
            _audit(connection, stored, actor, "update", msgspec.to_builtins(wanted), now=self._now())
            return stored

        return await self._apply(write)

    async def rotate(
        self, key_id: KeyId, *, overlap_s: int, actor: Actor, request: IdempotentRequest | None = None
    ) -> IssuedKey:
        """Give the key a new secret; the old secret works for ``overlap_s`` more seconds.

        Raises:
            KeyNotFound: no key has this id.
            Conflict: the key is revoked.
        """
        now = self._now()

        def change(connection: Connection) -> IssuedKey:
            before = _fetch(connection, key_id)
            if before.state is KeyState.REVOKED:
                raise Conflict("A revoked key cannot be rotated. Create a new key.")
            secret = draw_secret(secrets.token_bytes, key_id=key_id)
            after = msgspec.structs.replace(
                before,
                secret_hash=secret.digest,
                previous_secret_hash=before.secret_hash if overlap_s else None,
                previous_expires_at=now + overlap_s if overlap_s else None,
                updated_at=now,
            )
            stored = key_rows.replace_key(connection, after)
            _audit(connection, stored, actor, "rotate", {"overlap_s": overlap_s}, now=now)
            return IssuedKey(stored, secret.text)

        issued = await write_to_the_end(
            self._database,
            lambda connection: once(connection, request, now=now, kind=IssuedKey, change=lambda: change(connection)),
        )
        self._access.take(issued.key)
        return issued

    async def revoke(self, key_id: KeyId, *, actor: Actor) -> ApiKey:
        """Revoke a key permanently; revoking it again changes nothing. Raises ``KeyNotFound``."""

        def write(connection: Connection) -> ApiKey:
            before = _fetch(connection, key_id)
            if before.state is KeyState.REVOKED:
                return before
            now = self._now()
            after = msgspec.structs.replace(
                before, state=KeyState.REVOKED, previous_secret_hash=None, previous_expires_at=None, updated_at=now
            )
            _audit(connection, after, actor, "revoke", {}, now=now)
            return key_rows.replace_key(connection, after)

        return await self._apply(write)

    async def delete(self, key_id: KeyId, *, actor: Actor) -> None:
        """Delete a key; its audit trail and usage are kept. Raises ``KeyNotFound``."""

        def write(connection: Connection) -> None:
            deleted = _fetch(connection, key_id)
            key_rows.delete_key(connection, key_id)
            _audit(connection, deleted, actor, "delete", {}, now=self._now())

        await write_to_the_end(self._database, write)
        self._access.forget(key_id)

    async def summed_usage(self, which: UsageFilter, by: Sequence[UsageDimension]) -> list[SummedUsage]:
        """Usage summed for each combination of the columns ``by``, as of the last write."""
        return await self._database.read(lambda connection: key_usage_rows.sum_usage(connection, which, by))

    async def audit(
        self, key_id: KeyId | None = None, *, tenant: TenantId | None = None, before: int | None, limit: int
    ) -> list[AuditEntry]:
        """The audit trail of a tenant, a key or all, newest first; also of deleted keys."""
        return await self._database.read(
            lambda connection: key_rows.list_audit(connection, tenant=tenant, key_id=key_id, before=before, limit=limit)
        )

    async def usage(self, key_id: KeyId, *, days: int) -> list[KeyUsage]:
        """Tokens per day and model of the last ``days`` days, newest first, as of the last write."""
        since_day = self._now() // DAY_S - days + 1
        return await self._database.read(
            lambda connection: key_usage_rows.list_usage(connection, key_id, since_day=since_day)
        )

    async def _apply(self, write: Callable[[Connection], ApiKey]) -> ApiKey:
        key = await write_to_the_end(self._database, write)
        self._access.take(key)
        return key


def _fetch(connection: Connection, key_id: KeyId) -> ApiKey:
    key = key_rows.fetch_key(connection, key_id)
    if key is None:
        raise KeyNotFound(f"There is no API key '{key_id}'.")
    return key


def _changed(key: ApiKey, wanted: dict[str, Any], *, now: int) -> ApiKey:
    limits = {name: value for name, value in wanted.items() if name in _LIMITS}
    rest = {name: value for name, value in wanted.items() if name not in _LIMITS}
    if "token_balance" in limits:
        rest["token_grant"] = limits["token_balance"]
    if "money_balance" in limits:
        rest["money_grant"] = limits["money_balance"]
    return msgspec.structs.replace(key, limits=msgspec.structs.replace(key.limits, **limits), updated_at=now, **rest)


def _audit(
    connection: Connection, key: ApiKey, actor: Actor, action: str, changes: dict[str, Any], *, now: int
) -> None:
    key_rows.add_audit(
        connection,
        at=now,
        tenant=key.tenant,
        key_id=key.id,
        actor=actor.name,
        action=action,
        changes=_with_amounts(changes),
        request_id=actor.request_id,
    )


def _with_amounts(changes: dict[str, Any]) -> dict[str, Any]:
    """Changes with money as amounts, for readers of the audit trail."""
    shown: dict[str, Any] = dict(changes)
    for name in MONEY_LIMITS & shown.keys():
        shown[name] = None if shown[name] is None else to_amount(shown[name])
    if "limits" in shown:
        shown["limits"] = _with_amounts(shown["limits"])
    return shown
