"""Re-embedding for a new model: progress counts documents that have all their vectors, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ragsvc.core.errors import EmbeddingFailed
from ragsvc.core.ports.embedding import EmbeddingModel
from ragsvc.services.embedding_spaces import EmbeddingSpace
from ragsvc.services.model_change import Reembedding
from ragsvc.store import document_rows
from ragsvc.store.database import Database
from ragsvc.store.serving_model import serve_model, serving_model
from ragsvc.store.vector_rows import model_row_id
from tests.support.stored_documents import ACME, add, make_ready

TARGET = EmbeddingModel(name="target", dimension=4, max_tokens=256, fingerprint="target")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def database(tmp_path: Path):
    database = Database(tmp_path / "rows.sqlite")
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


def reembedding(database: Database, batcher: Batcher) -> Reembedding:
    model_id = database.write_sync(lambda c: model_row_id(c, TARGET, now=2))
    space = EmbeddingSpace(
        model=TARGET, model_id=model_id, batcher=batcher, indexes=None, prepare=str, knows=lambda _: True
    )

    async def nothing() -> None:
        return None

    return Reembedding(database=database, target=space, prepare=nothing, swap=nothing, retry_s=0)


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
