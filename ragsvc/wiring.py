"""The composition root: settings in, running services out. The only place that knows every adapter."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import anyio.to_thread
import msgspec
from prometheus_client import CollectorRegistry

from ragsvc.config import Settings
from ragsvc.core.answering import answer as extract_answer
from ragsvc.core.chat import ChatMessage
from ragsvc.core.chunking import lexical_context
from ragsvc.core.families import Family
from ragsvc.core.ports import ChunkingOptions, Embedder, ExtractionLimits, Reranker
from ragsvc.core.queries import Turn, make_query
from ragsvc.core.readiness import Readiness
from ragsvc.extract.frames import ChunkingPlan
from ragsvc.extract.parser import ChildParser
from ragsvc.index.registry import IndexRegistry
from ragsvc.inference.batcher import EmbeddingBatcher
from ragsvc.inference.factory import open_embedder, open_token_spans
from ragsvc.inference.tokens import TokenizerSpans
from ragsvc.inference.weights import read_model
from ragsvc.providers.exchange import open_session
from ragsvc.providers.local_extractive import LocalExtractive
from ragsvc.providers.local_models import HYBRID_SCORE, LocalEmbeddings, LocalReranker, hybrid_scores, in_thread
from ragsvc.providers.openai_upstream import OpenAIUpstream
from ragsvc.services.access import Access
from ragsvc.services.answer import AnswerService
from ragsvc.services.documents import DocumentService
from ragsvc.services.freshness import Freshness
from ragsvc.services.ingest import IngestOptions, IngestService
from ragsvc.services.keys import KeyAdministration
from ragsvc.services.models import LocalModel, Models
from ragsvc.services.progress import ProgressHub
from ragsvc.services.proxy import ProxyService
from ragsvc.services.routing import Router
from ragsvc.services.search import SearchService
from ragsvc.store.blobs import BlobStore
from ragsvc.store.database import Database
from ragsvc.store.documents import list_collections, referenced_blobs
from ragsvc.store.index_source import SqliteIndexSource
from ragsvc.store.ingest import model_row_id
from ragsvc.store.lock import DataDirectoryLock

logger = logging.getLogger(__name__)

DATABASE_NAME = "ragsvc.sqlite"
_SPLIT_PAGES = "ragsvc.core.chunking:split_pages"
_LOAD_TOKENS = "ragsvc.inference.tokens:TokenizerSpans"


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that routes and commands use, running."""

    settings: Settings
    database: Database
    blobs: BlobStore
    embedder: Embedder
    batcher: EmbeddingBatcher
    indexes: IndexRegistry
    parser: ChildParser
    ingest: IngestService
    documents: DocumentService
    search: SearchService
    access: Access
    keys: KeyAdministration
    models: Models
    answer: AnswerService
    proxy: ProxyService
    readiness: Readiness
    registry: CollectorRegistry


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
        database = await anyio.to_thread.run_sync(Database, data_dir / DATABASE_NAME)
        stack.callback(database.close)
        blobs = BlobStore(data_dir)
        blobs.sweep(await database.read(referenced_blobs))

        embedder = await anyio.to_thread.run_sync(_open_embedder, settings)
        stack.callback(embedder.close)
        batcher = await stack.enter_async_context(EmbeddingBatcher(embedder))
        tokens = await anyio.to_thread.run_sync(_open_tokens, settings)
        model_id = await database.write(
            lambda connection: model_row_id(connection, embedder.model, now=int(time.time()))
        )
        source = SqliteIndexSource(
            database, model_id=model_id, dimension=embedder.model.dimension, lexical_context=lexical_context
        )
        indexes = IndexRegistry(
            data_dir / "derived", source, model=embedder.model, memory_limit_bytes=settings.index_memory_bytes
        )
        stack.callback(indexes.close)
        parser = ChildParser(
            _limits(settings), chunk=_chunking_plan(settings, embedder), workers=settings.parse_workers
        )
        stack.push_async_callback(parser.close)

        hub = ProgressHub()
        freshness = Freshness(indexes.catch_up)
        ingest = IngestService(
            database=database,
            blobs=blobs,
            parser=parser,
            embedder=batcher,
            model=embedder.model,
            model_id=model_id,
            freshness=freshness,
            hub=hub,
            options=IngestOptions(workers=settings.ingest_workers),
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
            indexes=indexes,
            embed_query=batcher.embed_query,
            settled=freshness.settled,
            reranker=reranker,
        )
        access = Access(database)
        session = await stack.enter_async_context(open_session())
        models = _models(settings, session, tokens, _local_models(embedder, batcher, tokens, reranker))
        stack.push_async_callback(models.aclose)
        router = Router(models)
        answer = AnswerService(
            models=models,
            router=router,
            searcher=search,
            meter=access,
            make_query=_query_of,
            count_tokens=lambda text: tokens.count([text])[0],
        )
        await anyio.to_thread.run_sync(_load_indexes, database, indexes)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(ingest.run)
        stack.callback(tasks.cancel_scope.cancel)
        yield Services(
            settings=settings,
            database=database,
            blobs=blobs,
            embedder=embedder,
            batcher=batcher,
            indexes=indexes,
            parser=parser,
            ingest=ingest,
            documents=documents,
            search=search,
            access=access,
            keys=KeyAdministration(access),
            models=models,
            answer=answer,
            proxy=ProxyService(router=router, meter=access),
            readiness=Readiness(),
            registry=CollectorRegistry(),
        )


