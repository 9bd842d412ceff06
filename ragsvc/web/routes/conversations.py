"""``/v1/conversations``: create, show, change and delete conversations, and their items. OpenAI: Conversations."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import anyio.to_thread
import msgspec
from litestar import Request, delete, get, post
from litestar.params import FromPath, FromQuery, QueryParameter
from msgspec import UNSET, Meta, UnsetType

from ragsvc.core.access.principal import Scope, require_scope
from ragsvc.core.json_outline import LARGE_BODY_BYTES
from ragsvc.core.responses.conversation_items import INCLUDABLE, MAX_ADDED_ITEMS, shown_item
from ragsvc.core.validation import decode_json, invalid_value, listed, missing_value
from ragsvc.services.conversations import ConversationService
from ragsvc.store.conversation_rows import Conversation
from ragsvc.web.app_state import services_of
from ragsvc.web.auth import body_too_large
from ragsvc.web.bodies import T
from ragsvc.web.context import context_of, principal_of
from ragsvc.web.openapi import query_parameter

_SCOPE: Final = {"scope": Scope.CHAT_PLAIN, "tag": "conversations"}
_INCLUDE: Final = [
    query_parameter("include", f"Fields to show as well: {', '.join(INCLUDABLE)}; may be repeated"),
    query_parameter("include[]", "The same, as OpenAI's SDKs send it"),
]
_NOT_FOUND: Final = {**_SCOPE, "errors": (404,)}
_Key = Annotated[str, Meta(min_length=1, max_length=64)]
_Metadata = Annotated[dict[_Key, Annotated[str, Meta(max_length=512)]], Meta(max_length=16)]
_ITEM_SCHEMA: Final = {
    "required": ["id", "type"],
    "properties": {
        "id": {"type": "string"},
        "type": {"type": "string", "description": "`message`, `function_call`, `function_call_output` …"},
        "role": {"type": "string"},
        "status": {"type": "string"},
        "content": {"type": "array", "items": {"type": "object"}},
    },
}
_Item = Annotated[dict[str, Any], Meta(description="An item of OpenAI's Responses API.")]
_StoredItem = Annotated[dict[str, Any], Meta(extra_json_schema=_ITEM_SCHEMA)]
_NewItems = Annotated[list[_Item], Meta(max_length=MAX_ADDED_ITEMS)]
_Limit = Annotated[int, QueryParameter(ge=1, le=100, description="Maximum number of items")]
_ListLimit = Annotated[int, QueryParameter(ge=1, le=100, description="Maximum number of conversations")]
_AfterConversation = Annotated[
    str | None, QueryParameter(description="List conversations after the one with this id (``last_id``)")
]
_Of = Annotated[
    Literal["key", "tenant"],
    QueryParameter(description="`tenant` is for administrators: conversations of all keys of the tenant"),
]
_After = Annotated[str | None, QueryParameter(description="List items after the one with this id (``last_id``)")]


class CreateConversation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A conversation to create, with up to 20 items."""

    items: _NewItems | None = None
    metadata: _Metadata | None = None


class UpdateConversation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``metadata`` replaces the former metadata; ``null`` removes it."""

    metadata: _Metadata | UnsetType | None = UNSET


class AddItems(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Up to 20 items to append."""

    items: Annotated[list[_Item], Meta(min_length=1, max_length=MAX_ADDED_ITEMS)]


