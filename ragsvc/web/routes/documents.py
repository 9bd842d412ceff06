"""``/v1/rag/documents``: upload, list, show, follow, change, retry, delete and download documents."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import HttpMethod, Request, Response, delete, get, patch, post, route
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import ServerSentEvent, ServerSentEventMessage
from litestar.response.base import ASGIResponse

from ragsvc.core.access.principal import Principal, Scope, allows_collection, require_collection
from ragsvc.core.defaults import MAX_COLLECTION_NAME_LENGTH, MAX_FILENAME_LENGTH
from ragsvc.core.documents import Document, DocumentStatus
from ragsvc.core.errors import DocumentNotFound, DocumentUnreadable, FailureReason, InvalidRequest
from ragsvc.core.file_names import clean_filename
from ragsvc.core.file_types import MEDIA_TYPES
from ragsvc.core.ids import CHUNK_ID_PATTERN, TenantId, ordinal_of_chunk
from ragsvc.core.retrieval.filters import parse_filter
from ragsvc.core.validation import as_sentence, decode_json_parameter, invalid_value
from ragsvc.core.vector_stores import SERVER_FAULTS
from ragsvc.services.document_service import DocumentService
from ragsvc.store.document_listing import DocumentFilter, DocumentOrder
from ragsvc.web.app_state import services_of
from ragsvc.web.bodies import read_json
from ragsvc.web.context import principal_of
from ragsvc.web.errors import document_location
from ragsvc.web.idempotent_requests import idempotent_request
from ragsvc.web.openapi import (
    BINARY,
    EVENTS,
    DocumentedAnswer,
    Schema,
    described_download,
    header_parameter,
    query_parameter,
)
from ragsvc.web.routes.schemas import (
    DocumentChange,
    DocumentCountsOut,
    DocumentDeleted,
    DocumentList,
    DocumentOut,
    PageOut,
    PassageList,
    RetryRequest,
    UploadedDocumentOut,
    UploadForm,
    counts_out,
    document_out,
    passage_out,
    uploaded_document_out,
)
from ragsvc.web.stored_files import StoredFile, download_headers
from ragsvc.web.uploads import AnyRequest, read_upload

_READ: Final = {"scope": Scope.DOCUMENTS_READ, "tag": "documents"}
_WRITE: Final = {"scope": Scope.DOCUMENTS_WRITE, "tag": "documents"}
USAGE_FAMILY = "documents"
"""How uploads are counted in the usage report."""

_OWN_FAILURES: Final = SERVER_FAULTS | {FailureReason.CANCELLED}
_KEEP_ALIVE_S = 15.0
_MAX_WAIT_S = 600.0

_Limit = Annotated[int, QueryParameter(ge=1, le=100, description="Maximum number of entries")]
_WaitS = Annotated[
    float | None, QueryParameter(ge=0, le=_MAX_WAIT_S, description="Seconds to wait until the document is ready")
]
_Name = Annotated[str | None, QueryParameter(max_length=MAX_FILENAME_LENGTH, description="Part of the file name")]
_Statuses = Annotated[
    str | None, QueryParameter(description="queued, processing, ready or failed, or several separated by commas")
]
_Collection = Annotated[str | None, QueryParameter(max_length=MAX_COLLECTION_NAME_LENGTH)]
_MediaTypes = Annotated[
    str | None,
    QueryParameter(max_length=1000, description="A media type such as application/pdf, or several separated by commas"),
]
_Sort = Annotated[DocumentOrder, QueryParameter(description="What to sort by; `order` is the direction")]
_Filters = Annotated[str | None, QueryParameter(description="A metadata filter as JSON")]
_ParentId = Annotated[
    str | None, QueryParameter(max_length=64, description="Documents that are attached to the document with this id")
]
_AfterPassage = Annotated[
    str | None,
    QueryParameter(pattern=CHUNK_ID_PATTERN, description="List passages after the one with this id (``last_id``)"),
]

_Inline = Annotated[
    bool,
    QueryParameter(description="Let a browser show a PDF or a picture instead of storing it; `#page=3` opens page 3"),
]

_change = msgspec.json.Decoder(DocumentChange)
_retry = msgspec.json.Decoder(RetryRequest)

_STORED: Final[dict[str, Schema]] = dict.fromkeys(MEDIA_TYPES, BINARY)
_UPLOAD: Final = {
    **_WRITE,
    "streams_body": True,
    "idempotent": True,
    "body": {**_STORED, "multipart/form-data": UploadForm},
    "parameters": [
        query_parameter("filename", "File name of a raw body, or the URL it came from", max_length=MAX_FILENAME_LENGTH),
        query_parameter("collection", "Collection of a raw body", max_length=MAX_COLLECTION_NAME_LENGTH),
        query_parameter("metadata", "Metadata of a raw body, a JSON object"),
        header_parameter("Content-Disposition", "File name of a raw body (RFC 6266), without the parameter `filename`"),
        header_parameter("Content-Location", "URL of a raw body that has no other name; its last segment is the name"),
        header_parameter("X-Document-Password", "Password of a protected PDF that is sent as a raw body"),
        header_parameter("Prefer", "`respond-async` means `wait_s=0`"),
    ],
    "answers": {
        200: DocumentedAnswer(
            "The collection already has a document with these bytes; it takes the name and metadata given.",
            UploadedDocumentOut,
        ),
        201: DocumentedAnswer("Stored, and ready within `wait_s`.", UploadedDocumentOut),
        202: DocumentedAnswer("Stored, and not ready within `wait_s`; see `Location`.", UploadedDocumentOut),
    },
    "errors": (404, 415, 422, 507),
}


def _service(request: AnyRequest) -> DocumentService:
    service: DocumentService = request.app.state.services.documents
    return service


async def _tenant_of(request: AnyRequest, document_id: str) -> TenantId:
    """The tenant of the caller. Raises ``DocumentNotFound`` if its key may not use the document's collection."""
    principal = principal_of(request)
    if principal.allowed_collections:
        document = await _service(request).get(principal.tenant, document_id)
        if not allows_collection(principal, document.collection):
            raise DocumentNotFound(f"There is no document '{document_id}'.", param="document_id")
    return principal.tenant


