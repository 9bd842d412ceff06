"""Conversations that were not used within the retention do not exist, and are removed."""

from __future__ import annotations

import asyncio
import contextlib
import functools

import pytest

from ragsvc.core.access.principal import DEFAULT_SCOPES, Principal
from ragsvc.core.errors import ConversationNotFound, InvalidRequest
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.services.conversations import ConversationService
from ragsvc.store import conversation_rows
from ragsvc.store.database import Database
from tests.support.engines import open_database

DAY = 86_400
HELLO = {"role": "user", "content": "Hello"}


def in_loop(test):
    """Run the coroutine of a test."""

    @functools.wraps(test)
    def run(database):
        asyncio.run(test(database))

    return run


class Clock:
    """Seconds that a test sets."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database(tmp_path):
    opened = open_database(tmp_path / "ragsvc.sqlite")
    yield opened
    opened.close()


def caller(*, collections: tuple[str, ...] = ()) -> Principal:
    return Principal(KeyId("key_1"), TenantId("acme"), "test", DEFAULT_SCOPES, allowed_collections=collections)


async def count_rows(database: Database) -> int:
    found = await database.read(
        lambda connection: conversation_rows.conversations_for_export(connection, TenantId("acme"), after=0, limit=10)
    )
    return len(found)


async def remove_once(service: ConversationService) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(service.remove_inactive(), 0.3)


@in_loop
async def test_an_unused_conversation_expires_and_is_removed(database):
    clock = Clock()
    service = ConversationService(database, retention_days=30, clock=clock)
    old, used = await service.create(caller(), items=[HELLO]), await service.create(caller(), items=[HELLO])
    clock.now += 29 * DAY
    await service.add(caller(), used.public_id, [HELLO])
    await remove_once(service)
    assert await count_rows(database) == 2
    clock.now += 2 * DAY
    with pytest.raises(ConversationNotFound):
        await service.items(caller(), old.public_id)
    with pytest.raises(ConversationNotFound):
        await service.append(caller(), old.public_id, [])
    assert len(await service.items(caller(), used.public_id)) == 2
    await remove_once(service)
    assert await count_rows(database) == 1


@in_loop
async def test_without_a_retention_conversations_stay(database):
    clock = Clock()
    service = ConversationService(database, clock=clock)
    made = await service.create(caller(), items=[HELLO])
    clock.now += 10_000 * DAY
    await remove_once(service)
    assert len(await service.items(caller(), made.public_id)) == 1


@in_loop
async def test_a_key_limited_to_collections_sees_what_quotes_only_these(database):
    service = ConversationService(database)
    made = await service.create(caller(), items=[HELLO])
    limited = caller(collections=("open",))
    await service.append(caller(), made.public_id, [{"id": "a", "type": "message"}], collections=["open"])
    assert len(await service.items(limited, made.public_id)) == 2
    await service.append(caller(), made.public_id, [{"id": "b", "type": "message"}], collections=["closed"])
    for attempt in (
        service.get(limited, made.public_id),
        service.items(limited, made.public_id),
        service.append(limited, made.public_id, []),
        service.delete(limited, made.public_id),
    ):
        with pytest.raises(ConversationNotFound):
            await attempt
    assert len(await service.items(caller(), made.public_id)) == 3


@in_loop
async def test_an_append_adds_all_items_or_none(database):
    service = ConversationService(database, max_items=3)
    made = await service.create(caller(), items=[HELLO, HELLO])
    with pytest.raises(InvalidRequest) as refused:
        await service.append(caller(), made.public_id, [{"id": "a", "type": "x"}, {"id": "b", "type": "x"}])
    assert refused.value.message == "A conversation may have 3 items. Begin a new one."
    assert len(await service.items(caller(), made.public_id)) == 2
    await service.append(caller(), made.public_id, [{"id": "a", "type": "x"}])
    assert [item["id"] for item in await service.items(caller(), made.public_id)][-1] == "a"
