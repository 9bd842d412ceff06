"""A document is found by its words once it is parsed, and by its vectors as these are stored."""

from __future__ import annotations

import re
from pathlib import Path

import anyio
import pytest

from ragsvc.core.documents import Document, DocumentStatus, Extraction, Page, Passage, Stage
from ragsvc.core.errors import EmbeddingFailed, FailureReason
from ragsvc.core.ports.parsing import ParsedDocument
from ragsvc.core.retrieval.filters import parse_filter
from ragsvc.core.retrieval.search_values import SearchMode, SearchQuery
from ragsvc.store import parsed_rows
from ragsvc.store.document_rows import get_by_row_id
from ragsvc.store.reingest import forget_embeddings
from tests.support.in_process_ingest import InProcessIngest, ObservedEmbedder
from tests.support.stored_documents import ACME

pytestmark = pytest.mark.anyio

BATCH = 64
LINES = [f"Position{number} of the delivery is a crate of oranges." for number in range(3 * BATCH)]
TEXT = "\n".join(LINES)
SHORT = [
    "The walrus sleeps on the ice. The ledger lists a turbine.",
    "The harbour of Bremen ships copper and sandstone. A walrus swims there.",
    "Meadow and orchard. The lantern is made of copper.\nThe turbine of the harbour turns.",
]
QUESTIONS = ("walrus", "Where is the copper of the harbour?", "turbine ledger", "a.txt", "lantern orchard Bremen")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class HeldEmbedder(ObservedEmbedder):
    """Embeds the first ``batches`` batches of ``LINES``, or so many others, once.

    Further ones wait for ``go``, and then fail if ``failure`` is set.
    """

    def __init__(self, batches: int = 0) -> None:
        super().__init__(self._hold)
        self.batches = batches
        self.go = anyio.Event()
        self.failure: Exception | None = None
        self.begun: set[int] = set()

    def _hold(self, texts: list[str]) -> object:
        numbers = [int(number) for number in re.findall(r"Position(\d+) ", " ".join(texts))]
        # the second batch of a document may come before the first: both read the database before
        batch = min(numbers) // BATCH if numbers else len(self.begun)
        passes = batch < self.batches and batch not in self.begun
        self.begun.add(batch)
        return None if passes else self._wait()

    async def _wait(self) -> None:
        await self.go.wait()
        if self.failure is not None:
            raise self.failure


def row(service: InProcessIngest, document: Document) -> Document:
    found = service.database.read_sync(lambda c: get_by_row_id(c, document.id))
    assert found is not None
    return found


async def until_searchable(service: InProcessIngest, document: Document, *, passages_done: int = 0) -> Document:
    """Follow the document as the event streams do; the first state that is searchable."""
    async for state in service.documents.follow(ACME, document.public_id, every_s=30):
        if state is not None and state.stage is Stage.SEARCHABLE and state.passages_done >= passages_done:
            return state
    raise AssertionError("the document ended without being searchable")


async def hits(service: InProcessIngest, question: str, mode: SearchMode) -> list[tuple[object, ...]]:
    result = await service.searcher.search(ACME, SearchQuery(text=question, mode=mode, top_k=20))
    found = [(hit.passage.id, hit.passage.ordinal, hit.score, hit.dense, hit.lexical) for hit in result.hits]
    return [(result.answerable,), *found]


async def test_words_are_searchable_before_the_vectors(tmp_path: Path) -> None:
    embedder = HeldEmbedder()
    async with InProcessIngest(tmp_path, embedder=embedder).running() as service:
        document = await service.upload(TEXT, filename="a.txt")
        state = await until_searchable(service, document)
        assert (state.status, state.passages_done, state.ready_at) == (DocumentStatus.PROCESSING, 0, None)
        assert await service.found("Position150") == ["a.txt"]
        result = await service.searcher.search(ACME, SearchQuery(text="Position150 oranges", mode=SearchMode.HYBRID))
        assert (result.hits[0].passage.ordinal, result.hits[0].dense) == (150, None)
        assert result.answerable > 0.38
        assert await service.found("Position150", mode=SearchMode.DENSE) == []
        assert service.indexes.verify(document.collection_id).ok
        embedder.go.set()
        await service.idle()
        assert row(service, document).status is DocumentStatus.READY
        assert await service.found("Position150", mode=SearchMode.DENSE) == ["a.txt"]
        assert service.indexes.verify(document.collection_id).ok


