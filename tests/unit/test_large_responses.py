"""Requests of the Responses API with many items take little time of the event loop."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec
from sqlalchemy import Engine, event

from ragsvc.core.access.principal import DEFAULT_SCOPES, Principal
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.core.responses.request import decode_response_request
from ragsvc.services.answers import AnswerService
from ragsvc.services.conversations import ConversationService
from ragsvc.services.model_registry import ModelRegistry
from ragsvc.services.response_plans import ResponsePlanner
from ragsvc.services.store_names import StoreNames
from ragsvc.store.database import Database
from ragsvc.store.response_rows import StoredResponse, add_response
from tests.support.engines import open_database

CALLER = Principal(KeyId("key_1"), TenantId("acme"), "test", DEFAULT_SCOPES)
ITEMS = 15_000


def open_planner(path: Path) -> tuple[ResponsePlanner, Database]:
    database = open_database(path)
    answers = AnswerService(models=ModelRegistry([], {}, created=1), searcher=None, meter=None, count_tokens=len)
    conversations = ConversationService(database)
    planner = ResponsePlanner(database=database, answers=answers, conversations=conversations, store_names=StoreNames())
    return planner, database


def test_thousands_of_items_are_prepared_in_a_thread(tmp_path):
    """The share of the loop's thread in the processor time of the process, whatever else the machine does."""
    item = {"role": "user", "content": "Hello, how are you today?"}
    request = decode_response_request(msgspec.json.encode({"model": "m", "input": [item] * ITEMS}))

    async def prepare() -> float:
        planner, database = open_planner(tmp_path / "ragsvc.sqlite")
        used: list[float] = []
        for _ in range(3):
            began, began_in_all = time.thread_time(), time.process_time()
            plan = await planner.plan(CALLER, request, lambda call: call, large=True)
            used.append((time.thread_time() - began) / (time.process_time() - began_in_all))
            assert len(plan.input_items) == len(plan.call.request.messages) == ITEMS
        database.close()
        return min(used)

    assert asyncio.run(prepare()) < 0.15


def test_many_references_to_one_response_read_it_once(tmp_path):
    owner = "resp_" + "a" * 24
    items = [
        {"id": f"msg_{'a' * 24}{number:04}", "type": "message", "role": "user", "content": f"{number}"}
        for number in range(1000)
    ]
    stored = StoredResponse(
        public_id=owner,
        tenant=CALLER.tenant,
        model="m",
        status="completed",
        background=False,
        previous_id=None,
        collections=[],
        created_at=1,
        input=msgspec.json.encode(items),
        body=msgspec.json.encode({"id": owner, "output": []}),
    )
    references = [{"type": "item_reference", "id": item["id"]} for item in items]
    request = decode_response_request(msgspec.json.encode({"model": "m", "input": references, "store": False}))
    statements: list[str] = []

    def note(_connection, _cursor, statement, *_rest) -> None:
        statements.append(statement)

    async def prepare() -> int:
        planner, database = open_planner(tmp_path / "ragsvc.sqlite")
        await database.write(lambda connection: add_response(connection, stored))
        event.listen(Engine, "before_cursor_execute", note)
        try:
            plan = await planner.plan(CALLER, request, lambda call: call)
        finally:
            event.remove(Engine, "before_cursor_execute", note)
            database.close()
        return len(plan.call.request.messages)

    assert asyncio.run(prepare()) == 1000
    assert len([statement for statement in statements if "FROM responses" in statement]) == 1
