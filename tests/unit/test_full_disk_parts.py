"""Parts of the service on a file system without a byte left."""

import threading

import anyio
import anyio.to_thread
import numpy as np
import pytest

from ragsvc.core.errors import StorageFull
from ragsvc.core.ports.embedding import EmbeddingModel
from ragsvc.core.readiness import Readiness
from ragsvc.index.registry import IndexRegistry
from ragsvc.services.index_lag import IndexLag
from ragsvc.services.storage_watch import STORAGE, StorageWatch
from ragsvc.store.disk_space import RESERVE_FILE, DiskSpace
from ragsvc.store.sqlite_database import SqliteDatabase
from ragsvc.testing.memory_index_source import MemorySource
from tests.support.full_disk import fill, small_disk

DIMENSION = 8
MODEL = EmbeddingModel("test", DIMENSION, 128, "fingerprint")


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", megabytes=32) as root:
        yield root


def vectors(count: int) -> np.ndarray:
    return np.eye(DIMENSION, dtype=np.float32)[:count]


def test_an_index_that_cannot_follow_serves_what_it_has_and_new_vectors(disk) -> None:
    source = MemorySource(DIMENSION)
    registry = IndexRegistry(disk / "derived", source, model=MODEL, background=False)
    source.add_document(1, ["walrus"], vectors(1))
    registry.catch_up(1)
    filler = fill(disk)
    source.add_document(1, ["meadow"], vectors(2)[1:])
    for _ in range(2):
        with pytest.raises(StorageFull):
            registry.catch_up(1)
    dense, words = registry.search(1, vectors(2)[1], "walrus", k=2)
    assert (dense.ids[0], words.ids.tolist()) == (2, [1])  # found by its vector, not yet by its words
    registry.maintain()
    filler.unlink()
    registry.maintain()
    assert registry.search(1, None, "meadow", k=2)[1].ids.tolist() == [2]
    assert registry.verify(1).ok
    registry.close()


def test_an_index_is_loaded_and_closed_on_a_full_disk(disk) -> None:
    source = MemorySource(DIMENSION)
    registry = IndexRegistry(disk / "derived", source, model=MODEL, background=False)
    source.add_document(1, ["walrus"], vectors(1))
    registry.catch_up(1)
    registry.close()
    source.add_document(1, ["meadow"], vectors(2)[1:])
    filler = fill(disk)
    registry = IndexRegistry(disk / "derived", source, model=MODEL, background=False)
    assert registry.search(1, None, "walrus", k=2)[1].ids.tolist() == [1]
    with pytest.raises(StorageFull):  # its word index would have to be built
        registry.get(2)
    registry.close()
    filler.unlink()
    registry = IndexRegistry(disk / "derived", source, model=MODEL, background=False)
    assert registry.verify(1).ok
    registry.close()


def test_the_reserve_lets_a_commit_through_and_comes_back(disk) -> None:
    space = DiskSpace(disk)
    assert not space.measure()
    reserve = disk / RESERVE_FILE
    assert reserve.stat().st_size >= space.reserve_bytes
    database = SqliteDatabase(disk / "x.sqlite", make_room=space.report_fault)
    database.write_sync(lambda c: c.exec_driver_sql("CREATE TABLE t (x)"))
    filler = fill(disk)
    database.write_sync(lambda c: c.exec_driver_sql("INSERT INTO t VALUES (zeroblob(100000))"))
    assert space.is_full
    assert not reserve.exists()
    with pytest.raises(StorageFull, match="searched and deleted"):
        space.check()
    fill(disk)
    with pytest.raises(StorageFull):
        database.write_sync(lambda c: c.exec_driver_sql("INSERT INTO t VALUES (zeroblob(100000))"))
    assert space.measure()
    with pytest.raises(StorageFull, match="nothing can be added or deleted"):
        space.check()
    filler.unlink()
    assert not space.measure()
    assert reserve.exists()
    assert database.read_sync(lambda c: c.exec_driver_sql("SELECT count(*) FROM t").scalar_one()) == 1
    database.close()


def test_the_watch_reports_a_full_disk_and_resumes_work(disk) -> None:
    async def main() -> None:
        resumed: list[str] = []

        async def resume() -> None:
            resumed.append("resumed")

        readiness = Readiness()
        watch = StorageWatch(DiskSpace(disk), readiness, [resume])
        await watch.check()
        assert (readiness.ready, resumed) == (True, ["resumed"])
        filler = fill(disk)
        await watch.check()
        assert "disk is full" in readiness.reasons()[STORAGE]
        assert "searched, read and deleted" in readiness.reasons()[STORAGE]
        fill(disk)
        await watch.check()
        assert "not deleted" in readiness.reasons()[STORAGE]
        filler.unlink()
        await watch.check()
        assert (readiness.ready, resumed) == (True, ["resumed", "resumed"])

    anyio.run(main)


def test_a_committed_change_does_not_fail_because_an_index_cannot_follow() -> None:
    async def main() -> None:
        faults: list[Exception] = [StorageFull("full"), ValueError("a fault of the index")]
        followed: list[int] = []

        def catch_up(collection_id: int) -> None:
            if faults:
                raise faults.pop(0)
            followed.append(collection_id)

        lag = IndexLag(catch_up)
        async with lag.committing(7):
            pass
        await lag.settled(7)  # answers from the state that the index has
        await lag.retry()  # fails as well
        assert followed == []
        await lag.settled(7)
        assert followed == [7]

    anyio.run(main)


@pytest.mark.parametrize("fault", [ValueError("a fault of the index"), StorageFull("full")], ids=["fault", "full disk"])
def test_a_search_during_a_commit_does_not_settle_it(fault: Exception) -> None:
    """The catch-up of the search began before the commit, and ends while that of the commit fails."""
    began, go = threading.Event(), threading.Event()
    calls: list[int] = []

    def catch_up(_collection_id: int) -> None:
        calls.append(len(calls))
        if len(calls) == 1:
            began.set()
            assert go.wait(30)
        elif len(calls) == 2:
            raise fault

    async def main() -> None:
        lag = IndexLag(catch_up, pause_s=0)
        async with anyio.create_task_group() as tasks:
            async with lag.committing(7):
                tasks.start_soon(lag.settled, 7)
                assert await anyio.to_thread.run_sync(began.wait, 30)
            assert len(calls) == 2
            go.set()
        await lag.settled(7)
        assert len(calls) == 3
        await lag.settled(7)
        assert len(calls) == 3

    anyio.run(main)


def test_a_commit_that_is_cancelled_is_followed_by_the_next_search() -> None:
    followed: list[int] = []

    async def main() -> None:
        lag = IndexLag(followed.append)
        with anyio.CancelScope() as scope:
            async with lag.committing(7):
                scope.cancel()
                await anyio.sleep(0)
        assert followed == []
        await lag.settled(7)
        assert followed == [7]

    anyio.run(main)
