"""Opens the services of one data directory in order, and closes them in reverse order."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
from anyio.abc import TaskGroup
from prometheus_client import CollectorRegistry

from ragsvc.config import Settings
from ragsvc.core.gateway.provider_settings import ProviderSettings
from ragsvc.core.observation import Observer
from ragsvc.core.ports.embedding import Embedder, EmbeddingModel
from ragsvc.core.ports.file_storage import FileStorage
from ragsvc.core.ports.model_provider import ModelProvider
from ragsvc.core.readiness import Readiness
from ragsvc.crypto.value_sealing import ValueSealer
from ragsvc.extract.parser import ChildParser
from ragsvc.index.memory_words import MemoryWordScorer
from ragsvc.index.registry import IndexRegistry
from ragsvc.inference.batcher import EmbeddingBatcher
from ragsvc.services.access_control import Access
from ragsvc.services.answers import AnswerService
from ragsvc.services.attached_documents import AttachmentLimits
from ragsvc.services.conversations import ConversationService
from ragsvc.services.database_watch import DatabaseWatch
from ragsvc.services.document_feed import DocumentFeed
from ragsvc.services.document_service import DocumentService
from ragsvc.services.early_pages import EarlyPages
from ragsvc.services.embedding_spaces import EmbeddingSpaces
from ragsvc.services.expiry_sweep import ExpirySweep
from ragsvc.services.feedback import FeedbackService
from ragsvc.services.file_service import FileService
from ragsvc.services.file_storage_watch import FileStorageWatch
from ragsvc.services.index_lag import IndexLag
from ragsvc.services.ingest_jobs import IngestLimits, IngestService
from ragsvc.services.key_administration import KeyAdministration
from ragsvc.services.model_change import Reembedding
from ragsvc.services.model_registry import ModelRegistry
from ragsvc.services.page_views import PageViews
from ragsvc.services.passthrough import ProxyService
from ragsvc.services.progress_events import ProgressHub
from ragsvc.services.provider_administration import ProviderAdministration
from ragsvc.services.provider_routing import Router
from ragsvc.services.request_encryption import EncryptionService
from ragsvc.services.request_files import RequestFileLimits, RequestFiles
from ragsvc.services.response_plans import ResponsePlanner
from ragsvc.services.responses import INPUTS_BYTES, ResponseService
from ragsvc.services.search import SearchService
from ragsvc.services.storage_watch import StorageWatch
from ragsvc.services.store_activity import StoreActivity
from ragsvc.services.store_files import StoreFileService
from ragsvc.services.store_names import StoreNames
from ragsvc.services.tenant_administration import TenantAdministration
from ragsvc.services.tenant_export import TenantExport
from ragsvc.services.tenant_quotas import TenantQuotas
from ragsvc.services.upload_service import UploadService
from ragsvc.services.vector_stores import VectorStoreService
from ragsvc.services.web_sessions import WebSessions
from ragsvc.store.blobs import BlobStore
from ragsvc.store.data_keys import DataKeys
from ragsvc.store.database import Database
from ragsvc.store.directory_lock import DataDirectoryLock
from ragsvc.store.disk_space import DiskSpace, open_disk_space
from ragsvc.store.file_sweep import sweep_now
from ragsvc.store.page_renditions import PageRenditions
from ragsvc.store.sealing_key import open_sealing_keys
from ragsvc.store.tenant_rows import TenantLimits
from ragsvc.wiring.background_tasks import run_background_task, shutdown_finished
from ragsvc.wiring.data_directory import (
    open_request_encryption,
    parsing_folder,
    working_folders,
)
from ragsvc.wiring.embedding_spaces import (
    ModelSpace,
    NotLoaded,
    SpaceOpener,
    load_indexes,
    open_serving_space,
    plan_model_change,
)
from ragsvc.wiring.file_storage import open_file_storage
from ragsvc.wiring.models import (
    built_in_models,
    default_key_limits,
    default_models,
    open_caller_base_urls,
    open_model_registry,
    open_policies,
    open_reranker,
    open_upstream_session,
    provider_opener,
)
from ragsvc.wiring.open_database import open_database
from ragsvc.wiring.parsing import (
    chat_file_limits,
    chunking_plan,
    extraction_limits,
    open_tokenizer,
    page_limits,
    text_counter,
)
from ragsvc.wiring.tracing import open_tracer

_WAITING_CHAT_FILES = 8
"""Files of chat requests that may wait for a parser process; further requests get 503."""
_WAITING_PAGES = 64
"""Requests for pages that may wait for a process; further requests get 503."""
_PAGE_IDLE_S = 300.0
"""Seconds after which an idle process ends that shows pages: a start takes longer than drawing a page."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The running services that routes and commands use."""

    settings: Settings
    database: Database
    blobs: BlobStore
    spaces: EmbeddingSpaces
    reembedding: Reembedding | None
    parser: ChildParser
    request_files: RequestFiles
    conversations: ConversationService
    feedback: FeedbackService
    ingest: IngestService
    documents: DocumentService
    document_feed: DocumentFeed
    page_views: PageViews
    files: FileService
    uploads: UploadService
    search: SearchService
    access: Access
    web_sessions: WebSessions
    tenants: TenantAdministration
    export: TenantExport
    vector_stores: VectorStoreService
    store_files: StoreFileService
    keys: KeyAdministration
    models: ModelRegistry
    answer: AnswerService
    responses: ResponseService
    proxy: ProxyService
    providers: ProviderAdministration
    may_spool_to_disk: bool
    encryption: EncryptionService
    readiness: Readiness
    registry: CollectorRegistry
    observer: Observer

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
    def batcher(self) -> EmbeddingBatcher | NotLoaded:
        return self.space.batcher

    @property
    def indexes(self) -> IndexRegistry:
        return self.space.indexes


