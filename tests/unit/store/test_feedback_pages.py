"""Pages of feedback are bounded in bytes, and the export of questions in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import anyio
import msgspec
import pytest

from ragsvc.core.access.principal import Principal, Scope
from ragsvc.core.errors import QuotaExceeded
from ragsvc.core.feedback import FeedbackDraft, Rating
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.services.feedback import FeedbackService
from ragsvc.store.database import Database
from ragsvc.store.feedback_rows import FeedbackReach
from tests.support.engines import open_database

ACME = TenantId("acme")
CALLER = Principal(KeyId("key_1"), ACME, "x", frozenset({Scope.CHAT}))
OWN = FeedbackReach(ACME, CALLER.key_id)


@pytest.fixture
def database(tmp_path: Path):
    opened = open_database(tmp_path / "ragsvc.sqlite")
    yield opened
    opened.close()


def service_of(database: Database, *, max_per_tenant: int | None = None) -> FeedbackService:
    return FeedbackService(database, require_key=lambda _connection, _key: None, max_per_tenant=max_per_tenant)


def test_a_page_of_long_answers_is_small_and_the_next_pages_have_the_others(database: Database) -> None:
    async def main() -> None:
        service = service_of(database)
        for number in range(30):
            draft = FeedbackDraft(question=f"Question {number}?", answer="a" * 150_000, rating=Rating.UP)
            await service.add(CALLER, draft)
        seen: list[str] = []
        after: str | None = None
        more = True
        while more:
            found, more = await service.page(OWN, limit=100, after=after, rating=None)
            assert found
            assert len(msgspec.json.encode(found)) < 1_500_000
            seen += [feedback.draft.question for feedback in found]
            after = found[-1].public_id
        assert seen == [f"Question {number}?" for number in reversed(range(30))]
        lines = [msgspec.json.decode(line) async for line in service.questions(OWN, rating=Rating.UP)]
        assert [line["question"] for line in lines] == seen

    anyio.run(main)


def test_the_export_does_not_keep_the_questions(database: Database) -> None:
    """800 different questions of 8,000 characters, the first of them twice."""

    async def main() -> None:
        service = service_of(database)
        for number in (0, *range(800)):
            draft = FeedbackDraft(question=f"{number} " + "é" * 7_990, answer="a", rating=Rating.UP)
            await service.add(CALLER, draft)
        tracemalloc.start()
        count = 0
        async for _ in service.questions(OWN, rating=None):
            count += 1
            if count == 799:
                kept, _peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 800
        assert kept < 3_500_000

    anyio.run(main)


def test_a_tenant_has_a_limited_number_of_pieces_of_feedback(database: Database) -> None:
    async def main() -> None:
        service = service_of(database, max_per_tenant=2)
        for answer_id in ("resp_1", "resp_2", "resp_2"):
            draft = FeedbackDraft(question="Who?", answer="Oda.", rating=Rating.UP, answer_id=answer_id)
            await service.add(CALLER, draft)
        with pytest.raises(QuotaExceeded, match="The tenant 'acme' may have 2 pieces of feedback"):
            await service.add(CALLER, FeedbackDraft(question="Where?", answer="There.", rating=Rating.UP))
        found, _ = await service.page(OWN, limit=10, after=None, rating=None)
        assert [feedback.draft.answer_id for feedback in found] == ["resp_2", "resp_1"]

    anyio.run(main)
