"""Statements of the token ledger: spent tokens, leases, usage per day and model, and the recovery after a crash."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, cast

import msgspec
from sqlalchemy import Connection, Table, func, select, update

from ragsvc.core.access.limits import LedgerWrite
from ragsvc.core.ids import KeyId
from ragsvc.store.engines import engine_of
from ragsvc.store.key_tables import KeyRow, UsageRow

_keys = cast("Table", KeyRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time
_usage = cast("Table", UsageRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time


class Spending(msgspec.Struct, frozen=True):
    """Changes of a key's balances and leases by one write (``core.access.limits.LedgerWrite``)."""

    key_id: KeyId
    tokens: LedgerWrite
    money: LedgerWrite


class KeyUsage(msgspec.Struct):
    """Use of one key on a day, by model and family: since the last write, or as a row of the usage report.

    ``errors`` counts requests answered with an error, ``duration_ms`` is the sum over ``timed_requests`` others.
    """

    key_id: KeyId
    day: int
    model: str
    family: str
    tenant: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    requests: int = 0
    cost_micros: int = 0
    errors: int = 0
    timed_requests: int = 0
    duration_ms: int = 0

    def add(self, other: KeyUsage) -> None:
        """Add the numbers of another entry."""
        for name in USAGE_NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


USAGE_NUMBERS: Final = (
    "prompt_tokens",
    "completion_tokens",
    "requests",
    "cost_micros",
    "errors",
    "timed_requests",
    "duration_ms",
)
"""The columns that are summed."""


class Balances(msgspec.Struct, frozen=True):
    """The balances of a key; ``None`` means unlimited."""

    tokens: int | None
    money: int | None


class DayUse(msgspec.Struct, frozen=True):
    """What was used on a day."""

    tokens: int = 0
    cost_micros: int = 0


def book(connection: Connection, spendings: Sequence[Spending], usages: Sequence[KeyUsage]) -> dict[KeyId, Balances]:
    """Write spendings and usage; returns the balances afterwards, without keys that were deleted meanwhile."""
    balances: dict[KeyId, Balances] = {}
    for spending in spendings:
        tokens, money = spending.tokens, spending.money
        row = connection.execute(
            update(_keys)
            .where(_keys.c.id == spending.key_id)
            .values(
                token_balance=_keys.c.token_balance - tokens.spent,
                token_lease=tokens.lease,
                lease_day=tokens.day,
                money_balance=_keys.c.money_balance - money.spent,
                money_lease=money.lease,
                money_lease_day=money.day,
            )
            .returning(_keys.c.token_balance, _keys.c.money_balance)
        ).first()
        if row is not None:
            balances[spending.key_id] = Balances(*row)
    for usage in usages:
        add_usage(connection, usage)
    return balances


class Forfeited(msgspec.Struct, frozen=True):
    """What the leases of a crash amounted to; ``micros`` is money."""

    tokens: int = 0
    micros: int = 0


def recover_leases(connection: Connection) -> Forfeited:
    """After a crash, count every lease of a key as spent (see ``core.access.limits.TokenLedger``)."""
    tokens = micros = 0
    left_open = connection.execute(select(_keys).where((_keys.c.token_lease > 0) | (_keys.c.money_lease > 0)))
    for row in left_open.all():
        connection.execute(
            update(_keys)
            .where(_keys.c.id == row.id)
            .values(
                token_balance=balance_without_lease(row.token_balance, row.token_lease),
                token_lease=0,
                money_balance=balance_without_lease(row.money_balance, row.money_lease),
                money_lease=0,
            )
        )
        key_id = KeyId(row.id)
        if row.token_lease:
            used = KeyUsage(key_id, row.lease_day, "", "", row.tenant, prompt_tokens=row.token_lease)
            add_usage(connection, used)
        if row.money_lease:
            used = KeyUsage(key_id, row.money_lease_day, "", "", row.tenant, cost_micros=row.money_lease)
            add_usage(connection, used)
        tokens += row.token_lease
        micros += row.money_lease
    return Forfeited(tokens, micros)


def balance_without_lease(balance: int | None, lease: int) -> int | None:
    """A balance after its lease was counted as spent; a lease overdraws no balance."""
    return None if balance is None else max(min(balance, 0), balance - lease)


def used_on(connection: Connection, day: int) -> dict[KeyId, DayUse]:
    """What each key used on a day."""
    tokens = func.sum(_usage.c.prompt_tokens + _usage.c.completion_tokens)
    rows = connection.execute(
        select(_usage.c.key_id, tokens, func.sum(_usage.c.cost_micros))
        .where(_usage.c.day == day)
        .group_by(_usage.c.key_id)
    )
    return {KeyId(key_id): DayUse(used, micros) for key_id, used, micros in rows}


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
    """Usage summed over the columns that are ``None``; ``cost_micros`` is in millionths of a unit of money."""

    tenant: str | None = None
    key_id: str | None = None
    model: str | None = None
    family: str | None = None
    day: int | None = None
    prompt_tokens: int
    completion_tokens: int
    requests: int
    cost_micros: int
    errors: int
    timed_requests: int
    duration_ms: int


def sum_usage(connection: Connection, which: UsageFilter, by: Sequence[UsageDimension]) -> list[SummedUsage]:
    """Usage summed for each combination of the columns ``by``, ordered by them; days newest first."""
    columns = [_usage.c[dimension.value] for dimension in by]
    numbers = [func.coalesce(func.sum(_usage.c[name]), 0).label(name) for name in USAGE_NUMBERS]
    statement = select(*columns, *numbers).where(_usage.c.day.between(which.since_day, which.until_day))
    for name in ("tenant", "key_id", "model", "family"):
        if (value := getattr(which, name)) is not None:
            statement = statement.where(_usage.c[name] == value)
    if columns:
        order = [column.desc() if column.name == "day" else column for column in columns]
        statement = statement.group_by(*columns).order_by(*order)
    return [SummedUsage(**row) for row in connection.execute(statement).mappings()]


def add_usage(connection: Connection, usage: KeyUsage) -> None:
    values = msgspec.structs.asdict(usage)
    sums = {name: _usage.c[name] + values[name] for name in USAGE_NUMBERS}
    connection.execute(engine_of(connection).upsert(_usage, values, sums))
