"""Changes of keys and budgets by another process reach the process that serves, also after a deletion."""

from __future__ import annotations

import anyio
import pytest
from sqlalchemy import text

from ragsvc.core.access.api_keys import KeyLimits
from ragsvc.core.access.principal import Scope
from ragsvc.core.errors import Unauthorized
from ragsvc.core.ids import TenantId
from ragsvc.services.access_control import Access
from ragsvc.services.key_administration import Actor, IssuedKey, KeyAdministration, KeyDraft, create_key
from ragsvc.store import key_rows, tenant_budget_rows
from tests.support.keys_database import SmallDatabase


def _issue(database: SmallDatabase, tenant: str) -> IssuedKey:
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


def test_revisions_grow_with_every_change_also_within_a_moment(tmp_path) -> None:
    database = SmallDatabase(tmp_path / "keys.sqlite")
    issued = _issue(database, "acme")
    seen = [
        database.write_sync(lambda connection: key_rows.replace_key(connection, issued.key)).revision for _ in range(50)
    ]
    assert seen == sorted(set(seen))
    database.close()
