"""Gives the stored passages of a document their vectors in a space: batch by batch, each batch durable."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ragsvc.core.chunking import embedding_text
from ragsvc.core.documents import Document
from ragsvc.core.ids import PassageId
from ragsvc.services.spaces import EmbeddingSpace
from ragsvc.store import ingest as rows
from ragsvc.store.database import Database
from ragsvc.store.ingest import PendingPassage

_BATCH = 64


class DocumentGone(Exception):
    """The document was deleted while it was worked on."""


class PassageVectors:
    """Embeds what has no vector yet; equal text of one tenant is embedded once."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def fill(
        self, space: EmbeddingSpace, document: Document, *, on_batch: Callable[[], None] = lambda: None
    ) -> None:
        """Give every passage of the document a vector in ``space``.

        Raises:
            DocumentGone: it was deleted meanwhile.
            EmbeddingFailed, Overloaded, StorageFull: nothing of the running batch was stored.
        """
        after = 0
        while pending := await self._pending(space, document, after):
            after = pending[-1].id
            await self._store(space, document, await self._vectors_of(space, document, pending))
            on_batch()

    async def _pending(self, space: EmbeddingSpace, document: Document, after: int) -> list[PendingPassage]:
        return await self._database.read(
            lambda connection: rows.pending_passages(connection, document.id, space.model_id, after=after, limit=_BATCH)
        )

    async def _store(self, space: EmbeddingSpace, document: Document, vectors: list[tuple[PassageId, bytes]]) -> None:
        stored = await self._database.write(
            lambda connection: rows.store_vectors(
                connection, document.id, space.model_id, vectors, now=int(self._clock())
            )
        )
        if not stored:
            raise DocumentGone

    async def _vectors_of(
        self, space: EmbeddingSpace, document: Document, pending: Sequence[PendingPassage]
    ) -> list[tuple[PassageId, bytes]]:
        hashes = list({one.embedding_hash for one in pending})
        known = await self._database.read(
            lambda connection: rows.cached_vectors(connection, document.tenant, space.model_id, hashes)
        )
        unique = {one.embedding_hash: one for one in pending if one.embedding_hash not in known}
        if unique:
            texts = [
                embedding_text(one.passage, title=document.title, filename=document.filename) for one in unique.values()
            ]
            vectors = await space.batcher.embed_passages(texts)
            known.update(zip(unique, rows.pack_vectors(vectors), strict=True))
        return [(one.id, known[one.embedding_hash]) for one in pending]
