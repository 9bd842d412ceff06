"""Another embedding model without downtime: re-embed in the background while the old space answers, then swap.

Progress is the rows themselves, so an interrupted run goes on where it was. Vectors of the old model stay: setting the
old model again swaps back at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import anyio

from ragsvc.core.errors import EmbeddingFailed, Overloaded, StorageFull
from ragsvc.services.embedding_spaces import EmbeddingSpace
from ragsvc.services.passage_vectors import DocumentGone, PassageVectors
from ragsvc.store import serving_model as rows
from ragsvc.store.database import Database

logger = logging.getLogger(__name__)

_AT_ONCE = 32
_RETRY_S = 5.0


class Reembedding:
    """Moves a data directory from the serving space to ``target``."""

    def __init__(
        self,
        *,
        database: Database,
        target: EmbeddingSpace,
        prepare: Callable[[], Awaitable[None]],
        swap: Callable[[], Awaitable[None]],
    ) -> None:
        """``prepare`` loads the target's indexes; ``swap`` makes the target serve, after the rows say so."""
        self._database = database
        self._target = target
        self._prepare = prepare
        self._swap = swap
        self._vectors = PassageVectors(database)
        self.total = 0
        self.done = 0
        self.running = False

    async def run(self) -> None:
        """Work until the target serves."""
        self.running = True
        begin = time.monotonic()
        self.total = await self._database.read(lambda c: rows.count_without_vectors(c, self._target.model_id))
        logger.warning("embedding model changed to %s: re-embedding %d documents", self._target.model.name, self.total)
        while not await self._finished():
            await self._work_through()
        self.running = False
        logger.warning(
            "embedding model %s serves after %.0f s; vectors of the former one are kept",
            self._target.model.name,
            time.monotonic() - begin,
        )

    async def _work_through(self) -> None:
        while documents := await self._database.read(
            lambda c: rows.documents_without_vectors(c, self._target.model_id, limit=_AT_ONCE)
        ):
            for document in documents:
                try:
                    await self._vectors.fill(self._target, document)
                except DocumentGone:
                    continue
                except (EmbeddingFailed, Overloaded, StorageFull) as error:
                    logger.warning("re-embedding pauses: %s", error.message)
                    await anyio.sleep(_RETRY_S)
                self.done += 1
        await self._prepare()

    async def _finished(self) -> bool:
        """Swap in the rows if nothing is left to embed at that very moment, then in memory."""
        if not await self._database.write(lambda c: rows.serve_model(c, self._target.model_id)):
            return False
        await self._swap()
        return True