async def _open_store(stack: AsyncExitStack, settings: Settings) -> tuple[DataKeys | None, DiskSpace, Database]:
    """Lock the data directory and open the database; ``stack`` closes both."""
    lock = DataDirectoryLock(settings.data_dir)
    await anyio.to_thread.run_sync(lock.acquire)
    stack.callback(lock.release)
    keys = await anyio.to_thread.run_sync(settings.open_data_keys)
    space = await anyio.to_thread.run_sync(open_disk_space, settings.data_dir)
    database = await anyio.to_thread.run_sync(lambda: open_database(settings, keys, make_room=space.report_fault))
    stack.callback(database.close)
    await anyio.to_thread.run_sync(database.claim_service)
    return keys, space, database


async def _open_blobs(
    settings: Settings,
    keys: DataKeys | None,
    database: Database,
    memory_folder: Path | None,
    report: Callable[[str], None],
) -> BlobStore:
    """Open the store of the uploaded files, and make it agree with the database."""
    if settings.files_url is not None:
        report(f"opening {settings.files_url}")
    files = await anyio.to_thread.run_sync(open_file_storage, settings)
    blobs = BlobStore(settings.data_dir, keys, memory_folder=memory_folder, files=files)
    await anyio.to_thread.run_sync(sweep_now, blobs, database, settings.quarantine_days)
    return blobs


def _watch_of_files(files: FileStorage, ingest: IngestService) -> dict[str, Callable[[], Awaitable[None]]]:
    """The background task for files that are stored elsewhere: what waits for them goes on when they are back."""
    if not files.is_elsewhere:
        return {}
    watch = FileStorageWatch(files, [ingest.resume, ingest.file_removals.finish_all])
    return {"store of the files": watch.run}


def _watch_of_database(
    settings: Settings, database: Database, readiness: Readiness
) -> dict[str, Callable[[], Awaitable[None]]]:
    """The background task for a database server, which may be away; a file is not."""
    if settings.database_url is None:
        return {}
    return {"database": DatabaseWatch(database, readiness).run}


