"""The pages of a document are searchable while its parser reads the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import numpy as np
import pytest

from ragsvc.core.documents import Document, DocumentStatus, Page, Stage
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ids import CollectionId, DocumentId
from ragsvc.core.ports.parsing import ParsedDocument
from ragsvc.core.retrieval.filters import parse_filter
from ragsvc.core.retrieval.search_values import SearchMode, SearchQuery
from ragsvc.index.memory_words import MemoryWordScorer
from ragsvc.services.early_pages import EarlyPages
from ragsvc.store.document_rows import get_by_row_id
from tests.support.in_process_ingest import InProcessIngest, LineParser, ObservedEmbedder
from tests.support.processing_documents import parsing_document
from tests.support.stored_documents import ACME

pytestmark = pytest.mark.anyio

TEXT = "The walrus sleeps on the ice.\nThe turbine turns in the harbour.\nA lantern of copper hangs in the orchard."


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class HeldParser(LineParser):
    """Sends each line as an early page, then waits for ``go``, and fails if ``failure`` is set."""

    def __init__(self) -> None:
        self.sent = anyio.Event()
        self.go = anyio.Event()
        self.failure: Exception | None = None

    async def parse(
        self, path, *, media_type, filename, password=None, on_progress=None, on_pages=None, on_recognition=None
    ) -> ParsedDocument:
        lines = path.read_text().splitlines()
        if on_pages is not None and len(lines) > 1:
            pages = [Page(number, line) for number, line in enumerate(lines, start=1)]
            await anyio.to_thread.run_sync(on_pages, pages, len(pages) + 1)
            self.sent.set()
            await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return await super().parse(path, media_type=media_type, filename=filename)


@asynccontextmanager
async def running(
    folder: Path, parser: HeldParser, embedder: ObservedEmbedder | None = None
) -> AsyncIterator[InProcessIngest]:
    early = EarlyPages(MemoryWordScorer())
    async with InProcessIngest(folder, parser=parser, early=early, embedder=embedder).running() as service:
        yield service


def row(service: InProcessIngest, document: Document) -> Document | None:
    return service.database.read_sync(lambda c: get_by_row_id(c, document.id))


async def test_pages_are_found_by_their_words_while_others_are_parsed(tmp_path: Path) -> None:
    parser = HeldParser()
    async with running(tmp_path, parser) as service:
        document = await service.upload(TEXT, filename="a.txt")
        async for state in service.documents.follow(ACME, document.public_id, every_s=30):
            if state is not None and state.pages_done:
                assert (state.stage, state.pages_done, state.pages_total) == (Stage.PARSING, 3, 4)
                break
        for mode in (SearchMode.LEXICAL, SearchMode.HYBRID):
            result = await service.searcher.search(ACME, SearchQuery(text="Where is the turbine?", mode=mode))
            (hit,) = result.hits
            assert (hit.passage.document_public_id, hit.passage.page) == (document.public_id, 2)
            assert (hit.passage.filename, hit.passage.text) == ("a.txt", "The turbine turns in the harbour.")
            assert hit.passage.pages_total == 4
        assert result.answerable > 0.38
        assert await service.found("turbine", mode=SearchMode.DENSE) == []
        assert service.indexes.verify(document.collection_id).passages == 0
        parser.go.set()
        await service.idle()
        assert await service.found("turbine", mode=SearchMode.DENSE) == ["a.txt"]
        assert len((await service.searcher.search(ACME, SearchQuery(text="turbine"))).hits) == 3
        assert service.ingest.early is not None
        assert service.ingest.early.document_ids() == []


async def test_stored_and_early_passages_are_ranked_together(tmp_path: Path) -> None:
    parser = HeldParser()
    async with running(tmp_path, parser) as service:
        await service.add("The harbour of Bremen.", filename="stored.txt")
        await service.upload(TEXT, filename="early.txt")
        await parser.sent.wait()
        assert set(await service.found("harbour", mode=SearchMode.HYBRID)) == {"stored.txt", "early.txt"}
        assert (await service.found("turbine harbour"))[0] == "early.txt"
        query = SearchQuery(text="What is on page 1?")
        assert {hit.passage.filename for hit in (await service.searcher.search(ACME, query)).hits} >= {"stored.txt"}


async def test_early_passages_have_the_present_name_of_their_document(tmp_path: Path) -> None:
    parser = HeldParser()
    async with running(tmp_path, parser) as service:
        document = await service.upload(TEXT, filename="a.txt")
        await parser.sent.wait()
        assert await service.found("turbine") == ["a.txt"]
        await service.rename(document, "beacon.txt")
        for mode in (SearchMode.LEXICAL, SearchMode.HYBRID):
            assert await service.found("turbine", mode=mode) == ["beacon.txt"]
        parser.go.set()
        await service.idle()
        assert await service.found("turbine") == ["beacon.txt"]


async def test_early_pages_change_no_ranking_afterwards(tmp_path: Path) -> None:
    found = []
    for folder in ("with", "without"):
        parser = HeldParser()
        early = EarlyPages(MemoryWordScorer()) if folder == "with" else None
        async with InProcessIngest(tmp_path / folder, parser=parser, early=early).running() as service:
            for name, text in (("a.txt", TEXT), ("b.txt", TEXT.replace("walrus", "falcon"))):
                document = await service.upload(text, filename=name)
                if early is not None:
                    await parser.sent.wait()
                for mode in SearchMode:  # loads the indexes, whose number of commits is part of the scores
                    await service.found("copper harbour", mode=mode)
                parser.go.set()
                await service.documents.wait(ACME, document.public_id, timeout_s=30)
                parser.sent, parser.go = anyio.Event(), anyio.Event()
            for mode in SearchMode:
                for text in ("copper harbour", "falcon", "Where does the walrus sleep?"):
                    result = await service.searcher.search(ACME, SearchQuery(text=text, mode=mode))
                    hits = [(hit.passage.id, hit.score, hit.dense, hit.lexical) for hit in result.hits]
                    found.append((text, mode, result.answerable, hits))
    assert found[: len(found) // 2] == found[len(found) // 2 :]


async def test_a_failed_or_deleted_document_is_not_found(tmp_path: Path) -> None:
    parser = HeldParser()
    async with running(tmp_path, parser) as service:
        document = await service.upload(TEXT, filename="a.txt")
        await parser.sent.wait()
        assert await service.found("turbine") == ["a.txt"]
        await service.documents.delete(ACME, document.public_id)
        assert await service.found("turbine") == []
        await service.idle()
        parser.sent = anyio.Event()
        parser.failure = ExtractionFailed(FailureReason.DAMAGED, "The file is damaged.")
        document = await service.upload(TEXT, filename="b.txt")
        await parser.sent.wait()
        assert await service.found("turbine") == ["b.txt"]
        parser.go.set()
        await service.idle()
        failed = row(service, document)
        assert failed is not None
        assert failed.status is DocumentStatus.FAILED
        assert await service.found("turbine") == []


async def test_early_pages_stay_until_a_short_document_is_ready(tmp_path: Path) -> None:
    go = anyio.Event()
    parser = HeldParser()
    parser.go.set()
    async with running(tmp_path, parser, ObservedEmbedder(lambda _: go.wait())) as service:
        document = await service.upload(TEXT, filename="a.txt")
        async for state in service.documents.follow(ACME, document.public_id, every_s=30):
            if state is not None and state.stage is Stage.EMBEDDING:
                break
        assert await service.found("turbine") == ["a.txt"]
        go.set()
        await service.idle()
        assert await service.found("turbine") == ["a.txt"]


async def test_filters_and_other_collections(tmp_path: Path) -> None:
    parser = HeldParser()
    async with running(tmp_path, parser) as service:
        document = await service.upload(TEXT, filename="a.txt")
        await service.documents.change(ACME, document.public_id, filename=None, metadata={"year": 2023})
        await parser.sent.wait()
        for year, expected in ((2023, 1), (2022, 0)):
            condition = parse_filter({"type": "eq", "key": "year", "value": year})
            result = await service.searcher.search(ACME, SearchQuery(text="turbine", filters=condition))
            assert len(result.hits) == expected
        query = SearchQuery(text="turbine", document_ids=(document.public_id,))
        assert len((await service.searcher.search(ACME, query)).hits) == 1
        assert service.ingest.early is not None
        assert service.ingest.early.of(document.collection_id) is not None
        assert service.ingest.early.of(document.collection_id + 1) is None


def test_a_page_that_is_recognised_replaces_its_text_layer() -> None:
    early = EarlyPages(MemoryWordScorer())
    document = _document()
    assert early.add(document.id, [Page(1, "before begin")], 2) == 0
    early.begin(document)
    assert early.add(document.id, [Page(1, "A stamp."), Page(2, "A turbine.")], 3) == 2
    assert early.add(document.id, [Page(1, "The walrus, recognised.")], 3) == 2
    found = early.of(document.collection_id)
    assert found is not None
    _, hits = found.memory.search(None, "walrus stamp turbine", k=9, documents=None)
    assert {found.memory.passages([passage])[passage].text for passage in hits.ids.tolist()} == {
        "The walrus, recognised.",
        "A turbine.",
    }
    assert (np.diff(sorted(found.owners)) > 0).all()
    assert max(found.owners) < 0
    early.drop(document.id)
    assert early.of(document.collection_id) is None
    assert early.add(document.id, [Page(1, "late")], 3) == 0


def test_documents_that_wait_for_recognition_share_a_bounded_number_of_early_passages() -> None:
    early = EarlyPages(MemoryWordScorer(), max_passages=5)
    documents = [msgspec.structs.replace(_document(), id=DocumentId(number)) for number in range(1, 9)]
    pages = [Page(1, "A turbine."), Page(2, "A harbour.")]
    for document in documents:
        early.begin(document)
    assert [early.add(document.id, pages, 9) for document in documents] == [2, 2, 2, 0, 0, 0, 0, 0]
    found = early.of(documents[0].collection_id)
    assert found is not None
    assert len(found.owners) == 6
    early.drop(documents[0].id)
    assert early.add(documents[-1].id, pages, 9) == 2


def _document() -> Document:
    return parsing_document(7, collection_id=CollectionId(3), collection="reports", filename="a.pdf")
