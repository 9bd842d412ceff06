"""The search service: loading of indexes, deleted rows, unfamiliar words."""

import threading
from types import SimpleNamespace

import anyio
import msgspec
import numpy as np
import pytest
from sqlalchemy import update

from ragsvc.core.ports.embedding import EmbeddingModel
from ragsvc.core.retrieval.answerability import BETWEEN_TEXTS
from ragsvc.core.retrieval.passage_search import load_best
from ragsvc.core.retrieval.ranking import Candidate
from ragsvc.core.retrieval.search_values import SearchMode, SearchQuery, SearchResult
from ragsvc.index.registry import IndexRegistry
from ragsvc.services.search import DatabaseRows, OpeningCache, SearchService, TextCache
from ragsvc.store import document_rows
from ragsvc.store.database import Database
from ragsvc.store.index_source import SqliteIndexSource
from ragsvc.store.passage_rows import load_texts, passages_table
from ragsvc.testing.memory_index_source import MemorySource
from tests.support.engines import open_database
from tests.support.stored_documents import ACME, MODEL, add, make_ready


class SlowSource(MemorySource):
    """A source that blocks until the test lets it answer."""

    def __init__(self):
        super().__init__(4)
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def head_seq(self, collection_id):
        self.asked.set()
        assert self.may_answer.wait(10)
        return super().head_seq(collection_id)


def test_a_collection_that_loads_slowly_leaves_the_rows_to_others(tmp_path):
    database, source = open_database(tmp_path / "rows.sqlite"), SlowSource()
    collection = database.write_sync(lambda c: document_rows.ensure_collection(c, ACME, "default", now=1))
    source.add_document(collection.id, ["The turbine turns."], np.eye(4, dtype=np.float32)[:1])
    registry = IndexRegistry(tmp_path / "derived", source, model=EmbeddingModel("m", 4, 256, "f"), background=False)
    spaces = SimpleNamespace(serving=SimpleNamespace(indexes=registry, knows=lambda _: True))

    async def settled(_):
        return None

    async def main():
        search = SearchService(database=database, spaces=spaces, settled=settled)
        async with anyio.create_task_group() as group:
            for _ in range(12):
                group.start_soon(search.search, ACME, SearchQuery(text="turbine", mode=SearchMode.LEXICAL))
            await anyio.to_thread.run_sync(source.asked.wait, 5)
            with anyio.fail_after(5):
                assert await database.read(lambda c: len(document_rows.list_collections(c, ACME))) == 1
            source.may_answer.set()

    try:
        anyio.run(main)
        assert registry.is_loaded(collection.id)
        assert not registry.is_loaded(collection.id + 1)
    finally:
        source.may_answer.set()
        registry.close()
        database.close()


@pytest.fixture
def database(tmp_path):
    database = open_database(tmp_path / "rows.sqlite")
    yield database
    database.close()


def test_a_search_passes_over_rows_that_are_gone(database: Database) -> None:
    first, second, third = make_ready(database, add(database, "report"), texts=("one", "two", "three"))
    ranked = [Candidate(passage, 0.5, None, None) for passage in (99, first, 98, second, third)]
    kept, rows = database.read_sync(lambda c: load_best(DatabaseRows(c, OpeningCache()), ranked, 2))
    assert [candidate.id for candidate in kept] == [first, second, third]
    assert [(one, row.text) for one, row in rows.items()] == [(first, "one"), (second, "two")]
    assert database.read_sync(lambda c: load_best(DatabaseRows(c, OpeningCache()), ranked[:1], 2)) == ([], {})


def test_remembered_texts_are_those_of_the_rows_and_make_room_for_others(database: Database) -> None:
    texts = {"report": ("one", "two", "three"), "other": ("four " * 20, "five", "x" * 20_000)}
    ids = {name: make_ready(database, add(database, name), texts=of) for name, of in texts.items()}
    cache = TextCache(max_bytes=1000)

    def joined(*names: str) -> list[str]:
        wanted = [passage for name in names for passage in ids[name]]
        found = database.read_sync(lambda c: cache.joined(c, [*wanted, 999]))
        return sorted(found.decode().split(BETWEEN_TEXTS))

    for names in (("report",), ("report",), ("report", "other"), ("other",), ("report",)):
        assert joined(*names) == sorted(text for name in names for text in texts[name])
    assert database.read_sync(lambda c: cache.joined(c, [])) == b""


def test_a_damaged_text_with_the_separator_fails_no_search(database: Database) -> None:
    first, second, third = make_ready(database, add(database, "report"), texts=("one", "two of these", "three"))
    damaged = "two\0of\0999 these"  # a space is one flipped bit away from the separator
    change = update(passages_table).where(passages_table.c.id == second).values(text=damaged)
    database.write_sync(lambda c: c.execute(change))
    found = database.read_sync(lambda c: load_texts(c, [first, second, third]))
    assert found == {first: b"one", second: b"two", third: b"three"}


@pytest.mark.parametrize("known", [True, False])
def test_cosines_count_less_where_the_model_does_not_know_the_words(database, tmp_path, known):
    document = add(database, "report")
    near, worded = make_ready(database, document, texts=("turbine blades and more", "turbine revenue and more of it"))
    source = SqliteIndexSource(database, model_id=1, dimension=4, lexical_context=lambda *_: "")
    registry = IndexRegistry(tmp_path / "derived", source, model=MODEL, background=False)
    vector = np.array([0.9, 0.35, 0.25, 0.0], np.float32)

    class OneVector:
        async def with_queries(self, texts, work):
            return work([vector / np.linalg.norm(vector) for _ in texts])

    asked = []
    space = SimpleNamespace(indexes=registry, batcher=OneVector(), knows=lambda text: asked.append(text) or known)

    async def settled(_):
        return None

    async def main():
        search = SearchService(database=database, spaces=SimpleNamespace(serving=space), settled=settled)
        return await search.search(ACME, SearchQuery(text="turbine revenue", mode=SearchMode.HYBRID))

    try:
        found = anyio.run(main)
    finally:
        registry.close()
    assert asked == ["turbine revenue"]
    weight = 0.6 if known else 0.4
    for hit in found.hits:
        assert hit.score == pytest.approx((weight * hit.dense + (1 - weight) * hit.lexical) / 1.2, abs=2e-4)
    assert {hit.passage.id for hit in found.hits} == {near, worded}


def test_a_result_without_a_judgement_does_not_claim_an_answer() -> None:
    with pytest.raises(msgspec.ValidationError, match="missing required field `answerable`"):
        msgspec.convert({"hits": []}, SearchResult)