def _answer(service: DocumentService, document: Document, *, status: int) -> Response[DocumentOut]:
    return Response(
        document_out(document, eta_s=service.eta_s(document)),
        status_code=status,
        headers={"location": document_location(document.public_id)},
    )


@post(
    "/v1/rag/documents",
    opt=_UPLOAD,
    status_code=201,
    request_max_body_size=None,  # DocumentService enforces max_document_bytes while the body is read
    summary="Upload a document",
)
async def upload_document(request: Request[Any, Any, Any], wait_s: _WaitS = None) -> Response[UploadedDocumentOut]:
    """Upload a document: a raw body of one of the types that can be read, or a form with ``file``.

    A file of a binary format is recognised by its content. Files attached to it become documents of their own, with
    its id as ``parent_id``.

    201 if the document is ready within ``wait_s``; 202 if it is not (see ``status`` and ``Location``); 422 if it
    turned out to be unreadable within ``wait_s`` (it stays listed as failed); 200 if the collection already has a
    document with these bytes, whose name and metadata the upload then updates (see ``updated``).
    ``Prefer: respond-async`` means ``wait_s=0``.
    """
    service = _service(request)
    principal = principal_of(request)
    services_of(request).access.count_request(principal, family=USAGE_FAMILY)
    async with service.receiving(announced_bytes=_content_length(request)) as receiving:
        upload = await read_upload(request, receiving)
        require_collection(principal, upload.collection)
        access = services_of(request).access
        uploaded = await service.add(
            principal.tenant,
            receiving,
            upload,
            identify=functools.partial(idempotent_request, request),
            require_caller=lambda connection: access.require_key(connection, principal.key_id),
        )
    asynchronous = "respond-async" in request.headers.get("prefer", "").lower()
    default_wait_s: float = request.app.state.services.settings.upload_wait_s
    timeout_s = 0.0 if asynchronous else default_wait_s if wait_s is None else wait_s
    document = uploaded.document
    if timeout_s > 0:
        document = await service.wait(principal.tenant, document.public_id, timeout_s=timeout_s)
        _refuse_unreadable(document)
    status = 202
    if not uploaded.created:
        status = 200
    elif document.status is DocumentStatus.READY:
        status = 201
    headers = {"location": document_location(document.public_id)}
    if asynchronous:
        headers["preference-applied"] = "respond-async"
    body = uploaded_document_out(uploaded, document, eta_s=service.eta_s(document))
    return Response(body, status_code=status, headers=headers)


def _refuse_unreadable(document: Document) -> None:
    """Raise ``DocumentUnreadable`` for a document that failed because of its file, not because of the service."""
    code = document.failure_code
    if code is not None and code not in _OWN_FAILURES:
        message = as_sentence(document.failure_message or code)
        raise DocumentUnreadable(message, reason=code, document_id=document.public_id)


def _content_length(request: AnyRequest) -> int | None:
    """``Content-Length`` of a raw body; ``None`` for a form, which is larger than its file."""
    if request.headers.get("content-type", "").startswith("multipart/"):
        return None
    text = request.headers.get("content-length", "")
    return int(text) if text.isdecimal() else None


