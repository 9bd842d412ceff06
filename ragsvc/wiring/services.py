"""Opens the services of one data directory in order, and closes them in reverse order."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import anyio.to_thread
import msgspec
from prometheus_client import CollectorRegistry

from ragsvc.config import Settings
from ragsvc.core.ports.embedding import Embedder
from ragsvc.core.readiness import Readiness
from ragsvc.crypto.value_sealing import ValueSealer
from ragsvc.extract.parser import ChildParser
from ragsvc.index.registry import IndexRegistry
from ragsvc.inference.batcher import EmbeddingBatcher
from ragsvc.providers.upstream_requests import open_session
from ragsvc.services.access_control import Access
from ragsvc.services.answers import AnswerService
from ragsvc.services.attached_documents import AttachmentLimits
from ragsvc.services.document_service import DocumentService
from ragsvc.services.embedding_spaces import EmbeddingSpaces
from ragsvc.services.index_lag import IndexLag
from ragsvc.services.ingest_jobs import IngestLimits, IngestService
from ragsvc.services.key_administration import KeyAdministration
from ragsvc.services.model_change import Reembedding
from ragsvc.services.model_registry import ModelRegistry
from ragsvc.services.passthrough import ProxyService
from ragsvc.services.progress_events import ProgressHub
from ragsvc.services.provider_administration import ProviderAdministration
from ragsvc.services.provider_routing import Router
from ragsvc.services.request_encryption import EncryptionService
from ragsvc.services.search import SearchService
from ragsvc.store.blobs import BlobStore
from ragsvc.store.data_keys import DATABASE_FILE_NAME
from ragsvc.store.database import Database
from ragsvc.store.directory_lock import DataDirectoryLock
from ragsvc.store.document_rows import referenced_blobs
from ragsvc.store.sealing_key import open_sealing_keys
from ragsvc.wiring.data_directory import (
    open_database,
    open_request_encryption,
    parsing_folder,
    working_folders,
)
from ragsvc.wiring.embedding_spaces import ModelSpace, SpaceOpener, load_indexes, open_serving_space, plan_model_change
from ragsvc.wiring.models import (
    default_key_limits,
    embedding_and_rerank_models,
    gguf_models,
    open_caller_base_urls,
    open_model_registry,
    open_policies,
    open_reranker,
    provider_opener,
)
from ragsvc.wiring.parsing import chunking_plan, extraction_limits, open_tokenizer


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The running services that routes and commands use."""

    settings: Settings
    database: Database
    blobs: BlobStore
    spaces: EmbeddingSpaces
    reembedding: Reembedding | None
    parser: ChildParser
    ingest: IngestService
    documents: DocumentService
    search: SearchService
    access: Access
    keys: KeyAdministration
    models: ModelRegistry
    answer: AnswerService
    proxy: ProxyService
    providers: ProviderAdministration
    may_spool_to_disk: bool
    encryption: EncryptionService
    readiness: Readiness
    registry: CollectorRegistry

    @property
    def space(self) -> ModelSpace:
        """The embedding space that answers searches."""
        serving = self.spaces.serving
        assert isinstance(serving, ModelSpace)  # noqa: S101 - made here; narrows the type
        return serving

    @property
    def embedder(self) -> Embedder:
        return self.space.embedder

    @property
    def batcher(self) -> EmbeddingBatcher:
        return self.space.batcher

    @property
    def indexes(self) -> IndexRegistry:
        return self.space.indexes


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncGenerator[Services]:
    """Open the data directory and start the background tasks; close everything in reverse order.

    Raises:
        DataDirectoryLocked: another process serves this data directory.
        ConfigurationError: a setting names a file, model or package that does not exist.
        EmbeddingFailed: the embedding model cannot be loaded or run.
    """
    async with AsyncExitStack() as stack:
        data_dir = settings.data_dir
        lock = DataDirectoryLock(data_dir)
        await anyio.to_thread.run_sync(lock.acquire)
        stack.callback(lock.release)
        keys = await anyio.to_thread.run_sync(settings.open_data_keys)
        database = await anyio.to_thread.run_sync(open_database, data_dir / DATABASE_FILE_NAME, keys)
        stack.callback(database.close)
        derived_root, memory_folder = stack.enter_context(working_folders(settings, keys))
        blobs = BlobStore(data_dir, keys, memory_folder=memory_folder)
        blobs.sweep(await database.read(referenced_blobs))

        opener = SpaceOpener(settings, database, derived=derived_root)
        configured = await opener.open(stack, settings.embedding_model)
        serving = await open_serving_space(stack, opener, database, configured)
        spaces = EmbeddingSpaces(serving)
        tokens = await anyio.to_thread.run_sync(open_tokenizer, settings)
        parser = ChildParser(
            extraction_limits(settings),
            chunk=chunking_plan(settings, configured.model),
            workers=settings.parse_workers,
            work_folder=parsing_folder(settings, memory_folder),
        )
        stack.push_async_callback(parser.close)

        hub = ProgressHub()
        index_lag = IndexLag(spaces.catch_up)
        ingest = IngestService(
            database=database,
            blobs=blobs,
            parser=parser,
            spaces=spaces,
            index_lag=index_lag,
            hub=hub,
            options=IngestLimits(
                workers=settings.ingest_workers,
                attachments=AttachmentLimits(max_document_bytes=settings.max_document_bytes),
            ),
        )
        documents = DocumentService(
            database=database,
            blobs=blobs,
            ingest=ingest,
            hub=hub,
            index_lag=index_lag,
            max_document_bytes=settings.max_document_bytes,
            max_queued=settings.max_queued_documents,
        )
        reranker = await anyio.to_thread.run_sync(open_reranker, settings)
        search = SearchService(
            database=database,
            spaces=spaces,
            settled=index_lag.settled,
            reranker=reranker,
            rerank_budget_s=settings.rerank_budget_ms / 1000,
        )
        access = Access(database)
        encryption = await anyio.to_thread.run_sync(open_request_encryption, settings)
        stack.callback(encryption.close)
        session = await stack.enter_async_context(open_session())
        open_provider = provider_opener(tokens)
        local_models = [*embedding_and_rerank_models(configured, tokens, reranker), *gguf_models(stack, settings)]
        models = open_model_registry(tokens, local_models)
        stack.push_async_callback(models.aclose)
        sealing_keys = await anyio.to_thread.run_sync(
            lambda: open_sealing_keys(data_dir, derived=None if keys is None else keys.sealing)
        )
        providers = ProviderAdministration(
            database,
            sealer=ValueSealer(sealing_keys, "providers"),
            models=models,
            configured=settings.providers,
            open_provider=lambda provider: open_provider(provider, session),
        )
        await providers.load()
        router = Router(
            models,
            policies=open_policies(stack, settings, session),
            key_of=providers.key_of,
            providers_by_url=await open_caller_base_urls(stack, settings, session, open_provider),
        )
        answer = AnswerService(
            models=models,
            router=router,
            searcher=search,
            meter=access,
            top_k=settings.rag_top_k,
            count_tokens=lambda text: tokens.count([text])[0],
        )
        await anyio.to_thread.run_sync(load_indexes, database, serving.indexes)
        reembedding = plan_model_change(database, spaces, configured) if serving is not configured else None
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(ingest.run)
        if reembedding is not None:
            tasks.start_soon(reembedding.run)
        stack.callback(tasks.cancel_scope.cancel)
        yield Services(
            settings=settings,
            database=database,
            blobs=blobs,
            spaces=spaces,
            reembedding=reembedding,
            parser=parser,
            ingest=ingest,
            documents=documents,
            search=search,
            access=access,
            keys=KeyAdministration(access, default_limits=default_key_limits(settings)),
            models=models,
            answer=answer,
            proxy=ProxyService(router=router, meter=access),
            providers=providers,
            may_spool_to_disk=keys is None,
            encryption=encryption,
            readiness=Readiness(),
            registry=CollectorRegistry(),
        )
