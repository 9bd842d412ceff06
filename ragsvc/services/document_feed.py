"""All documents of a tenant as they change: a snapshot at the start, then each document that changed or was deleted.

Memory is bounded: a feed remembers the ids of changed documents, each once, and at most ``MAX_REMEMBERED`` of them. If
more change before they are read, a new snapshot takes their place. States are read from the rows when they are sent, so
that a slow reader gets the latest state of a document and not every state.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import anyio
import msgspec
from sqlalchemy import Connection

from ragsvc.core.access.principal import Principal, allows_collection
from ragsvc.core.documents import Document, DocumentStatus
from ragsvc.services.progress_events import MAX_REMEMBERED, DocumentDeletion, ProgressHub
from ragsvc.store.database import Database
from ragsvc.store.document_listing import (
    DocumentCounts,
    DocumentFilter,
    count_documents_by_kind,
    documents_by_public_id,
    documents_changed_since,
    list_documents,
)

MAX_UNFINISHED: Final = 100
"""Unfinished documents in a snapshot."""

_COLLECTING_S: Final = 0.25
"""Changes are collected this long: a document that is embedded changes many times in a second."""

_LATE_COMMITS_S: Final = 10
"""A position in the stream is this much earlier than the present: a change gets its time before it is committed."""


class FeedSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a tenant's documents.

    ``unfinished`` are documents that are queued or processed, ``has_more`` if there are more of them than listed.
    ``is_complete``: the changes that follow are all since the position that the reader had reached.
    """

    counts: DocumentCounts
    unfinished: list[Document]
    has_more: bool
    is_complete: bool


FeedChange = FeedSnapshot | Document | DocumentDeletion
"""A new state of one document or of all, or a deletion."""


class FeedEntry(msgspec.Struct, frozen=True):
    """Something to send, and the position to resume from after it; no ``change`` where nothing changed for a while."""

    position: int
    change: FeedChange | None = None


class DocumentFeed:
    """Follows the documents of tenants. Belongs to one event loop."""

    def __init__(
        self,
        *,
        database: Database,
        hub: ProgressHub,
        may_continue: Callable[[Principal], bool] = lambda _: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``may_continue`` is asked before each batch of changes whether the key of the reader is still as it was."""
        self._database = database
        self._hub = hub
        self._may_continue = may_continue
        self._clock = clock

    async def follow(
        self, principal: Principal, *, since: int | None = None, every_s: float
    ) -> AsyncIterator[FeedEntry]:
        """Changes of the documents that a key may use, without end; at least one entry in ``every_s`` seconds.

        ``since`` is the position of the last entry that the reader has. Ends when the service stops, and when the key
        is no longer active or was changed.
        """
        with self._hub.watch_tenant(principal.tenant) as feed:
            position = self._position()
            missed = None if since is None else await self._changes_since(principal, since)
            yield FeedEntry(position, await self._snapshot(principal, is_complete=missed is not None))
            for change in missed or ():
                yield FeedEntry(position, change)
            while True:
                woken = await feed.wait(timeout_s=every_s)
                if woken:
                    await anyio.sleep(_COLLECTING_S)
                if self._hub.closed or not self._may_continue(principal):
                    return
                position = self._position()
                if not woken:
                    yield FeedEntry(position)
                for change in await self._changes(principal, feed.take()):
                    yield FeedEntry(position, change)

    async def _changes(self, principal: Principal, changed: dict[str, str] | None) -> list[FeedChange]:
        """The present states of documents, from collections by public id; a snapshot instead of too many of them."""
        if changed is None:
            return [await self._snapshot(principal, is_complete=False)]
        wanted = {name: collection for name, collection in changed.items() if allows_collection(principal, collection)}
        if not wanted:
            return []
        documents = await self._database.read(
            lambda connection: documents_by_public_id(connection, principal.tenant, list(wanted))
        )
        found = {document.public_id for document in documents}
        gone = [DocumentDeletion(name, wanted[name], int(self._clock())) for name in wanted if name not in found]
        return [*documents, *gone]

    def _position(self) -> int:
        return int(self._clock()) - _LATE_COMMITS_S

    async def _changes_since(self, principal: Principal, since: int) -> list[FeedChange] | None:
        """What changed since a position; ``None`` if it is too much, or not known any more."""
        # a deletion is noted after its commit, at the time at which readers are woken
        deletions = self._hub.deletions_since(principal.tenant, since + _LATE_COMMITS_S)
        if deletions is None:
            return None
        documents = await self._database.read(
            lambda connection: documents_changed_since(
                connection,
                principal.tenant,
                since,
                collections=principal.allowed_collections,
                limit=MAX_REMEMBERED + 1,
            )
        )
        if len(documents) > MAX_REMEMBERED:
            return None
        return [
            *(deletion for deletion in deletions if allows_collection(principal, deletion.collection)),
            *documents,
        ]

    async def _snapshot(self, principal: Principal, *, is_complete: bool) -> FeedSnapshot:
        which = DocumentFilter(collections=principal.allowed_collections)
        unfinished = msgspec.structs.replace(which, statuses=(DocumentStatus.QUEUED, DocumentStatus.PROCESSING))

        def read(connection: Connection) -> FeedSnapshot:
            documents, more = list_documents(
                connection, principal.tenant, which=unfinished, limit=MAX_UNFINISHED, descending=False
            )
            counts = count_documents_by_kind(connection, principal.tenant, which=which)
            return FeedSnapshot(counts=counts, unfinished=documents, has_more=more, is_complete=is_complete)

        return await self._database.read(read)