@get("/v1/rag/documents", opt={**_READ, "errors": (404,)}, summary="List documents")
async def list_documents(
    request: Request[Any, Any, Any],
    limit: _Limit = 20,
    after: FromQuery[str | None] = None,
    before: FromQuery[str | None] = None,
    order: FromQuery[Literal["asc", "desc"]] = "desc",
    sort: _Sort = DocumentOrder.CREATED,
    status: _Statuses = None,
    name: _Name = None,
    collection: _Collection = None,
    media_type: _MediaTypes = None,
    parent_id: _ParentId = None,
    filters: _Filters = None,
) -> DocumentList:
    """List documents, newest first. ``after`` and ``before`` take the id of a document (``last_id``, ``first_id``).

    A page begins after the present place of that document, so a change of what is sorted by can move it.
    """
    if after is not None and before is not None:
        raise InvalidRequest("'after' and 'before' cannot be used together.", param="before")
    service = _service(request)
    principal = principal_of(request)
    if collection is not None:
        require_collection(principal, collection)
    documents, more = await service.list_page(
        principal.tenant,
        which=_which(principal, status=status, name=name, media_type=media_type, filters=filters),
        collection=collection,
        parent_id=parent_id,
        limit=limit,
        after=after,
        before=before,
        descending=order == "desc",
        order=sort,
    )
    data = [document_out(document, eta_s=service.eta_s(document)) for document in documents]
    return DocumentList(
        data=data, first_id=data[0].id if data else None, last_id=data[-1].id if data else None, has_more=more
    )


@get("/v1/rag/documents/counts", opt={**_READ, "errors": (404,)}, summary="Count documents")
async def count_documents(
    request: Request[Any, Any, Any],
    status: _Statuses = None,
    name: _Name = None,
    collection: _Collection = None,
    media_type: _MediaTypes = None,
    parent_id: _ParentId = None,
    filters: _Filters = None,
) -> DocumentCountsOut:
    """Count the documents that the list with the same filters has, by status and by media type."""
    principal = principal_of(request)
    if collection is not None:
        require_collection(principal, collection)
    counts = await _service(request).count(
        principal.tenant,
        which=_which(principal, status=status, name=name, media_type=media_type, filters=filters),
        collection=collection,
        parent_id=parent_id,
    )
    return counts_out(counts)


def _which(
    principal: Principal, *, status: str | None, name: str | None, media_type: str | None, filters: str | None
) -> DocumentFilter:
    return DocumentFilter(
        collections=principal.allowed_collections,
        statuses=_statuses(status),
        media_types=tuple(part.strip().lower() for part in media_type.split(",") if part.strip()) if media_type else (),
        filename_contains=name,
        metadata=None if filters is None else parse_filter(decode_json_parameter("filters", filters, dict[str, Any])),
    )


def _statuses(text: str | None) -> tuple[DocumentStatus, ...]:
    try:
        return tuple(DocumentStatus(status.strip()) for status in text.split(",")) if text else ()
    except ValueError as error:
        raise invalid_value("status", "Expected 'queued', 'processing', 'ready' or 'failed'") from error


@get("/v1/rag/documents/{document_id:str}", opt=_READ, summary="Show a document")
async def get_document(request: Request[Any, Any, Any], document_id: FromPath[str]) -> DocumentOut:
    """Show a document with stage, progress, problems by page, counts and timings."""
    service = _service(request)
    document = await service.get(await _tenant_of(request, document_id), document_id)
    return document_out(document, eta_s=service.eta_s(document))


@get(
    "/v1/rag/documents/{document_id:str}/content",
    opt={**_READ, **described_download("The stored file.", _STORED)},
    summary="Download a document",
)
async def get_content(
    request: Request[Any, Any, Any], document_id: FromPath[str], *, inline: _Inline = False
) -> ASGIResponse:
    """Download the stored file or a range of it; `ETag` is its SHA-256."""
    return await _stored_file(request, document_id, inline=inline)


@route(
    "/v1/rag/documents/{document_id:str}/content",
    http_method=HttpMethod.HEAD,
    opt=_READ,
    status_code=200,
    include_in_schema=False,
)
async def head_content(request: Request[Any, Any, Any], document_id: FromPath[str]) -> ASGIResponse:
    """The headers of the stored file."""
    return await _stored_file(request, document_id)


async def _stored_file(request: Request[Any, Any, Any], document_id: str, *, inline: bool = False) -> ASGIResponse:
    document, stored = await _service(request).content(await _tenant_of(request, document_id), document_id)
    headers = download_headers(document.filename, document.media_type, inline=inline)
    return StoredFile(stored, size=document.size_bytes, sha256=document.sha256, headers=headers)


