"""``/v1/rag/feedback``: what people think of answers, and the questions that follow from it for ``ragsvc evaluate``."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import anyio.to_thread
import msgspec
from litestar import MediaType, Request, Response, delete, get, post
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream
from msgspec import Meta

from ragsvc.core.access.principal import Scope, require_scope
from ragsvc.core.defaults import (
    MAX_COLLECTION_NAME_LENGTH,
    MAX_FILENAME_LENGTH,
    MAX_MODEL_NAME_LENGTH,
    MAX_QUERY_LENGTH,
)
from ragsvc.core.errors import PolicyDenied
from ragsvc.core.feedback import (
    MAX_ANSWER_CHARACTERS,
    MAX_CITED_PLACES,
    MAX_NOTE_CHARACTERS,
    CitedPlace,
    Feedback,
    FeedbackDraft,
    Rating,
)
from ragsvc.core.validation import invalid_value
from ragsvc.services.feedback import FeedbackService
from ragsvc.store.feedback_rows import FeedbackReach
from ragsvc.web.bodies import read_json
from ragsvc.web.context import principal_of
from ragsvc.web.csv_answers import CSV_MEDIA_TYPE, csv_line
from ragsvc.web.openapi import DocumentedAnswer

_MAX_COLLECTIONS: Final = 16
_MAX_QUOTE: Final = 20_000
_OPT: Final = {"scope": Scope.CHAT_PLAIN, "tag": "feedback"}
_NOT_FOUND: Final = {**_OPT, "errors": (404,)}
_PublicId = Annotated[str, Meta(min_length=1, max_length=128)]
_Limit = Annotated[int, QueryParameter(ge=1, le=100, description="Maximum number of entries")]
_After = Annotated[str | None, QueryParameter(description="List feedback after the one with this id (``last_id``)")]
_Of = Annotated[
    Literal["key", "tenant"],
    QueryParameter(description="`tenant` is for administrators: feedback of all keys of the tenant"),
]
_Which = Annotated[
    Literal["up", "down", "all"], QueryParameter(description="Questions of answers with this rating only")
]


class CitedPlaceBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place that the answer cited; ``page`` counts from 1, ``quote`` is exact text of the page."""

    document_id: _PublicId
    page: Annotated[int, Meta(ge=1)] | None = None
    quote: Annotated[str, Meta(max_length=_MAX_QUOTE)] | None = None
    filename: Annotated[str, Meta(max_length=MAX_FILENAME_LENGTH)] | None = None
    chunk_id: Annotated[str, Meta(max_length=128)] | None = None


