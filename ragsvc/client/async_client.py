"""The asynchronous client: documents, search, answers, collections, keys and tenants of one service.

The methods perform the calls that ``operations`` describes; ``sync_client`` has the same methods.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

import anyio.to_thread
import httpx

from ragsvc.client import operations
from ragsvc.client.answers import Answer, AnswerCitation, AnswerReader
from ragsvc.client.async_connection import AsyncConnection
from ragsvc.client.calls import DEFAULT_PATIENCE_S, Call, Pause
from ragsvc.client.connection_settings import client_settings
from ragsvc.client.downloads import replaced_file
from ragsvc.client.event_decoding import Json
from ragsvc.client.operations import (
    AskOptions,
    ChangedKeyFields,
    ChatMessages,
    CountOptions,
    DocumentEvent,
    ListOptions,
    NewKeyFields,
    OwnUsageOptions,
    QuotaFields,
    RankedSearchOptions,
    UsageOptions,
)
from ragsvc.client.records import (
    BalanceRecord,
    BookmarkRecord,
    BoxesRecord,
    CollectionRecord,
    DocumentCountRecord,
    DocumentRecord,
    KeyChangeRecord,
    KeyRecord,
    NewKey,
    OwnKeyRecord,
    PageRecord,
    PassageHits,
    PassageRecord,
    RemovedData,
    TenantRecord,
    UploadedDocument,
    UsageRecords,
)
from ragsvc.client.service_errors import ServiceUnreachable
from ragsvc.client.upload_bodies import UploadSource

OnProgress = Callable[[DocumentRecord], None]


class AsyncDocumentsResource:
    """Documents of the tenant."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def upload(
        self,
        source: UploadSource,
        *,
        filename: str | None = None,
        media_type: str | None = None,
        collection: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        password: str | None = None,
        idempotency_key: str | None = None,
        wait: bool = True,
        timeout_s: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> UploadedDocument:
        """Upload a file, its content, or an open binary file; wait until the document is ready.

        ``on_progress`` is called with each state of the document. With ``wait=False`` the document is returned as soon
        as it is stored. An upload of bytes that the collection has already returns the existing document.

        Raises:
            DocumentUnfinished: the document failed, was deleted, or was not ready within ``timeout_s``.
            ServiceError: the service refused the upload or cannot be reached.
            OSError: the file cannot be read.
        """
        call = operations.upload_document(
            source,
            filename=filename,
            media_type=media_type,
            collection=collection,
            metadata=metadata,
            password=password,
            idempotency_key=idempotency_key,
        )
        document = await self._connection.send(call)
        if not wait:
            return document
        ready = await self.wait(document.id, timeout_s=timeout_s, on_progress=on_progress)
        return operations.uploaded_document(ready, document)

    async def wait(
        self, document_id: str, *, timeout_s: float | None = None, on_progress: OnProgress | None = None
    ) -> DocumentRecord:
        """Wait until a document is ready.

        Raises:
            DocumentUnfinished: the document failed, was deleted, or was not ready within ``timeout_s``.
            ServiceError: the service cannot be reached.
        """
        state: DocumentRecord | None = None
        async for state in self.follow(document_id, timeout_s=timeout_s):
            if on_progress is not None:
                on_progress(state)
        return operations.require_ready(state, document_id)

    async def follow(self, document_id: str, *, timeout_s: float | None = None) -> AsyncIterator[DocumentRecord]:
        """Iterate over the states of a document until it is ready or failed; lost streams are opened again.

        The time is checked whenever the service reports, at least every 15 s. Raises as ``wait``, except for failures.
        """
        following = operations.follow_document(document_id, timeout_s=timeout_s)
        async for state in self._connection.follow(following):
            yield operations.document_state(state)

    async def list(self, **options: Unpack[ListOptions]) -> AsyncIterator[DocumentRecord]:
        """Iterate over documents, newest first unless ``order="asc"``."""
        async for document in self._connection.entries(operations.list_documents(options)):
            yield document

    async def count(self, **options: Unpack[CountOptions]) -> DocumentCountRecord:
        """Count documents, by status and by media type."""
        return await self._connection.send(operations.count_documents(options))

    async def follow_all(self) -> AsyncIterator[DocumentEvent]:
        """Iterate over the changes of all documents: first a snapshot, then each document that changes or is deleted.

        Raises ``ServiceError`` when the connection is lost; a new call begins with a new snapshot.
        """
        async with self._connection.events(operations.follow_all_documents()) as events:
            async for event in events:
                yield operations.documents_event(event)
        raise ServiceUnreachable(self._connection.url, "the stream of events ended")

    async def get(self, document_id: str) -> DocumentRecord:
        return await self._connection.send(operations.get_document(document_id))

    async def update(
        self, document_id: str, *, filename: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> DocumentRecord:
        """Change the file name or the metadata, which are merged; ``None`` as a value removes a key."""
        return await self._connection.send(
            operations.update_document(document_id, filename=filename, metadata=metadata)
        )

    async def delete(self, document_id: str) -> None:
        """Delete a document with its file and its passages."""
        await self._connection.send(operations.delete_document(document_id))

    async def retry(self, document_id: str, *, password: str | None = None) -> DocumentRecord:
        """Process a failed document again, with a password if it is protected; ``wait`` waits for the result."""
        return await self._connection.send(operations.retry_document(document_id, password=password))

    async def page(self, document_id: str, number: int) -> PageRecord:
        """The text of a page, counted from 1."""
        return await self._connection.send(operations.get_page(document_id, number))

    async def page_image(
        self, document_id: str, number: int, *, width: int | None = None, password: str | None = None
    ) -> bytes:
        """The picture of a page of a PDF or a picture as PNG, at least about ``width`` pixels wide."""
        call = operations.get_page_image(document_id, number, width=width, password=password)
        return await self._connection.send(call)

    async def page_boxes(
        self,
        document_id: str,
        number: int,
        *,
        start: int | None = None,
        end: int | None = None,
        passage_id: str | None = None,
        quote: str | None = None,
        password: str | None = None,
    ) -> BoxesRecord:
        """Where characters of a page, a passage or a quote (``chunk_id`` and ``quote`` of a citation) are."""
        place = {"start": start, "end": end, "passage_id": passage_id, "quote": quote}
        return await self._connection.send(operations.get_page_boxes(document_id, number, place, password=password))

    async def outline(self, document_id: str, *, password: str | None = None) -> Sequence[BookmarkRecord]:
        """The bookmarks of a PDF with their pages."""
        return await self._connection.send(operations.get_outline(document_id, password=password))

    async def passages(self, document_id: str) -> AsyncIterator[PassageRecord]:
        """Iterate over the passages of a document in reading order."""
        async for passage in self._connection.entries(operations.list_passages(document_id)):
            yield passage

    async def content(self, document_id: str) -> bytes:
        """The stored file."""
        return await self._connection.send(operations.get_content(document_id))

    async def download(self, document_id: str, file: Path) -> int:
        """Write the stored file to ``file``, which is replaced when the download is complete; returns its size."""
        return await _write(self._connection, operations.get_content(document_id), file)


class AsyncCollectionsResource:
    """Collections of the tenant. An upload creates the collection that it names."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def list(self) -> list[CollectionRecord]:
        """All collections that the key may use, in alphabetical order."""
        return await self._connection.send(operations.list_collections())

    async def create(self, name: str) -> CollectionRecord:
        """Create an empty collection, or return the one with this name."""
        return await self._connection.send(operations.create_collection(name))

    async def get(self, name: str) -> CollectionRecord:
        return await self._connection.send(operations.get_collection(name))

    async def delete(self, name: str, *, only_if_empty: bool = False) -> RemovedData:
        """Delete a collection with its documents; ``only_if_empty`` refuses one that has documents."""
        return await self._connection.send(operations.delete_collection(name, only_if_empty=only_if_empty))


class AsyncKeysResource:
    """API keys, for administrators."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def create(self, label: str, *, idempotency_key: str | None = None, **fields: Unpack[NewKeyFields]) -> NewKey:
        """Create a key; its secret is in this answer only."""
        return await self._connection.send(operations.create_key(label, fields, idempotency_key=idempotency_key))

    async def list(self, *, tenant: str | None = None) -> AsyncIterator[KeyRecord]:
        """Iterate over keys, oldest first."""
        async for key in self._connection.entries(operations.list_keys(tenant)):
            yield key

    async def get(self, key_id: str) -> KeyRecord:
        return await self._connection.send(operations.get_key(key_id))

    async def update(self, key_id: str, **fields: Unpack[ChangedKeyFields]) -> KeyRecord:
        """Change fields of a key: ``update(id, tokens_per_day=None)`` removes a limit."""
        return await self._connection.send(operations.update_key(key_id, fields))

    async def rotate(self, key_id: str, *, overlap_s: int | None = None, idempotency_key: str | None = None) -> NewKey:
        """Give a key a new secret; the old one works for ``overlap_s`` more seconds (a day by default)."""
        return await self._connection.send(
            operations.rotate_key(key_id, overlap_s=overlap_s, idempotency_key=idempotency_key)
        )

    async def revoke(self, key_id: str) -> KeyRecord:
        """Revoke a key permanently; it stays in the list."""
        return await self._connection.send(operations.revoke_key(key_id))

    async def delete(self, key_id: str) -> None:
        """Delete a key; its audit trail and usage are kept."""
        await self._connection.send(operations.delete_key(key_id))

    async def audit(self, key_id: str) -> AsyncIterator[KeyChangeRecord]:
        """Iterate over the changes of a key, newest first."""
        async for change in self._connection.entries(operations.list_key_changes(key_id)):
            yield change

    async def changes(self, tenant: str | None = None) -> AsyncIterator[KeyChangeRecord]:
        """Iterate over the changes of all keys, or of one tenant's, newest first; also of deleted keys."""
        async for change in self._connection.entries(operations.list_changes(tenant)):
            yield change

    async def own(self) -> OwnKeyRecord:
        """The key of this client, with what is left of its limits; for every key."""
        return await self._connection.send(operations.get_own_key())


class AsyncTenantsResource:
    """Tenants, for administrators. A tenant begins with its first key."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def list(self) -> list[TenantRecord]:
        """All tenants in alphabetical order."""
        return await self._connection.send(operations.list_tenants())

    async def get(self, name: str) -> TenantRecord:
        return await self._connection.send(operations.get_tenant(name))

    async def update(self, name: str, **quotas: Unpack[QuotaFields]) -> TenantRecord:
        """Change what a tenant may store."""
        return await self._connection.send(operations.update_tenant(name, quotas))

    async def delete(self, name: str, *, remove_copies: bool = False) -> RemovedData:
        """Delete a tenant with everything that belongs to it.

        ``remove_copies`` also removes the copies of the database from before upgrades, which hold data of all tenants.
        """
        return await self._connection.send(operations.delete_tenant(name, remove_copies=remove_copies))

    async def export(self, name: str, file: Path) -> int:
        """Write a tar archive of everything of a tenant to ``file``; returns its size."""
        return await _write(self._connection, operations.export_tenant(name), file)


class AsyncStreamedAnswer:
    """An answer that arrives: iterate over its text; afterwards ``citations`` and ``answer`` are complete."""

    def __init__(self, chunks: AsyncIterator[Json]) -> None:
        self._chunks = chunks
        self._reader = AnswerReader()

    async def __aiter__(self) -> AsyncIterator[str]:
        """Iterate over pieces of text. Raises ``AnswerInterrupted`` if the answer ends with an error or too early."""
        async for chunk in self._chunks:
            if text := self._reader.take(chunk):
                yield text
        self._reader.finish()

    @property
    def citations(self) -> list[AnswerCitation]:
        return self._reader.answer.citations

    @property
    def answer(self) -> Answer:
        """The answer as far as it has arrived."""
        return self._reader.answer


class AsyncClient:
    """A client of one service.

    ``url`` and ``api_key`` default to the environment variables ``RAGSVC_URL`` and ``RAGSVC_API_KEY``. ``transport``
    is any transport of httpx, such as ``AsyncEncryptedTransport(url, HpkeStream())``. Calls that the service refuses
    for now (429, 503) are repeated as ``Retry-After`` asks, for at most ``patience_s`` seconds; so are calls whose
    connection failed, if a repetition changes nothing. ``on_pause`` is called before each pause.

    Methods raise ``ServiceError``; see ``service_errors``.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        patience_s: float = DEFAULT_PATIENCE_S,
        on_pause: Callable[[Pause], None] | None = None,
    ) -> None:
        settings = client_settings(url, api_key)
        http = httpx.AsyncClient(
            base_url=settings.url,
            headers=settings.headers,
            transport=transport,
            trust_env=settings.uses_proxies,
            follow_redirects=False,
        )
        self._connection = AsyncConnection(http, patience_s=patience_s, on_pause=on_pause)
        self.documents = AsyncDocumentsResource(self._connection)
        self.collections = AsyncCollectionsResource(self._connection)
        self.keys = AsyncKeysResource(self._connection)
        self.tenants = AsyncTenantsResource(self._connection)

    @property
    def url(self) -> str:
        """The address of the service, without ``/v1``."""
        return self._connection.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connection.http.aclose()

    async def search(self, query: str, **options: Unpack[RankedSearchOptions]) -> PassageHits:
        """Find passages by meaning and by words, best first."""
        return await self._connection.send(operations.search(query, options))

    async def ask(self, question: ChatMessages, **options: Unpack[AskOptions]) -> Answer:
        """Ask a chat model; the answer cites the documents, unless ``use_rag=False``."""
        return await self._connection.send(operations.ask(question, options))

    @asynccontextmanager
    async def ask_streamed(
        self, question: ChatMessages, **options: Unpack[AskOptions]
    ) -> AsyncGenerator[AsyncStreamedAnswer]:
        """Ask a chat model; in the block, iterate over the text of the answer as it arrives."""
        async with self._connection.events(operations.ask(question, options, stream=True)) as events:
            yield AsyncStreamedAnswer(events)

    async def tokens(self) -> int:
        """How many tokens a request could use now."""
        return (await self.balance()).tokens_remaining

    async def balance(self) -> BalanceRecord:
        """How many tokens, and how much money, a request could use now."""
        return await self._connection.send(operations.get_balance())

    async def usage(self, **options: Unpack[UsageOptions]) -> UsageRecords:
        """Sum tokens and requests, for administrators; the last 30 days unless ``since`` is given."""
        return await self._connection.send(operations.get_usage(options))

    async def own_usage(self, **options: Unpack[OwnUsageOptions]) -> UsageRecords:
        """Sum the usage of the key of this client; the last 30 days unless ``since`` is given."""
        return await self._connection.send(operations.get_own_usage(options))


async def _write(connection: AsyncConnection, call: Call[bytes], target: Path) -> int:
    size_bytes = 0
    with replaced_file(target) as file:
        async with connection.bytes_of(call) as pieces:
            async for piece in pieces:
                size_bytes += await anyio.to_thread.run_sync(file.write, piece)
    return size_bytes