@get("/v1/rag/documents/{document_id:str}/passages", opt=_READ, summary="List a document's passages")
async def list_passages(
    request: Request[Any, Any, Any],
    document_id: FromPath[str],
    limit: _Limit = 20,
    after: _AfterPassage = None,
) -> PassageList:
    """List the passages of a document in reading order."""
    tenant = await _tenant_of(request, document_id)
    ordinal = None if after is None else ordinal_of_chunk(after, document_id=document_id)
    if after is not None and ordinal is None:
        raise invalid_value("after", "Expected the id of a passage of this document")
    passages = await _service(request).passages(tenant, document_id, after=ordinal, limit=limit + 1)
    data = [passage_out(passage) for passage in passages[:limit]]
    return PassageList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=len(passages) > limit,
    )


@get("/v1/rag/documents/{document_id:str}/pages/{number:int}", opt=_READ, summary="Show a page's text")
async def get_page(request: Request[Any, Any, Any], document_id: FromPath[str], number: FromPath[int]) -> PageOut:
    """Show the text of a page, counted from 1; offsets of passages and citations refer to it."""
    page = await _service(request).page(await _tenant_of(request, document_id), document_id, number)
    return PageOut(document_id=document_id, page=page.number, page_label=page.label, text=page.text)


@get(
    "/v1/rag/documents/{document_id:str}/events",
    opt={**_READ, "answers": {200: DocumentedAnswer("Events until the document is ready, failed or deleted.", EVENTS)}},
    summary="Follow a document's progress",
)
async def follow_document(request: Request[Any, Any, Any], document_id: FromPath[str]) -> ServerSentEvent:
    """Follow a document by server-sent events: ``progress`` for changes, then ``ready``, ``failed`` or ``deleted``."""
    service = _service(request)
    tenant = await _tenant_of(request, document_id)
    await service.get(tenant, document_id)
    return ServerSentEvent(_events(service, tenant, document_id), headers={"Cache-Control": "no-store"})


async def _events(
    service: DocumentService, tenant: TenantId, document_id: str
) -> AsyncGenerator[ServerSentEventMessage]:
    try:
        async for document in service.follow(tenant, document_id, every_s=_KEEP_ALIVE_S):
            if document is None:
                yield ServerSentEventMessage(comment="still working", data=None, sep="\n")
                continue
            ended = document.status in (DocumentStatus.READY, DocumentStatus.FAILED)
            name = document.status.value if ended else "progress"
            yield _event(name, document_out(document, eta_s=service.eta_s(document)))
    except DocumentNotFound:
        yield _event("deleted", DocumentDeleted(id=document_id))


def _event(name: str, body: DocumentOut | DocumentDeleted) -> ServerSentEventMessage:
    return ServerSentEventMessage(event=name, data=msgspec.json.encode(body), sep="\n")


@post(
    "/v1/rag/documents/{document_id:str}/retry",
    opt={**_WRITE, "body": RetryRequest, "body_optional": True, "errors": (409,)},
    status_code=202,
    summary="Try a failed document again",
)
async def retry_document(request: Request[Any, Any, Any], document_id: FromPath[str]) -> Response[DocumentOut]:
    """Process a failed document again, with a password if it is protected."""
    service = _service(request)
    password = (await read_json(request, _retry)).password if await request.body() else None
    document = await service.retry(await _tenant_of(request, document_id), document_id, password=password)
    return _answer(service, document, status=202)


@patch("/v1/rag/documents/{document_id:str}", opt={**_WRITE, "body": DocumentChange}, summary="Change a document")
async def change_document(request: Request[Any, Any, Any], document_id: FromPath[str]) -> DocumentOut:
    """Change the file name or the metadata; metadata is merged, ``null`` removes a key."""
    data = await read_json(request, _change)
    filename = None if data.filename is None else clean_filename(data.filename)
    document = await _service(request).change(
        await _tenant_of(request, document_id), document_id, filename=filename, metadata=data.metadata
    )
    return document_out(document)


@delete("/v1/rag/documents/{document_id:str}", opt=_WRITE, status_code=200, summary="Delete a document")
async def delete_document(request: Request[Any, Any, Any], document_id: FromPath[str]) -> DocumentDeleted:
    """Delete a document with its file, its passages, and the documents that exist only as its attachments."""
    document = await _service(request).delete(await _tenant_of(request, document_id), document_id)
    return DocumentDeleted(id=document.public_id)


@post("/v1/rag/documents/{document_id:str}/delete", opt=_WRITE, status_code=200, summary="Delete a document by POST")
async def delete_document_by_post(request: Request[Any, Any, Any], document_id: FromPath[str]) -> DocumentDeleted:
    """Delete a document, for clients that cannot send ``DELETE``."""
    document = await _service(request).delete(await _tenant_of(request, document_id), document_id)
    return DocumentDeleted(id=document.public_id)


route_handlers: list[Any] = [
    upload_document,
    list_documents,
    count_documents,
    get_document,
    get_content,
    head_content,
    list_passages,
    get_page,
    follow_document,
    retry_document,
    change_document,
    delete_document,
    delete_document_by_post,
]
"""All routes of this module."""
