"""The composition root: settings in, running services out. The only place that knows every adapter."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path

import aiohttp
import anyio
import anyio.to_thread
import msgspec
from prometheus_client import CollectorRegistry

from ragsvc.config import Settings
from ragsvc.core.access.api_keys import KeyLimits
from ragsvc.core.answers.extractive import answer as extract_answer
from ragsvc.core.errors import ConfigurationError, EmbeddingFailed
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.provider_settings import ProviderSettings
from ragsvc.core.ports.embedding import Embedder, EmbeddingModel, Reranker
from ragsvc.core.ports.parsing import ChunkingOptions, ExtractionLimits
from ragsvc.core.readiness import Readiness
from ragsvc.core.text.chunking import lexical_context
from ragsvc.core.text.condensing import condense
from ragsvc.crypto.at_rest import MasterKey
from ragsvc.crypto.value_sealing import ValueSealer
from ragsvc.extract.child_protocol import ChunkingPlan
from ragsvc.extract.parser import ChildParser
from ragsvc.index.registry import IndexRegistry
from ragsvc.inference.batcher import EmbeddingBatcher
from ragsvc.inference.factory import open_embedder, open_token_spans
from ragsvc.inference.model_files import read_model
from ragsvc.inference.tokens import TokenizerSpans
from ragsvc.providers.caller_base_urls import AllowedBaseUrls, PublicResolver
from ragsvc.providers.gguf_runs import GgufRuns
from ragsvc.providers.local_extractive import LocalExtractive
from ragsvc.providers.local_gguf import LocalGguf
from ragsvc.providers.local_models import HYBRID_SCORE, LocalEmbeddings, LocalReranker, hybrid_scores, in_thread
from ragsvc.providers.openai_upstream import OpenAIUpstream
from ragsvc.providers.policy_engines import RegoFile, opa_server
from ragsvc.providers.upstream_requests import open_session
from ragsvc.services.access_control import Access
from ragsvc.services.answers import AnswerService
from ragsvc.services.document_service import DocumentService
from ragsvc.services.embedding_spaces import EmbeddingSpace, EmbeddingSpaces
from ragsvc.services.index_lag import IndexLag
from ragsvc.services.ingest_jobs import IngestLimits, IngestService
from ragsvc.services.key_administration import KeyAdministration
from ragsvc.services.model_change import Reembedding
from ragsvc.services.model_registry import LocalModel, ModelRegistry
from ragsvc.services.passthrough import ProxyService
from ragsvc.services.policies import CachedPolicy, Decide
from ragsvc.services.progress_events import ProgressHub
from ragsvc.services.provider_administration import ProviderAdministration
from ragsvc.services.provider_routing import Router
from ragsvc.services.request_encryption import EncryptionService, open_encryption
from ragsvc.services.search import SearchService
from ragsvc.store.blobs import BlobStore
from ragsvc.store.data_keys import DATABASE_FILE_NAME, DataKeys
from ragsvc.store.database import Database
from ragsvc.store.directory_lock import DataDirectoryLock
from ragsvc.store.document_rows import list_collections, referenced_blobs
from ragsvc.store.index_source import SqliteIndexSource
from ragsvc.store.ingest_rows import model_row_id
from ragsvc.store.sealing_key import FILE_NAME as MASTER_KEY_FILE_NAME
from ragsvc.store.sealing_key import open_master_key
from ragsvc.store.serving_model import serve_model, serving_model

logger = logging.getLogger(__name__)

DATABASE_NAME = DATABASE_FILE_NAME
_SPLIT_PAGES = "ragsvc.core.text.chunking:split_pages"
_LOAD_TOKENS = "ragsvc.inference.tokens:TokenizerSpans"


class ModelSpace(EmbeddingSpace):
    """An embedding space with the adapters behind it."""

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


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that routes and commands use, running."""

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
        """The embedding space that serves."""
        serving = self.spaces.serving
        assert isinstance(serving, ModelSpace)  # noqa: S101 - made here; narrows the type
        return serving

    @property
    def embedder(self) -> Embedder:
        """The serving embedding model."""
        return self.space.embedder

    @property
    def batcher(self) -> EmbeddingBatcher:
        """What embeds for many callers."""
        return self.space.batcher

    @property
    def indexes(self) -> IndexRegistry:
        """The serving indexes."""
        return self.space.indexes


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncGenerator[Services]:
    """Open the data directory and start what works in the background; close it all in order.

    Raises:
        DataDirectoryLocked: another process serves it.
        ConfigurationError: the settings name something that is not there.
        EmbeddingFailed: the embedding model does not work.
    """
    async with AsyncExitStack() as stack:
        data_dir = settings.data_dir
        lock = DataDirectoryLock(data_dir)
        await anyio.to_thread.run_sync(lock.acquire)
        stack.callback(lock.release)
        keys = await anyio.to_thread.run_sync(settings.open_data_keys)
        database = await anyio.to_thread.run_sync(_open_database, data_dir / DATABASE_NAME, keys)
        stack.callback(database.close)
        derived_root, memory_folder = stack.enter_context(_working_folders(settings, keys))
        blobs = BlobStore(data_dir, keys, memory_folder=memory_folder)
        blobs.sweep(await database.read(referenced_blobs))

        opener = _SpaceOpener(settings, database, derived=derived_root)
        configured = await opener.open(stack, settings.embedding_model)
        serving = await _serving_space(stack, opener, database, configured)
        spaces = EmbeddingSpaces(serving)
        tokens = await anyio.to_thread.run_sync(_open_tokens, settings)
        parser = ChildParser(
            _limits(settings), chunk=_chunking_plan(settings, configured.model), workers=settings.parse_workers
        )
        stack.push_async_callback(parser.close)

        hub = ProgressHub()
        freshness = IndexLag(spaces.catch_up)
        ingest = IngestService(
            database=database,
            blobs=blobs,
            parser=parser,
            spaces=spaces,
            freshness=freshness,
            hub=hub,
            options=IngestLimits(workers=settings.ingest_workers),
        )
        documents = DocumentService(
            database=database,
            blobs=blobs,
            ingest=ingest,
            hub=hub,
            freshness=freshness,
            max_document_bytes=settings.max_document_bytes,
            max_queued=settings.max_queued_documents,
        )
        reranker = await anyio.to_thread.run_sync(_open_reranker, settings)
        search = SearchService(
            database=database,
            spaces=spaces,
            settled=freshness.settled,
            reranker=reranker,
        )
        access = Access(database)
        encryption = await anyio.to_thread.run_sync(_open_encryption, settings)
        stack.callback(encryption.close)
        session = await stack.enter_async_context(open_session())
        open_provider = _provider_opener(tokens)
        local_models = [*_local_models(configured, tokens, reranker), *_gguf_models(stack, settings)]
        models = _models(tokens, local_models)
        stack.push_async_callback(models.aclose)
        master = await anyio.to_thread.run_sync(_sealing_key, data_dir, keys)
        providers = ProviderAdministration(
            database,
            sealer=ValueSealer(master, "providers"),
            models=models,
            configured=settings.providers,
            open_provider=lambda one: open_provider(one, session),
        )
        await providers.load()
        router = Router(
            models,
            policies=_policies(stack, settings, session),
            key_of=providers.key_of,
            direct=await _direct(stack, settings, session, open_provider),
        )
        answer = AnswerService(
            models=models,
            router=router,
            searcher=search,
            meter=access,
            top_k=settings.rag_top_k,
            count_tokens=lambda text: tokens.count([text])[0],
        )
        await anyio.to_thread.run_sync(_load_indexes, database, serving.indexes)
        reembedding = _reembedding(database, spaces, configured) if serving is not configured else None
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
            keys=KeyAdministration(access, default_limits=_default_limits(settings)),
            models=models,
            answer=answer,
            proxy=ProxyService(router=router, meter=access),
            providers=providers,
            may_spool_to_disk=keys is None,
            encryption=encryption,
            readiness=Readiness(),
            registry=CollectorRegistry(),
        )


