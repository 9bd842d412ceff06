"""The composition root: settings in, running services out. The only place that knows every adapter."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
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
from ragsvc.core.errors import ConfigurationError
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
from ragsvc.providers.local_extractive import LocalExtractive
from ragsvc.providers.openai_upstream import OpenAIUpstream
from ragsvc.services.access import Access
from ragsvc.services.answer import AnswerService
from ragsvc.services.documents import DocumentService
from ragsvc.services.encryption import EncryptionService, open_encryption
from ragsvc.services.freshness import Freshness
from ragsvc.services.ingest import IngestOptions, IngestService
from ragsvc.services.keys import KeyAdministration
from ragsvc.services.models import Models
from ragsvc.services.progress import ProgressHub
from ragsvc.services.search import SearchService
from ragsvc.store.blobs import BlobStore
from ragsvc.store.data_keys import DATABASE_FILE_NAME, DataKeys
from ragsvc.store.database import Database
from ragsvc.store.documents import list_collections, referenced_blobs
from ragsvc.store.index_source import SqliteIndexSource
from ragsvc.store.ingest import model_row_id
from ragsvc.store.lock import DataDirectoryLock

logger = logging.getLogger(__name__)

DATABASE_NAME = DATABASE_FILE_NAME
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
    encryption: EncryptionService
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
        keys = await anyio.to_thread.run_sync(settings.open_data_keys)
        database = await anyio.to_thread.run_sync(_open_database, data_dir / DATABASE_NAME, keys)
        stack.callback(database.close)
        derived_root, memory_folder = stack.enter_context(_working_folders(settings, keys))
        blobs = BlobStore(data_dir, keys, memory_folder=memory_folder)
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
            derived_root, source, model=embedder.model, memory_limit_bytes=settings.index_memory_bytes
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
        search = SearchService(
            database=database,
            indexes=indexes,
            embed_query=batcher.embed_query,
            settled=freshness.settled,
            reranker=await anyio.to_thread.run_sync(_open_reranker, settings),
        )
        access = Access(database)
        encryption = await anyio.to_thread.run_sync(_open_encryption, settings)
        stack.callback(encryption.close)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        models = _models(settings, session, tokens)
        stack.push_async_callback(models.aclose)
        answer = AnswerService(
            models=models,
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
            encryption=encryption,
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


def _open_encryption(settings: Settings) -> EncryptionService:
    return open_encryption(
        settings.data_dir,
        source=settings.encryption_keys,
        key_file=settings.encryption_key_file,
        lifetime_s=settings.encryption_key_lifetime_s,
        overlap_s=settings.encryption_key_overlap_s,
        sample_dialects=settings.encryption_sample_dialects,
        literal_rvenc=settings.rvenc_literal,
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


def _models(settings: Settings, session: aiohttp.ClientSession, tokens: TokenizerSpans) -> Models:
    def count(text: str) -> int:
        return tokens.count([text])[0]

    providers = {one.name: OpenAIUpstream(one, session, count_tokens=count) for one in settings.providers}
    local = LocalExtractive(extract_answer, count_tokens=count)
    return Models(settings.providers, providers, local=local, created=int(time.time()))


def _query_of(messages: Sequence[ChatMessage]) -> str:
    turns = [Turn(role=one.role, text=one.text) for one in messages]
    return make_query(turns).text


def _load_indexes(database: Database, indexes: IndexRegistry) -> None:
    """Load collections until memory is used up, so that the first questions after a start are as fast as later ones."""
    for collection in database.read_sync(list_collections):
        if indexes.memory_bytes() >= indexes.memory_limit_bytes:
            return
        indexes.get(collection.id)
