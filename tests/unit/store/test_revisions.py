"""Changes of keys and budgets by another process reach the process that serves, also after a deletion."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

import anyio
import msgspec
import pytest
from sqlalchemy import Connection, text

from ragsvc.core.access.api_keys import ApiKey, KeyLimits, KeyState
from ragsvc.core.access.principal import Scope
from ragsvc.core.errors import Unauthorized
from ragsvc.core.ids import TenantId
from ragsvc.services.access_control import Access
from ragsvc.services.key_administration import Actor, IssuedKey, KeyAdministration, KeyChange, KeyDraft, create_key
from ragsvc.store import key_rows, tenant_budget_rows
from ragsvc.store.database import Database
from ragsvc.store.postgres_database import PostgresDatabase
from tests.support.keys_database import SmallDatabase
from tests.support.postgres_server import PostgresServer


def _issue(database: Database, tenant: str) -> IssuedKey:
    draft = KeyDraft(tenant=TenantId(tenant), label="l", scopes=frozenset(Scope), limits=KeyLimits())
    return database.write_sync(lambda connection: create_key(connection, draft, actor=Actor(), now=1_700_000_000))


def test_a_key_that_another_process_revokes_is_refused_after_the_latest_key_was_deleted(tmp_path) -> None:
    database = SmallDatabase(tmp_path / "keys.sqlite")
    leaked, latest = _issue(database, "acme"), _issue(database, "acme")

    async def serve() -> None:
        access = Access(database)
        await access.refresh()
        await KeyAdministration(access).delete(latest.key.id, actor=Actor())
        await KeyAdministration(Access(database)).revoke(leaked.key.id, actor=Actor())
        await access.refresh()
        with pytest.raises(Unauthorized, match="revoked"):
            await access.find_key(leaked.text.encode())

    anyio.run(serve)
    database.close()


def test_a_budget_that_another_process_sets_binds_after_the_latest_budget_was_deleted(tmp_path) -> None:
    database = SmallDatabase(tmp_path / "keys.sqlite")
    issued = _issue(database, "acme")

    def set_budget(tenant: str, micros: int) -> None:
        changes = {"money_balance": micros}
        database.write_sync(lambda c: tenant_budget_rows.change_budget(c, TenantId(tenant), changes, now=1))

    set_budget("acme", 1)
    set_budget("other", 1)

    async def serve() -> None:
        access = Access(database)
        await access.refresh()
        database.write_sync(lambda connection: connection.execute(text("DELETE FROM tenants WHERE name = 'other'")))
        access.forget_tenant(TenantId("other"))
        set_budget("acme", 7)
        await access.refresh()
        assert await access.remaining_money(issued.key.principal()) == 7

    anyio.run(serve)
    database.close()


def _revoke(connection: Connection, key: ApiKey) -> None:
    key_rows.replace_key(connection, msgspec.structs.replace(key, state=KeyState.REVOKED))


def _budget(connection: Connection, tenant: str) -> None:
    tenant_budget_rows.change_budget(connection, TenantId(tenant), {"money_balance": 1}, now=1)


@pytest.mark.parametrize("kind", ["keys", "budgets"])
def test_a_change_that_is_committed_after_a_later_one_is_read(kind: str, postgres_server: PostgresServer) -> None:
    """Another process revokes a key; before it commits, this one adds a key and reads what changed."""
    url = postgres_server.new_database()
    with closing(PostgresDatabase(url)) as own, closing(PostgresDatabase(url)) as other:
        _check_late_commit(kind, own, other)


def _check_late_commit(kind: str, own: Database, other: Database) -> None:
    leaked = _issue(own, "acme").key
    changed, may_commit = threading.Event(), threading.Event()

    def early(connection: Connection) -> None:
        _revoke(connection, leaked) if kind == "keys" else _budget(connection, "early")
        changed.set()
        assert may_commit.wait(30)

    def late() -> None:
        _issue(own, "acme") if kind == "keys" else own.write_sync(lambda c: _budget(c, "late"))

    def read(since: int) -> dict[int, str]:
        if kind == "keys":
            found = own.read_sync(lambda c: key_rows.changed_keys(c, since=since))
            return {key.revision: key.state for key in found}
        budgets = own.read_sync(lambda c: tenant_budget_rows.changed_budgets(c, since=since))
        return {budget.revision: budget.tenant for budget in budgets}

    with ThreadPoolExecutor() as threads:
        first = threads.submit(other.write_sync, early)
        assert changed.wait(30)
        second = threads.submit(late)
        wait([second], timeout=0.5)
        seen = max(read(0), default=0)
        may_commit.set()
        first.result(), second.result()
    assert {"revoked", "early"} & set(read(seen).values())


def test_a_revocation_is_not_undone_by_a_change_that_began_before(postgres_server: PostgresServer) -> None:
    """A key is renamed; between its read and its write, another process revokes it."""
    url = postgres_server.new_database()
    has_read, may_write = threading.Event(), threading.Event()

    def clock() -> float:
        """Is asked between the read and the write."""
        has_read.set()
        assert may_write.wait(30)
        return 1_800_000_000

    with closing(PostgresDatabase(url)) as own, closing(PostgresDatabase(url)) as other:
        key = _issue(own, "acme").key
        access = Access(own)
        access.clock = clock

        async def revoke() -> None:
            assert await anyio.to_thread.run_sync(has_read.wait, 30)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: KeyAdministration(Access(other)).revoke(key.id, actor=Actor()))
                await anyio.sleep(0.5)
                may_write.set()

        async def change() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(revoke)
                await KeyAdministration(access).update(key.id, KeyChange(label="renamed"), actor=Actor())

        anyio.run(change)
        stored = own.read_sync(lambda c: key_rows.fetch_key(c, key.id))
        assert (stored.state, stored.label) == ("revoked", "renamed")


def test_revisions_grow_with_every_change_also_within_a_moment(tmp_path) -> None:
    database = SmallDatabase(tmp_path / "keys.sqlite")
    issued = _issue(database, "acme")
    seen = [
        database.write_sync(lambda connection: key_rows.replace_key(connection, issued.key)).revision for _ in range(50)
    ]
    assert seen == sorted(set(seen))
    database.close()
