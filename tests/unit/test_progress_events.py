"""The signals of documents and tenants: what a feed remembers, and which deletions a reader that resumes can learn."""

from __future__ import annotations

import asyncio

from ragsvc.core.documents import Document, DocumentStatus, Stage
from ragsvc.core.ids import CollectionId, DocumentId, TenantId
from ragsvc.services.progress_events import MAX_REMEMBERED, ProgressHub

ACME, GLOBEX = TenantId("acme"), TenantId("globex")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def document(number: int, tenant: TenantId = ACME) -> Document:
    return Document(
        id=DocumentId(number),
        public_id=f"doc_{number}",
        tenant=tenant,
        collection_id=CollectionId(1),
        collection="reports",
        filename=f"{number}.txt",
        media_type="text/plain",
        size_bytes=1,
        sha256="",
        status=DocumentStatus.QUEUED,
        stage=Stage.QUEUED,
        metadata={},
        problems=[],
        created_at=1,
        updated_at=1,
    )


def test_a_feed_has_each_changed_document_of_its_tenant_once() -> None:
    async def run() -> None:
        hub = ProgressHub()
        with hub.watch_tenant(ACME) as feed:
            assert not await feed.wait(timeout_s=0.01)
            for number in (1, 2, 1, 1):
                hub.notify(document(number))
            hub.notify(document(3, GLOBEX))
            assert await feed.wait(timeout_s=1)
            assert feed.take() == {"doc_1": "reports", "doc_2": "reports"}
            assert feed.take() == {}
            assert not await feed.wait(timeout_s=0.01)

    asyncio.run(run())


def test_a_feed_forgets_more_changes_than_it_remembers_and_says_so() -> None:
    async def run() -> None:
        hub = ProgressHub()
        with hub.watch_tenant(ACME) as feed:
            for number in range(MAX_REMEMBERED + 1):
                hub.notify(document(number))
            assert await feed.wait(timeout_s=1)
            assert feed.take() is None
            hub.notify(document(1))
            assert feed.take() == {"doc_1": "reports"}
            hub.notify_many(ACME)
            assert feed.take() is None

    asyncio.run(run())


def test_deletions_are_known_from_the_start_of_the_service_on() -> None:
    clock = Clock()
    hub = ProgressHub(clock=clock)
    assert hub.deletions_since(ACME, 1000) is None
    clock.now = 1005
    hub.notify_deletion(document(1))
    clock.now = 1010
    hub.notify_deletion(document(2))
    assert [deletion.public_id for deletion in hub.deletions_since(ACME, 1001) or []] == ["doc_1", "doc_2"]
    assert [deletion.public_id for deletion in hub.deletions_since(ACME, 1006) or []] == ["doc_2"]
    assert hub.deletions_since(GLOBEX, 1006) == []
    hub.notify_many(ACME)
    assert hub.deletions_since(ACME, 1006) is None
    assert hub.deletions_since(ACME, 1011) == []


def test_the_memory_of_deletions_is_bounded_in_each_tenant_and_over_tenants() -> None:
    clock = Clock()
    hub = ProgressHub(clock=clock)
    clock.now = 2000
    for number in range(MAX_REMEMBERED):
        hub.notify_deletion(document(number))
    clock.now = 2010
    hub.notify_deletion(document(MAX_REMEMBERED))
    assert hub.deletions_since(ACME, 2000) is None, "the first one is forgotten"
    assert len(hub.deletions_since(ACME, 2005) or []) == 1
    for number in range(MAX_REMEMBERED):
        hub.notify_deletion(document(number, TenantId(f"tenant-{number}")))
    assert hub.deletions_since(ACME, 2005) is None, "the tenant with the oldest deletions is forgotten"
    assert len(hub.deletions_since(TenantId("tenant-999"), 2011) or []) == 0
    clock.now = 2020
    hub.notify_deletion(document(1, GLOBEX))
    assert hub.deletions_since(GLOBEX, 2015) is None, "for this, another tenant is forgotten"
    clock.now = 2030
    hub.notify_deletion(document(2, GLOBEX))
    assert [deletion.public_id for deletion in hub.deletions_since(GLOBEX, 2021) or []] == ["doc_2"]
