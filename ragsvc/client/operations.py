"""The calls of the typed clients: paths, parameters and the types of their answers. Without I/O."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypedDict, TypeVar
from urllib.parse import quote

import msgspec

from ragsvc.client.answers import Answer, read_answer
from ragsvc.client.calls import LONG_TIMEOUT_S, SILENCE_S, Call, decoder_of
from ragsvc.client.document_following import Following
from ragsvc.client.event_decoding import Json
from ragsvc.client.pagination import ListPage, PagedCall, last_id
from ragsvc.client.records import (
    BalanceRecord,
    BookmarkRecord,
    BoxesRecord,
    CollectionRecord,
    DocumentCountRecord,
    DocumentDeletionRecord,
    DocumentRecord,
    DocumentsSnapshotRecord,
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
from ragsvc.client.service_errors import DocumentUnfinished
from ragsvc.client.upload_bodies import UploadSource, form_body, name_of_source
from ragsvc.core.defaults import LOCAL_MODEL, MAX_FILENAME_LENGTH

T = TypeVar("T")

ChatMessages = str | Sequence[Mapping[str, Any]]
"""A question, or the messages of a conversation."""

_ANSWER_TIMEOUT_S: Final = 600.0
_PAGE: Final = 100
_DOCUMENTS: Final = "/v1/rag/documents"
_COLLECTIONS: Final = "/v1/rag/collections"


class SearchOptions(TypedDict, total=False):
    """Options of a search. ``filters`` have the form of OpenAI's comparison and compound filters."""

    top_k: int
    mode: Literal["hybrid", "dense", "lexical"]
    collection: str
    document_ids: Sequence[str]
    filters: Mapping[str, Any]
    min_score: float


class RankedSearchOptions(SearchOptions, total=False):
    """Options of a search for passages.

    ``rerank`` orders them with a cross-encoder; ``explain`` adds the parts of each score.
    """

    rerank: bool
    explain: bool


class AskOptions(SearchOptions, total=False):
    """Options of a question. ``parameters`` are other fields of a chat completion, such as ``temperature``."""

    model: str
    use_rag: bool
    max_tokens: int
    parameters: Mapping[str, Any]


DocumentEvent = DocumentRecord | DocumentsSnapshotRecord | DocumentDeletionRecord
"""An event of all documents: the new state of one, or of all, or a deletion."""


class CountOptions(TypedDict, total=False):
    """Which documents to count. ``name`` is a part of the file name.

    ``status`` and ``media_type`` may name several, with commas.
    """

    status: str
    name: str
    collection: str
    media_type: str
    parent_id: str
    filters: Mapping[str, Any]


class ListOptions(CountOptions, total=False):
    """Which documents to list, and in which order."""

    sort: Literal["created", "updated", "name", "pages", "bytes", "status"]
    order: Literal["asc", "desc"]


class KeyFields(TypedDict, total=False):
    """Fields of a key. ``None`` as a limit means unlimited; a limit that is left out is not changed."""

    state: Literal["active", "inactive"]
    scopes: Sequence[str]
    allowed_models: Sequence[str]
    allowed_collections: Sequence[str]
    requests_per_minute: int | None
    requests_per_hour: int | None
    tokens_per_day: int | None
    token_balance: int | None
    max_parallel_requests: int | None
    money_per_day: float | None
    money_balance: float | None
    expires_at: int | None


class NewKeyFields(KeyFields, total=False):
    """Fields of a key to create. ``secret_sha256`` imports an existing secret by its hash."""

    tenant: str
    secret_sha256: str


class ChangedKeyFields(KeyFields, total=False):
    """Fields of a key to change."""

    label: str


class OwnUsageOptions(TypedDict, total=False):
    """Which usage to sum. Dates are days in UTC (``2026-11-29``); ``group_by`` names columns, separated by commas."""

    since: str
    until: str
    model: str
    family: str
    group_by: str


class UsageOptions(OwnUsageOptions, total=False):
    """Which usage of which keys to sum."""

    tenant: str
    key_id: str


class QuotaFields(TypedDict, total=False):
    """Limits of a tenant. ``None`` returns to the limit of the settings, and removes a budget in money."""

    max_collections: int | None
    max_documents: int | None
    max_bytes: int | None
    money_per_day: float | None
    money_balance: float | None


class _Removal(msgspec.Struct):
    removed: RemovedData


class _Collections(msgspec.Struct):
    data: list[CollectionRecord]