class _SpaceOpener:
    """Opens embedding spaces of one data directory."""

    def __init__(self, settings: Settings, database: Database, *, derived: Path) -> None:
        self._settings = settings
        self._derived = derived
        self._database = database

    async def open(self, stack: AsyncExitStack, setting: str) -> ModelSpace:
        """Open a model, its batcher and its indexes; ``stack`` closes them.

        Raises:
            ConfigurationError, EmbeddingFailed: the model is not there or does not work.
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
        )
        stack.callback(indexes.close)
        return ModelSpace(
            embedder=embedder,
            model_id=model_id,
            batcher=batcher,
            indexes=indexes,
            prepare=condense if settings.embedded_text == "condensed" else str,
        )

    def _open_embedder(self, setting: str) -> Embedder:
        settings = self._settings
        return open_embedder(
            setting,
            data_dir=settings.data_dir,
            runtime=settings.embedding_runtime,
            threads=settings.embedding_threads,
        )


async def _serving_space(
    stack: AsyncExitStack, opener: _SpaceOpener, database: Database, configured: ModelSpace
) -> ModelSpace:
    """The space whose vectors are complete: the configured one, or the former one until the configured one is."""
    former = await database.read(serving_model)
    if former is not None and former.id == configured.model_id:
        return configured
    if await database.write(lambda connection: serve_model(connection, configured.model_id)) or former is None:
        return configured
    try:
        space = await opener.open(stack, former.setting)
    except (ConfigurationError, EmbeddingFailed) as error:
        problem = (
            f"the data directory was made with embedding model '{former.setting}', which cannot be opened "
            f"({error.message}) and has to answer until everything is re-embedded; bring it back, or stop the service "
            "and run 'ragsvc reindex --embeddings'"
        )
        raise ConfigurationError([problem]) from error
    if space.model.fingerprint != former.fingerprint:
        raise ConfigurationError(
            [f"embedding model '{former.setting}' changed on disk; run 'ragsvc reindex --embeddings'"]
        )
    return space


def _reembedding(database: Database, spaces: EmbeddingSpaces, target: ModelSpace) -> Reembedding:
    async def prepare() -> None:
        await anyio.to_thread.run_sync(_load_indexes, database, target.indexes)

    async def swap() -> None:
        spaces.serving = target
        for collection in await database.read(list_collections):
            await anyio.to_thread.run_sync(target.indexes.catch_up, collection.id)

    return Reembedding(database=database, target=target, prepare=prepare, swap=swap)


def _open_database(path: Path, keys: DataKeys | None) -> Database:
    return Database(path, key=None if keys is None else keys.database_key)


@contextmanager
def _working_folders(settings: Settings, keys: DataKeys | None) -> Generator[tuple[Path, Path | None], None, None]:
    """Where indexes stand, and where plain copies of encrypted files may.

    Both are in memory when the data directory is encrypted: indexes are then rebuilt at each start.
    """
    if keys is None:
        yield settings.data_dir / "derived", None
        return
    prefix = f"ragsvc-{keys.name('memory')[:16]}-"
    try:
        for left in settings.memory_dir.glob(f"{prefix}*"):  # of a process that was killed; the lock says it is gone
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=settings.memory_dir))
    except OSError as error:
        raise ConfigurationError([f"memory_dir: {settings.memory_dir} cannot be used ({error.strerror})"]) from error
    try:
        copies = folder / "documents"
        copies.mkdir()
        yield folder / "derived", copies
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sealing_key(data_dir: Path, keys: DataKeys | None) -> MasterKey:
    """Seals stored providers: an encrypted directory's own key, else ``master.key`` (also of one encrypted later)."""
    if keys is None or (data_dir / MASTER_KEY_FILE_NAME).exists():
        return open_master_key(data_dir)
    return keys.sealing


