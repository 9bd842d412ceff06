"""Statements of the token ledger: spent tokens, leases, usage per day and model, and the recovery after a crash."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import cast

import msgspec
from sqlalchemy import Connection, Table, func, select, update
from sqlalchemy.dialects.sqlite import insert

from ragsvc.core.ids import KeyId
from ragsvc.store.key_tables import KeyRow, UsageRow

_keys = cast("Table", KeyRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time
_usage = cast("Table", UsageRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time


class Spending(msgspec.Struct, frozen=True):
    """Changes of a key's balance and lease by one write (``core.access.limits.LedgerWrite``)."""

    key_id: KeyId
    spent: int
    lease: int
    day: int


class KeyUsage(msgspec.Struct):
    """Tokens and requests of one key, day, model and family: since the last write, or as a row of the usage report."""

    key_id: KeyId
    day: int
    model: str
    family: str
    tenant: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    requests: int = 0


def book(connection: Connection, spendings: Sequence[Spending], usages: Sequence[KeyUsage]) -> dict[KeyId, int | None]:
    """Write spendings and usage; returns the balances afterwards, without keys that were deleted meanwhile."""
    balances: dict[KeyId, int | None] = {}
    for spending in spendings:
        row = connection.execute(
            update(_keys)
            .where(_keys.c.id == spending.key_id)
            .values(
                token_balance=_keys.c.token_balance - spending.spent, token_lease=spending.lease, lease_day=spending.day
            )
            .returning(_keys.c.token_balance)
        ).first()
        if row is not None:
            balances[spending.key_id] = row[0]
    for usage in usages:
        _add_usage(connection, usage)
    return balances


def recover_leases(connection: Connection) -> int:
    """After a crash, count every lease as spent (see ``core.access.limits.TokenLedger``). Returns the tokens."""
    left_open = connection.execute(
        select(_keys.c.id, _keys.c.tenant, _keys.c.token_balance, _keys.c.token_lease, _keys.c.lease_day).where(
            _keys.c.token_lease > 0
        )
    ).all()
    total = 0
    for key_id, tenant, balance, lease, day in left_open:
        after = None if balance is None else max(min(balance, 0), balance - lease)
        connection.execute(update(_keys).where(_keys.c.id == key_id).values(token_balance=after, token_lease=0))
        _add_usage(connection, KeyUsage(KeyId(key_id), day, "", "", tenant, prompt_tokens=lease))
        total += lease
    return total


def used_on(connection: Connection, day: int) -> dict[KeyId, int]:
    """Tokens that each key used on a day."""
    total = func.sum(_usage.c.prompt_tokens + _usage.c.completion_tokens)
    rows = connection.execute(select(_usage.c.key_id, total).where(_usage.c.day == day).group_by(_usage.c.key_id))
    return {KeyId(key_id): tokens for key_id, tokens in rows}


def list_usage(connection: Connection, key_id: KeyId, *, since_day: int) -> list[KeyUsage]:
    """Usage of one key per day, model and family, newest day first."""
    query = (
        select(_usage)
        .where(_usage.c.key_id == key_id, _usage.c.day >= since_day)
        .order_by(_usage.c.day.desc(), _usage.c.model, _usage.c.family)
    )
    return [KeyUsage(**row) for row in connection.execute(query).mappings()]


class UsageDimension(StrEnum):
    """A column by which usage is summed."""

    TENANT = "tenant"
    KEY = "key_id"
    MODEL = "model"
    FAMILY = "family"
    DAY = "day"


class UsageFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which usage is summed; ``None`` matches all. Days are days since 1970 in UTC, both inclusive."""

    since_day: int
    until_day: int
    tenant: str | None = None
    key_id: str | None = None
    model: str | None = None
    family: str | None = None


class SummedUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Usage summed over the columns that are ``None``."""

    tenant: str | None = None
    key_id: str | None = None
    model: str | None = None
    family: str | None = None
    day: int | None = None
    prompt_tokens: int
    completion_tokens: int
    requests: int


def sum_usage(connection: Connection, which: UsageFilter, by: Sequence[UsageDimension]) -> list[SummedUsage]:
    """Usage summed for each combination of the columns ``by``, ordered by them; days newest first."""
    columns = [_usage.c[dimension.value] for dimension in by]
    numbers = [
        func.coalesce(func.sum(_usage.c[name]), 0).label(name)
        for name in ("prompt_tokens", "completion_tokens", "requests")
    ]
    statement = select(*columns, *numbers).where(_usage.c.day.between(which.since_day, which.until_day))
    for name in ("tenant", "key_id", "model", "family"):
        if (value := getattr(which, name)) is not None:
            statement = statement.where(_usage.c[name] == value)
    if columns:
        order = [column.desc() if column.name == "day" else column for column in columns]
        statement = statement.group_by(*columns).order_by(*order)
    return [SummedUsage(**row) for row in connection.execute(statement).mappings()]


def _add_usage(connection: Connection, usage: KeyUsage) -> None:
    statement = insert(_usage).values(**msgspec.structs.asdict(usage))
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["key_id", "day", "model", "family"],
            set_={
                "prompt_tokens": _usage.c.prompt_tokens + statement.excluded.prompt_tokens,
                "completion_tokens": _usage.c.completion_tokens + statement.excluded.completion_tokens,
                "requests": _usage.c.requests + statement.excluded.requests,
            },
        )
    )
