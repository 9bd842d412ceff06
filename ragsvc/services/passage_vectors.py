"""Gives the stored passages of a document their vectors in a space: batch by batch, each batch durable."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

import anyio
import anyio.to_thread

from ragsvc.core.documents import Document
from ragsvc.core.text.chunking import embedding_text
from ragsvc.services.embedding_spaces import EmbeddingSpace
from ragsvc.store import ingest_rows as rows
from ragsvc.store.database import Database
from ragsvc.store.ingest_rows import PendingPassage

_BATCH = 64


class DocumentGone(Exception):
    """The document was deleted while it was worked on."""


class _Batch:
    """Passages that wait for the vectors of ``embedding``, by embedding hash."""

    def __init__(self, passages: Sequence[PendingPassage], embedding: asyncio.Task[dict[bytes, bytes]]) -> None:
        self.passages = passages
        self.hashes = {one.embedding_hash for one in passages}
        self.embedding = embedding


class PassageVectors:
    """Embeds what has no vector yet; equal text of one tenant is embedded once."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def fill(
        self, space: EmbeddingSpace, document: Document, *, on_batch: Callable[[], None] = lambda: None
    ) -> None:
        """Give every passage of the document a vector in ``space``; one batch is embedded while another is written.

        Raises:
            DocumentGone: it was deleted meanwhile.
            EmbeddingFailed, Overloaded, StorageFull: nothing of the running batches was stored.
        """
        batches: deque[_Batch] = deque()
        after = 0
        try:
            while True:
                if pending := await self._pending(space, document, after):
                    after = pending[-1].id
                    previous = batches[-1] if batches else None
                    # a task of its own, not of a group: its error is raised where its vectors are awaited, unwrapped
                    embedding = asyncio.create_task(self._vectors_of(space, document, pending, previous))
                    batches.append(_Batch(pending, embedding))
                if not batches:
                    return
                if len(batches) == 1 and pending:
                    continue
                await self._store(space, document, batches[0])
                batches.popleft()
                on_batch()
        finally:
            for batch in batches:
                batch.embedding.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.gather(*(batch.embedding for batch in batches), return_exceptions=True)

    async def _pending(self, space: EmbeddingSpace, document: Document, after: int) -> list[PendingPassage]:
        return await self._database.read(
            lambda connection: rows.pending_passages(connection, document.id, space.model_id, after=after, limit=_BATCH)
        )

    async def _store(self, space: EmbeddingSpace, document: Document, batch: _Batch) -> None:
        vectors = await batch.embedding
        found = [(one.id, vectors[one.embedding_hash]) for one in batch.passages]
        stored = await self._database.write(
            lambda connection: rows.store_vectors(
                connection, document.id, space.model_id, found, now=int(self._clock())
            )
        )
        if not stored:
            raise DocumentGone

    async def _vectors_of(
        self, space: EmbeddingSpace, document: Document, passages: Sequence[PendingPassage], previous: _Batch | None
    ) -> dict[bytes, bytes]:
        """Packed vectors by embedding hash; text that the previous batch holds as well is left to it."""
        unique = {one.embedding_hash: one for one in passages}
        known = await self._database.read(
            lambda connection: rows.cached_vectors(connection, document.tenant, space.model_id, list(unique))
        )
        shared = {key for key in unique if previous is not None and key in previous.hashes} - known.keys()
        missing = {key: one for key, one in unique.items() if key not in known and key not in shared}
        if missing:
            texts = await anyio.to_thread.run_sync(_texts, space, document, list(missing.values()))
            vectors = await space.batcher.embed_passages(texts)
            known.update(zip(missing, rows.pack_vectors(vectors), strict=True))
        if previous is not None and shared:
            earlier = await asyncio.shield(previous.embedding)
            known.update({key: earlier[key] for key in shared})
        return known


def _texts(space: EmbeddingSpace, document: Document, passages: Sequence[PendingPassage]) -> list[str]:
    """What the model gets of passages; milliseconds a batch, so not on the event loop."""
    return [
        space.prepare(embedding_text(one.passage, title=document.title, filename=document.filename)) for one in passages
    ]
