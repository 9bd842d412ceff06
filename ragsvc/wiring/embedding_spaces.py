"""Opens embedding spaces (a model with its batcher and indexes) and plans the change to another model."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from ragsvc.config import Settings
from ragsvc.core.errors import ConfigurationError, EmbeddingFailed, Overloaded, StorageFull
from ragsvc.core.ids import CollectionId
from ragsvc.core.ports.embedding import Embedder, EmbeddingModel, Vectors
from ragsvc.core.text.chunking import lexical_context
from ragsvc.core.text.condensing import condense
from ragsvc.index.registry import IndexRegistry
from ragsvc.inference.batcher import EmbeddingBatcher
from ragsvc.inference.factory import open_embedder
from ragsvc.inference.model_files import read_model
from ragsvc.inference.prepare_model import PrepareOptions, prepare_model
from ragsvc.services.embedding_spaces import EmbeddingSpace, EmbeddingSpaces
from ragsvc.services.model_change import Reembedding
from ragsvc.store.database import Database
from ragsvc.store.document_rows import list_collections
from ragsvc.store.index_source import SqliteIndexSource
from ragsvc.store.serving_model import count_without_vectors, serve_model, serving_model
from ragsvc.store.vector_rows import model_row_id

logger = logging.getLogger(__name__)

T = TypeVar("T")
_RETRY_AFTER_S: Final = 5.0


class NotLoaded:
    """Port ``Batcher`` of a model that is being loaded: every call is refused, to be repeated later."""

    waiting_texts = 0

    def __init__(self, model: EmbeddingModel) -> None:
        self.model = model

    @property
    def runtime(self) -> str:
        return "loading"

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        del texts
        raise self._refusal()

    async def embed_query(self, text: str) -> Vectors:
        del text
        raise self._refusal()

    async def with_queries(self, texts: Sequence[str], work: Callable[[Sequence[Vectors]], T]) -> T:
        del texts, work
        raise self._refusal()

    def _refusal(self) -> Overloaded:
        return Overloaded(f"The embedding model {self.model.name} is being loaded.", retry_after_s=_RETRY_AFTER_S)


class ModelSpace(EmbeddingSpace):
    """An embedding space with concrete types, whose model may be loaded later than the space is made."""

    def __init__(
        self,
        *,
        model: EmbeddingModel,
        model_id: int,
        indexes: IndexRegistry,
        prepare: Callable[[str], str],
        open_embedder: Callable[[], Embedder],
        export: Callable[[], Awaitable[None]],
    ) -> None:
        """``export`` makes what ``open_embedder`` needs to be fast, without blocking the end of the service."""
        super().__init__(
            model=model,
            model_id=model_id,
            batcher=NotLoaded(model),
            indexes=indexes,
            prepare=prepare,
            knows=lambda _: True,
        )
        self.batcher: EmbeddingBatcher | NotLoaded = NotLoaded(model)
        self.indexes: IndexRegistry = indexes
        self._open_embedder = open_embedder
        self._export = export
        self._embedder: Embedder | None = None

    @property
    def embedder(self) -> Embedder:
        """The loaded model."""
        if self._embedder is None:
            raise EmbeddingFailed(f"The embedding model {self.model.name} is not loaded.")
        return self._embedder

    async def load(self) -> None:
        """Load the model, which may take minutes the first time.

        Raises:
            ConfigurationError: the model is not on this machine.
            EmbeddingFailed: the model cannot be loaded or run.
        """
        if self._embedder is not None:
            return
        embedder = await anyio.to_thread.run_sync(self._open_embedder)
        batcher = EmbeddingBatcher(embedder)
        batcher.start()
        self._embedder, self.batcher, self.knows = embedder, batcher, embedder.knows

    async def load_meanwhile(self) -> None:
        """Load the model while another space serves: its exports are made in a child process. Raises as ``load``."""
        await self._export()
        await self.load()

    async def aclose(self) -> None:
        if isinstance(self.batcher, EmbeddingBatcher):
            await self.batcher.aclose()
        if self._embedder is not None:
            self._embedder.close()


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
        space = await self.prepare(stack, setting)
        await space.load()
        return space

    async def prepare(self, stack: AsyncExitStack, setting: str) -> ModelSpace:
        """Find a model, and open its indexes; ``stack`` closes them and the model, which is loaded by ``load``.

        Raises:
            ConfigurationError: the model is not on this machine.
            EmbeddingFailed: the files cannot be read, or the download failed.
        """
        settings = self._settings
        files = await anyio.to_thread.run_sync(
            lambda: read_model(setting, data_dir=settings.data_dir, offline=settings.offline)
        )
        model = files.model
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
        space = ModelSpace(
            model=model,
            model_id=model_id,
            indexes=indexes,
            prepare=condense if settings.embedded_text == "condensed" else str,
            open_embedder=lambda: self._open_embedder(setting),
            export=lambda: prepare_model(
                PrepareOptions(
                    setting=setting,
                    data_dir=str(settings.data_dir),
                    runtime=settings.embedding_runtime,
                    offline=settings.offline,
                )
            ),
        )
        stack.push_async_callback(space.aclose)
        stack.callback(indexes.close)
        self._opened.append(indexes)
        return space

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
    """The configured space, loaded, if its vectors are complete, else the space of the model that served before.

    In the other case the configured model is not loaded yet, so that searches are answered meanwhile.
    """
    former = await database.read(serving_model)
    if former is not None and former.id == configured.model_id:
        await configured.load()
        configured.indexes.prunes_log = True  # no other index follows the log
        return configured
    missing = await database.read(lambda connection: count_without_vectors(connection, configured.model_id))
    if former is None or not missing:
        await configured.load()  # the model has to work before the rows name it
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

    return Reembedding(database=database, target=target, load=target.load_meanwhile, prepare=prepare, swap=swap)


def load_indexes(database: Database, indexes: IndexRegistry) -> None:
    """Load collections within the limits of memory and number, so that first searches after a start are not slower."""
    for collection in database.read_sync(list_collections):
        if indexes.is_full:
            return
        try:
            indexes.get(collection.id)
        except StorageFull as error:  # searches of this collection answer 507 until there is room
            logger.warning("collection %d: not loaded: %s", collection.id, error.message)
