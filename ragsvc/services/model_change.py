"""Changes the embedding model without downtime: re-embeds in the background, then switches to the new space.

The old space answers while the new model is loaded, and until every ready document has vectors of it. Progress is
stored as rows, so an interrupted run continues where it stopped. Vectors of the old model are kept: configuring the old
model again switches back immediately.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import anyio

from ragsvc.core.documents import Document
from ragsvc.core.errors import ConfigurationError, EmbeddingFailed, Overloaded, StorageFull
from ragsvc.core.ids import DocumentId
from ragsvc.services.embedding_spaces import EmbeddingSpace
from ragsvc.services.passage_vectors import DocumentGone, DocumentRenamed, PassageVectors
from ragsvc.store import serving_model as rows
from ragsvc.store.database import Database

logger = logging.getLogger(__name__)

_DOCUMENTS_PER_READ = 32
_RETRY_S = 5.0
_LONGEST_RETRY_S = 600.0


class Reembedding:
    """Moves a data directory from the serving space to ``target``.

    ``done`` of ``total`` documents have all their vectors in the target space.
    """

    def __init__(
        self,
        *,
        database: Database,
        target: EmbeddingSpace,
        load: Callable[[], Awaitable[None]] | None = None,
        prepare: Callable[[], Awaitable[None]],
        swap: Callable[[], Awaitable[None]],
        retry_s: float = _RETRY_S,
    ) -> None:
        """``load`` loads the target's model, ``prepare`` its indexes; ``swap`` makes it serve, after the rows name it.

        After a failure the run waits ``retry_s`` seconds and goes on; the document that failed is tried again later.
        """
        self._database = database
        self._target = target
        self._load = load
        self._prepare = prepare
        self._swap = swap
        self._retry_s = retry_s
        self._vectors = PassageVectors(database)
        self.total = 0
        self.done = 0
        self.running = False

    @property
    def model_name(self) -> str:
        """The model that is to serve."""
        return self._target.model.name

    async def run(self) -> None:
        """Work until the target serves."""
        self.running = True
        begin = time.monotonic()
        self.total = await self._database.read(lambda c: rows.count_without_vectors(c, self._target.model_id))
        logger.warning("embedding model changed to %s: re-embedding %d documents", self._target.model.name, self.total)
        await self._load_model()
        while not await self._finished():
            await self._embed_missing()
        self.running = False
        logger.warning(
            "embedding model %s serves after %.0f s; the vectors of the previous model are kept",
            self._target.model.name,
            time.monotonic() - begin,
        )

    async def _load_model(self) -> None:
        """Load the target's model; after a failure the former model serves on, and loading is tried again."""
        wait_s = self._retry_s
        while self._load is not None:
            try:
                await self._load()
            except (ConfigurationError, EmbeddingFailed, StorageFull) as error:
                logger.warning("embedding model %s: %s", self._target.model.name, error.message)
                await anyio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_RETRY_S)
            else:
                return

    async def _embed_missing(self) -> None:
        while await self._embed_each_once():
            pass
        await self._prepare()

    async def _embed_each_once(self) -> int:
        """Try each document that lacks vectors once, so that failing documents do not hold up the others."""
        count, last_id = 0, DocumentId(0)
        while documents := await self._documents_after(last_id):
            for document in documents:
                await self._embed(document)
            count, last_id = count + len(documents), documents[-1].id
        return count

    async def _documents_after(self, document_id: DocumentId) -> list[Document]:
        return await self._database.read(
            lambda c: rows.documents_without_vectors(
                c, self._target.model_id, after=document_id, limit=_DOCUMENTS_PER_READ
            )
        )

    async def _embed(self, document: Document) -> None:
        try:
            await self._vectors.fill(self._target, document)
        except DocumentGone:
            self.total -= 1
        except DocumentRenamed:
            return  # it still lacks vectors, so it is read again under its new name
        except (EmbeddingFailed, Overloaded, StorageFull) as error:
            logger.warning("re-embedding of %s failed, it is tried again: %s", document.public_id, error.message)
            await anyio.sleep(self._retry_s)
        else:
            self.done += 1
            self.total = max(self.total, self.done)  # documents that became ready meanwhile are embedded as well

    async def _finished(self) -> bool:
        """Switch the rows to the target unless a document still lacks vectors, then switch in memory."""
        try:
            if not await self._database.write(lambda c: rows.serve_model(c, self._target.model_id)):
                return False
        except (Overloaded, StorageFull) as error:
            logger.warning("the change of the embedding model is tried again: %s", error.message)
            await anyio.sleep(self._retry_s)
            return False
        await self._swap()
        return True
