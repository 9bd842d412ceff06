"""Re-embedding for a new model: progress counts documents that have all their vectors, and nothing else."""

from __future__ import annotations

from pathlib import Path

import anyio
import numpy as np
import pytest

from ragsvc.core.documents import Document
from ragsvc.core.errors import EmbeddingFailed
from ragsvc.core.ports.embedding import EmbeddingModel
from ragsvc.core.text.chunking import lexical_context
from ragsvc.index.registry import IndexRegistry
from ragsvc.services.embedding_spaces import EmbeddingSpace
from ragsvc.services.model_change import Reembedding
from ragsvc.store import document_rows
from ragsvc.store.database import Database
from ragsvc.store.index_source import SqliteIndexSource
from ragsvc.store.serving_model import serve_model, serving_model
from ragsvc.store.vector_rows import model_row_id
from tests.support.engines import open_database
from tests.support.stored_documents import ACME, add, make_ready

TARGET = EmbeddingModel(name="target", dimension=4, max_tokens=256, fingerprint="target")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def database(tmp_path: Path):
    database = open_database(tmp_path / "rows.sqlite")
    yield database
    database.close()


class Batcher:
    """Embeds every text as the same unit vector; the call numbers in ``failing`` raise. ``before`` runs first."""

    def __init__(self, *, failing: set[int] = frozenset(), before=lambda: None) -> None:
        self.calls: list[list[str]] = []
        self._failing = failing
        self._before = before

    async def embed_passages(self, texts):
        self.calls.append(list(texts))
        self._before()
        if len(self.calls) in self._failing:
            raise EmbeddingFailed("the model ran out of memory")
        return np.tile(np.eye(4, dtype=np.float32)[:1], (len(texts), 1))


async def nothing() -> None:
    return None


class KilledError(Exception):
    """Stands for the end of the process."""


def reembedding(database: Database, batcher: Batcher, *, load=None, prepare=nothing, swap=nothing) -> Reembedding:
    model_id = database.write_sync(lambda c: model_row_id(c, TARGET, now=2))
    space = EmbeddingSpace(
        model=TARGET, model_id=model_id, batcher=batcher, indexes=None, prepare=str, knows=lambda _: True
    )

    return Reembedding(database=database, target=space, load=load, prepare=prepare, swap=swap, retry_s=0)


@pytest.mark.anyio
async def test_a_failure_is_not_counted_as_done(database: Database) -> None:
    for name in ("a", "b", "c"):
        make_ready(database, add(database, name), texts=(f"{name} first", f"{name} second"))
    database.write_sync(lambda c: serve_model(c, 1))
    counted: list[int] = []
    batcher = Batcher(failing={1, 3}, before=lambda: counted.append(work.done))
    work = reembedding(database, batcher)
    await work.run()
    assert counted == [0, 0, 1, 1, 2]  # a fails, b is embedded, c fails, then a and c are embedded
    assert (work.done, work.total) == (3, 3)
    assert database.read_sync(serving_model).name == "target"


@pytest.mark.anyio
async def test_the_former_model_serves_until_the_new_one_is_loaded(database: Database) -> None:
    make_ready(database, add(database, "a"), texts=("a first",))
    database.write_sync(lambda c: serve_model(c, 1))
    former = database.read_sync(serving_model).name
    seen: list[tuple[str, int, int]] = []

    async def load() -> None:
        seen.append((database.read_sync(serving_model).name, len(batcher.calls), work.total))
        if len(seen) < 3:
            raise EmbeddingFailed("the weights are not there yet")

    batcher = Batcher()
    work = reembedding(database, batcher, load=load)
    await work.run()
    assert seen == [(former, 0, 1)] * 3
    assert (work.done, database.read_sync(serving_model).name) == (1, "target")


@pytest.mark.anyio
async def test_a_document_deleted_meanwhile_is_not_counted(database: Database) -> None:
    documents = [add(database, name) for name in ("a", "b")]
    for document in documents:
        make_ready(database, document, texts=(f"{document.filename} first",))
    database.write_sync(lambda c: serve_model(c, 1))

    def delete_first() -> None:
        if len(batcher.calls) == 1:
            database.write_sync(lambda c: document_rows.delete_document(c, ACME, documents[0].public_id))

    batcher = Batcher(before=delete_first)
    work = reembedding(database, batcher)
    await work.run()
    assert (work.done, work.total) == (1, 1)


@pytest.mark.anyio
async def test_a_run_that_stops_before_the_switch_is_continued_with_logged_vectors(
    database: Database, tmp_path: Path
) -> None:
    """The target's indexes may have a snapshot from the interrupted run, which only the log brings up to date."""
    make_ready(database, add(database, "a"), texts=("a first",))
    database.write_sync(lambda c: serve_model(c, 1))
    target_id = database.write_sync(lambda c: model_row_id(c, TARGET, now=2))
    source = SqliteIndexSource(database, model_id=target_id, dimension=4, lexical_context=lexical_context)
    late: list[Document] = []

    def opened() -> IndexRegistry:
        return IndexRegistry(tmp_path / "derived", source, model=TARGET, background=False)

    async def load_and_stop() -> None:
        late.append(add(database, "b"))
        make_ready(database, late[0], texts=("b first",))  # by the serving model
        indexes = opened()
        indexes.get(late[0].collection_id)
        indexes.close()  # writes the snapshot
        raise KilledError

    with pytest.raises(KilledError):
        await reembedding(database, Batcher(), prepare=load_and_stop).run()

    indexes = opened()

    async def load() -> None:
        indexes.get(late[0].collection_id)

    async def catch_up() -> None:
        indexes.catch_up(late[0].collection_id)

    await reembedding(database, Batcher(), prepare=load, swap=catch_up).run()
    report = indexes.verify(late[0].collection_id)
    indexes.close()
    assert (report.ok, report.passages) == (True, 2), report


@pytest.mark.anyio
async def test_documents_that_keep_failing_do_not_hold_up_the_others(database: Database) -> None:
    names = [f"bad {n}" for n in range(40)] + ["good"]  # more failing documents than are read at once
    for name in names:
        make_ready(database, add(database, name), texts=(f"{name} text",))
    database.write_sync(lambda c: serve_model(c, 1))

    def fail_until_the_last_is_embedded() -> None:
        if "bad" in batcher.calls[-1][0] and work.done == 0:
            raise EmbeddingFailed("the model ran out of memory")

    batcher = Batcher(before=fail_until_the_last_is_embedded)
    work = reembedding(database, batcher)
    with anyio.fail_after(30):
        await work.run()
    assert [call[0].splitlines()[0] for call in batcher.calls[:41]] == names
    assert (work.done, work.total) == (41, 41)