def _open_parsers(
    stack: AsyncExitStack, settings: Settings, model: EmbeddingModel, folder: Path
) -> tuple[ChildParser, ChildParser, ChildParser]:
    """The parsers of documents, of files in chats, and of pages that are shown.

    Each has its own processes, so that chats and readers do not wait for documents.

    The processes link the files that they read into ``folder``.
    """
    plan = chunking_plan(settings, model)
    documents = ChildParser(
        extraction_limits(settings),
        chunk=plan,
        workers=settings.parse_workers,
        recognisers=settings.parse_workers,
        work_folder=folder,
    )
    chats = ChildParser(
        chat_file_limits(settings),
        chunk=plan,
        workers=settings.chat_file_workers,
        queue_limit=_WAITING_CHAT_FILES,
        work_folder=folder,
    )
    pages = ChildParser(
        page_limits(settings),
        chunk=None,
        workers=settings.page_workers,
        queue_limit=_WAITING_PAGES,
        work_folder=folder,
        niceness=0,
        idle_s=_PAGE_IDLE_S,
    )
    for parser in (documents, chats, pages):
        stack.push_async_callback(parser.close)
    return documents, chats, pages


def _open_request_files(
    settings: Settings, database: Database, blobs: BlobStore, spaces: EmbeddingSpaces, parser: ChildParser
) -> RequestFiles:
    return RequestFiles(
        database=database,
        parser=parser,
        blobs=blobs,
        spaces=spaces,
        words=MemoryWordScorer(),
        limits=RequestFileLimits(
            total_bytes=settings.chat_files_bytes,
            cache_bytes=settings.chat_file_cache_bytes,
            cache_s=settings.chat_file_cache_s,
        ),
    )


async def _open_providers(
    settings: Settings,
    access: Access,
    models: ModelRegistry,
    keys: DataKeys | None,
    open_provider: Callable[[ProviderSettings], ModelProvider],
) -> ProviderAdministration:
    sealing_keys = await anyio.to_thread.run_sync(
        lambda: open_sealing_keys(settings.data_dir, derived=None if keys is None else keys.sealing)
    )
    providers = ProviderAdministration(
        access.database,
        sealer=ValueSealer(sealing_keys, "providers"),
        models=models,
        configured=settings.providers,
        open_provider=open_provider,
        require_key=access.require_key,
    )
    await providers.load()
    return providers


def _tenant_quotas(settings: Settings) -> TenantQuotas:
    return TenantQuotas(
        TenantLimits(
            max_collections=settings.max_collections_per_tenant,
            max_documents=settings.max_documents_per_tenant,
            max_bytes=settings.max_bytes_per_tenant,
        )
    )


async def _open_encryption(stack: AsyncExitStack, settings: Settings) -> EncryptionService:
    encryption = await anyio.to_thread.run_sync(open_request_encryption, settings)
    stack.callback(encryption.close)
    return encryption


def _open_files(
    settings: Settings,
    database: Database,
    blobs: BlobStore,
    *,
    ingest: IngestService,
    hub: ProgressHub,
    index_lag: IndexLag,
    quotas: TenantQuotas,
    space: DiskSpace,
) -> tuple[FileService, UploadService]:
    files = FileService(
        database=database,
        blobs=blobs,
        ingest=ingest,
        hub=hub,
        index_lag=index_lag,
        max_file_bytes=settings.max_file_bytes,
        quotas=quotas,
        space=space,
    )
    uploads = UploadService(database=database, blobs=blobs, files=files, removals=ingest.file_removals, quotas=quotas)
    return files, uploads


def _open_access(settings: Settings, database: Database) -> tuple[Access, WebSessions]:
    access = Access(database, monotonic=time.monotonic, failed_logins_per_minute=settings.failed_logins_per_minute)
    sessions = WebSessions(access, lifetime_s=settings.session_lifetime_s)
    access.sessions = sessions if settings.pages else None
    return access, sessions


async def _start_tasks(
    tasks: TaskGroup, watch: StorageWatch, work: Mapping[str, Callable[[], Awaitable[None]]]
) -> None:
    """Start the background tasks, the watch of the disk first: it knows from its start whether there is room."""
    await tasks.start(watch.run)
    for name, task in work.items():
        tasks.start_soon(run_background_task, name, task)


