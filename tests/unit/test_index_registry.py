"""The registry keeps indexes equal to the rows, also after files were damaged."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ragsvc.core.errors import CollectionNotFound
from ragsvc.core.ports.embedding import EmbeddingModel
from ragsvc.index.registry import IndexRegistry
from ragsvc.index.restore import IndexOptions
from ragsvc.testing.memory_index_source import MemorySource

DIMENSION = 16
MODEL = EmbeddingModel("test", DIMENSION, 128, "fingerprint-a")


def unit_rows(count, seed):
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def put(source, collection, name, count=5):
    seed = sum(name.encode())
    vectors = unit_rows(count, seed)
    document, ids = source.add_document(collection, [f"{name} part {i}" for i in range(count)], vectors, context=name)
    return document, ids, vectors


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def source():
    return MemorySource(DIMENSION)


@pytest.fixture
def opened(tmp_path, source):
    """Opens a registry on the same folder at each call; all are closed at the end."""
    registries = []

    def open_registry(**options):
        settings = {"model": MODEL, "background": False} | options
        registries.append(IndexRegistry(tmp_path / "derived", source, **settings))
        return registries[-1]

    yield open_registry
    for registry in registries:
        registry.close()


def assert_equal_to_rows(registry, collection, passages):
    report = registry.verify(collection)
    assert report.ok, report
    assert report.passages == passages


def test_a_document_is_found_both_ways_after_catch_up_and_gone_after_its_delete(opened, source):
    registry = opened()
    put(source, 1, "apples")
    document, ids, vectors = put(source, 1, "pears")
    registry.catch_up(1)
    dense, lexical = registry.search(1, vectors[2], "pears", k=5)
    assert dense.ids[0] == ids[2]
    assert set(lexical.ids) == set(ids)
    dense, lexical = registry.search(1, vectors[2], "pears", k=5, documents=np.array([document - 1]))
    assert not set(dense.ids) & set(ids)
    assert lexical.ids.tolist() == []
    source.delete_document(1, document)
    registry.catch_up(1)
    dense, lexical = registry.search(1, vectors[2], "pears", k=50)
    assert len(dense.ids) == 5
    assert lexical.ids.tolist() == []
    assert_equal_to_rows(registry, 1, 5)


def test_one_side_may_be_asked_alone(opened, source):
    registry = opened()
    _, _, vectors = put(source, 1, "apples")
    dense, lexical = registry.search(1, vectors[0], None, k=2)
    assert (len(dense.ids), len(lexical.ids)) == (2, 0)
    dense, lexical = registry.search(1, None, "apples", k=2)
    assert (len(dense.ids), len(lexical.ids)) == (0, 2)


def test_collections_do_not_see_each_other(opened, source):
    registry = opened()
    _, _, vectors = put(source, 1, "apples")
    put(source, 2, "pears")
    dense, lexical = registry.search(2, vectors[0], "apples", k=50)
    assert len(dense.ids) == 5
    assert lexical.ids.tolist() == []


def test_it_starts_from_its_snapshot_and_replays_the_rest(opened, source):
    first = opened()
    put(source, 1, "apples")
    gone, _, _ = put(source, 1, "plums")
    first.catch_up(1)
    first.close()
    source.delete_document(1, gone)
    _, ids, vectors = put(source, 1, "pears")
    again = opened()
    assert again.search(1, vectors[0], "pears", k=1)[0].ids.tolist() == [ids[0]]
    assert again.get(1).changed == 10  # the replay alone, not a rebuild
    assert_equal_to_rows(again, 1, 10)


def test_a_long_log_is_replayed_in_bounded_batches(opened, source):
    registry = opened(options=IndexOptions(batch_passages=100))
    registry.catch_up(1)
    for number in range(9):
        put(source, 1, f"doc{number}", count=20)
    put(source, 1, "huge", count=150)
    assert registry.get(1).catch_up() == 10
    assert registry.get(1)._lexical.markers == 4  # one commit of the empty index, then 5, 4 and 1 documents
    assert_equal_to_rows(registry, 1, 330)


def test_a_change_that_is_added_and_deleted_again_leaves_nothing(opened, source):
    document, _, _ = put(source, 1, "apples")
    source.delete_document(1, document)
    registry = opened()
    assert_equal_to_rows(registry, 1, 0)


def harm_snapshot_byte(folder):
    path = next(folder.glob("vectors-*/vectors.f16"))
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)


def harm_snapshot_end(folder):
    path = next(folder.glob("vectors-*/ids.i64"))
    path.write_bytes(path.read_bytes()[:-8])


def harm_manifest(folder):
    next(folder.glob("vectors-*/manifest.json")).write_text("{")


def harm_lexical(folder):
    (folder / "lexical" / "meta.json").write_text("{")


def remove_lexical(folder):
    shutil.rmtree(folder / "lexical")


def remove_vectors(folder):
    shutil.rmtree(next(folder.glob("vectors-*")))


def remove_all(folder):
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "harm",
    [harm_snapshot_byte, harm_snapshot_end, harm_manifest, harm_lexical, remove_lexical, remove_vectors, remove_all],
)
def test_torn_or_missing_files_are_rebuilt_from_the_rows(opened, source, tmp_path, harm):
    first = opened()
    put(source, 1, "apples")
    _, ids, vectors = put(source, 1, "pears")
    first.catch_up(1)
    first.close()
    harm(tmp_path / "derived" / "1")
    again = opened()
    assert_equal_to_rows(again, 1, 10)
    dense, lexical = again.search(1, vectors[0], "pears", k=1)
    assert dense.ids.tolist() == [ids[0]]
    assert lexical.ids[0] in ids


def test_indexes_ahead_of_the_rows_are_rebuilt(opened, source, tmp_path):
    """This happens when an older copy of the database is restored."""
    first = opened()
    put(source, 1, "apples")
    put(source, 1, "pears")
    first.catch_up(1)
    first.close()
    older = MemorySource(DIMENSION)
    put(older, 1, "apples")
    again = IndexRegistry(tmp_path / "derived", older, model=MODEL, background=False)
    assert_equal_to_rows(again, 1, 5)
    again.close()


def test_vectors_of_another_model_are_rebuilt(opened, source):
    first = opened()
    put(source, 1, "apples")
    first.catch_up(1)
    first.close()
    again = opened(model=EmbeddingModel("other", DIMENSION, 128, "fingerprint-b"))
    assert again.get(1).changed == 5
    assert_equal_to_rows(again, 1, 5)


def test_verify_tells_what_differs(opened, source):
    registry = opened()
    _, ids, vectors = put(source, 1, "apples")
    put(source, 1, "pears")
    index = registry.get(1)
    index._vectors.remove(ids[:1])
    index._vectors.add(ids[1:2], np.array([1]), -vectors[1:2])
    index._vectors.add(np.array([999]), np.array([1]), vectors[:1])
    index._lexical.remove(ids[:2])
    index._lexical.commit(covered_seq=index.covered_seq)
    report = registry.verify(1)
    assert not report.ok
    assert (report.vectors.missing, report.vectors.ghosts, report.vectors.wrong) == (1, 1, 1)
    assert set(report.vectors.examples) == {ids[0], 999, ids[1]}
    assert (report.lexical.missing, report.lexical.ghosts) == (2, 0)


def test_cold_collections_are_unloaded_and_come_back(opened, source):
    clock = Clock()
    registry = opened(memory_limit_bytes=1, clock=clock)
    for collection in (1, 2, 3):
        put(source, collection, f"apples{collection}")
        clock.now += 1
        registry.catch_up(collection)
    registry.maintain()
    assert [status.collection_id for status in registry.status()] == [3]
    assert_equal_to_rows(registry, 1, 5)
    assert registry.get(1).changed == 0  # it was saved when it was unloaded


def test_idle_writers_are_given_back(opened, source):
    clock = Clock()
    registry = opened(clock=clock)
    registry.catch_up(1)
    put(source, 1, "apples")
    registry.catch_up(1)
    held = registry.memory_bytes()
    registry.maintain()
    assert registry.memory_bytes() == held
    clock.now += 60
    registry.maintain()
    assert registry.memory_bytes() < held - (8 << 20)
    put(source, 1, "pears")
    registry.catch_up(1)
    assert_equal_to_rows(registry, 1, 10)


def test_enough_changes_are_saved_in_the_background(opened, source, tmp_path):
    registry = opened(background=True)
    put(source, 1, "apples", count=2500)
    registry.catch_up(1)
    saved = threading.Event()
    for _ in range(100):
        if registry.get(1).changed == 0:
            break
        saved.wait(0.05)
    assert list((tmp_path / "derived" / "1").glob("vectors-*"))
    assert not list((tmp_path / "derived" / "1").glob("writing-*"))


def grown(opened, source, documents=12, **options):
    """A collection of documents of 100 passages that is too large for exact search."""
    registry = opened(options=IndexOptions(flat_limit=500, tail_rows=200, **options))
    for number in range(documents):
        put(source, 1, f"doc{number}", count=100)
        registry.catch_up(1)
    return registry


def test_a_collection_that_outgrows_exact_search_becomes_ivf_and_stays_equal_to_the_rows(opened, source):
    registry = grown(opened, source)
    assert registry.get(1).kind == "flat"
    registry.maintain()
    assert registry.get(1).kind == "ivf"
    assert_equal_to_rows(registry, 1, 1200)
    document, ids, vectors = put(source, 1, "late", count=300)
    registry.catch_up(1)
    assert ids[7] in registry.search(1, vectors[7], None, k=1)[0].ids
    registry.maintain()
    assert not registry.get(1).wants_improvement
    source.delete_document(1, document)
    registry.catch_up(1)
    assert_equal_to_rows(registry, 1, 1200)
    registry.close()
    again = opened(options=IndexOptions(flat_limit=500, tail_rows=200))
    assert again.get(1).kind == "ivf"
    assert again.get(1).changed == 0  # loaded, not rebuilt
    assert_equal_to_rows(again, 1, 1200)


def test_growth_is_seen_to_in_the_background(opened, source):
    registry = opened(background=True, options=IndexOptions(flat_limit=100))
    put(source, 1, "apples", count=400)
    registry.catch_up(1)
    for _ in range(400):
        if registry.get(1).kind == "ivf":
            break
        time.sleep(0.05)
    assert registry.get(1).kind == "ivf"
    assert_equal_to_rows(registry, 1, 400)


def test_an_ivf_collection_that_shrinks_becomes_exact_again(opened, source):
    registry = grown(opened, source)
    registry.maintain()
    for document in range(1, 11):
        source.delete_document(1, document)
    registry.catch_up(1)
    registry.maintain()
    assert registry.get(1).kind == "flat"
    assert_equal_to_rows(registry, 1, 200)


@pytest.mark.parametrize("name", ["vectors.f16", "segment-0.faiss", "live.i64", "ivf.json"])
def test_a_torn_ivf_snapshot_is_rebuilt(opened, source, tmp_path, name):
    registry = grown(opened, source, documents=7)
    registry.maintain()
    registry.close()
    path = next((tmp_path / "derived" / "1").glob(f"vectors-*/{name}"))
    data = bytearray(path.read_bytes())
    data[3] ^= 255
    path.write_bytes(data)
    again = opened(options=IndexOptions(flat_limit=500, tail_rows=200))
    assert_equal_to_rows(again, 1, 700)
    again.maintain()
    assert_equal_to_rows(again, 1, 700)


def test_documents_that_come_and_go_during_an_improvement_are_not_lost(opened, source):
    """Changes documents between the copying of the index and its replacement."""
    registry = grown(opened, source)
    index = registry.get(1)
    copy_to = index._vectors.copy_to

    def copy_and_change(other):
        copy_to(other)
        put(source, 1, "late", count=20)
        source.delete_document(1, 3)
        registry.catch_up(1)

    index._vectors.copy_to = copy_and_change
    index.improve()
    assert index.kind == "ivf"
    assert_equal_to_rows(registry, 1, 1120)


def test_a_dropped_collection_is_gone(opened, source, tmp_path):
    registry = opened()
    put(source, 1, "apples")
    registry.catch_up(1)
    registry.drop(1)
    assert not (tmp_path / "derived" / "1").exists()
    assert registry.status() == []


def test_many_threads_may_write_and_search_at_once(opened, source):
    registry = opened(memory_limit_bytes=200_000)
    failures = []

    def work(number):
        try:
            for turn in range(6):
                collection = 1 + (number + turn) % 2
                document, ids, vectors = put(source, collection, f"word{number}x{turn}")
                registry.catch_up(collection)
                dense, lexical = registry.search(collection, vectors[0], f"word{number}x{turn}", k=1000)
                assert set(ids) <= set(dense.ids)
                assert set(ids) == set(lexical.ids)
                registry.maintain()
                if turn % 2:
                    source.delete_document(collection, document)
                    registry.catch_up(collection)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for collection in (1, 2):
        assert registry.verify(collection).ok


def test_new_context_words_replace_the_former_ones_and_leave_the_vectors_as_they_are(opened, source):
    registry = opened()
    document, ids, vectors = put(source, 1, "scan0002")
    put(source, 1, "apples")
    registry.catch_up(1)
    registry.get(1).snapshot()
    source.rename_document(1, document, context="plumbing")
    registry.catch_up(1)
    dense, lexical = registry.search(1, vectors[0], "plumbing", k=50)
    assert set(lexical.ids) == set(ids)
    assert dense.ids[0] == ids[0]
    assert registry.get(1).changed == 0  # no row of the vectors was written again
    assert_equal_to_rows(registry, 1, 10)
    registry.close()
    again = opened()
    assert set(again.search(1, None, "plumbing", k=50)[1].ids) == set(ids)
    assert_equal_to_rows(again, 1, 10)


def test_new_vectors_replace_the_former_ones_and_leave_the_words_as_they_are(opened, source):
    registry = opened()
    document, ids, vectors = put(source, 1, "apples")
    put(source, 1, "pears")
    registry.catch_up(1)
    report = registry.verify(1)
    source.reembed_document(1, document, -vectors)
    registry.catch_up(1)
    dense, lexical = registry.search(1, -vectors[3], "apples", k=5)
    assert (dense.ids[0], set(lexical.ids)) == (ids[3], set(ids))
    assert registry.get(1).changed == 15
    assert registry.verify(1) == report
    registry.close()
    again = opened()
    assert again.search(1, -vectors[3], None, k=1)[0].ids.tolist() == [ids[3]]
    assert_equal_to_rows(again, 1, 10)


def test_a_document_that_was_changed_and_then_deleted_leaves_nothing(opened, source):
    document, _, vectors = put(source, 1, "apples")
    registry = opened()
    registry.catch_up(1)
    source.rename_document(1, document, context="pears")
    source.reembed_document(1, document, -vectors)
    source.delete_document(1, document)
    registry.catch_up(1)
    assert_equal_to_rows(registry, 1, 0)
    assert registry.search(1, vectors[0], "pears", k=5)[1].ids.tolist() == []


def test_vectors_that_are_replaced_during_an_improvement_are_not_lost(opened, source):
    registry = grown(opened, source)
    index = registry.get(1)
    copy_to = index._vectors.copy_to
    vectors = unit_rows(100, 77)

    def copy_and_reembed(other):
        copy_to(other)
        source.reembed_document(1, 3, vectors)
        registry.catch_up(1)

    index._vectors.copy_to = copy_and_reembed
    index.improve()
    assert index.kind == "ivf"
    assert_equal_to_rows(registry, 1, 1200)
    assert registry.search(1, vectors[5], None, k=1)[0].ids.tolist() == [206]


def threads_named(prefix):
    names = (thread / "comm" for thread in Path("/proc/self/task").iterdir())
    return sum(name.read_text().startswith(prefix) for name in names if name.exists())


def wait_for_threads(prefix, count):
    deadline = time.monotonic() + 5
    while threads_named(prefix) > count and time.monotonic() < deadline:
        time.sleep(0.05)  # tantivy's watcher ends at its next poll, half a second later
    return threads_named(prefix)


def test_hundreds_of_collections_cost_a_bounded_number_of_threads_and_stay_searchable(opened, source):
    before = threads_named("thread-tantivy")
    registry = opened(max_open=6)
    for number in range(60):
        put(source, number, f"apples{number}", count=1)
        registry.catch_up(number)
        assert len(registry.status()) <= 6 + 8
    registry.maintain()
    assert len(registry.status()) == 6
    assert wait_for_threads("thread-tantivy", before + 6) <= before + 6
    for number in range(60):
        _, lexical = registry.search(number, None, f"apples{number}", k=5)
        assert len(lexical.ids) == 1, number


def test_a_small_collection_is_closed_when_it_is_cold_and_opened_by_the_next_search(opened, source):
    clock = Clock()
    registry = opened(clock=clock)
    for number, name in ((1, "apples"), (2, "pears")):
        put(source, number, name)
        registry.catch_up(number)
    clock.now = 700.0
    registry.get(2)
    registry.maintain()
    assert [status.collection_id for status in registry.status()] == [2]
    _, lexical = registry.search(1, None, "apples", k=50)
    assert len(lexical.ids) == 5


def test_a_dropped_collection_leaves_no_files_and_is_never_opened_again(opened, source, tmp_path):
    registry = opened()
    put(source, 1, "apples")
    registry.catch_up(1)
    registry.drop(1)
    registry.catch_up(1)
    with pytest.raises(CollectionNotFound):
        registry.get(1)
    assert list((tmp_path / "derived").iterdir()) == []


def test_maintenance_writes_nothing_of_a_collection_that_is_dropped_meanwhile(opened, source, tmp_path):
    """The collection is dropped after maintenance has taken its index and before the snapshot."""
    registry = opened()
    put(source, 1, "apples")
    registry.catch_up(1)

    def drop_and_want_snapshot(_):
        registry.drop(1)
        return True

    registry._wants_snapshot = drop_and_want_snapshot
    registry.maintain()
    assert list((tmp_path / "derived").iterdir()) == []


class DroppingLock:
    """The lock of a slot; the first caller gets it after the collection was dropped."""

    def __init__(self, lock, drop):
        self._lock, self._drop = lock, drop

    def __enter__(self):
        drop, self._drop = self._drop, lambda: None
        drop()
        return self._lock.__enter__()

    def __exit__(self, *error):
        return self._lock.__exit__(*error)


def test_maintenance_follows_no_log_of_a_collection_that_is_dropped_meanwhile(opened, source, tmp_path, caplog):
    registry = opened()
    put(source, 1, "apples")
    registry.catch_up(1)
    put(source, 1, "pears")
    registry.get(1).is_behind = True
    slot = registry._slot(1)
    slot.lock = DroppingLock(slot.lock, lambda: registry.drop(1))
    registry.maintain()
    assert list((tmp_path / "derived").iterdir()) == []
    assert caplog.records == []


def test_a_closed_index_still_saves_its_vectors_once(opened, source, tmp_path):
    registry = opened()
    put(source, 1, "apples")
    registry.catch_up(1)
    index = registry.get(1)
    registry.close()
    (snapshot,) = (tmp_path / "derived" / "1").glob("vectors-*")
    shutil.rmtree(snapshot)
    index.snapshot()
    assert list((tmp_path / "derived" / "1").glob("vectors-*")) == []


NO_MORE_THREADS = """
import os, resource, sys, threading
from pathlib import Path
from ragsvc.core.errors import Overloaded
from ragsvc.index.lexical import TantivyIndex
from ragsvc.core.ports.indexes import LexicalDocument

