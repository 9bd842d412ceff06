"""`/v1/responses`: OpenAI's Responses API on every chat model, with stored responses."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NamedTuple, Protocol
from urllib.parse import parse_qsl

import anyio.to_thread
import msgspec
from litestar import Request, delete, get, post
from litestar.params import FromPath, QueryParameter
from litestar.response.base import ASGIResponse
from litestar.types import Receive
from litestar.types import Scope as ASGIScope

from ragsvc.core.access.principal import Principal, Scope, require_scope
from ragsvc.core.errors import EndpointNotOffered, ModelNotFound
from ragsvc.core.gateway.chat import ChatCall
from ragsvc.core.gateway.endpoint_families import Family, ProxiedFields
from ragsvc.core.gateway.upstream_access import NO_ACCESS
from ragsvc.core.json_outline import LARGE_BODY_BYTES
from ragsvc.core.responses.request import INCLUDE_RESULTS, ResponseRequest, decode_response_request
from ragsvc.services.model_registry import LOCAL_PROVIDER, ModelRegistry
from ragsvc.services.passthrough import ProxyAnswer, ProxyCall, ProxyService
from ragsvc.services.response_plans import ResponsePlan
from ragsvc.services.responses import FollowedResponse, ReplayedResponse, ResponseService, ResponseStream
from ragsvc.web.auth import AccessRequirement
from ragsvc.web.bodies import LARGE_BODIES_KEY, MemoryBudget, read_body
from ragsvc.web.context import RequestContext, context_of, principal_of
from ragsvc.web.disconnects import DisconnectWatcher
from ragsvc.web.errors import ErrorDetail
from ragsvc.web.keep_alive import COMMENT_EVERY_KEY
from ragsvc.web.openapi import DocumentedAnswer, query_parameter
from ragsvc.web.passthrough.raw_responses import ClientGone, EventStream, JsonBytes, PassedThrough
from ragsvc.web.public_address import service_url
from ragsvc.web.requested_documents import DOCUMENT_PARAMETERS, asks_in_header, with_requested_documents
from ragsvc.web.routes.endpoint_families import ACCESS_PARAMETERS, access_of, call_of
from ragsvc.web.routes.response_bodies import RESPONSE_ANSWERS, InputItemList, ResponseBody, ResponseDeleted

AnyRequest = Request[Any, Any, Any]

INVALID: Final = "invalid_request_error"


class ResponseServices(Protocol):
    """The services that these routes use."""

    @property
    def responses(self) -> ResponseService: ...

    @property
    def models(self) -> ModelRegistry: ...

    @property
    def proxy(self) -> ProxyService: ...


class _Received(NamedTuple):
    """A request, the size of its body, and the call to a provider that can answer it as it is; without the body."""

    request: ResponseRequest
    size_bytes: int
    native: ProxyCall | None


async def _receive(scope: ASGIScope, receive: Receive) -> _Received | None:
    """The request in the body; ``None`` if the client disconnects."""
    state = scope["litestar_app"].state
    services: ResponseServices = state["services"]
    budget: MemoryBudget = state[LARGE_BODIES_KEY]
    context = context_of(scope)
    with budget.share() as take:
        body = await read_body(receive, context.body_limit, take)
        if body is None:
            return None
        if len(body) < LARGE_BODY_BYTES:
            request = decode_response_request(body)
            stateless = request.is_stateless
        else:
            request, stateless = await anyio.to_thread.run_sync(_decode_large, body)
    request = _as_permitted(request, context.principal)
    native = _native_call(request, body, context, services) if stateless else None
    return _Received(request, len(body), native)


async def answer_response(scope: ASGIScope, receive: Receive) -> ASGIResponse:
    """Answer an admitted request for a response. The body, most of which may be files, is not kept meanwhile."""
    services: ResponseServices = scope["litestar_app"].state["services"]
    context = context_of(scope)
    received = await _receive(scope, receive)
    if received is None:
        return ClientGone()
    if received.native is not None and received.request.stream:
        return _NativeOrBridged(scope, received, received.native, services).response()
    if received.request.background or received.request.stream:
        return await _begin(scope, received, services)
    with DisconnectWatcher(receive):
        if received.native is not None:
            with contextlib.suppress(EndpointNotOffered):
                forwarded = await services.proxy.forward(context.principal, received.native, access_of(context))
                return _passed(scope, forwarded)
        plan = await _plan(scope, received, services)
        del received
        return JsonBytes(await services.responses.complete(plan))
    return ClientGone()


def _as_permitted(request: ResponseRequest, principal: Principal) -> ResponseRequest:
    """The request of a key; one that has the scope ``proxy`` only uses and stores nothing here.

    Raises:
        PolicyDenied: such a key asks for it.
    """
    if principal.scopes & {Scope.CHAT, Scope.CHAT_PLAIN}:
        return request
    if request.store or request.uses_stored:
        require_scope(principal, Scope.CHAT_PLAIN)
    return msgspec.structs.replace(request, store=False)


def _decode_large(body: bytes) -> tuple[ResponseRequest, bool]:
    """The request, and whether it is stateless: this looks at all items."""
    request = decode_response_request(body)
    return request, request.is_stateless


async def _begin(scope: ASGIScope, received: _Received, services: ResponseServices) -> ASGIResponse:
    """A response that is made while it is sent, or later in the background."""
    plan = await _plan(scope, received, services)
    if not plan.request.background:
        return _events(scope, services.responses.stream(plan))
    queued, followed = await services.responses.start(plan)
    return _events(scope, followed) if plan.request.stream else JsonBytes(queued)


async def _plan(scope: ASGIScope, received: _Received, services: ResponseServices) -> ResponsePlan:
    context = context_of(scope)
    return await services.responses.plan(
        context.principal,
        received.request,
        lambda call: _adapt(call, scope, context, services.models),
        size_bytes=received.size_bytes,
    )


def _native_call(
    request: ResponseRequest, body: bytes, context: RequestContext, services: ResponseServices
) -> ProxyCall | None:
    """The call to a provider that may offer the Responses API itself; ``None`` if a stateless request is answered here.

    Only requests with ``store: false`` that use nothing stored here are passed on, so that no id of this service is
    sent to a provider and nothing is stored there.
    """
    model = request.model or services.proxy.default_models.get(Family.RESPONSES.value)
    if model is None or asks_in_header(context.headers):
        return None
    if access_of(context).base_url is None:
        asked = services.models.requested(model)
        try:
            routes = services.models.routes(asked.name, Family.RESPONSES)
        except ModelNotFound:
            return None
        if asked.documents or routes[0].provider_name == LOCAL_PROVIDER:
            return None
    fields = ProxiedFields(
        named_model=request.model,
        stream=request.stream,
        max_output_tokens=request.max_output_tokens,
        use_rag=msgspec.UNSET if request.names_no_documents else msgspec.Raw(b"false"),
    )
    return call_of(context, body, fields, family=Family.RESPONSES, path="/responses", model=model)


def _passed(scope: ASGIScope, answer: ProxyAnswer) -> PassedThrough:
    async def answered(_prepared: Callable[[], None]) -> ProxyAnswer:
        return answer

    return PassedThrough(answered, comment_every_s=scope["litestar_app"].state[COMMENT_EVERY_KEY])


class _BridgedAnswer:
    """The events of a response that is made here, in the form of a provider's answer."""

    status = 200
    headers: Mapping[str, str] = MappingProxyType(
        {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
    )
    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, stream: ResponseStream) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream

    async def aclose(self) -> None:
        await self._stream.aclose()


