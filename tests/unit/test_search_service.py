"""What a search does to the rest of the service."""

import threading
from types import SimpleNamespace

import anyio
import numpy as np

from ragsvc.core.ids import TenantId
from ragsvc.core.ports import EmbeddingModel
from ragsvc.core.retrieval import SearchMode, SearchQuery
from ragsvc.index.memory_source import MemorySource
from ragsvc.index.registry import IndexRegistry
from ragsvc.services.search import SearchService
from ragsvc.store import documents
from ragsvc.store.database import Database

ACME = TenantId("acme")


class SlowSource(MemorySource):
    """Rows on a disk that answers when the test lets it."""

    def __init__(self):
        super().__init__(4)
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def head_seq(self, collection_id):
        self.asked.set()
        assert self.may_answer.wait(10)
        return super().head_seq(collection_id)


def test_a_collection_that_loads_slowly_leaves_the_rows_to_others(tmp_path):
    database, source = Database(tmp_path / "rows.sqlite"), SlowSource()
    collection = database.write_sync(lambda c: documents.ensure_collection(c, ACME, "default", now=1))
    source.add_document(collection.id, ["The turbine turns."], np.eye(4, dtype=np.float32)[:1])
    registry = IndexRegistry(tmp_path / "derived", source, model=EmbeddingModel("m", 4, 256, "f"), background=False)
    spaces = SimpleNamespace(serving=SimpleNamespace(indexes=registry))

    async def settled(_):
        return None

    async def main():
        search = SearchService(database=database, spaces=spaces, settled=settled)
        async with anyio.create_task_group() as group:
            for _ in range(12):
                group.start_soon(search.search, ACME, SearchQuery(text="turbine", mode=SearchMode.LEXICAL))
            await anyio.to_thread.run_sync(source.asked.wait, 5)
            with anyio.fail_after(5):
                assert await database.read(lambda c: len(documents.list_collections(c, ACME))) == 1
            source.may_answer.set()

    try:
        anyio.run(main)
        assert registry.is_loaded(collection.id)
        assert not registry.is_loaded(collection.id + 1)
    finally:
        source.may_answer.set()
        registry.close()
        database.close()