async def test_vectors_follow_batch_by_batch(tmp_path: Path) -> None:
    embedder = HeldEmbedder(batches=1)
    async with InProcessIngest(tmp_path, embedder=embedder).running() as service:
        document = await service.upload(TEXT, filename="a.txt")
        await until_searchable(service, document, passages_done=BATCH)
        with anyio.fail_after(30):
            while not await service.found("oranges", mode=SearchMode.DENSE):
                await anyio.sleep(0.01)
        result = await service.searcher.search(ACME, SearchQuery(text="oranges", mode=SearchMode.DENSE, top_k=100))
        assert {hit.passage.ordinal for hit in result.hits} == set(range(BATCH))
        for number in (3, 150):  # with a vector, and without
            result = await service.searcher.search(ACME, SearchQuery(text=f"Position{number}"))
            assert result.hits[0].passage.ordinal == number
        assert service.indexes.verify(document.collection_id).ok


async def test_ranking_ends_equal_to_that_of_documents_that_were_embedded_at_once(tmp_path: Path) -> None:
    found: list[list[object]] = []
    for folder in ("plain", "early"):
        embedder = HeldEmbedder()
        patience_s = 0.0 if folder == "early" else 60.0
        async with InProcessIngest(tmp_path / folder, embedder=embedder, patience_s=patience_s).running() as service:
            embedder.batches = 1
            document = await service.add("Something else.", filename="first.txt")
            await hits(service, "walrus", SearchMode.LEXICAL)  # loads the indexes: commits are part of the scores
            for name, text in zip("abc", SHORT, strict=True):
                document = await service.upload(text, filename=f"{name}.txt")
                if folder == "early":
                    await until_searchable(service, document)
                for mode in SearchMode:  # searches in between change nothing
                    await hits(service, "walrus", mode)
                embedder.go.set()
                ready = await service.documents.wait(ACME, document.public_id, timeout_s=30)
                assert ready.status is DocumentStatus.READY
                embedder.go = anyio.Event()
            found.append([await hits(service, question, mode) for question in QUESTIONS for mode in SearchMode])
            assert service.indexes.verify(document.collection_id).ok
    assert found[0] == found[1]
    assert all(len(part) > 2 for part in found[0][:3])


async def test_a_document_that_fails_is_not_searchable_any_more(tmp_path: Path) -> None:
    embedder = HeldEmbedder(batches=1)
    embedder.failure = EmbeddingFailed("The model ended.")
    async with InProcessIngest(tmp_path, embedder=embedder).running() as service:
        document = await service.upload(TEXT, filename="a.txt")
        await until_searchable(service, document, passages_done=BATCH)
        assert await service.found("Position150") == ["a.txt"]
        embedder.go.set()
        await service.idle()
        assert row(service, document).failure_code == FailureReason.EMBEDDING_FAILED
        for mode in SearchMode:
            assert await service.found("Position1", mode=mode) == []
        report = service.indexes.verify(document.collection_id)
        assert (report.ok, report.passages) == (True, 0)


async def test_a_searchable_document_that_is_deleted_leaves_nothing(tmp_path: Path) -> None:
    embedder = HeldEmbedder(batches=1)
    async with InProcessIngest(tmp_path, embedder=embedder).running() as service:
        document = await service.upload(TEXT, filename="a.txt")
        await until_searchable(service, document, passages_done=BATCH)
        await service.documents.delete(ACME, document.public_id)
        for mode in SearchMode:
            assert await service.found("Position1", mode=mode) == []
        embedder.go.set()
        await service.idle()
        report = service.indexes.verify(document.collection_id)
        assert (report.ok, report.passages) == (True, 0)


async def test_a_searchable_document_is_found_by_its_new_name(tmp_path: Path) -> None:
    embedder = HeldEmbedder(batches=1)
    async with InProcessIngest(tmp_path, embedder=embedder).running() as service:
        document = await service.upload(TEXT, filename="scan0002.txt")
        await until_searchable(service, document, passages_done=BATCH)
        await service.rename(document, "Kessler Plumbing.txt")
        assert await service.found("Kessler") == ["Kessler Plumbing.txt"]
        assert await service.found("scan0002") == []
        assert await service.found("oranges", mode=SearchMode.DENSE) == []  # those vectors contain the former name
        assert service.indexes.verify(document.collection_id).ok
        embedder.go.set()
        await service.idle()
        assert row(service, document).status is DocumentStatus.READY
        assert len(embedder.embedded) >= BATCH + len(LINES)
        assert service.indexes.verify(document.collection_id).ok