class _NativeOrBridged:
    """A streamed response of a provider, or one that is made here if it turns out to offer chats only."""

    def __init__(self, scope: ASGIScope, received: _Received, call: ProxyCall, services: ResponseServices) -> None:
        self._scope = scope
        self._received = received
        self._call = call
        self._services = services
        self._stream: ResponseStream | None = None

    def response(self) -> PassedThrough:
        every_s: float = self._scope["litestar_app"].state[COMMENT_EVERY_KEY]
        return PassedThrough(
            self._open, comment_every_s=every_s, expects_events=True, render_failure=self._render_failure
        )

    async def _open(self, prepared: Callable[[], None]) -> ProxyAnswer | _BridgedAnswer:
        context, services = context_of(self._scope), self._services
        with contextlib.suppress(EndpointNotOffered):
            return await services.proxy.forward(context.principal, self._call, access_of(context), prepared=prepared)
        self._stream = services.responses.stream(await _plan(self._scope, self._received, services))
        return _BridgedAnswer(await self._stream.open(lambda _dropped: prepared()))

    def _render_failure(self, error: ErrorDetail) -> bytes | None:
        if self._stream is None:
            return None
        return self._stream.fail(error.code, error.message, is_request=error.type == INVALID)


def _adapt(call: ChatCall, scope: ASGIScope, context: RequestContext, models: ModelRegistry) -> ChatCall:
    """The chat with what headers and the name of the model ask for."""
    access = access_of(context)
    if access != NO_ACCESS:
        call = msgspec.structs.replace(call, access=access)
    call = with_requested_documents(call, models, context.headers)
    return msgspec.structs.replace(call, service_url=service_url(scope))


def _events(scope: ASGIScope, stream: ResponseStream | FollowedResponse | ReplayedResponse) -> EventStream:
    def render_failure(error: ErrorDetail) -> bytes:
        return stream.fail(error.code, error.message, is_request=error.type == INVALID)

    every_s: float = scope["litestar_app"].state[COMMENT_EVERY_KEY]
    return EventStream(stream.open, comment_every_s=every_s, render_failure=render_failure)


