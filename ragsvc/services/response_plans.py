"""Prepares requests of the Responses API: resolves what they refer to, and translates them to chats.

``file_search`` is not left to the model: as with ``use_rag``, the documents are searched for the question of the
conversation before the model is asked, so that models that cannot call tools answer from documents as well.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, cast

import anyio.to_thread
import msgspec
from sqlalchemy import Connection

from ragsvc.core.access.principal import (
    Principal,
    Scope,
    allows_collection,
    require_collection,
    require_scope,
)
from ragsvc.core.defaults import BYTES_PER_TOKEN, DEFAULT_MAX_DOCUMENT_BYTES, DEFAULT_REPLY_TOKENS
from ragsvc.core.errors import InvalidRequest, ResponseNotFound, VectorStoreNotFound
from ragsvc.core.gateway.chat import ChatCall, decode_chat_request, decode_large_chat_request
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.request_files import MAX_REQUEST_FILES
from ragsvc.core.json_outline import LARGE_BODY_BYTES
from ragsvc.core.responses.conversation import Message, own_items, to_messages, without_oldest
from ragsvc.core.responses.output import item_id, response_of_item
from ragsvc.core.responses.request import ChosenTools, FileSearch, Item, ResponseRequest, choose_tools
from ragsvc.core.retrieval.filters import parse_filter
from ragsvc.core.retrieval.search_values import SearchMode, SearchQuery
from ragsvc.core.validation import missing_value
from ragsvc.services.answers import AnswerService
from ragsvc.services.conversations import MAX_CONTINUED_BYTES, ConversationService, too_much_continued
from ragsvc.services.store_names import StoreNames
from ragsvc.store.database import Database
from ragsvc.store.file_rows import collections_of_files
from ragsvc.store.response_rows import (
    UNFINISHED,
    StoredResponse,
    find_response,
    has_response,
    response_not_found,
)
from ragsvc.store.vector_store_rows import find_store

Truncation = Literal["auto", "disabled"]
Adapt = Callable[[ChatCall], ChatCall]
"""Adds to a chat what the transport knows: keys for providers, documents asked for by headers, the service's URL."""

_FIRST_INPUT: Final = 0x8000
"""Place of the first item of the input in ids; those of the output begin at 0."""

_MOST_RESPONSES: Final = 1000
"""Responses that one conversation continues."""

_TOKENS_OF_A_MESSAGE: Final = 4
_MANY_ITEMS: Final = 500
_SECRETS: Final = frozenset({"authorization", "headers"})


class ResponsePlan(msgspec.Struct, frozen=True, kw_only=True, weakref=True):
    """A request that is ready to be answered.

    ``input_items`` are its own, ``added_items`` those of them that its conversation does not have yet. ``collections``
    are all that were searched for it and for what it continues.
    """

    id: str
    principal: Principal
    request: ResponseRequest
    call: ChatCall
    input_items: list[Item]
    added_items: list[Item]
    collections: list[str]
    created_at: int
    truncation: Truncation
    model: str
    referred_bytes: int = 0
    """Size of the responses to items of which the input refers: the items are part of ``input_items``."""

    @property
    def stored(self) -> bool:
        return self.request.is_stored

    @property
    def keeps_input(self) -> bool:
        """Whether the input is stored with the response or in a conversation."""
        return self.stored or self.request.conversation_id is not None

    @property
    def cites(self) -> bool:
        """Whether the answer can get citations."""
        return bool(self.call.files) or self.call.request.rag_options is not None

    def head(self) -> Item:
        """The fields of the response that repeat the request."""
        request = self.request
        text = request.text
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "background": bool(request.background),
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "max_tool_calls": request.max_tool_calls,
            "model": self.model,
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": request.previous_response_id,
            "conversation": None if request.conversation_id is None else {"id": request.conversation_id},
            "prompt_cache_key": request.prompt_cache_key,
            "reasoning": {
                "effort": None if request.reasoning is None else request.reasoning.effort,
                "summary": None if request.reasoning is None else request.reasoning.summary,
            },
            "safety_identifier": request.safety_identifier,
            "service_tier": "default",
            "store": self.stored,
            "temperature": 1.0 if request.temperature is None else request.temperature,
            "text": {
                "format": _shown_format(request),
                **({} if text is None or text.verbosity is None else {"verbosity": text.verbosity}),
            },
            "tool_choice": request.tool_choice or "auto",
            "tools": [_without_secrets(tool) for tool in request.tools or ()],
            "top_logprobs": request.top_logprobs or 0,
            "top_p": 1.0 if request.top_p is None else request.top_p,
            "truncation": self.truncation,
            "user": request.user,
            "metadata": request.metadata or {},
        }