def _open_encryption(settings: Settings) -> EncryptionService:
    return open_encryption(
        settings.data_dir,
        source=settings.encryption_keys,
        key_file=settings.encryption_key_file,
        lifetime_s=settings.encryption_key_lifetime_s,
        overlap_s=settings.encryption_key_overlap_s,
        insecure_sample_dialects=settings.encryption_sample_dialects,
        insecure_literal_rvenc=settings.rvenc_literal,
    )


def _open_tokens(settings: Settings) -> TokenizerSpans:
    return open_token_spans(settings.embedding_model, data_dir=settings.data_dir)


def _open_reranker(settings: Settings) -> Reranker | None:
    if settings.reranker_model is None:
        return None
    from ragsvc.inference.cross_encoder import CrossEncoderReranker  # noqa: PLC0415 - imports torch, only when used

    return CrossEncoderReranker(Path(settings.reranker_model))


def _limits(settings: Settings) -> ExtractionLimits:
    return ExtractionLimits(
        timeout_s=settings.parse_timeout_s,
        memory_bytes=settings.parse_memory_bytes,
        max_pages=settings.max_pages,
        ocr=settings.ocr == "auto",
        ocr_max_pages=settings.ocr_max_pages,
    )


def _chunking_plan(settings: Settings, model: EmbeddingModel) -> ChunkingPlan:
    room = model.max_tokens - 2
    wanted = settings.passage_tokens or ChunkingOptions().max_tokens
    tokenizer = read_model(settings.embedding_model, data_dir=settings.data_dir).tokenizer_file
    return ChunkingPlan(
        split=_SPLIT_PAGES,
        load_tokens=_LOAD_TOKENS,
        tokenizer=str(tokenizer),
        options=ChunkingOptions(max_tokens=min(wanted, room)),
    )


