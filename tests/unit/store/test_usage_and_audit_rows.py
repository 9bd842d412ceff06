"""Errors and durations in usage, and the audit trail by tenant, in plain and encrypted databases."""

from __future__ import annotations

import secrets
from pathlib import Path

import anyio
import pytest

from ragsvc.core.access.limits import DAY_S
from ragsvc.core.ids import TenantId
from ragsvc.services.access_control import Access
from ragsvc.services.key_administration import Actor, KeyAdministration, KeyChange, KeyDraft
from ragsvc.store.database import Database
from ragsvc.store.key_usage_rows import UsageDimension, UsageFilter
from ragsvc.store.postgres_database import PostgresDatabase
from ragsvc.store.sqlite_database import SqliteDatabase

NORTH, SOUTH = TenantId("north"), TenantId("south")


@pytest.fixture(params=["plain", "encrypted", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path):
    if request.param == "postgres":
        opened: Database = PostgresDatabase(request.getfixturevalue("postgres_server").new_database())
    else:
        key = secrets.token_bytes(32) if request.param == "encrypted" else None
        opened = SqliteDatabase(tmp_path / "ragsvc.sqlite", key=key)
    yield opened
    opened.close()


def test_errors_and_durations_are_summed_by_day(database: Database) -> None:
    now = 20_000 * DAY_S + 100.0

    async def main() -> None:
        access = Access(database, clock=lambda: now)
        keys = KeyAdministration(access)
        async with access.running():
            issued = await keys.create(KeyDraft(tenant=NORTH, label="app"), actor=Actor())
            live = await access.authenticate((issued.text or "").encode())
            for day, duration_s in ((0, 0.25), (0, 0.75), (0, None), (1, None)):
                nonlocal now
                now = (20_000 + day) * DAY_S + 200.0
                access.count_outcome(live, model="m", family="chat", duration_s=duration_s)
            await access._flush(release=True)
            which = UsageFilter(since_day=20_000, until_day=20_001, tenant=NORTH)
            rows = await keys.summed_usage(which, [UsageDimension.DAY])
            found = [(row.day, row.errors, row.timed_requests, row.duration_ms) for row in rows]
            assert found == [(20_001, 1, 0, 0), (20_000, 1, 2, 1000)]
            await keys.delete(issued.key.id, actor=Actor())
            access.count_outcome(live, model="m", family="chat", duration_s=None)  # a request that outlives its key
            await access._flush(release=True)
            assert await keys.summed_usage(which, [UsageDimension.DAY]) == rows

    anyio.run(main)


def test_a_failed_write_of_usage_keeps_errors_and_durations(database: Database) -> None:
    async def main() -> None:
        access = Access(database)
        keys = KeyAdministration(access)
        async with access.running():
            issued = await keys.create(KeyDraft(tenant=NORTH, label="app"), actor=Actor())
            live = await access.authenticate((issued.text or "").encode())
            access.count_outcome(live, model="m", family="chat", duration_s=0.5)
            taken, access._usage = access._usage, {}
            access.count_outcome(live, model="m", family="chat", duration_s=None)
            access._keep_usage(taken)
            await access._flush(release=True)
            (usage,) = await keys.usage(issued.key.id, days=1)
            assert (usage.errors, usage.timed_requests, usage.duration_ms) == (1, 1, 500)

    anyio.run(main)


def test_the_audit_trail_is_read_by_tenant(database: Database) -> None:
    async def main() -> None:
        access = Access(database)
        keys = KeyAdministration(access)
        async with access.running():
            north = await keys.create(KeyDraft(tenant=NORTH, label="one"), actor=Actor())
            await keys.create(KeyDraft(tenant=SOUTH, label="two"), actor=Actor())
            await keys.update(north.key.id, KeyChange(label="three"), actor=Actor(name="key_admin"))
            await keys.delete(north.key.id, actor=Actor())
            entries = await keys.audit(tenant=NORTH, before=None, limit=10)
            assert [(entry.action, entry.key_id) for entry in entries] == [
                (action, north.key.id) for action in ("delete", "update", "create")
            ]
            assert entries[1].changes == {"label": "three"}
            assert {entry.tenant for entry in await keys.audit(before=None, limit=10)} == {NORTH, SOUTH}

    anyio.run(main)