class ConversationBody(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation without its items."""

    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    metadata: dict[str, str]


class ConversationDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """The conversation was deleted with its items."""

    id: str
    object: Literal["conversation.deleted"] = "conversation.deleted"
    deleted: bool = True


class ListedConversation(ConversationBody, frozen=True, kw_only=True):
    """A conversation in a list. ``last_active_at`` is the time of the last addition or change."""

    last_active_at: int


class ConversationList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of conversations, the last used first; the next page begins with ``after`` = ``last_id``."""

    object: Literal["list"] = "list"
    data: list[ListedConversation]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ConversationItems(msgspec.Struct, frozen=True, kw_only=True):
    """Items of a conversation. ``first_id`` and ``last_id`` are ``null`` for an empty list."""

    object: Literal["list"] = "list"
    data: list[_StoredItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


_create = msgspec.json.Decoder(CreateConversation)
_update = msgspec.json.Decoder(UpdateConversation)
_add = msgspec.json.Decoder(AddItems)


def _service(request: Request[Any, Any, Any]) -> ConversationService:
    service: ConversationService = request.app.state.services.conversations
    return service


def _shown(conversation: Conversation) -> ConversationBody:
    return ConversationBody(
        id=conversation.public_id,
        created_at=conversation.created_at,
        metadata=conversation.metadata,
    )


async def _read(request: Request[Any, Any, Any], decoder: msgspec.json.Decoder[T]) -> T:
    """Decode a body that may have images and files, a large one in a worker thread."""
    body = await request.body()
    limit = context_of(request.scope).body_limit
    if len(body) > limit:  # a body that was sent without Content-Length
        raise body_too_large(limit)
    if len(body) < LARGE_BODY_BYTES:
        return decode_json(body, decoder)
    return await anyio.to_thread.run_sync(decode_json, body, decoder)


def _included(request: Request[Any, Any, Any]) -> frozenset[str]:
    """The fields that the query asks for. Raises ``InvalidRequest``."""
    names = [*request.query_params.getall("include", []), *request.query_params.getall("include[]", [])]
    wanted = {name for joined in names for name in joined.split(",") if name}
    for name in sorted(wanted - set(INCLUDABLE)):
        raise invalid_value("include", f"Expected {listed(INCLUDABLE)}, not '{name[:100]}'")
    return frozenset(wanted)


def _page(items: list[dict[str, Any]], include: frozenset[str], *, has_more: bool) -> ConversationItems:
    return ConversationItems(
        data=[shown_item(item, include) for item in items],
        first_id=items[0]["id"] if items else None,
        last_id=items[-1]["id"] if items else None,
        has_more=has_more,
    )


@post(
    "/v1/conversations",
    opt={**_SCOPE, "large_body": True, "body": CreateConversation, "errors": (507,)},
    status_code=200,
    summary="Create a conversation",
)
async def create_conversation(request: Request[Any, Any, Any]) -> ConversationBody:
    """Create a conversation, with items if some are given."""
    principal = principal_of(request)
    access = services_of(request).access
    body = await _read(request, _create)
    created = await _service(request).create(
        principal,
        items=body.items or (),
        metadata=body.metadata,
        require_caller=lambda connection: access.require_key(connection, principal.key_id),
    )
    return _shown(created)


@get("/v1/conversations", opt=_NOT_FOUND, summary="List conversations")
async def list_conversations(
    request: Request[Any, Any, Any],
    limit: _ListLimit = 20,
    after: _AfterConversation = None,
    of: _Of = "key",
) -> ConversationList:
    """List the conversations that the key made, or those of the whole tenant, the last used first.

    OpenAI has no such route. Conversations of releases that did not note the key are in the list of the tenant only.
    """
    principal = principal_of(request)
    if of == "tenant":
        require_scope(principal, Scope.TENANT_ADMIN)
    found, more = await _service(request).list_conversations(
        principal, limit=limit, after=after, whole_tenant=of == "tenant"
    )
    return ConversationList(
        data=[
            ListedConversation(
                id=conversation.public_id,
                created_at=conversation.created_at,
                last_active_at=conversation.last_active_at,
                metadata=conversation.metadata,
            )
            for conversation in found
        ],
        first_id=found[0].public_id if found else None,
        last_id=found[-1].public_id if found else None,
        has_more=more,
    )


@get("/v1/conversations/{conversation_id:str}", opt=_NOT_FOUND, summary="Show a conversation")
async def get_conversation(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ConversationBody:
    """Show a conversation without its items."""
    return _shown(await _service(request).get(principal_of(request), conversation_id))


@post(
    "/v1/conversations/{conversation_id:str}",
    opt={**_NOT_FOUND, "body": UpdateConversation},
    status_code=200,
    summary="Change a conversation",
)
async def update_conversation(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ConversationBody:
    """Replace the metadata of a conversation."""
    body = await _read(request, _update)
    if isinstance(body.metadata, UnsetType):
        raise missing_value("metadata")
    changed = await _service(request).set_metadata(principal_of(request), conversation_id, body.metadata or {})
    return _shown(changed)


@delete("/v1/conversations/{conversation_id:str}", opt=_NOT_FOUND, status_code=200, summary="Delete a conversation")
async def delete_conversation(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ConversationDeleted:
    """Delete a conversation with its items."""
    await _service(request).delete(principal_of(request), conversation_id)
    return ConversationDeleted(id=conversation_id)


@post(
    "/v1/conversations/{conversation_id:str}/items",
    opt={**_NOT_FOUND, "large_body": True, "body": AddItems, "parameters": _INCLUDE, "errors": (404, 507)},
    status_code=200,
    summary="Add items to a conversation",
)
async def add_items(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ConversationItems:
    """Append up to 20 items, all or none. An item keeps its ``id`` if it has one."""
    include = _included(request)
    body = await _read(request, _add)
    added = await _service(request).add(principal_of(request), conversation_id, body.items)
    return _page(added, include, has_more=False)


@get(
    "/v1/conversations/{conversation_id:str}/items",
    opt={**_NOT_FOUND, "parameters": _INCLUDE},
    summary="List the items of a conversation",
)
async def list_items(
    request: Request[Any, Any, Any],
    conversation_id: FromPath[str],
    limit: _Limit = 20,
    after: _After = None,
    order: FromQuery[Literal["asc", "desc"]] = "desc",
) -> ConversationItems:
    """List the items of a conversation, newest first unless ``order`` is ``asc``."""
    include = _included(request)
    items, more = await _service(request).page(
        principal_of(request), conversation_id, limit=limit, after=after, descending=order == "desc"
    )
    return _page(items, include, has_more=more)


@get(
    "/v1/conversations/{conversation_id:str}/items/{item_id:str}",
    opt={**_NOT_FOUND, "parameters": _INCLUDE},
    summary="Show an item of a conversation",
)
async def get_item(
    request: Request[Any, Any, Any], conversation_id: FromPath[str], item_id: FromPath[str]
) -> _StoredItem:
    """Show an item of a conversation."""
    include = _included(request)
    return shown_item(await _service(request).item(principal_of(request), conversation_id, item_id), include)


@delete(
    "/v1/conversations/{conversation_id:str}/items/{item_id:str}",
    opt=_NOT_FOUND,
    status_code=200,
    summary="Delete an item of a conversation",
)
async def delete_item(
    request: Request[Any, Any, Any], conversation_id: FromPath[str], item_id: FromPath[str]
) -> ConversationBody:
    """Delete an item of a conversation; returns the conversation."""
    return _shown(await _service(request).delete_item(principal_of(request), conversation_id, item_id))


route_handlers: list[Any] = [
    create_conversation,
    list_conversations,
    get_conversation,
    update_conversation,
    delete_conversation,
    add_items,
    list_items,
    get_item,
    delete_item,
]
"""All routes of this module."""