def _open_embedder(settings: Settings) -> Embedder:
    return open_embedder(
        settings.embedding_model,
        data_dir=settings.data_dir,
        runtime=settings.embedding_runtime,
        threads=settings.embedding_threads,
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
        timeout_s=settings.parse_timeout_s, memory_bytes=settings.parse_memory_bytes, max_pages=settings.max_pages
    )


def _chunking_plan(settings: Settings, embedder: Embedder) -> ChunkingPlan:
    room = embedder.model.max_tokens - 2
    wanted = settings.passage_tokens or ChunkingOptions().max_tokens
    tokenizer = read_model(settings.embedding_model, data_dir=settings.data_dir).tokenizer_file
    return ChunkingPlan(
        split=_SPLIT_PAGES,
        load_tokens=_LOAD_TOKENS,
        tokenizer=str(tokenizer),
        options=ChunkingOptions(max_tokens=min(wanted, room)),
    )


def _models(
    settings: Settings, session: aiohttp.ClientSession, tokens: TokenizerSpans, local_models: Sequence[LocalModel]
) -> Models:
    def count(text: str) -> int:
        return tokens.count([text])[0]

    providers = {one.name: OpenAIUpstream(one, session, count_tokens=count) for one in settings.providers}
    local = LocalExtractive(extract_answer, count_tokens=count)
    return Models(settings.providers, providers, local=local, local_models=local_models, created=int(time.time()))


def _local_models(
    embedder: Embedder, batcher: EmbeddingBatcher, tokens: TokenizerSpans, reranker: Reranker | None
) -> list[LocalModel]:
    """The embedding model and the reranker under a steady name and under their own."""
    embeddings = LocalEmbeddings(embedder.model, batcher.embed_passages, tokens)
    if reranker is None:
        scored_by, score = HYBRID_SCORE, hybrid_scores(batcher.embed_query, batcher.embed_passages)
    else:
        scored_by, score = f"local/{reranker.name}", in_thread(reranker.score)
    ranking = LocalReranker(scored_by, score, tokens)
    return [
        LocalModel("local/embedding-model", embeddings, frozenset({Family.EMBEDDINGS})),
        LocalModel(f"local/{embedder.model.name.rsplit('/', 1)[-1]}", embeddings, frozenset({Family.EMBEDDINGS})),
        LocalModel("local/reranker", ranking, frozenset({Family.RERANK})),
        LocalModel(scored_by, ranking, frozenset({Family.RERANK})),
    ]


def _query_of(messages: Sequence[ChatMessage]) -> str:
    turns = [Turn(role=one.role, text=one.text) for one in messages]
    return make_query(turns).text


def _load_indexes(database: Database, indexes: IndexRegistry) -> None:
    """Load collections until memory is used up, so that the first questions after a start are as fast as later ones."""
    for collection in database.read_sync(list_collections):
        if indexes.memory_bytes() >= indexes.memory_limit_bytes:
            return
        indexes.get(collection.id)
