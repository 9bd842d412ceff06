"""``GET /v1/rag/events``: server-sent events of all documents that the key may use."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final, Literal, assert_never

import msgspec
from litestar import Request, get
from litestar.response import ServerSentEvent, ServerSentEventMessage

from ragsvc.core.access.principal import Principal, Scope
from ragsvc.core.documents import Document, DocumentStatus
from ragsvc.core.validation import invalid_value
from ragsvc.services.access_control import Access
from ragsvc.services.document_feed import DocumentFeed, FeedEntry, FeedSnapshot
from ragsvc.services.document_service import DocumentService
from ragsvc.services.progress_events import DocumentDeletion
from ragsvc.web.context import context_of, principal_of
from ragsvc.web.openapi import EVENTS, DocumentedAnswer, header_parameter
from ragsvc.web.routes.schemas import DocumentCountsOut, DocumentDeleted, DocumentOut, counts_out, document_out
from ragsvc.web.sessions import has_ended

_KEEP_ALIVE_S: Final = 15.0
_RETRY_MS: Final = 2000
_MAX_POSITION_DIGITS: Final = 15
LAST_EVENT_ID: Final = "Last-Event-ID"


class DocumentsSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of all documents: their number by status and type, and those that are queued or processed, at most 100.

    ``resumed``: the events that follow contain all changes since ``Last-Event-ID``. If false, a client that shows
    documents lists them again.
    """

    object: Literal["documents.snapshot"] = "documents.snapshot"
    counts: DocumentCountsOut
    unfinished: list[DocumentOut]
    has_more: bool
    resumed: bool


@get(
    "/v1/rag/events",
    opt={
        "scope": Scope.DOCUMENTS_READ,
        "tag": "documents",
        "parameters": [header_parameter(LAST_EVENT_ID, "Id of the last event that the client has; it resumes there")],
        "answers": {200: DocumentedAnswer("Events until the client or the service closes the stream.", EVENTS)},
    },
    summary="Follow all documents",
)
async def follow_documents(request: Request[Any, Any, Any]) -> ServerSentEvent:
    """Follow all documents by server-sent events: ``snapshot``, then ``progress``, ``ready``, ``failed``, ``deleted``.

    An event holds the document as ``GET /v1/rag/documents/{id}`` shows it. If very many documents change at once, a new
    ``snapshot`` takes the place of their events.
    """
    since = _position(request.headers.get(LAST_EVENT_ID))
    return ServerSentEvent(_events(request, principal_of(request), since), headers={"Cache-Control": "no-store"})


def _position(text: str | None) -> int | None:
    if text is None or not text.strip():
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > _MAX_POSITION_DIGITS:
        raise invalid_value(LAST_EVENT_ID, "Expected the id of an event of this stream")
    return int(text)


async def _events(
    request: Request[Any, Any, Any], principal: Principal, since: int | None
) -> AsyncGenerator[ServerSentEventMessage]:
    services = request.app.state.services
    feed: DocumentFeed = services.document_feed
    documents: DocumentService = services.documents
    access: Access = services.access
    context = context_of(request.scope)
    async for entry in feed.follow(principal, since=since, every_s=_KEEP_ALIVE_S):
        if await has_ended(access.sessions, context):
            return
        match entry.change:
            case None:  # comments have no id: a position is sent with the next event
                yield ServerSentEventMessage(comment="still working", data=None, sep="\n")
            case FeedSnapshot() as snapshot:
                body = DocumentsSnapshot(
                    counts=counts_out(snapshot.counts),
                    unfinished=[_out(documents, document) for document in snapshot.unfinished],
                    has_more=snapshot.has_more,
                    resumed=snapshot.is_complete,
                )
                yield _event("snapshot", entry, body)
            case Document() as document:
                ended = document.status in (DocumentStatus.READY, DocumentStatus.FAILED)
                yield _event(document.status.value if ended else "progress", entry, _out(documents, document))
            case DocumentDeletion() as deletion:
                yield _event("deleted", entry, DocumentDeleted(id=deletion.public_id))
            case _:
                assert_never(entry.change)


def _out(documents: DocumentService, document: Document) -> DocumentOut:
    return document_out(document, eta_s=documents.eta_s(document))


def _event(name: str, entry: FeedEntry, body: msgspec.Struct) -> ServerSentEventMessage:
    data = msgspec.json.encode(body)
    retry = _RETRY_MS if name == "snapshot" else None
    return ServerSentEventMessage(event=name, id=str(entry.position), data=data, retry=retry, sep="\n")


route_handlers: list[Any] = [follow_documents]
"""All routes of this module."""