async def _open_responses(
    tasks: TaskGroup,
    settings: Settings,
    database: Database,
    answers: AnswerService,
    *,
    conversations: ConversationService,
    access: Access,
    tenants: TenantAdministration,
    store_names: StoreNames,
) -> ResponseService:
    planner = ResponsePlanner(
        database=database,
        answers=answers,
        conversations=conversations,
        store_names=store_names,
        max_file_bytes=settings.chat_files_bytes,
        default_model=settings.default_responses_model,
        truncation=settings.response_truncation,
    )
    responses = ResponseService(
        database=database,
        answers=answers,
        planner=planner,
        conversations=conversations,
        require_key=access.require_key,
        retention_days=settings.response_retention_days,
        max_per_tenant=settings.max_responses_per_tenant,
        inputs_bytes=max(INPUTS_BYTES, 4 * settings.chat_files_bytes),
    )
    tenants.stop_responses = responses.stop_all_of
    await responses.recover()
    tasks.start_soon(run_background_task, "responses", responses.run)
    return responses


@asynccontextmanager
async def open_services(
    settings: Settings, *, report: Callable[[str], None] = lambda _: None
) -> AsyncGenerator[Services]:
    """Open the data directory and start the background tasks; close everything in reverse order.

    ``report`` is called with each step of the start that can take seconds.

    Raises:
        DataDirectoryLocked: another process serves this data directory.
        ConfigurationError: a setting names a file, model or package that does not exist.
        EmbeddingFailed: the embedding model cannot be loaded or run.
    """
    async with AsyncExitStack() as stack:
        stack.callback(shutdown_finished)
        report("opening the data directory")
        keys, space, database = await _open_store(stack, settings)
        derived_root, memory_folder = stack.enter_context(working_folders(settings, keys))
        blobs = await _open_blobs(settings, keys, database, memory_folder, report)

        report(f"loading the embedding model {settings.embedding_model}")
        opener = SpaceOpener(settings, database, derived=derived_root)
        configured = await opener.prepare(stack, settings.embedding_model)
        serving = await open_serving_space(stack, opener, database, configured)
        spaces = EmbeddingSpaces(serving)
        tokens = await anyio.to_thread.run_sync(open_tokenizer, settings)
        parser, chat_parser, page_reader = _open_parsers(
            stack, settings, configured.model, parsing_folder(settings, memory_folder)
        )
        request_files = _open_request_files(settings, database, blobs, spaces, chat_parser)
        observer = Observer(open_tracer(stack, settings.otel_endpoint))
        hub = ProgressHub()
        index_lag = IndexLag(spaces.catch_up)
        quotas = _tenant_quotas(settings)
        ingest = IngestService(
            database=database,
            blobs=blobs,
            parser=parser,
            spaces=spaces,
            index_lag=index_lag,
            hub=hub,
            options=IngestLimits(
                workers=settings.ingest_workers,
                recognisers=settings.parse_workers,
                attachments=AttachmentLimits(max_document_bytes=settings.max_document_bytes),
                quotas=quotas,
            ),
            space=space,
            observer=observer,
            early=EarlyPages(MemoryWordScorer()),
        )
        documents = DocumentService(
            database=database,
            blobs=blobs,
            ingest=ingest,
            hub=hub,
            index_lag=index_lag,
            max_document_bytes=settings.max_document_bytes,
            max_queued=settings.max_queued_documents,
            quotas=quotas,
            space=space,
        )
        reranker = await anyio.to_thread.run_sync(open_reranker, settings)
        activity = StoreActivity()
        search = SearchService(
            database=database,
            spaces=spaces,
            settled=index_lag.settled,
            reranker=reranker,
            rerank_budget_s=settings.rerank_budget_ms / 1000,
            observer=observer,
            searched=activity.note,
            early=ingest.early,
        )
        access, web_sessions = _open_access(settings, database)
        encryption = await _open_encryption(stack, settings)
        session = open_upstream_session(stack)
        open_provider = provider_opener(tokens, observer)
        local_models = built_in_models(stack, settings, configured, tokens, reranker)
        models = open_model_registry(tokens, local_models, lists_documents=settings.list_document_models)
        stack.push_async_callback(models.aclose)
        providers = await _open_providers(
            settings, access, models, keys, lambda provider: open_provider(provider, session.get())
        )
        tenants = TenantAdministration(
            database=database,
            documents=documents,
            ingest=ingest,
            access=access,
            quotas=quotas,
            drop_indexes=opener.drop_indexes,
            forget_collections=search.forget_collections,
            forget_provider_keys=providers.forget_keys,
            forget_files=request_files.forget,
        )
        conversations = ConversationService(
            database,
            retention_days=settings.conversation_retention_days,
            max_per_tenant=settings.max_conversations_per_tenant,
        )
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
            files=request_files,
            file_tokens=settings.chat_file_tokens,
            meter=access,
            top_k=settings.rag_top_k,
            max_prompt_characters=settings.max_prompt_characters,
            count_tokens=text_counter(tokens),
            observer=observer,
        )
        report("loading the indexes")
        await anyio.to_thread.run_sync(load_indexes, database, serving.indexes)
        reembedding = plan_model_change(database, spaces, configured) if serving is not configured else None
        tasks = await stack.enter_async_context(anyio.create_task_group())
        vector_stores = VectorStoreService(
            database=database,
            searcher=search,
            tenants=tenants,
            quotas=quotas,
            activity=activity,
            require_key=access.require_key,
            forget_collections=search.forget_collections,
        )
        files, uploads = _open_files(
            settings, database, blobs, ingest=ingest, hub=hub, index_lag=index_lag, quotas=quotas, space=space
        )
        readiness = Readiness()
        work = {
            "ingest": ingest.run,
            "unfinished deletions": tenants.finish_deletions,
            "expired files": ExpirySweep([files, uploads, web_sessions]).run,
            "expiry of vector stores": vector_stores.run,
            "old conversations": conversations.remove_inactive,
            **_watch_of_files(blobs.files, ingest),
            **_watch_of_database(settings, database, readiness),
        }
        if reembedding is not None:
            work["change of the embedding model"] = reembedding.run
        await _start_tasks(
            tasks,
            StorageWatch(space, readiness, [ingest.resume, index_lag.retry, ingest.file_removals.finish_all]),
            work,
        )
        stack.callback(tasks.cancel_scope.cancel)
        yield Services(
            settings=settings,
            database=database,
            blobs=blobs,
            spaces=spaces,
            reembedding=reembedding,
            parser=parser,
            request_files=request_files,
            conversations=conversations,
            feedback=FeedbackService(
                database, require_key=access.require_key, max_per_tenant=settings.max_feedback_per_tenant
            ),
            ingest=ingest,
            documents=documents,
            document_feed=DocumentFeed(database=database, hub=hub, may_continue=access.may_continue),
            page_views=PageViews(
                blobs=blobs,
                reader=page_reader,
                renditions=PageRenditions(blobs, keys, max_bytes=settings.page_cache_bytes),
                locks=ingest.file_locks,
            ),
            files=files,
            uploads=uploads,
            search=search,
            access=access,
            web_sessions=web_sessions,
            tenants=tenants,
            export=TenantExport(database, blobs),
            vector_stores=vector_stores,
            store_files=StoreFileService(
                database=database,
                stores=vector_stores,
                documents=documents,
                ingest=ingest,
                quotas=quotas,
                activity=activity,
                max_queued=settings.max_queued_documents,
                require_key=access.require_key,
                chunking=chunking_plan(settings, configured.model).options,
            ),
            keys=KeyAdministration(access, default_limits=default_key_limits(settings)),
            models=models,
            answer=answer,
            responses=await _open_responses(
                tasks,
                settings,
                database,
                answer,
                conversations=conversations,
                access=access,
                tenants=tenants,
                store_names=search.store_names,
            ),
            proxy=ProxyService(
                router=router,
                meter=access,
                count_tokens=text_counter(tokens),
                max_prompt_characters=answer.max_prompt_characters,
                requested=models.requested,
                default_models=default_models(settings),
            ),
            providers=providers,
            may_spool_to_disk=keys is None,
            encryption=encryption,
            readiness=readiness,
            registry=CollectorRegistry(),
            observer=observer,
        )
