"""Statements about the money budgets of tenants; callers own the transaction.

Amounts are millionths of a unit of money.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import msgspec
from sqlalchemy import Connection, Table, func, select, update

from ragsvc.core.access.limits import LedgerWrite
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.store.engines import engine_of
from ragsvc.store.key_tables import KeyRow, TenantRow, UsageRow, later_revision
from ragsvc.store.key_usage_rows import KeyUsage, add_usage, balance_without_lease

_tenants = cast("Table", TenantRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time
_keys = cast("Table", KeyRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time
_usage = cast("Table", UsageRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time

LEASE_PREFIX = "tenant:"
"""Begins the key id of usage that belongs to no key: leases of a tenant's budget that a crash left."""


class TenantBudget(msgspec.Struct, frozen=True, kw_only=True):
    """The money budget of a tenant; ``None`` means unlimited. ``money_grant`` is the balance that was last set."""

    tenant: TenantId
    money_per_day: int | None = None
    money_balance: int | None = None
    money_grant: int | None = None
    revision: int = 0


class TenantSpending(msgspec.Struct, frozen=True):
    """A change of a tenant's balance and lease by one write."""

    tenant: TenantId
    money: LedgerWrite


_columns = [_tenants.c[name] for name in ("money_per_day", "money_balance", "money_grant", "revision")]


def changed_budgets(connection: Connection, *, since: int) -> list[TenantBudget]:
    """Budgets whose revision is greater than ``since``."""
    rows = connection.execute(select(_tenants.c.name.label("tenant"), *_columns).where(_tenants.c.revision > since))
    return [TenantBudget(**row) for row in rows.mappings()]


def fetch_budget(connection: Connection, tenant: TenantId) -> TenantBudget:
    row = connection.execute(select(*_columns).where(_tenants.c.name == tenant)).mappings().first()
    return TenantBudget(tenant=tenant) if row is None else TenantBudget(tenant=tenant, **row)


def change_budget(
    connection: Connection, tenant: TenantId, changes: Mapping[str, int | None], *, now: int
) -> TenantBudget:
    """Set ``money_per_day``, ``money_balance`` or both; what is not named stays."""
    values: dict[str, int | None] = {**changes, "updated_at": now}
    if "money_balance" in changes:
        values["money_grant"] = changes["money_balance"]
    highest = connection.execute(select(func.max(_tenants.c.revision))).scalar()
    values["revision"] = later_revision(highest)
    connection.execute(engine_of(connection).upsert(_tenants, {"name": tenant, **values}, values))
    return fetch_budget(connection, tenant)


def tenants_used_on(connection: Connection, day: int) -> dict[TenantId, int]:
    """The money that each tenant used on a day."""
    rows = connection.execute(
        select(_usage.c.tenant, func.sum(_usage.c.cost_micros)).where(_usage.c.day == day).group_by(_usage.c.tenant)
    )
    return {TenantId(tenant): micros for tenant, micros in rows if micros}


def book_tenants(connection: Connection, spendings: Sequence[TenantSpending]) -> dict[TenantId, int | None]:
    """Write spendings; returns the balances afterwards, without tenants that were deleted meanwhile."""
    balances: dict[TenantId, int | None] = {}
    for spending in spendings:
        money = spending.money
        row = connection.execute(
            update(_tenants)
            .where(_tenants.c.name == spending.tenant)
            .values(
                money_balance=_tenants.c.money_balance - money.spent,
                money_lease=money.lease,
                money_lease_day=money.day,
            )
            .returning(_tenants.c.money_balance)
        ).first()
        if row is not None:
            balances[spending.tenant] = row[0]
    return balances


def recover_tenant_leases(connection: Connection) -> int:
    """After a crash, count every lease as spent; to be called before the leases of keys are recovered. Returns the sum.

    The leases of a tenant's keys are counted as its usage too, so its own lease is usage only as far as it is larger.
    """
    total = 0
    for row in connection.execute(select(_tenants).where(_tenants.c.money_lease > 0)).all():
        balance = balance_without_lease(row.money_balance, row.money_lease)
        connection.execute(
            update(_tenants).where(_tenants.c.name == row.name).values(money_balance=balance, money_lease=0)
        )
        uncounted = row.money_lease - _leases_of_keys(connection, row.name, row.money_lease_day)
        if uncounted > 0:
            key_id = KeyId(LEASE_PREFIX + row.name)
            add_usage(connection, KeyUsage(key_id, row.money_lease_day, "", "", row.name, cost_micros=uncounted))
        total += row.money_lease
    return total


def _leases_of_keys(connection: Connection, tenant: str, day: int) -> int:
    leased = select(func.coalesce(func.sum(_keys.c.money_lease), 0)).where(
        _keys.c.tenant == tenant, _keys.c.money_lease_day == day
    )
    return int(connection.execute(leased).scalar_one())
