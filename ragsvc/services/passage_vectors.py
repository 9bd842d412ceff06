"""Embeds the stored passages of a document: batch by batch, and each batch is durable once it is stored."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio
import anyio.to_thread
import msgspec

from ragsvc.core.documents import Document
from ragsvc.core.ids import PassageId
from ragsvc.core.text.chunking import embedding_text
from ragsvc.services.embedding_spaces import EmbeddingSpace
from ragsvc.store import vector_rows as rows
from ragsvc.store.database import Database
from ragsvc.store.vector_rows import EmbeddablePassage, PassageVector, VectorsOutcome, embedding_hash

EMBEDDED_AT_ONCE: Final = 64
"""Passages in a batch."""


async def _do_nothing() -> None:
    pass


class EmbeddingSteps(msgspec.Struct, frozen=True, kw_only=True):
    """What is done while passages are embedded.

    ``on_batch`` is called after a batch was stored. ``between_batches`` is awaited if others follow, while the next
    batch is embedded. ``on_wait`` is awaited whenever the vectors of a batch take longer than ``patience_s``.
    """

    on_batch: Callable[[], None] = lambda: None
    between_batches: Callable[[], Awaitable[None]] = _do_nothing
    on_wait: Callable[[], Awaitable[object]] = _do_nothing
    patience_s: float = math.inf


class DocumentGone(Exception):
    """The document was deleted during the work on it."""


class DocumentRenamed(Exception):
    """The document was renamed during the work on it: vectors of its former name are not stored."""


class _PreparedPassage(msgspec.Struct, frozen=True):
    """A passage, the text that the model embeds for it, and the hash of that text."""

    id: PassageId
    text: str
    embedding_hash: bytes


class _Batch:
    """Passages that wait for the vectors of ``embedding``, by embedding hash."""

    def __init__(self, passages: Sequence[_PreparedPassage], embedding: asyncio.Task[dict[bytes, bytes]]) -> None:
        self.passages = passages
        self.hashes = {passage.embedding_hash for passage in passages}
        self.embedding = embedding


class PassageVectors:
    """Embeds passages; equal text of one tenant is embedded once."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def fill(
        self,
        space: EmbeddingSpace,
        document: Document,
        *,
        steps: EmbeddingSteps | None = None,
    ) -> None:
        """Give every passage of the document that has no vector in ``space`` a vector.

        Raises:
            DocumentGone: the document was deleted.
            DocumentRenamed: the document was renamed; read it again and repeat.
            EmbeddingFailed, Overloaded, StorageFull: nothing of the running batches was stored.
        """
        await _Embedding(self._database, self._clock, space, document, only_missing=True).run(steps or EmbeddingSteps())

    async def renew(self, space: EmbeddingSpace, document: Document) -> None:
        """Replace the vectors in ``space`` that were made from a former text, that is, from the document's former name.

        Raises:
            As ``fill``.
        """
        await _Embedding(self._database, self._clock, space, document, only_missing=False).run(EmbeddingSteps())


class _Embedding:
    """Embeds the passages of one document; a batch is embedded while the previous one is stored."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float],
        space: EmbeddingSpace,
        document: Document,
        *,
        only_missing: bool,
    ) -> None:
        self._database = database
        self._clock = clock
        self._space = space
        self._document = document
        self._only_missing = only_missing
        self._after = 0

    async def run(self, steps: EmbeddingSteps) -> None:
        """Embed and store all passages that need it."""
        batches: deque[_Batch] = deque()
        try:
            while True:
                if passages := await self._next_passages():
                    previous = batches[-1] if batches else None
                    # a task outside any group: its error is raised where its vectors are awaited, unwrapped
                    embedding = asyncio.create_task(self._vectors_of(passages, previous))
                    batches.append(_Batch(passages, embedding))
                if not batches:
                    return
                if len(batches) == 1 and passages:
                    continue
                if not math.isinf(steps.patience_s):
                    await self._wait(batches[0], steps)
                await self._store(batches[0])
                batches.popleft()
                steps.on_batch()
                if batches:
                    await steps.between_batches()
        finally:
            for batch in batches:
                batch.embedding.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.gather(*(batch.embedding for batch in batches), return_exceptions=True)

    @staticmethod
    async def _wait(batch: _Batch, steps: EmbeddingSteps) -> None:
        finished, _ = await asyncio.wait({batch.embedding}, timeout=steps.patience_s)
        if not finished:
            await steps.on_wait()

    async def _next_passages(self) -> list[_PreparedPassage]:
        """The next passages that need a vector; empty at the end of the document."""
        while True:
            stored = await self._database.read(
                lambda connection: rows.passages_to_embed(
                    connection,
                    self._document.id,
                    self._space.model_id,
                    after=self._after,
                    limit=EMBEDDED_AT_ONCE,
                    only_missing=self._only_missing,
                )
            )
            if not stored:
                return []
            self._after = stored[-1].id
            if passages := await anyio.to_thread.run_sync(self._prepare, stored):
                return passages

    def _prepare(self, stored: Sequence[EmbeddablePassage]) -> list[_PreparedPassage]:
        """Texts and hashes of the passages whose vector is missing or of another text; milliseconds a batch."""
        title, filename = self._document.title, self._document.filename
        prepared: list[_PreparedPassage] = []
        for passage in stored:
            text = self._space.prepare(embedding_text(passage.passage, title=title, filename=filename))
            digest = embedding_hash(text)
            if passage.embedded != digest:
                prepared.append(_PreparedPassage(passage.id, text, digest))
        return prepared

    async def _vectors_of(self, passages: Sequence[_PreparedPassage], previous: _Batch | None) -> dict[bytes, bytes]:
        """Packed vectors by embedding hash; texts that are also in the previous batch are embedded there."""
        unique = {passage.embedding_hash: passage for passage in passages}
        known = await self._database.read(
            lambda connection: rows.cached_vectors(
                connection, self._document.tenant, self._space.model_id, list(unique)
            )
        )
        shared = {key for key in unique if previous is not None and key in previous.hashes} - known.keys()
        missing = {key: passage for key, passage in unique.items() if key not in known and key not in shared}
        if missing:
            vectors = await self._space.batcher.embed_passages([passage.text for passage in missing.values()])
            known.update(zip(missing, rows.pack_vectors(vectors), strict=True))
        if previous is not None and shared:
            earlier = await asyncio.shield(previous.embedding)
            known.update({key: earlier[key] for key in shared})
        return known

    async def _store(self, batch: _Batch) -> None:
        vectors = await batch.embedding
        new = [
            PassageVector(passage.id, passage.embedding_hash, vectors[passage.embedding_hash])
            for passage in batch.passages
        ]
        outcome = await self._database.write(
            lambda connection: rows.store_vectors(
                connection, self._document, self._space.model_id, new, now=int(self._clock())
            )
        )
        if outcome is VectorsOutcome.DOCUMENT_DELETED:
            raise DocumentGone
        if outcome is VectorsOutcome.DOCUMENT_RENAMED:
            raise DocumentRenamed
