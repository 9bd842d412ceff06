"""One suite for every VectorIndex; FAISS is compared with ExactIndex by ids and scores."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragsvc.index.flat import FlatIndex
from ragsvc.index.ivf import IvfIndex
from ragsvc.testing.exact_index import ExactIndex

DIMENSION = 32


def unit_rows(count, seed):
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float16).astype(np.float32)


POOL = unit_rows(400, 0)
FOLDERS = []


@pytest.fixture(scope="module", autouse=True)
def folders(tmp_path_factory):
    FOLDERS.append(tmp_path_factory)
    yield
    FOLDERS.clear()


def fresh_folder():
    return FOLDERS[0].mktemp("ivf") / "live"


class UntrainedIvf(IvfIndex):
    """No row is encoded: all rows are in the tail."""

    def __init__(self, dimension, workspace=None):
        super().__init__(dimension, workspace or fresh_folder())

    @classmethod
    def load(cls, folder, dimension, workspace=None):
        return super().load(folder, dimension, workspace or fresh_folder())


class EncodedIvf(UntrainedIvf):
    """Improved after every change, in small steps; the short list is so long that results are exact."""

    def __init__(self, dimension, workspace=None):
        super().__init__(dimension, workspace)
        self.tail_rows, self.min_train, self.short_list, self.exact_selection = 16, 64, 2000, 8

    def add(self, ids, documents, vectors):
        super().add(ids, documents, vectors)
        while self.wants_improvement:
            self.improve()


MAKERS = {"exact": ExactIndex, "flat": FlatIndex, "ivf untrained": UntrainedIvf, "ivf": EncodedIvf}


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


def filled(make, count=300, per_document=10):
    index = make(DIMENSION)
    ids = np.arange(1, count + 1, dtype=np.int64)
    index.add(ids, (ids - 1) // per_document + 1, POOL[:count])
    return index


def assert_same_hits(found, expected):
    """Scores are equal at each rank, and ids are equal where scores are not tied."""
    assert len(found.ids) == len(expected.ids)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert found.ids.dtype == np.int64
    assert found.scores.dtype == np.float32
    gaps = np.abs(np.diff(expected.scores)) > 1e-5
    if len(expected.scores):
        alone = np.concatenate(([True], gaps)) & np.concatenate((gaps, [False]))
        np.testing.assert_array_equal(found.ids[alone], expected.ids[alone])


def test_an_empty_index_finds_nothing(make):
    index = make(DIMENSION)
    assert len(index) == 0
    assert index.search(POOL[0], k=5).ids.tolist() == []
    assert index.search(POOL[0], k=5, documents=np.array([1])).ids.tolist() == []
    assert index.ids().tolist() == []
    assert index.vectors(np.empty(0, np.int64)).shape == (0, DIMENSION)
    assert index.documents_of(np.array([1, 7])).tolist() == [-1, -1]


def test_a_vector_finds_itself_first_with_score_one(make):
    index = filled(make)
    for row in (0, 17, 299):
        hits = index.search(POOL[row], k=3)
        assert hits.ids[0] == row + 1
        assert hits.scores[0] == pytest.approx(1, abs=1e-3)
        assert (np.diff(hits.scores) <= 0).all()


def test_asking_for_more_than_there_is_gives_what_there_is(make):
    index = filled(make, 12)
    assert sorted(index.search(POOL[0], k=1000).ids.tolist()) == list(range(1, 13))
    assert index.search(POOL[0], k=0).ids.tolist() == []


def test_removed_ids_are_gone_at_once_and_never_come_back(make):
    index = filled(make)
    assert index.remove(np.array([18, 18, 5, 9999])) == 2
    assert len(index) == 298
    assert 18 not in index.search(POOL[17], k=300).ids
    assert 18 not in index.ids()
    with pytest.raises(KeyError):
        index.vectors(np.array([18]))
    assert index.documents_of(np.array([300, 18, 1, 12345])).tolist() == [30, -1, 1, -1]
    assert index.remove(np.array([18])) == 0


def test_adding_a_present_id_replaces_it(make):
    index = filled(make)
    index.add(np.array([7]), np.array([99]), POOL[350:351])
    assert len(index) == 300
    assert index.search(POOL[350], k=1).ids.tolist() == [7]
    np.testing.assert_array_equal(index.vectors(np.array([7])), POOL[350:351])
    assert index.documents_of(np.array([7, 8])).tolist() == [99, 1]
    assert 7 not in index.search(POOL[6], k=300, documents=np.array([1])).ids
    assert index.search(POOL[6], k=300, documents=np.array([99])).ids.tolist() == [7]


def test_documents_restrict_before_ranking(make):
    index = filled(make)
    hits = index.search(POOL[0], k=10, documents=np.array([30, 3, 12345]))
    assert len(hits.ids) == 10
    assert set(hits.ids.tolist()) <= {*range(21, 31), *range(291, 301)}
    assert len(index.search(POOL[0], k=100, documents=np.array([3, 30])).ids) == 20
    assert index.search(POOL[0], k=5, documents=np.empty(0, np.int64)).ids.tolist() == []


def test_large_ids_survive(make):
    index = make(DIMENSION)
    ids = np.array([2**62 + 1, 5, 2**40], dtype=np.int64)
    index.add(ids, np.array([2**61, 1, 2**61]), POOL[:3])
    assert index.ids().tolist() == [5, 2**40, 2**62 + 1]
    assert index.search(POOL[0], k=1).ids.tolist() == [2**62 + 1]
    assert sorted(index.search(POOL[0], k=9, documents=np.array([2**61])).ids.tolist()) == [2**40, 2**62 + 1]


def test_a_snapshot_holds_everything(make, tmp_path):
    index = filled(make)
    index.remove(np.arange(50, 90))
    index.save(tmp_path)
    again = make.load(tmp_path, DIMENSION)
    np.testing.assert_array_equal(again.ids(), index.ids())
    np.testing.assert_array_equal(again.vectors(again.ids()), index.vectors(index.ids()))
    for documents in (None, np.array([4, 5, 9, 20])):
        assert_same_hits(
            again.search(POOL[1], k=20, documents=documents), index.search(POOL[1], k=20, documents=documents)
        )
    again.add(np.array([1000]), np.array([77]), POOL[390:391])
    assert again.search(POOL[390], k=1).ids.tolist() == [1000]


@pytest.mark.parametrize("make", [make for make in MAKERS.values() if make is not ExactIndex])
def test_readers_beside_a_writer_see_whole_documents(make):
    """The ten passages of a document share a vector, so a search returns all ten or none."""
    index = make(DIMENSION)
    done = threading.Event()
    torn = []

    def read():
        while not done.is_set():
            hits = index.search(POOL[0], k=10, documents=np.array([1]))
            if len(hits.ids) not in {0, 10}:
                torn.append(hits.ids)
            index.search(POOL[5], k=20)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(150):
        ids = np.arange(turn * 10, turn * 10 + 10, dtype=np.int64)
        index.add(ids, np.ones(10, np.int64), np.repeat(POOL[:1], 10, axis=0))
        index.remove(ids)
        index.add(ids + 1_000_000, np.full(10, 2 + turn), POOL[10:20])
    done.set()
    for reader in readers:
        reader.join()
    assert torn == []
    assert len(index) == 1500


@pytest.mark.parametrize("make", [make for make in MAKERS.values() if make is not ExactIndex])
def test_a_long_history_gives_what_the_reference_gives(make, tmp_path):
    """Enough rows for training, merging of segments and compaction; saved and loaded in the middle."""
    random = np.random.default_rng(3)
    index, reference = make(DIMENSION), ExactIndex(DIMENSION)
    pool = unit_rows(4000, 1)
    next_id = 1
    for turn in range(120):
        count = int(random.integers(1, 40))
        ids = np.arange(next_id, next_id + count)
        next_id += count
        for each in (index, reference):
            each.add(ids, np.full(count, turn % 50), pool[ids])
        gone = random.integers(1, next_id, random.integers(0, 50))
        assert index.remove(gone) == reference.remove(gone)
        query = pool[random.integers(4000)]
        documents = None if turn % 2 else random.integers(0, 50, 5)
        expected = reference.search(query, k=15, documents=documents)
        assert_same_hits(index.search(query, k=15, documents=documents), expected)
        if turn == 60:
            index.save(tmp_path)
            index = make.load(tmp_path, DIMENSION)
            assert_same_hits(index.search(query, k=15, documents=documents), expected)
    assert len(index) == len(reference)
    np.testing.assert_array_equal(index.vectors(index.ids()), reference.vectors(reference.ids()))


def test_the_short_list_holds_nearly_all_true_neighbours(tmp_path):
    random = np.random.default_rng(5)
    centres = unit_rows(200, 6)
    rows = centres[random.integers(0, 200, 12_000)] + 0.15 * random.standard_normal((12_000, DIMENSION)).astype(
        np.float32
    )
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    index, flat = IvfIndex(DIMENSION, tmp_path / "live"), FlatIndex(DIMENSION)
    ids = np.arange(12_000)
    for each in (index, flat):
        each.add(ids, ids // 10, rows)
    index.improve()
    assert not index.wants_improvement
    found = [index.search(query, k=10).ids for query in rows[:100]]
    expected = [flat.search(query, k=10).ids for query in rows[:100]]
    assert np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, expected, strict=True)]) >= 9.8


operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.tuples(st.integers(1, 80), st.integers(1, 6)), max_size=30)),
        st.tuples(st.just("remove"), st.lists(st.integers(1, 90), max_size=40)),
        st.tuples(st.just("search"), st.tuples(st.integers(0, 399), st.integers(0, 40))),
        st.tuples(st.just("within"), st.tuples(st.integers(0, 399), st.lists(st.integers(1, 7), max_size=4))),
    ),
    max_size=25,
)


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "exact"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(operations=operations)
def test_any_history_gives_what_the_reference_gives(name, operations):
    index, reference = MAKERS[name](DIMENSION), ExactIndex(DIMENSION)
    for turn, (what, values) in enumerate(operations):
        if what == "add":
            pairs = dict(values)
            ids = np.array(list(pairs), dtype=np.int64)
            documents = np.array(list(pairs.values()), dtype=np.int64)
            vectors = POOL[(ids * 7 + turn * 31) % 400]
            index.add(ids, documents, vectors)
            reference.add(ids, documents, vectors)
        elif what == "remove":
            ids = np.array(values, dtype=np.int64)
            assert index.remove(ids) == reference.remove(ids)
        elif what == "search":
            query, k = values
            assert_same_hits(index.search(POOL[query], k=k), reference.search(POOL[query], k=k))
        else:
            query, documents = values
            within = np.array(documents, dtype=np.int64)
            assert_same_hits(
                index.search(POOL[query], k=15, documents=within), reference.search(POOL[query], k=15, documents=within)
            )
    assert len(index) == len(reference)
    np.testing.assert_array_equal(index.ids(), reference.ids())
    np.testing.assert_array_equal(index.vectors(index.ids()), reference.vectors(reference.ids()))
