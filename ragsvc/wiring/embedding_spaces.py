"""Opens embedding spaces (a model with its batcher and indexes) and plans the change to another model."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import anyio.to_thread

from ragsvc.config import Settings
from ragsvc.core.errors import ConfigurationError, EmbeddingFailed, StorageFull
from ragsvc.core.ids import CollectionId
from ragsvc.core.ports.embedding import Embedder
from ragsvc.core.text.chunking import lexical_context
from ragsvc.core.text.condensing import condense
from ragsvc.index.registry import IndexRegistry
from ragsvc.inference.batcher import EmbeddingBatcher
from ragsvc.inference.factory import open_embedder
from ragsvc.services.embedding_spaces import EmbeddingSpace, EmbeddingSpaces
from ragsvc.services.model_change import Reembedding
from ragsvc.store.database import Database
from ragsvc.store.document_rows import list_collections
from ragsvc.store.index_source import SqliteIndexSource
from ragsvc.store.serving_model import serve_model, serving_model
from ragsvc.store.vector_rows import model_row_id

logger = logging.getLogger(__name__)


class ModelSpace(EmbeddingSpace):
    """An embedding space that exposes its embedder, batcher and indexes with their concrete types."""

    def __init__(
        self,
        *,
        embedder: Embedder,
        model_id: int,
        batcher: EmbeddingBatcher,
        indexes: IndexRegistry,
        prepare: Callable[[str], str],
    ) -> None:
        super().__init__(
            model=embedder.model,
            model_id=model_id,
            batcher=batcher,
            indexes=indexes,
            prepare=prepare,
            knows=embedder.knows,
        )
        self.embedder = embedder
        self.batcher: EmbeddingBatcher = batcher
        self.indexes: IndexRegistry = indexes


class SpaceOpener:
    """Opens embedding spaces of one data directory."""

    def __init__(self, settings: Settings, database: Database, *, derived: Path) -> None:
        self._settings = settings
        self._derived = derived
        self._database = database
        self._opened: list[IndexRegistry] = []

    async def open(self, stack: AsyncExitStack, setting: str) -> ModelSpace:
        """Open a model, its batcher and its indexes; ``stack`` closes them.

        Raises:
            ConfigurationError: the model is not on this machine.
            EmbeddingFailed: the model cannot be loaded or run.
        """
        settings = self._settings
        embedder = await anyio.to_thread.run_sync(self._open_embedder, setting)
        stack.callback(embedder.close)
        batcher = await stack.enter_async_context(EmbeddingBatcher(embedder))
        model = embedder.model
        model_id = await self._database.write(
            lambda connection: model_row_id(connection, model, setting=setting, now=int(time.time()))
        )
        source = SqliteIndexSource(
            self._database, model_id=model_id, dimension=model.dimension, lexical_context=lexical_context
        )
        indexes = IndexRegistry(
            self._derived / f"model-{model_id}",
            source,
            model=model,
            memory_limit_bytes=settings.index_memory_bytes,
            max_open=settings.max_open_collections,
        )
        stack.callback(indexes.close)
        self._opened.append(indexes)
        return ModelSpace(
            embedder=embedder,
            model_id=model_id,
            batcher=batcher,
            indexes=indexes,
            prepare=condense if settings.embedded_text == "condensed" else str,
        )

    def drop_indexes(self, collection_id: CollectionId) -> int:
        """Remove the indexes of a deleted collection, also those of models that are not open. Blocking.

        Returns:
            The number of models for which the collection had indexes.
        """
        folders = list(self._derived.glob(f"model-*/{collection_id}"))
        for indexes in self._opened:
            indexes.drop(collection_id)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        return len(folders)

    def _open_embedder(self, setting: str) -> Embedder:
        settings = self._settings
        return open_embedder(
            setting,
            data_dir=settings.data_dir,
            runtime=settings.embedding_runtime,
            threads=settings.embedding_threads,
            offline=settings.offline,
        )


async def open_serving_space(
    stack: AsyncExitStack, opener: SpaceOpener, database: Database, configured: ModelSpace
) -> ModelSpace:
    """The configured space if its vectors are complete, else the space of the model that served before."""
    former = await database.read(serving_model)
    if former is not None and former.id == configured.model_id:
        configured.indexes.prunes_log = True  # no other index follows the log
        return configured
    if await database.write(lambda connection: serve_model(connection, configured.model_id)) or former is None:
        return configured
    try:
        space = await opener.open(stack, former.setting)
    except (ConfigurationError, EmbeddingFailed) as error:
        problem = (
            f"the data directory was made with embedding model '{former.setting}', which cannot be opened "
            f"({error.message}). It must answer searches until all passages have new vectors. Make it available again, "
            "or stop the service and run 'ragsvc reindex --embeddings'"
        )
        raise ConfigurationError([problem]) from error
    if space.model.fingerprint != former.fingerprint:
        raise ConfigurationError(
            [f"embedding model '{former.setting}' changed on disk; run 'ragsvc reindex --embeddings'"]
        )
    return space


def plan_model_change(database: Database, spaces: EmbeddingSpaces, target: ModelSpace) -> Reembedding:
    async def prepare() -> None:
        await anyio.to_thread.run_sync(load_indexes, database, target.indexes)

    async def swap() -> None:
        spaces.serving = target
        for collection in await database.read(list_collections):
            try:
                await anyio.to_thread.run_sync(target.indexes.catch_up, collection.id)
            except StorageFull as error:  # the maintenance of the indexes tries again
                logger.warning("collection %d: %s", collection.id, error.message)

    return Reembedding(database=database, target=target, prepare=prepare, swap=swap)


def load_indexes(database: Database, indexes: IndexRegistry) -> None:
    """Load collections within the limits of memory and number, so that first searches after a start are not slower."""
    for collection in database.read_sync(list_collections):
        if indexes.is_full:
            return
        try:
            indexes.get(collection.id)
        except StorageFull as error:  # searches of this collection answer 507 until there is room
            logger.warning("collection %d: not loaded: %s", collection.id, error.message)