def _without_secrets(tool: Item) -> Item:
    """The tool as it is stored and shown: without the credentials for an MCP server."""
    return {name: value for name, value in tool.items() if name not in _SECRETS} if tool.get("type") == "mcp" else tool


def _shown_format(request: ResponseRequest) -> Item:
    if request.text is None or request.text.format is None:
        return {"type": "text"}
    fields = msgspec.structs.asdict(request.text.format)
    return {name: value for name, value in fields.items() if value is not None}


class _Resolved(msgspec.Struct, frozen=True):
    """What a request refers to.

    ``earlier`` are the items of the responses that it continues, ``collections`` those from which these were answered.
    ``stores`` has the names of collections by the ids of their stores.
    """

    earlier: Sequence[Item] = ()
    size_bytes: int = 0
    referred_bytes: int = 0
    collections: frozenset[str] = frozenset()
    items: Mapping[str, Item] = MappingProxyType({})
    stores: Mapping[str, str] = MappingProxyType({})


class ResponsePlanner:
    """Makes plans from requests."""

    def __init__(
        self,
        *,
        database: Database,
        answers: AnswerService,
        conversations: ConversationService,
        store_names: StoreNames,
        max_file_bytes: int = DEFAULT_MAX_DOCUMENT_BYTES,
        default_model: str | None = None,
        truncation: Truncation = "disabled",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``default_model`` and ``truncation`` are for requests that name none."""
        self._database = database
        self._models = answers.models
        self._answers = answers
        self._conversations = conversations
        self._store_names = store_names
        self._max_file_bytes = max_file_bytes
        self._default_model = default_model
        self._truncation: Truncation = truncation
        self._clock = clock

    async def plan(
        self, principal: Principal, request: ResponseRequest, adapt: Adapt, *, large: bool = False
    ) -> ResponsePlan:
        """Prepare a request; ``large``: it is translated in a thread.

        Raises:
            InvalidRequest: the request is malformed or contradicts itself.
            ResponseNotFound, VectorStoreNotFound: it refers to something that the key does not see.
            PolicyDenied: it asks for documents, and the key lacks the scope or may not use the collection.
        """
        model = request.model or self._default_model
        if model is None:
            raise missing_value("model")
        tools = choose_tools(request)
        identifier = f"resp_{secrets.token_hex(12)}"

        def complete() -> list[Item]:
            return own_items(request.input, lambda prefix, place: item_id(prefix, identifier, _FIRST_INPUT + place))

        own = await anyio.to_thread.run_sync(complete) if large else complete()
        resolved = await self._resolve(principal, request, own, tools)
        own = [resolved.items[item["id"]] if item["type"] == "item_reference" else item for item in own]
        earlier, collections = resolved.earlier, set(resolved.collections)
        known: set[str] = set()
        if request.conversation_id is not None:
            talk = await self._conversations.get(principal, request.conversation_id, param="conversation")
            earlier = await self._conversations.items(principal, request.conversation_id, param="conversation")
            collections.update(talk.collections)
            known.update(item["id"] for item in earlier)
        items = [*earlier, *own]
        truncation = request.truncation or self._truncation
        fits = await self._room(model, request, adapt) if truncation == "auto" else None
        searches = [search for tool in tools.searches for search in self._searches(tool, resolved.stores)]

        def translate() -> ChatCall:
            messages = to_messages(items, instructions=request.instructions, own=len(own))
            if fits is not None:
                messages = without_oldest(messages, fits)
            raw = msgspec.json.encode(_chat(request, model, messages, tools, has_searches=bool(searches)))
            if len(raw) < LARGE_BODY_BYTES:
                return decode_chat_request(raw, max_file_bytes=self._max_file_bytes)
            return decode_large_chat_request(
                raw,
                max_prompt_characters=self._answers.max_prompt_characters,
                max_file_bytes=self._max_file_bytes,
            )

        blocks = large or resolved.size_bytes > LARGE_BODY_BYTES or len(items) > _MANY_ITEMS
        if blocks or request.conversation_id is not None:  # a conversation has items of any size
            call = await anyio.to_thread.run_sync(translate)
        else:
            call = translate()
        call = with_own_places(call, items, own=len(own))
        options = call.request.rag_options
        if options is not None and request.use_rag is True and searches:
            searches = [options.search_query("", default_top_k=self._answers.top_k), *searches]
        call = adapt(msgspec.structs.replace(call, searches=tuple(searches)))
        used = [*self._check_documents(principal, call), *await self._collections_of_files(principal, call)]
        if not (request.is_stored or request.conversation_id is not None):
            own.clear()
        return ResponsePlan(
            id=identifier,
            principal=principal,
            request=msgspec.structs.replace(request, input=None),  # which has the files of the input
            call=call,
            input_items=own,
            collections=sorted({*used, *collections}),
            added_items=list({item["id"]: item for item in own if item["id"] not in known}.values()),
            created_at=int(self._clock()),
            truncation=truncation,
            model=model,
            referred_bytes=resolved.referred_bytes,
        )

    def _check_documents(self, principal: Principal, call: ChatCall) -> list[str]:
        """The collections that are searched, all of which the key may use. Raises ``PolicyDenied``."""
        options = call.request.rag_options
        if options is None:
            return []
        require_scope(principal, Scope.CHAT)
        names = [search.collection for search in call.searches] or [options.collection]
        for name in names:
            require_collection(principal, name)
        return names

    async def _collections_of_files(self, principal: Principal, call: ChatCall) -> set[str]:
        """The collections of the stored files that the answer may quote."""
        wanted = {file.file_id for file in call.files[:MAX_REQUEST_FILES] if file.file_id is not None}
        if not wanted:
            return set()
        return await self._database.read(lambda connection: collections_of_files(connection, principal.tenant, wanted))

    async def _resolve(
        self, principal: Principal, request: ResponseRequest, own: Sequence[Item], tools: ChosenTools
    ) -> _Resolved:
        previous = request.previous_response_id
        references = {item["id"]: place for place, item in enumerate(own) if item["type"] == "item_reference"}
        wanted = list(dict.fromkeys(store for tool in tools.searches for store in tool.vector_store_ids))
        known: dict[str, str] = {}
        for identifier in wanted:
            name = self._store_names.get(principal.tenant, identifier)
            if name is not None and allows_collection(principal, name):
                known[identifier] = name
        unknown = [identifier for identifier in wanted if identifier not in known]
        if previous is None and not references and not unknown:
            return _Resolved(stores=known)
        if previous is not None or references:
            require_scope(principal, Scope.CHAT_PLAIN)

        def read(connection: Connection) -> _Resolved:
            chain = [] if previous is None else self._chain(connection, principal, previous)
            items, owners = self._items(connection, principal, references)
            stores: dict[str, str] = {}
            for identifier in unknown:
                found = find_store(connection, principal.tenant, identifier)
                if not allows_collection(principal, found.name):
                    raise VectorStoreNotFound(
                        f"There is no vector store '{identifier[:100]}'.", param="vector_store_id"
                    )
                stores[identifier] = found.name
            return _Resolved(
                earlier=[item for response in chain for item in context_of_response(response)],
                size_bytes=sum(map(_size_bytes, chain)) + sum(map(_size_bytes, owners)),
                referred_bytes=sum(map(_size_bytes, owners)),
                collections=frozenset(name for response in (*chain, *owners) for name in response.collections),
                items=items,
                stores=stores,
            )

        revision = self._store_names.revision
        resolved = await self._database.read(read)
        self._store_names.add(principal.tenant, resolved.stores, revision=revision)
        return msgspec.structs.replace(resolved, stores={**known, **resolved.stores})

    def _chain(self, connection: Connection, principal: Principal, previous: str) -> list[StoredResponse]:
        """The responses that a request continues, oldest first.

        They begin after the last one that was deleted or is older than the retention.
        """
        chain: list[StoredResponse] = []
        size_bytes = 0
        following: str | None = previous
        while following is not None and (not chain or has_response(connection, principal.tenant, following)):
            stored = self.visible(connection, principal, following, param="previous_response_id")
            if stored.status in UNFINISHED:
                raise InvalidRequest(
                    f"The response '{following}' has not ended yet; wait until it has, then continue it.",
                    param="previous_response_id",
                )
            chain.append(stored)
            if len(chain) > _MOST_RESPONSES:
                raise InvalidRequest(
                    f"The conversation has more than {_MOST_RESPONSES} responses; begin a new one.",
                    param="previous_response_id",
                )
            size_bytes += _size_bytes(stored)
            if size_bytes > MAX_CONTINUED_BYTES:
                raise too_much_continued(MAX_CONTINUED_BYTES, param="previous_response_id")
            following = stored.previous_id
        return chain[::-1]

    def _items(
        self, connection: Connection, principal: Principal, references: Mapping[str, int]
    ) -> tuple[dict[str, Item], list[StoredResponse]]:
        """The items that a request refers to, and the responses that they belong to, each of which is read once."""
        owners: dict[str, StoredResponse] = {}
        known: dict[str, Item] = {}
        size_bytes = 0
        for identifier, place in references.items():
            param = f"input[{place}].id"
            owner = response_of_item(identifier)
            if owner is not None and owner not in owners:
                with contextlib.suppress(ResponseNotFound):
                    owners[owner] = self.visible(connection, principal, owner, param=param)
                    size_bytes += _size_bytes(owners[owner])
                    if size_bytes > MAX_CONTINUED_BYTES:
                        raise too_much_continued(MAX_CONTINUED_BYTES, param=param)
                    known |= {item["id"]: item for item in context_of_response(owners[owner]) if "id" in item}
            if owner not in owners or identifier not in known:
                raise ResponseNotFound(f"There is no item '{identifier[:100]}' in a stored response.", param=param)
        return {identifier: known[identifier] for identifier in references}, list(owners.values())

    def visible(
        self,
        connection: Connection,
        principal: Principal,
        public_id: str,
        *,
        param: str = "response_id",
        with_input: bool = True,
    ) -> StoredResponse:
        """A response of the tenant, if the key may use its model and all collections from which it was answered.

        Raises:
            ResponseNotFound: also for a response that the key may not see.
        """
        stored = find_response(connection, principal.tenant, public_id, param=param, with_input=with_input)
        if not self._models.permits(principal, self._models.requested(stored.model).name):
            raise response_not_found(public_id, param=param)
        if stored.collections and Scope.CHAT not in principal.scopes:
            raise response_not_found(public_id, param=param)
        if not all(allows_collection(principal, name) for name in stored.collections):
            raise response_not_found(public_id, param=param)
        return stored

    def _searches(self, tool: FileSearch, stores: Mapping[str, str]) -> list[SearchQuery]:
        options = tool.ranking_options
        weights = None if options is None else options.hybrid_search
        total = 0.0 if weights is None else weights.embedding_weight + weights.text_weight
        return [
            SearchQuery(
                text="",
                collection=stores[identifier],
                filters=None if tool.filters is None else parse_filter(tool.filters),
                top_k=tool.max_num_results or self._answers.top_k,
                mode=SearchMode.HYBRID if options is None else options.mode,
                min_score=0.0 if options is None else options.score_threshold or 0.0,
                dense_weight=None if weights is None or not total else weights.embedding_weight / total,
            )
            for identifier in tool.vector_store_ids
        ]

    async def _room(self, model: str, request: ResponseRequest, adapt: Adapt) -> Callable[[list[Message]], bool] | None:
        """Whether messages fit into the context of the model, estimated from their length."""
        most = self._answers.max_prompt_characters(model)
        probe = adapt(decode_chat_request(msgspec.json.encode({"model": model, "messages": [_PROBE]})))
        context: int | None = None
        if probe.access.base_url is None:
            route = self._models.routes(probe.model, Family.CHAT)[0]
            context = route.context_tokens
            if context is None and not route.takes_passages:
                context = await route.provider.context_tokens(route.upstream_model)
        reply = request.max_output_tokens or DEFAULT_REPLY_TOKENS

        def fits(messages: list[Message]) -> bool:
            characters = sum(map(_characters, messages))
            tokens = characters // BYTES_PER_TOKEN + _TOKENS_OF_A_MESSAGE * len(messages)
            return characters <= most and (context is None or tokens + reply <= context)

        return fits


_PROBE: Final = {"role": "user", "content": "-"}


def _size_bytes(stored: StoredResponse) -> int:
    return len(stored.body) + len(stored.input)


def with_own_places(call: ChatCall, items: Sequence[Item], *, own: int) -> ChatCall:
    """The call whose files are named by their places in ``input``, as the client knows them, for error messages."""
    if not call.files:
        return call
    first = len(items) - own
    places = [
        f"input[{place - first}].content[{index}]"
        for place, item in enumerate(items)
        if isinstance(content := item.get("content"), list)
        for index, part in enumerate(cast("list[object]", content))
        if isinstance(part, dict) and part.get("type") in ("input_file", "file")
    ]
    if len(places) != len(call.files):  # the oldest turns were left out
        return call
    named = zip(call.files, places, strict=True)
    return msgspec.structs.replace(
        call, files=tuple(msgspec.structs.replace(file, param=place) for file, place in named)
    )


def context_of_response(stored: StoredResponse) -> list[Item]:
    """The items of a response that a later request continues: its own input, and its output."""
    given = msgspec.json.decode(stored.input, type=list[Item])
    body = msgspec.json.decode(stored.body, type=dict[str, Any])
    return [*given, *body["output"]]


def _characters(message: Message) -> int:
    content = message.get("content")
    text = content if isinstance(content, str) else msgspec.json.encode(content).decode()
    return len(text) + len(msgspec.json.encode(message.get("tool_calls") or ""))


def _chat(
    request: ResponseRequest, model: str, messages: list[Message], tools: ChosenTools, *, has_searches: bool
) -> Item:
    """The body of the chat for a request."""
    reasoning, text = request.reasoning, request.text
    chat: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "max_completion_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "user": request.user,
        "response_format": _response_format(request),
        "reasoning_effort": None if reasoning is None else reasoning.effort,
        "verbosity": None if text is None else text.verbosity,
    }
    if tools.functions:
        chat |= {
            "tools": tools.functions,
            "tool_choice": tools.choice,
            "parallel_tool_calls": request.parallel_tool_calls,
        }
    if request.has_logprobs:
        chat |= {"logprobs": True, "top_logprobs": request.top_logprobs or None}
    if request.stream or request.background:
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    for name, value in (("use_rag", request.use_rag), ("rag", request.rag)):
        if value is not msgspec.UNSET:
            chat[name] = value
    if has_searches:
        chat["use_rag"] = True
    return {name: value for name, value in chat.items() if value is not None}


def _response_format(request: ResponseRequest) -> Item | None:
    form = None if request.text is None else request.text.format
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return {"type": "json_object"}
    if form.schema is None:
        raise missing_value("text.format.schema")
    schema = {
        "name": form.name or "response",
        "description": form.description,
        "schema": form.schema,
        "strict": form.strict,
    }
    return {
        "type": "json_schema",
        "json_schema": {name: value for name, value in schema.items() if value is not None},
    }