folder = Path(sys.argv[1])
if os.getuid() == 0:
    os.setuid(65534)  # root has no limit of threads
limit = resource.getrlimit(resource.RLIMIT_NPROC)[1]
kept = TantivyIndex(folder / "kept")
resource.setrlimit(resource.RLIMIT_NPROC, (1, limit))
for attempt in range(2):
    try:
        TantivyIndex(folder / f"new-{attempt}")
    except Overloaded as error:
        print("overloaded", error.retry_after_s)
try:
    kept.add([LexicalDocument(id=1, document_id=1, text="apples", context="")])
    kept.commit(covered_seq=1)
except Exception as error:
    print("writer", type(error).__name__)
resource.setrlimit(resource.RLIMIT_NPROC, (4096 if limit < 0 else limit, limit))
again = TantivyIndex(folder / "new-0")
again.add([LexicalDocument(id=1, document_id=1, text="apples", context="")])
again.commit(covered_seq=1)
print("found", again.search("apples", k=3).ids.tolist())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of threads of a user is a limit of Linux")
def test_without_a_free_thread_the_error_is_an_exception_and_passes(tmp_path):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-c", NO_MORE_THREADS, folder], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["overloaded 5.0"] * 2, done.stdout
    assert done.stdout.splitlines()[-1] == "found [1]", done.stdout
