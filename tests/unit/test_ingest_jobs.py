"""The queue of ingest jobs: each document has one worker at a time, and a stop at any moment costs no attempt."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from sqlalchemy import Connection

from ragsvc.core.documents import DocumentStatus
from ragsvc.core.errors import FailureReason, Overloaded
from tests.support.in_process_ingest import InProcessIngest, ObservedEmbedder
from tests.support.stored_documents import ACME

pytestmark = pytest.mark.anyio

TEXT = "The walrus sleeps."


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def jobs(service: InProcessIngest) -> list[tuple[str, int]]:
    """(state, attempts) of every job."""
    rows = service.database.read_sync(lambda c: c.exec_driver_sql("SELECT state, attempts FROM jobs ORDER BY id").all())
    return [(state, attempts) for state, attempts in rows]


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while not condition():
            await anyio.sleep(0.01)


class SlowCatchUp:
    """Holds the first catch-up of the indexes after ``arm`` until ``go``."""

    def __init__(self, service: InProcessIngest) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self._armed = False
        self._catch_up = service.indexes.catch_up
        service.indexes.catch_up = self

    def arm(self) -> None:
        self._armed = True

    def __call__(self, collection_id: int) -> None:
        if self._armed:
            self._armed = False
            self.entered.set()
            assert self.go.wait(30)
        self._catch_up(collection_id)


async def test_a_rename_while_the_indexes_follow_waits_for_the_worker_of_the_document(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        slow = SlowCatchUp(service)
        slow.arm()
        document = await service.upload(TEXT, filename="a.txt")
        await anyio.to_thread.run_sync(slow.entered.wait, 30)
        assert (await service.documents.get(ACME, document.public_id)).status is DocumentStatus.READY
        await service.rename(document, "b.txt")  # queues a job, and wakes the other worker
        await service.add("Another document.", filename="other.txt")  # the other worker passes the job over
        assert (service.ingest.running_count(), jobs(service)) == (1, [("queued", 0)])
        slow.go.set()
        await service.idle()
        assert (await service.found("walrus")) == ["b.txt"]


async def test_a_job_that_was_put_back_waits_and_other_workers_go_on(tmp_path: Path) -> None:
    calls: list[float] = []

    def overload_once(texts: list[str]) -> None:
        if any("walrus" in text for text in texts):
            calls.append(anyio.current_time())
            if len(calls) == 1:
                raise Overloaded("Too many texts are waiting.", retry_after_s=1)

    embedder = ObservedEmbedder(overload_once)
    async with InProcessIngest(tmp_path, embedder=embedder, retry_s=1).running() as service:
        document = await service.upload(TEXT, filename="a.txt")
        await until(lambda: len(calls) == 1 and jobs(service) == [("queued", 0)])
        for number in range(3):  # each wakes a worker
            await service.add(f"Another document, number {number}.", filename="other.txt")
        ready = await service.documents.wait(ACME, document.public_id, timeout_s=30)
        assert ready.status is DocumentStatus.READY
        assert len(calls) == 2
        assert calls[1] - calls[0] >= 1
        assert service.ingest.running_count() == 0


async def test_a_repeated_upload_does_not_replace_the_running_job_of_a_retry(tmp_path: Path) -> None:
    go = anyio.Event()
    service = InProcessIngest(tmp_path, embedder=ObservedEmbedder(lambda _: go.wait()))
    queued = await service.upload(TEXT, filename="a.txt")
    service.blobs.path(ACME, queued.sha256).write_bytes(b"damaged")
    async with service.running():
        failed = await service.documents.wait(ACME, queued.public_id, timeout_s=30)
        assert failed.failure_code == FailureReason.STORED_FILE_DAMAGED
        publish = service.blobs.publish

        def publish_and_retry(*arguments) -> Path:
            target = publish(*arguments)
            anyio.from_thread.run(service.documents.retry, ACME, queued.public_id)  # by another client
            # the retry has to run before the upload queues the document
            anyio.from_thread.run(until, lambda: service.ingest.running_count() == 1)
            return target

        service.blobs.publish = publish_and_retry
        await service.upload(TEXT, filename="a.txt")
        assert (service.ingest.running_count(), jobs(service)) == (1, [("running", 1)])
        go.set()
        ready = await service.documents.wait(ACME, queued.public_id, timeout_s=30)
        assert (ready.status, ready.problems) == (DocumentStatus.READY, [])


async def test_interrupted_runs_cost_no_attempt(tmp_path: Path) -> None:
    for number in range(11):
        embedder = ObservedEmbedder(lambda _: anyio.sleep_forever())
        async with InProcessIngest(tmp_path, embedder=embedder).running() as service:  # ends without a call of drain
            if not number:
                await service.upload(TEXT, filename="a.txt")
            await until(lambda: service.ingest.running_count() == 1)
    service = InProcessIngest(tmp_path)
    assert jobs(service) == [("queued", 0)]
    async with service.running():
        await service.idle()
        assert await service.found("walrus") == ["a.txt"]


class HeldWrite:
    """A write that sets the state of all jobs, and holds the write thread from ``begun`` until ``go``."""

    def __init__(self, service: InProcessIngest, *, state: str | None = None) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self._state = state
        service.database.post(self._hold)

    def _hold(self, connection: Connection) -> None:
        if self._state is not None:
            connection.exec_driver_sql("UPDATE jobs SET state = ?", (self._state,))
        self.begun.set()
        assert self.go.wait(30)

    async def has_begun(self) -> None:
        assert await anyio.to_thread.run_sync(self.begun.wait, 30)


@pytest.mark.parametrize("stop", ["drain", "cancel"])
async def test_a_stop_while_a_job_is_claimed_queues_it_again(tmp_path: Path, stop: str) -> None:
    service = InProcessIngest(tmp_path, embedder=ObservedEmbedder(lambda _: anyio.sleep_forever()))
    await service.upload(TEXT, filename="a.txt")
    await service.database.write(lambda c: c.exec_driver_sql("UPDATE jobs SET state = 'not yet'"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.ingest.run)
        await anyio.wait_all_tasks_blocked()
        before = HeldWrite(service, state="queued")
        await before.has_begun()
        service.ingest.kick()
        await anyio.wait_all_tasks_blocked()
        after = HeldWrite(service)  # commits with the claim that waits
        before.go.set()
        await after.has_begun()
        if stop == "drain":
            service.ingest.drain()
        else:
            tasks.cancel_scope.cancel()
        after.go.set()
        with anyio.CancelScope(shield=True):  # the write thread has done what the workers had asked for
            await service.database.write(lambda _: None)
            await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert service.ingest.running_count() == 0
    assert jobs(service) == [("queued", 0)]
    service.close()