class _Tenants(msgspec.Struct):
    data: list[TenantRecord]


# -- documents ---------------------------------------------------------------------------------------------------------


def upload_document(
    source: UploadSource,
    *,
    filename: str | None,
    media_type: str | None,
    collection: str | None,
    metadata: Mapping[str, Any] | None,
    password: str | None,
    idempotency_key: str | None,
) -> Call[UploadedDocument]:
    """Store a file; the answer comes before it is processed."""
    name = filename or name_of_source(source)
    fields = {
        "filename": None if name is None else name[-MAX_FILENAME_LENGTH:],
        "collection": collection,
        "metadata": None if metadata is None else msgspec.json.encode(metadata).decode(),
        "password": password,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    body, content_type = form_body(source, media_type=media_type or "application/octet-stream", fields=given)
    return Call(
        method="POST",
        path=_DOCUMENTS,
        params={"wait_s": 0},
        body=body,
        headers={"content-type": content_type, **_idempotency(idempotency_key)},
        decode=decoder_of(UploadedDocument),
    )


def list_documents(options: ListOptions) -> PagedCall[DocumentRecord]:
    return _listed(_DOCUMENTS, decoder_of(ListPage[DocumentRecord]), _document_filter(options))


def count_documents(options: CountOptions) -> Call[DocumentCountRecord]:
    params = _document_filter(options)
    return Call(method="GET", path=f"{_DOCUMENTS}/counts", params=params, decode=decoder_of(DocumentCountRecord))


def _document_filter(options: CountOptions) -> dict[str, Any]:
    params: dict[str, Any] = {**options}
    if "filters" in options:
        params["filters"] = msgspec.json.encode(options["filters"]).decode()
    return params


def follow_all_documents() -> Call[Json]:
    return Call(method="GET", path="/v1/rag/events", decode=decoder_of(Json), timeout_s=SILENCE_S)


def documents_event(event: Json) -> DocumentEvent:
    """An event of all documents."""
    kinds: dict[str, type[DocumentEvent]] = {
        "documents.snapshot": DocumentsSnapshotRecord,
        "document.deleted": DocumentDeletionRecord,
    }
    return msgspec.convert(event, kinds.get(event["object"], DocumentRecord))


def get_document(document_id: str) -> Call[DocumentRecord]:
    return Call(method="GET", path=document_path(document_id), decode=decoder_of(DocumentRecord))


def update_document(
    document_id: str, *, filename: str | None, metadata: Mapping[str, Any] | None
) -> Call[DocumentRecord]:
    changes = {"filename": filename, "metadata": metadata}
    return Call(
        method="PATCH",
        path=document_path(document_id),
        document={name: value for name, value in changes.items() if value is not None},
        decode=decoder_of(DocumentRecord),
    )


def delete_document(document_id: str) -> Call[None]:
    return Call(method="DELETE", path=document_path(document_id), decode=_nothing)


def retry_document(document_id: str, *, password: str | None) -> Call[DocumentRecord]:
    return Call(
        method="POST",
        path=f"{document_path(document_id)}/retry",
        document={} if password is None else {"password": password},
        decode=decoder_of(DocumentRecord),
        repeatable=False,
    )


def get_page(document_id: str, number: int) -> Call[PageRecord]:
    return Call(method="GET", path=f"{document_path(document_id)}/pages/{number}", decode=decoder_of(PageRecord))


def get_page_image(document_id: str, number: int, *, width: int | None, password: str | None) -> Call[bytes]:
    return Call(
        method="GET",
        path=f"{document_path(document_id)}/pages/{number}/image",
        params={} if width is None else {"width": width},
        headers=_password_header(password),
        decode=bytes,
    )


def get_page_boxes(
    document_id: str, number: int, place: Mapping[str, int | str | None], *, password: str | None
) -> Call[BoxesRecord]:
    return Call(
        method="GET",
        path=f"{document_path(document_id)}/pages/{number}/boxes",
        params={name: value for name, value in place.items() if value is not None},
        headers=_password_header(password),
        decode=decoder_of(BoxesRecord),
    )


def get_outline(document_id: str, *, password: str | None) -> Call[list[BookmarkRecord]]:
    decode = decoder_of(_Outline)
    return Call(
        method="GET",
        path=f"{document_path(document_id)}/outline",
        headers=_password_header(password),
        decode=lambda body: decode(body).data,
    )


class _Outline(msgspec.Struct):
    data: list[BookmarkRecord]


def _password_header(password: str | None) -> dict[str, str]:
    return {} if password is None else {"x-document-password": password}


def list_passages(document_id: str) -> PagedCall[PassageRecord]:
    return _listed(f"{document_path(document_id)}/passages", decoder_of(ListPage[PassageRecord]), {})


def get_content(document_id: str) -> Call[bytes]:
    return Call(method="GET", path=f"{document_path(document_id)}/content", decode=bytes, timeout_s=SILENCE_S)


def follow_document(document_id: str, *, timeout_s: float | None) -> Following:
    return Following(document_path(document_id), document_id, timeout_s=timeout_s)


def require_ready(state: DocumentRecord | None, document_id: str) -> DocumentRecord:
    """Return a document that is ready. Raises ``DocumentUnfinished`` for a failed one."""
    if state is not None and state.status == "ready":
        return state
    failure = None if state is None else state.error
    raise DocumentUnfinished(
        failure.message if failure is not None else "The document is not ready.",
        code=failure.code if failure is not None else "document_not_ready",
        document_id=document_id,
    )


def document_state(state: Json) -> DocumentRecord:
    """A state from the events of a document."""
    return msgspec.convert(state, DocumentRecord)


def uploaded_document(ready: DocumentRecord, stored: UploadedDocument) -> UploadedDocument:
    """The present state of an uploaded document, with what only the answer of the upload says."""
    fields = {name: getattr(ready, name) for name in DocumentRecord.__struct_fields__}
    return UploadedDocument(**fields, created=stored.created, updated=stored.updated)


def document_path(document_id: str) -> str:
    return f"{_DOCUMENTS}/{quote(document_id, safe='')}"


# -- search and answers ------------------------------------------------------------------------------------------------


def search(query: str, options: RankedSearchOptions) -> Call[PassageHits]:
    return Call(
        method="POST",
        path="/v1/rag/search",
        document={"query": query, **options},
        decode=decoder_of(PassageHits),
    )


def ask(messages: ChatMessages, options: AskOptions, *, stream: bool = False) -> Call[Answer]:
    """A chat completion. Searches documents unless ``use_rag`` is false."""
    search_options = {name: value for name, value in options.items() if name in SearchOptions.__annotations__}
    body: dict[str, Any] = {
        "model": options.get("model", LOCAL_MODEL),
        "messages": [{"role": "user", "content": messages}] if isinstance(messages, str) else messages,
        "use_rag": options.get("use_rag", True),
        **options.get("parameters", {}),
    }
    if search_options:
        body["rag"] = search_options
    if "max_tokens" in options:
        body["max_tokens"] = options["max_tokens"]
    if stream:
        body["stream"] = True
    return Call(
        method="POST",
        path="/v1/chat/completions",
        document=body,
        decode=read_answer,
        repeatable=False,
        timeout_s=_ANSWER_TIMEOUT_S,
    )


# -- collections -------------------------------------------------------------------------------------------------------


def list_collections() -> Call[list[CollectionRecord]]:
    return Call(method="GET", path=_COLLECTIONS, decode=lambda content: _decode(content, _Collections).data)


def create_collection(name: str) -> Call[CollectionRecord]:
    return Call(method="POST", path=_COLLECTIONS, document={"name": name}, decode=decoder_of(CollectionRecord))


def get_collection(name: str) -> Call[CollectionRecord]:
    return Call(method="GET", path=_collection(name), decode=decoder_of(CollectionRecord))


def delete_collection(name: str, *, only_if_empty: bool) -> Call[RemovedData]:
    return Call(
        method="DELETE",
        path=_collection(name),
        params={"only_if_empty": only_if_empty},
        decode=lambda content: _decode(content, _Removal).removed,
        timeout_s=LONG_TIMEOUT_S,
    )


def _collection(name: str) -> str:
    return f"{_COLLECTIONS}/{quote(name)}"


# -- keys and usage ----------------------------------------------------------------------------------------------------


def create_key(label: str, fields: NewKeyFields, *, idempotency_key: str | None) -> Call[NewKey]:
    return Call(
        method="POST",
        path="/v1/keys",
        document={"label": label, **fields},
        headers=_idempotency(idempotency_key),
        decode=decoder_of(NewKey),
    )


def list_keys(tenant: str | None) -> PagedCall[KeyRecord]:
    return _listed("/v1/keys", decoder_of(ListPage[KeyRecord]), {} if tenant is None else {"tenant": tenant})


def get_key(key_id: str) -> Call[KeyRecord]:
    return Call(method="GET", path=_key(key_id), decode=decoder_of(KeyRecord))


def update_key(key_id: str, fields: ChangedKeyFields) -> Call[KeyRecord]:
    return Call(method="PATCH", path=_key(key_id), document={**fields}, decode=decoder_of(KeyRecord))


def rotate_key(key_id: str, *, overlap_s: int | None, idempotency_key: str | None) -> Call[NewKey]:
    return Call(
        method="POST",
        path=f"{_key(key_id)}/rotate",
        document={} if overlap_s is None else {"overlap_s": overlap_s},
        headers=_idempotency(idempotency_key),
        decode=decoder_of(NewKey),
    )


def revoke_key(key_id: str) -> Call[KeyRecord]:
    return Call(method="POST", path=f"{_key(key_id)}/revoke", decode=decoder_of(KeyRecord))


def delete_key(key_id: str) -> Call[None]:
    return Call(method="DELETE", path=_key(key_id), decode=_nothing)


def list_key_changes(key_id: str) -> PagedCall[KeyChangeRecord]:
    return PagedCall(
        path=f"{_key(key_id)}/audit",
        params={"limit": _PAGE},
        decode=decoder_of(ListPage[KeyChangeRecord]),
        cursor="before",
        position=lambda page: page.data[-1].id,
    )


def list_changes(tenant: str | None) -> PagedCall[KeyChangeRecord]:
    return PagedCall(
        path="/v1/audit",
        params={"limit": _PAGE} if tenant is None else {"limit": _PAGE, "tenant": tenant},
        decode=decoder_of(ListPage[KeyChangeRecord]),
        cursor="before",
        position=lambda page: page.data[-1].id,
    )


def get_own_key() -> Call[OwnKeyRecord]:
    return Call(method="GET", path="/v1/key", decode=decoder_of(OwnKeyRecord))


def get_own_usage(options: OwnUsageOptions) -> Call[UsageRecords]:
    return Call(method="GET", path="/v1/key/usage", params={**options}, decode=decoder_of(UsageRecords))


def get_usage(options: UsageOptions) -> Call[UsageRecords]:
    return Call(method="GET", path="/v1/usage", params={**options}, decode=decoder_of(UsageRecords))


def get_balance() -> Call[BalanceRecord]:
    return Call(method="GET", path="/v1/tokens", decode=decoder_of(BalanceRecord))


def _key(key_id: str) -> str:
    return f"/v1/keys/{quote(key_id, safe='')}"


# -- tenants -----------------------------------------------------------------------------------------------------------


def list_tenants() -> Call[list[TenantRecord]]:
    return Call(method="GET", path="/v1/tenants", decode=lambda content: _decode(content, _Tenants).data)


def get_tenant(name: str) -> Call[TenantRecord]:
    return Call(method="GET", path=_tenant(name), decode=decoder_of(TenantRecord))


def update_tenant(name: str, quotas: QuotaFields) -> Call[TenantRecord]:
    return Call(method="PATCH", path=_tenant(name), document={**quotas}, decode=decoder_of(TenantRecord))


def delete_tenant(name: str, *, remove_copies: bool) -> Call[RemovedData]:
    return Call(
        method="DELETE",
        path=_tenant(name),
        params={"remove_copies": remove_copies},
        decode=lambda content: _decode(content, _Removal).removed,
        timeout_s=LONG_TIMEOUT_S,
    )


def export_tenant(name: str) -> Call[bytes]:
    """A tar archive of everything of a tenant."""
    return Call(method="GET", path=f"{_tenant(name)}/export", decode=bytes, timeout_s=SILENCE_S)


def _tenant(name: str) -> str:
    return f"/v1/tenants/{quote(name, safe='')}"


def _listed(path: str, decode: Callable[[bytes], ListPage[T]], params: Mapping[str, Any]) -> PagedCall[T]:
    return PagedCall(path=path, params={"limit": _PAGE, **params}, decode=decode, position=last_id)


def _idempotency(key: str | None) -> dict[str, str]:
    """A repetition after a lost answer gets the first answer instead of acting twice."""
    return {"idempotency-key": key or str(uuid.uuid4())}


def _decode(content: bytes, kind: type[T]) -> T:
    return msgspec.json.decode(content, type=kind)


def _nothing(content: bytes) -> None:
    """Read an answer that says no more than its status."""