OpenProvider = Callable[[ProviderSettings, aiohttp.ClientSession], OpenAIUpstream]


def _provider_opener(tokens: TokenizerSpans) -> OpenProvider:
    def count(text: str) -> int:
        return tokens.count([text])[0]

    return lambda settings, session: OpenAIUpstream(settings, session, count_tokens=count)


def _models(tokens: TokenizerSpans, local_models: Sequence[LocalModel]) -> ModelRegistry:
    """The registry with what is served here; providers come in as ``ProviderAdministration`` knows them."""
    local = LocalExtractive(extract_answer, count_tokens=lambda text: tokens.count([text])[0])
    return ModelRegistry((), {}, local=local, local_models=local_models, created=int(time.time()))


async def _direct(
    stack: AsyncExitStack, settings: Settings, session: aiohttp.ClientSession, open_provider: OpenProvider
) -> AllowedBaseUrls | None:
    """Providers by address, where any are allowed; names that are trusted as patterns resolve to public addresses."""
    if not settings.allowed_base_urls:
        return None
    public = await stack.enter_async_context(open_session(PublicResolver(aiohttp.ThreadedResolver())))
    return AllowedBaseUrls(settings.allowed_base_urls, open_provider, session=session, public_session=public)


def _policies(stack: AsyncExitStack, settings: Settings, session: aiohttp.ClientSession) -> list[CachedPolicy]:
    deciders: list[Decide] = []
    if settings.policy_file is not None:
        rego = RegoFile(settings.policy_file)
        stack.callback(rego.close)
        deciders.append(rego)
    if settings.policy_url is not None:
        deciders.append(opa_server(settings.policy_url, session))
    return [
        CachedPolicy(decide, keep_s=settings.policy_cache_s, timeout_s=settings.policy_timeout_s) for decide in deciders
    ]


def _local_models(space: ModelSpace, tokens: TokenizerSpans, reranker: Reranker | None) -> list[LocalModel]:
    """The configured embedding model and the reranker under a steady name and under their own."""
    batcher = space.batcher
    embeddings = LocalEmbeddings(space.model, batcher.embed_passages, tokens)
    if reranker is None:
        scored_by, score = HYBRID_SCORE, hybrid_scores(batcher.embed_query, batcher.embed_passages)
    else:
        scored_by, score = f"local/{reranker.name}", in_thread(reranker.score)
    ranking = LocalReranker(scored_by, score, tokens)
    return [
        LocalModel("local/embedding-model", embeddings, frozenset({Family.EMBEDDINGS})),
        LocalModel(f"local/{space.model.name.rsplit('/', 1)[-1]}", embeddings, frozenset({Family.EMBEDDINGS})),
        LocalModel("local/reranker", ranking, frozenset({Family.RERANK})),
        LocalModel(scored_by, ranking, frozenset({Family.RERANK})),
    ]


def _gguf_models(stack: AsyncExitStack, settings: Settings) -> list[LocalModel]:
    """The configured GGUF model; its weights are read at the first request. Raises ``ConfigurationError``."""
    path = settings.gguf_model
    if path is None:
        return []
    if not path.is_file():
        raise ConfigurationError([f"gguf_model: {path} is not a file"])
    if find_spec("xllamacpp") is None:
        raise ConfigurationError(["gguf_model: needs the extra: pip install 'ragsvc[gguf]'"])
    context_tokens = settings.gguf_context_tokens
    runs = GgufRuns(
        path, context_tokens=context_tokens, threads=settings.gguf_threads, max_waiting=settings.gguf_max_waiting
    )
    stack.push_async_callback(runs.aclose)
    name = f"local/{path.stem}"
    # prompts are measured with the embedding model's tokenizer, which finds fewer tokens in figures than most others
    room = context_tokens * 3 // 4
    return [LocalModel(name, LocalGguf(name, runs), frozenset({Family.CHAT}), room)]


def _default_limits(settings: Settings) -> KeyLimits:
    return KeyLimits(requests_per_minute=settings.requests_per_minute, requests_per_hour=settings.requests_per_hour)


def _load_indexes(database: Database, indexes: IndexRegistry) -> None:
    """Load collections until memory is used up, so that the first questions after a start are as fast as later ones."""
    for collection in database.read_sync(list_collections):
        if indexes.memory_bytes() >= indexes.memory_limit_bytes:
            return
        indexes.get(collection.id)