@post(
    "/v1/responses",
    status_code=200,
    opt={
        "scope": AccessRequirement.CHAT_OR_PROXY,
        "raw": answer_response,
        "passes_query": True,
        "large_body": True,
        "takes_files": True,
        "tag": "responses",
        "body": ResponseRequest,
        "answers": {200: DocumentedAnswer("The response; events if `stream` is true.", RESPONSE_ANSWERS)},
        "parameters": (*ACCESS_PARAMETERS, *DOCUMENT_PARAMETERS),
        "errors": (402, 404, 502, 504, 507),
    },
    summary="Create a response",
)
async def create_response(request: Request[Any, Any, Any]) -> ASGIResponse:
    """Answer with a model, from documents with the tool ``file_search``, as an event stream if ``stream`` is true.

    The response is stored unless ``store`` is false. The scope ``chat.plain`` suffices without documents, and the scope
    ``proxy`` for responses that are not stored and continue nothing.
    """
    return await answer_response(request.scope, request.receive)


_INCLUDE: Final = tuple(
    query_parameter(name, "`file_search_call.results` shows the results of searches")
    for name in ("include", "include[]", "include[0]", "include[1]", "include[2]", "include[3]")
)
_GET_OPT: Final = {
    "scope": Scope.CHAT_PLAIN,
    "tag": "responses",
    "errors": (404,),
    "parameters": _INCLUDE,
    "answers": {200: DocumentedAnswer("The response; events if `stream` is true.", RESPONSE_ANSWERS)},
}
_Stream = Annotated[bool, QueryParameter(description="Answer with the events of the response")]
_StartingAfter = Annotated[
    int, QueryParameter(ge=-1, description="Only events with a larger sequence number, if `stream` is true")
]
_Obfuscation = Annotated[bool, QueryParameter(description="Accepted; has no effect")]


@get("/v1/responses/{response_id:str}", opt=_GET_OPT, summary="Get a response")
async def get_response(
    request: Request[Any, Any, Any],
    response_id: FromPath[str],
    *,
    stream: _Stream = False,
    starting_after: _StartingAfter = -1,
    include_obfuscation: _Obfuscation = False,
) -> ASGIResponse:
    """Show a stored response. The events of a background response can be followed from any of them on."""
    del include_obfuscation
    service, principal = _service(request), principal_of(request)
    results = _includes_results(request)
    if stream:
        found = await service.follow(principal, response_id, after=starting_after, results=results)
        return _events(request.scope, found)
    return JsonBytes(await service.get(principal, response_id, results=results))


@delete(
    "/v1/responses/{response_id:str}",
    opt={"scope": Scope.CHAT_PLAIN, "tag": "responses", "errors": (404,)},
    status_code=200,
    summary="Delete a response",
)
async def delete_response(request: Request[Any, Any, Any], response_id: FromPath[str]) -> ResponseDeleted:
    """Delete a stored response; one that is being made in the background is cancelled."""
    await _service(request).delete(principal_of(request), response_id)
    return ResponseDeleted(id=response_id)


@post(
    "/v1/responses/{response_id:str}/cancel",
    opt={
        "scope": Scope.CHAT_PLAIN,
        "tag": "responses",
        "errors": (404,),
        "answers": {200: DocumentedAnswer("The response as it is now.", ResponseBody)},
    },
    status_code=200,
    summary="Cancel a background response",
)
async def cancel_response(request: Request[Any, Any, Any], response_id: FromPath[str]) -> ASGIResponse:
    """Cancel a background response; one that has ended stays as it is."""
    return JsonBytes(await _service(request).cancel(principal_of(request), response_id))


_Limit = Annotated[int, QueryParameter(ge=1, le=100, description="Items of a page")]
_Order = Annotated[Literal["asc", "desc"], QueryParameter(description="`desc` begins with the last item")]
_After = Annotated[str | None, QueryParameter(max_length=100, description="Begins after the item with this id")]
_Before = Annotated[str | None, QueryParameter(max_length=100, description="Ends before the item with this id")]


@get(
    "/v1/responses/{response_id:str}/input_items",
    opt={"scope": Scope.CHAT_PLAIN, "tag": "responses", "errors": (404,), "parameters": _INCLUDE},
    summary="List the input of a response",
)
async def list_input_items(
    request: Request[Any, Any, Any],
    response_id: FromPath[str],
    *,
    limit: _Limit = 20,
    order: _Order = "desc",
    after: _After = None,
    before: _Before = None,
) -> InputItemList:
    """List the items of the request for a response, without those of responses that it continues."""
    page = await _service(request).input_items(
        principal_of(request), response_id, limit=limit, after=after, before=before, descending=order == "desc"
    )
    ids: list[str] = [item["id"] for item in page.items]
    return InputItemList(
        data=page.items, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None, has_more=page.has_more
    )


def _service(request: AnyRequest) -> ResponseService:
    found: ResponseService = request.app.state.services.responses
    return found


def _includes_results(request: AnyRequest) -> bool:
    """Whether the query asks for results; clients write lists in several ways."""
    query: bytes = request.scope["query_string"]
    return any(
        name.partition("[")[0] == "include" and INCLUDE_RESULTS in value.split(",")
        for name, value in parse_qsl(query.decode("latin-1"))
    )


route_handlers: list[Any] = [create_response, get_response, delete_response, cancel_response, list_input_items]
"""All routes of this module."""