@pytest.mark.parametrize("key", [None, bytes(range(32))])
async def test_a_killed_service_finds_the_words_again_and_continues(tmp_path: Path, key: bytes | None) -> None:
    killed = tmp_path / "killed"
    embedder = HeldEmbedder(batches=1)
    async with InProcessIngest(tmp_path / "data", embedder=embedder, key=key).running() as service:
        document = await service.upload(TEXT, filename="a.txt")
        await until_searchable(service, document, passages_done=BATCH)
        service.copy_as_if_killed(killed)
    embedder = HeldEmbedder()
    service = InProcessIngest(killed, embedder=embedder, key=key)
    assert await service.found("Position150") == ["a.txt"]  # before any job runs
    assert service.indexes.verify(document.collection_id).ok
    async with service.running():
        assert (await until_searchable(service, document)).passages_done == BATCH
        assert await service.found("Position150") == ["a.txt"]
        embedder.go.set()
        await service.idle()
        assert row(service, document).status is DocumentStatus.READY
        assert len(embedder.embedded) == len(LINES) - BATCH
        assert service.indexes.verify(document.collection_id).ok


async def test_a_document_parsed_by_an_earlier_release_becomes_searchable_first(tmp_path: Path) -> None:
    embedder = HeldEmbedder()
    service = InProcessIngest(tmp_path, embedder=embedder)
    document = await service.upload(TEXT, filename="a.txt")
    parsed = ParsedDocument(Extraction(pages=[Page(1, "A walrus.")], page_count=1), [Passage(0, 1, 0, 9, "A walrus.")])
    service.database.write_sync(lambda c: parsed_rows.store_parsed(c, document.id, parsed, timings={}, now=2))
    assert row(service, document).stage is Stage.EMBEDDING
    async with service.running():
        await until_searchable(service, document)
        assert await service.found("walrus") == ["a.txt"]
        embedder.go.set()
        await service.idle()
        assert row(service, document).status is DocumentStatus.READY
        assert service.indexes.verify(document.collection_id).ok


async def test_words_stay_searchable_while_all_documents_are_embedded_again(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        document = await service.add(TEXT, filename="a.txt")
        service.database.write_sync(lambda c: forget_embeddings(c, now=2))
    embedder = HeldEmbedder()
    (tmp_path / "derived").rename(tmp_path / "former")  # as the command does
    async with InProcessIngest(tmp_path, embedder=embedder).running() as service:
        assert await service.found("Position150") == ["a.txt"]
        assert await service.found("Position150", mode=SearchMode.DENSE) == []
        embedder.go.set()
        await service.idle()
        assert await service.found("Position150", mode=SearchMode.DENSE) == ["a.txt"]
        assert service.indexes.verify(document.collection_id).ok


async def test_filters_and_ids_find_searchable_documents(tmp_path: Path) -> None:
    embedder = HeldEmbedder()
    async with InProcessIngest(tmp_path, embedder=embedder).running() as service:
        document = await service.upload(TEXT, filename="a.txt")
        await service.documents.change(ACME, document.public_id, filename=None, metadata={"year": 2023})
        await until_searchable(service, document)
        for year, expected in ((2023, 1), (2022, 0)):
            query = SearchQuery(text="Position150", filters=parse_filter({"type": "eq", "key": "year", "value": year}))
            assert bool((await service.searcher.search(ACME, query)).hits) == bool(expected)
        query = SearchQuery(text="Position150", document_ids=(document.public_id,))
        assert (await service.searcher.search(ACME, query)).hits


async def test_a_ready_document_without_a_vector_is_a_difference(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        document = await service.add(TEXT, filename="a.txt")
        statement = "DELETE FROM embeddings WHERE passage_id = (SELECT min(passage_id) FROM embeddings)"
        service.database.write_sync(lambda c: c.exec_driver_sql(statement))
        service.indexes.close()
        (tmp_path / "derived").rename(tmp_path / "former")
    async with InProcessIngest(tmp_path).running() as service:
        report = service.indexes.verify(document.collection_id)
        assert (report.ok, report.vectors.missing) == (False, 1)
