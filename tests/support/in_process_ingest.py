"""The document services over a folder, in this process: real rows, files and indexes, with a fake model and parser."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.abc

from ragsvc.core.documents import Document, Extraction, Page, Passage
from ragsvc.core.ids import TenantId
from ragsvc.core.ports.parsing import ParsedDocument
from ragsvc.core.retrieval.search_values import SearchMode, SearchQuery
from ragsvc.core.text.chunking import lexical_context
from ragsvc.index.registry import IndexRegistry
from ragsvc.services.document_service import DocumentService, Upload
from ragsvc.services.early_pages import EarlyPages
from ragsvc.services.embedding_spaces import EmbeddingSpace, EmbeddingSpaces
from ragsvc.services.file_service import FileService
from ragsvc.services.index_lag import IndexLag
from ragsvc.services.ingest_jobs import IngestLimits, IngestService
from ragsvc.services.progress_events import ProgressHub
from ragsvc.services.search import SearchService
from ragsvc.services.upload_service import UploadService
from ragsvc.store.blobs import BlobStore
from ragsvc.store.index_source import SqliteIndexSource
from ragsvc.store.serving_model import serve_model
from ragsvc.store.sqlite_database import SqliteDatabase
from ragsvc.store.vector_rows import model_row_id
from ragsvc.testing.fakes import FakeEmbedder
from tests.support.engines import open_database
from tests.support.file_places import open_files
from tests.support.stored_documents import ACME


class LineParser:
    """Port ``Parser`` for text files: one page, and a passage for each line."""

    async def parse(self, path, *, media_type, filename, password=None, on_progress=None) -> ParsedDocument:
        text = path.read_text()
        passages, start = [], 0
        for ordinal, line in enumerate(filter(None, text.splitlines())):
            passages.append(Passage(ordinal, 1, start, start + len(line), line))
            start += len(line) + 1
        return ParsedDocument(Extraction(pages=[Page(1, text)], page_count=1), passages)

    async def close(self) -> None:
        return None


class ObservedEmbedder:
    """The batcher of an embedding space. ``before`` runs before each call and may raise."""

    def __init__(self, before: Callable[[list[str]], object] = lambda texts: None) -> None:
        self.embedder = FakeEmbedder()
        self.before = before
        self.embedded: list[str] = []

    async def embed_passages(self, texts):
        result = self.before(list(texts))
        if result is not None:
            await result
        self.embedded += texts
        return self.embedder.embed_passages(texts)

    async def embed_query(self, text):
        return self.embedder.embed_queries([text])[0]

    async def with_queries(self, texts, work):
        return work(self.embedder.embed_queries(texts))


class InProcessIngest:
    """The document services of an open data directory."""

    def __init__(
        self,
        folder: Path,
        *,
        embedder: ObservedEmbedder | None = None,
        parser: LineParser | None = None,
        prepare: Callable[[str], str] = str,
        retry_s: float = 0,
        patience_s: float = 1,
        early: EarlyPages | None = None,
        blobs: BlobStore | None = None,
        clock: Callable[[], float] = time.time,
        key: bytes | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.batcher = embedder or ObservedEmbedder()
        path = folder / "ragsvc.sqlite"
        self.database = open_database(path) if key is None else SqliteDatabase(path, key=key)
        self.blobs = blobs or BlobStore(folder, files=open_files(folder))
        model = self.batcher.embedder.model
        self.model_id = self.database.write_sync(lambda c: model_row_id(c, model, now=1))
        self.database.write_sync(lambda c: serve_model(c, self.model_id))
        self.source = SqliteIndexSource(
            self.database, model_id=self.model_id, dimension=model.dimension, lexical_context=lexical_context
        )
        self.indexes = IndexRegistry(folder / "derived", self.source, model=model, background=False)
        self.space = EmbeddingSpace(
            model=model,
            model_id=self.model_id,
            batcher=self.batcher,
            indexes=self.indexes,
            prepare=prepare,
            knows=lambda _: True,
        )
        self.spaces = EmbeddingSpaces(self.space)
        self.hub = ProgressHub()
        self.lag = IndexLag(self.spaces.catch_up)
        self.ingest = IngestService(
            database=self.database,
            blobs=self.blobs,
            parser=parser or LineParser(),
            spaces=self.spaces,
            index_lag=self.lag,
            hub=self.hub,
            options=IngestLimits(workers=2),
            retry_s=retry_s,
            patience_s=patience_s,
            early=early,
        )
        self.documents = DocumentService(
            database=self.database,
            blobs=self.blobs,
            ingest=self.ingest,
            hub=self.hub,
            index_lag=self.lag,
            max_document_bytes=1 << 20,
            max_queued=100,
        )
        self.files = FileService(
            database=self.database,
            blobs=self.blobs,
            ingest=self.ingest,
            hub=self.hub,
            index_lag=self.lag,
            max_file_bytes=1 << 20,
            clock=clock,
        )
        self.uploads = UploadService(
            database=self.database,
            blobs=self.blobs,
            files=self.files,
            removals=self.ingest.file_removals,
            clock=clock,
        )
        self.searcher = SearchService(database=self.database, spaces=self.spaces, settled=self.lag.settled, early=early)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[InProcessIngest]:
        """Run the ingest jobs, and close everything at the end."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.ingest.run)
                try:
                    yield self
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            self.close()

    def close(self) -> None:
        self.indexes.close()
        self.database.close()

    async def upload(self, text: str, *, filename: str, tenant: TenantId = ACME) -> Document:
        async with self.documents.receiving() as incoming:
            await incoming.write(text.encode())
            return (
                await self.documents.add(tenant, incoming, Upload(filename=filename, media_type="text/plain"))
            ).document

    async def add(self, text: str, *, filename: str) -> Document:
        """Upload a document and wait until it is ready."""
        document = await self.upload(text, filename=filename)
        return await self.documents.wait(ACME, document.public_id, timeout_s=60)

    async def rename(self, document: Document, filename: str) -> Document:
        return await self.documents.change(ACME, document.public_id, filename=filename, metadata=None)

    async def found(self, query: str, *, mode: SearchMode = SearchMode.LEXICAL) -> list[str]:
        """File names of the hits of a search, best first, without repetitions."""
        result = await self.searcher.search(ACME, SearchQuery(text=query, mode=mode))
        return list(dict.fromkeys(hit.passage.filename for hit in result.hits))

    async def cosine(self, query: str) -> float:
        """The cosine of the best hit of a dense search."""
        result = await self.searcher.search(ACME, SearchQuery(text=query, mode=SearchMode.DENSE))
        return result.hits[0].dense

    def jobs(self) -> int:
        return self.database.read_sync(lambda c: c.exec_driver_sql("SELECT count(*) FROM jobs").scalar_one())

    async def idle(self) -> None:
        """Wait until all jobs are done."""
        with anyio.fail_after(60):
            while self.jobs():
                await anyio.sleep(0.01)

    def copy_as_if_killed(self, target: Path) -> None:
        """Copy the files that a kill at this moment would leave on disk."""
        # the lexical index writes and renames its temporary files during the copy, and parsers unlink their input
        shutil.copytree(self.folder, target, ignore=shutil.ignore_patterns("live-*", ".tmp*", "parser-*"))
        with suppress(FileNotFoundError):
            (target / "ragsvc.sqlite-shm").unlink()
