"""What is stored of responses when a request is cancelled, and how much of a conversation is read."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import msgspec
import pytest

from ragsvc.core.access.principal import DEFAULT_SCOPES, Principal, Scope
from ragsvc.core.errors import ConversationNotFound, InvalidRequest
from ragsvc.core.gateway.chat import decode_chat_request
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.core.responses.request import decode_response_request
from ragsvc.services.conversations import ConversationService
from ragsvc.services.response_plans import ResponsePlan
from ragsvc.services.responses import ResponseService
from ragsvc.store.response_rows import (
    UNFINISHED,
    StoredResponse,
    add_response,
    find_response,
    responses_for_export,
)
from tests.support.engines import open_database

CALLER = Principal(KeyId("key_1"), TenantId("acme"), "test", DEFAULT_SCOPES)
IDENTIFIER = "resp_" + "a" * 24


@pytest.fixture
def database(tmp_path):
    opened = open_database(tmp_path / "ragsvc.sqlite")
    yield opened
    opened.close()


def plan() -> ResponsePlan:
    return ResponsePlan(
        id=IDENTIFIER,
        principal=CALLER,
        request=decode_response_request(b'{"model": "m", "input": "Hello", "background": true}'),
        call=decode_chat_request(b'{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}'),
        input_items=[],
        added_items=[],
        collections=[],
        created_at=1_800_000_000,
        truncation="disabled",
        model="m",
    )


def test_a_background_response_whose_request_is_cancelled_has_ended(database):
    """The row is committed although the caller has left: nothing would make the response or end it."""
    entered, go_on = threading.Event(), threading.Event()

    def require_key(_connection, _key_id):
        entered.set()
        assert go_on.wait(10)

    service = ResponseService(
        database=database,
        answers=None,
        planner=None,
        conversations=None,
        require_key=require_key,
        retention_days=0,
    )

    async def leave():
        task = asyncio.create_task(service.start(plan()))
        await asyncio.to_thread(entered.wait, 10)
        task.cancel()
        await asyncio.sleep(0.05)
        go_on.set()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await database.write(lambda _: None)  # after those that had begun
        return await database.read(lambda connection: find_response(connection, CALLER.tenant, IDENTIFIER))

    stored = asyncio.run(leave())
    assert stored.status not in UNFINISHED
    assert b'"cancelled"' in stored.body


def test_a_conversation_that_is_too_large_is_not_read(database):
    async def continue_it():
        service = ConversationService(database)
        made = await service.create(CALLER, items=[{"role": "user", "content": "x" * 1000}] * 5)
        size_bytes = sum(map(len, map(msgspec.json.encode, await service.items(CALLER, made.public_id))))
        assert len(await service.items(CALLER, made.public_id, most_bytes=size_bytes)) == 5
        with pytest.raises(InvalidRequest) as refused:
            await service.items(CALLER, made.public_id, most_bytes=size_bytes - 1, param="conversation")
        assert refused.value.param == "conversation"

    asyncio.run(continue_it())


def test_nothing_is_added_to_a_conversation_that_is_too_large(database):
    async def add_to_it():
        service = ConversationService(database, max_bytes=2000)
        made = await service.create(CALLER)
        for _ in range(2):
            await service.add(CALLER, made.public_id, [{"role": "user", "content": "x" * 1000}])
        with pytest.raises(InvalidRequest):
            await service.add(CALLER, made.public_id, [{"role": "user", "content": "x"}])
        assert len(await service.items(CALLER, made.public_id)) == 2

    asyncio.run(add_to_it())


def test_an_export_reads_responses_in_pages_of_bytes(database):
    def write(connection):
        for place in range(5):
            stored = StoredResponse(
                public_id=f"resp_{place}",
                tenant=CALLER.tenant,
                model="m",
                status="completed",
                background=False,
                previous_id=None,
                collections=[],
                input=b"x" * 1000,
                body=b"{}",
                created_at=1,
            )
            add_response(connection, stored)

    def page(after):
        return database.read_sync(
            lambda connection: responses_for_export(connection, CALLER.tenant, after=after, limit=100, most_bytes=1500)
        )

    database.write_sync(write)
    pages = [page(0)]
    while pages[-1]:
        pages.append(page(pages[-1][-1][0]))
    assert [[response.public_id for _, response in each] for each in pages] == [
        ["resp_0", "resp_1"],
        ["resp_2", "resp_3"],
        ["resp_4"],
        [],
    ]


def test_a_key_without_documents_sees_no_conversation_that_quotes_them(database):
    async def look():
        service = ConversationService(database)
        made = await service.create(CALLER)
        plain = msgspec.structs.replace(CALLER, scopes=frozenset({Scope.CHAT_PLAIN}))
        assert (await service.get(plain, made.public_id)).public_id == made.public_id
        await service.append(CALLER, made.public_id, [{"id": "a", "type": "message"}], collections=["default"])
        assert len(await service.items(CALLER, made.public_id)) == 1
        with pytest.raises(ConversationNotFound):
            await service.items(plain, made.public_id)

    asyncio.run(look())