class CreateFeedback(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Feedback on an answer.

    ``answer_id`` is the id of the response or chat completion: a second rating by the same key replaces the first.
    ``not_in_documents``: the answer states that the documents do not contain it.
    """

    question: Annotated[str, Meta(min_length=1, max_length=MAX_QUERY_LENGTH)]
    answer: Annotated[str, Meta(max_length=MAX_ANSWER_CHARACTERS)]
    rating: Literal["up", "down"]
    note: Annotated[str, Meta(max_length=MAX_NOTE_CHARACTERS)] | None = None
    citations: Annotated[list[CitedPlaceBody], Meta(max_length=MAX_CITED_PLACES)] = []
    not_in_documents: bool = False
    model: Annotated[str, Meta(max_length=MAX_MODEL_NAME_LENGTH)] | None = None
    collections: Annotated[
        list[Annotated[str, Meta(max_length=MAX_COLLECTION_NAME_LENGTH)]], Meta(max_length=_MAX_COLLECTIONS)
    ] = []
    answer_id: _PublicId | None = None
    conversation_id: _PublicId | None = None


class FeedbackBody(msgspec.Struct, frozen=True, kw_only=True):
    """Stored feedback. ``key_id`` is the key that gave it."""

    id: str
    object: Literal["feedback"] = "feedback"
    created_at: int
    key_id: str
    question: str
    answer: str
    rating: Literal["up", "down"]
    note: str | None
    citations: list[CitedPlaceBody]
    not_in_documents: bool
    model: str | None
    collections: list[str]
    answer_id: str | None
    conversation_id: str | None


class FeedbackList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of feedback, newest first; the next page begins with ``after`` = ``last_id``."""

    object: Literal["list"] = "list"
    data: list[FeedbackBody]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FeedbackDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """The feedback was deleted."""

    id: str
    object: Literal["feedback.deleted"] = "feedback.deleted"
    deleted: Literal[True] = True


_create = msgspec.json.Decoder(CreateFeedback)


def _service(request: Request[Any, Any, Any]) -> FeedbackService:
    service: FeedbackService = request.app.state.services.feedback
    return service


def _reach(request: Request[Any, Any, Any], of: Literal["key", "tenant"] | None = None) -> FeedbackReach:
    """What the caller sees; without ``of``, as much as it may.

    Feedback quotes documents, so that a key that is limited to some collections sees its own only.

    Raises:
        PolicyDenied: the caller may not see the feedback of the tenant.
    """
    principal = principal_of(request)
    if of == "tenant":
        require_scope(principal, Scope.TENANT_ADMIN)
        if principal.allowed_collections:
            raise PolicyDenied(f"Key '{principal.label}' may not use all collections that feedback quotes.", param="of")
    manages = bool(principal.scopes & {Scope.TENANT_ADMIN, Scope.ADMIN}) and not principal.allowed_collections
    whole = manages if of is None else of == "tenant"
    return FeedbackReach(principal.tenant, None if whole else principal.key_id)


def _shown(feedback: Feedback) -> FeedbackBody:
    draft = feedback.draft
    return FeedbackBody(
        id=feedback.public_id,
        created_at=feedback.created_at,
        key_id=feedback.key_id,
        question=draft.question,
        answer=draft.answer,
        rating=draft.rating.value,
        note=draft.note,
        citations=[CitedPlaceBody(**msgspec.structs.asdict(place)) for place in draft.citations],
        not_in_documents=draft.not_in_documents,
        model=draft.model,
        collections=list(draft.collections),
        answer_id=draft.answer_id,
        conversation_id=draft.conversation_id,
    )


@post("/v1/rag/feedback", opt={**_OPT, "body": CreateFeedback, "errors": (507,)}, summary="Rate an answer")
async def create_feedback(request: Request[Any, Any, Any]) -> FeedbackBody:
    """Store what a person thinks of an answer. A second rating of the same ``answer_id`` replaces the first."""
    body = await read_json(request, _create)
    if not body.question.strip():
        raise invalid_value("question", "Expected a question that is not blank")
    draft = FeedbackDraft(
        question=body.question,
        answer=body.answer,
        rating=Rating(body.rating),
        note=body.note or None,
        citations=tuple(CitedPlace(**msgspec.structs.asdict(place)) for place in body.citations),
        not_in_documents=body.not_in_documents,
        model=body.model,
        collections=tuple(body.collections),
        answer_id=body.answer_id,
        conversation_id=body.conversation_id,
    )
    return _shown(await _service(request).add(principal_of(request), draft))


@get("/v1/rag/feedback", opt=_NOT_FOUND, summary="List feedback")
async def list_feedback(
    request: Request[Any, Any, Any],
    limit: _Limit = 20,
    after: _After = None,
    rating: FromQuery[Literal["up", "down"] | None] = None,
    of: _Of = "key",
) -> Response[FeedbackList]:
    """List the feedback of the key, newest first, or of the whole tenant.

    A page can have fewer entries than ``limit``: read on while ``has_more`` is true.
    """
    found, more = await _service(request).page(
        _reach(request, of), limit=limit, after=after, rating=None if rating is None else Rating(rating)
    )

    def encode() -> bytes:
        page = FeedbackList(
            data=[_shown(feedback) for feedback in found],
            first_id=found[0].public_id if found else None,
            last_id=found[-1].public_id if found else None,
            has_more=more,
        )
        return msgspec.json.encode(page)

    content: Any = await anyio.to_thread.run_sync(encode)
    return Response(content, media_type=MediaType.JSON)


@get(
    "/v1/rag/feedback/questions",
    opt={
        **_OPT,
        "answers": {200: DocumentedAnswer("JSON Lines.", {"application/x-ndjson": {"type": "string"}})},
    },
    summary="Export feedback as questions",
)
async def export_questions(request: Request[Any, Any, Any], rating: _Which = "up", of: _Of = "key") -> Stream:
    """The questions as a file that ``ragsvc evaluate`` reads, newest first, each once.

    A question whose answer was rated ``up`` has the cited place, or ``"answerable": false``. One rated ``down`` has no
    place: add it, or ``"answerable": false``.
    """
    which = None if rating == "all" else Rating(rating)
    lines = _service(request).questions(_reach(request, of), rating=which)
    headers = {"content-disposition": 'attachment; filename="questions.jsonl"'}
    return Stream(lines, media_type="application/x-ndjson", headers=headers)


@get(
    "/v1/rag/feedback/table",
    opt={**_OPT, "answers": {200: DocumentedAnswer("A table.", {CSV_MEDIA_TYPE: {"type": "string"}})}},
    summary="Export feedback as a table",
)
async def export_table(request: Request[Any, Any, Any], rating: _Which = "all", of: _Of = "key") -> Stream:
    """The feedback as a table for spreadsheets (CSV in UTF-8 with a byte order mark), newest first."""
    which = None if rating == "all" else Rating(rating)
    headers = {"content-disposition": 'attachment; filename="ratings.csv"', "cache-control": "no-store"}
    lines = _table(_service(request).all(_reach(request, of), rating=which))
    return Stream(lines, media_type=f"{CSV_MEDIA_TYPE}; header=present", headers=headers)


async def _table(entries: AsyncGenerator[Feedback]) -> AsyncGenerator[bytes]:
    columns = ("time", "rating", "question", "answer", "note", "sources", "model", "collections", "key_id", "id")
    yield codecs.BOM_UTF8 + csv_line(columns)  # without the mark, Excel reads the file in the encoding of the system
    async for feedback in entries:
        draft = feedback.draft
        yield csv_line(
            (
                datetime.fromtimestamp(feedback.created_at, UTC).isoformat(),
                draft.rating.value,
                draft.question,
                draft.answer,
                draft.note,
                "; ".join(_place(place) for place in draft.citations),
                draft.model,
                "; ".join(draft.collections),
                feedback.key_id,
                feedback.public_id,
            )
        )


def _place(place: CitedPlace) -> str:
    name = place.filename or place.document_id
    return name if place.page is None else f"{name}, page {place.page}"


@get("/v1/rag/feedback/{feedback_id:str}", opt=_NOT_FOUND, summary="Show feedback")
async def get_feedback(request: Request[Any, Any, Any], feedback_id: FromPath[str]) -> FeedbackBody:
    """Show feedback of the key; an administrator sees that of the tenant."""
    return _shown(await _service(request).get(_reach(request), feedback_id))


@delete("/v1/rag/feedback/{feedback_id:str}", opt=_NOT_FOUND, status_code=200, summary="Delete feedback")
async def delete_feedback(request: Request[Any, Any, Any], feedback_id: FromPath[str]) -> FeedbackDeleted:
    """Delete feedback of the key; an administrator deletes that of the tenant."""
    await _service(request).delete(_reach(request), feedback_id)
    return FeedbackDeleted(id=feedback_id)


route_handlers: list[Any] = [
    create_feedback,
    list_feedback,
    export_questions,
    export_table,
    get_feedback,
    delete_feedback,
]
"""All routes of this module."""
