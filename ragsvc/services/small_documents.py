"""Ingests small texts together: read by one child process, embedded in common batches, ready with one commit.

A note of one line takes a moment to read and to embed. By itself it needs five transactions and a commit of the word
index, which take far longer. Whatever differs from the ordinary case is left to the ingest of single documents.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import anyio.to_thread
import msgspec

from ragsvc.core.documents import Document
from ragsvc.core.errors import CryptoFailure, StoredDataDamaged
from ragsvc.core.ids import DocumentId
from ragsvc.core.ports.parsing import BatchParser, FileToParse, ParsedDocument
from ragsvc.core.text.chunking import embedding_text
from ragsvc.services.access_control import write_to_the_end
from ragsvc.services.embedding_spaces import EmbeddingSpace, EmbeddingSpaces
from ragsvc.services.index_lag import IndexLag
from ragsvc.store.blobs import BlobStore
from ragsvc.store.database import Database
from ragsvc.store.parsed_rows import filename_of_parsed
from ragsvc.store.small_document_rows import EmbeddedDocument, store_ready
from ragsvc.store.vector_rows import cached_vectors, embedding_hash, pack_vectors


class _PreparedDocument(msgspec.Struct, frozen=True):
    """A parsed document, and the texts that the model embeds for its passages, with their hashes."""

    document: Document
    parsed: ParsedDocument
    filename: str
    texts: Sequence[str]
    hashes: Sequence[bytes]


class IngestedTogether(msgspec.Struct, frozen=True):
    """The documents that are ready, and the share of one of them in the seconds of each stage."""

    ready: frozenset[DocumentId] = frozenset()
    stage_s: dict[str, float] = {}


class SmallDocuments:
    """Ingests documents together, of one tenant each time."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: BlobStore,
        parser: BatchParser,
        spaces: EmbeddingSpaces,
        index_lag: IndexLag,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._parser = parser
        self._spaces = spaces
        self._index_lag = index_lag
        self._clock = clock

    async def ingest(self, documents: Sequence[Document]) -> IngestedTogether:
        """Ingest queued documents; those that are not ready afterwards have to run by themselves, unless they are gone.

        Raises:
            EmbeddingFailed, Overloaded, StorageFull: nothing was stored.
        """
        begin = time.monotonic()
        parsed = await self._parse(documents)
        parse_s = (time.monotonic() - begin) / len(documents)
        space = self._spaces.serving
        prepared = await anyio.to_thread.run_sync(self._prepare, space, parsed)
        if not prepared:
            return IngestedTogether()
        begin = time.monotonic()
        vectors = await self._vectors(space, prepared)
        embed_s = (time.monotonic() - begin) / len(prepared)
        embedded = [
            EmbeddedDocument(
                entry.document,
                entry.parsed,
                entry.filename,
                entry.hashes,
                [vectors[digest] for digest in entry.hashes],
                {**entry.parsed.extraction.timings, "parse_s": round(parse_s, 3), "embed_s": round(embed_s, 3)},
            )
            for entry in prepared
        ]
        begin = time.monotonic()
        async with AsyncExitStack() as stack:
            for collection_id in dict.fromkeys(entry.document.collection_id for entry in prepared):
                await stack.enter_async_context(self._index_lag.committing(collection_id))
            ready = await write_to_the_end(  # a cancelled write may be committed after the indexes have followed
                self._database,
                lambda connection: store_ready(
                    connection, embedded, model=space.model, model_id=space.model_id, now=int(self._clock())
                ),
            )
        index_s = (time.monotonic() - begin) / len(prepared)
        return IngestedTogether(ready, {"parse": parse_s, "embed": embed_s, "index": index_s})

    async def _parse(self, documents: Sequence[Document]) -> list[tuple[Document, ParsedDocument]]:
        """The documents whose file is intact and could be read, with their content."""
        with ExitStack() as stack:
            paths = await anyio.to_thread.run_sync(self._open, stack, documents)
            intact = [document for document in documents if document.id in paths]
            if not intact:
                return []
            files = [FileToParse(paths[each.id], each.media_type, each.filename) for each in intact]
            found = await self._parser.parse_many(files)
        return [
            (document, parsed)
            for document, parsed in zip(intact, found, strict=True)
            if parsed is not None and parsed.passages and not parsed.extraction.attached_files
        ]

    def _open(self, stack: ExitStack, documents: Sequence[Document]) -> dict[DocumentId, Path]:
        """Paths of the plain files of the documents whose stored file is the uploaded one."""
        paths: dict[DocumentId, Path] = {}
        for document in documents:
            try:
                self._blobs.check(document.tenant, document.sha256)
                paths[document.id] = stack.enter_context(self._blobs.readable(document.tenant, document.sha256))
            except (StoredDataDamaged, CryptoFailure, FileNotFoundError):
                continue  # its own ingest says what is wrong
        return paths

    @staticmethod
    def _prepare(space: EmbeddingSpace, parsed: Sequence[tuple[Document, ParsedDocument]]) -> list[_PreparedDocument]:
        prepared: list[_PreparedDocument] = []
        for document, content in parsed:
            filename = filename_of_parsed(document, content.extraction)
            title = content.extraction.title
            texts = [
                space.prepare(embedding_text(passage, title=title, filename=filename)) for passage in content.passages
            ]
            prepared.append(_PreparedDocument(document, content, filename, texts, list(map(embedding_hash, texts))))
        return prepared

    async def _vectors(self, space: EmbeddingSpace, prepared: Sequence[_PreparedDocument]) -> dict[bytes, bytes]:
        """Packed vectors by embedding hash; texts that the tenant has embedded before are not embedded again."""
        unique = {digest: text for entry in prepared for digest, text in zip(entry.hashes, entry.texts, strict=True)}
        tenant = prepared[0].document.tenant
        known = await self._database.read(
            lambda connection: cached_vectors(connection, tenant, space.model_id, list(unique))
        )
        missing = {digest: text for digest, text in unique.items() if digest not in known}
        if missing:
            vectors = await space.batcher.embed_passages(list(missing.values()))
            known.update(zip(missing, pack_vectors(vectors), strict=True))
        return known
