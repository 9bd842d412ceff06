"""Requests of the Responses API with many items take little time of the event loop."""

from __future__ import annotations

import asyncio
import time

import msgspec

from ragsvc.core.access.principal import DEFAULT_SCOPES, Principal
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.core.responses.request import decode_response_request
from ragsvc.services.answers import AnswerService
from ragsvc.services.conversations import ConversationService
from ragsvc.services.model_registry import ModelRegistry
from ragsvc.services.response_plans import ResponsePlanner
from ragsvc.services.store_names import StoreNames
from ragsvc.store.database import Database

CALLER = Principal(KeyId("key_1"), TenantId("acme"), "test", DEFAULT_SCOPES)
ITEMS = 15_000


def test_thousands_of_items_are_prepared_in_a_thread(tmp_path):
    """The share of the loop's thread in the processor time of the process, whatever else the machine does."""
    item = {"role": "user", "content": "Hello, how are you today?"}
    request = decode_response_request(msgspec.json.encode({"model": "m", "input": [item] * ITEMS}))

    async def prepare() -> float:
        database = Database(tmp_path / "ragsvc.sqlite")
        answers = AnswerService(models=ModelRegistry([], {}, created=1), searcher=None, meter=None, count_tokens=len)
        conversations = ConversationService(database)
        planner = ResponsePlanner(
            database=database, answers=answers, conversations=conversations, store_names=StoreNames()
        )
        used: list[float] = []
        for _ in range(3):
            began, began_in_all = time.thread_time(), time.process_time()
            plan = await planner.plan(CALLER, request, lambda call: call, large=True)
            used.append((time.thread_time() - began) / (time.process_time() - began_in_all))
            assert len(plan.input_items) == len(plan.call.request.messages) == ITEMS
        database.close()
        return min(used)

    assert asyncio.run(prepare()) < 0.15
