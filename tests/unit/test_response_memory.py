"""The inputs of responses that are being made take a bounded amount of memory, and tenants a bounded number of rows."""

from __future__ import annotations

import gc

import msgspec
import pytest

from ragsvc.core.access.principal import DEFAULT_SCOPES, Principal
from ragsvc.core.errors import Overloaded, QuotaExceeded
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.core.responses.request import decode_response_request
from ragsvc.services.answers import AnswerService
from ragsvc.services.conversations import ConversationService
from ragsvc.services.model_registry import ModelRegistry
from ragsvc.services.response_plans import ResponsePlan, ResponsePlanner
from ragsvc.services.responses import ResponseService
from ragsvc.services.store_names import StoreNames
from ragsvc.store.response_rows import find_response
from tests.support.engines import open_database

CALLER = Principal(KeyId("key_1"), TenantId("acme"), "test", DEFAULT_SCOPES)
TEXT = "x" * 600_000


class Responses:
    """A response service without models, which plans and stores."""

    def __init__(self, folder, *, max_per_tenant: int | None = None) -> None:
        self.database = open_database(folder / "ragsvc.sqlite")
        answers = AnswerService(models=ModelRegistry([], {}, created=1), searcher=None, meter=None, count_tokens=len)
        self.conversations = ConversationService(self.database, max_per_tenant=max_per_tenant)
        self.service = ResponseService(
            database=self.database,
            answers=answers,
            planner=ResponsePlanner(
                database=self.database,
                answers=answers,
                conversations=self.conversations,
                store_names=StoreNames(),
            ),
            conversations=self.conversations,
            require_key=lambda connection, key: None,
            retention_days=0,
            inputs_bytes=1_000_000,
            max_per_tenant=max_per_tenant,
        )

    async def plan(self, **fields: object) -> ResponsePlan:
        raw = msgspec.json.encode({"model": "m", "input": TEXT, **fields})
        return await self.service.plan(CALLER, decode_response_request(raw), lambda call: call, size_bytes=len(raw))


@pytest.fixture
def responses(tmp_path):
    made = Responses(tmp_path)
    yield made
    made.database.close()


@pytest.mark.anyio
async def test_large_inputs_that_wait_to_be_stored_are_bounded(responses):
    first = await responses.plan()
    with pytest.raises(Overloaded):
        await responses.plan()
    responses.service.forget_input(first)
    responses.service.forget_input(first)
    second = await responses.plan()
    with pytest.raises(Overloaded):
        await responses.plan()
    assert second.input_items[0]["content"][0]["text"] == TEXT


@pytest.mark.anyio
async def test_a_plan_that_is_not_carried_out_returns_its_memory(responses):
    plan = await responses.plan()
    del plan
    gc.collect()
    await responses.plan()


@pytest.mark.anyio
async def test_an_input_that_is_stored_is_no_longer_in_memory(responses):
    plan = await responses.plan(background=True)
    await responses.service.insert(plan, "queued", {"id": plan.id, "output": []})
    stored = responses.database.read_sync(lambda connection: find_response(connection, CALLER.tenant, plan.id))
    assert msgspec.json.decode(stored.input)[0]["content"][0]["text"] == TEXT
    assert plan.input_items == []
    await responses.plan()


@pytest.mark.anyio
async def test_the_input_of_a_conversation_stays_until_its_end(responses):
    talk = await responses.conversations.create(CALLER)
    plan = await responses.plan(conversation=talk.public_id)
    await responses.service.insert(plan, "in_progress", {"id": plan.id, "output": []})
    with pytest.raises(Overloaded):
        await responses.plan()
    assert plan.added_items[0]["content"][0]["text"] == TEXT


@pytest.mark.anyio
async def test_an_input_that_is_not_stored_is_not_kept(responses):
    plans = [await responses.plan(store=False) for _ in range(3)]
    assert all(plan.input_items == [] and plan.request.input is None for plan in plans)


@pytest.mark.anyio
async def test_a_tenant_has_a_limited_number_of_responses_and_conversations(tmp_path):
    made = Responses(tmp_path, max_per_tenant=2)
    late = await made.plan(input="late")
    for _ in range(2):
        plan = await made.plan(input="Hello")
        await made.service.insert(plan, "completed", {"id": plan.id, "output": []})
        await made.conversations.create(CALLER)
    with pytest.raises(QuotaExceeded, match="2 stored responses"):
        await made.plan(input="Hello")
    with pytest.raises(QuotaExceeded, match="2 stored responses"):
        await made.service.insert(late, "completed", {"id": late.id, "output": []})
    with pytest.raises(QuotaExceeded, match="2 conversations"):
        await made.conversations.create(CALLER)
    await made.plan(input="Hello", store=False)
    other = Principal(KeyId("key_2"), TenantId("other"), "test", DEFAULT_SCOPES)
    await made.conversations.create(other)
    await made.service.delete(CALLER, plan.id)
    await made.service.insert(late, "completed", {"id": late.id, "output": []})
    made.database.close()
