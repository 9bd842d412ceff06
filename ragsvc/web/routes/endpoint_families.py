"""The stateless endpoint families: passed to the provider of the model, or served by a local model.

JSON bodies are read completely, forms are streamed. Families that keep objects at a provider are refused: a proxy
cannot know who owns these objects and when they expire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Protocol, cast

import anyio.to_thread
from litestar import Request, post, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from multipart import parse_options_header

from ragsvc.core.access.principal import Scope
from ragsvc.core.defaults import MAX_MODEL_NAME_LENGTH
from ragsvc.core.errors import RouteNotFound, UnsupportedMediaType
from ragsvc.core.gateway.endpoint_families import (
    Family,
    ProxiedFields,
    default_model_kind,
    estimate_prompt,
    estimate_reply,
    read_fields,
    read_large_fields,
    with_model,
)
from ragsvc.core.gateway.request_quantities import (
    ONE_CALL,
    ExpectedQuantities,
    expect_form_quantities,
    expect_quantities,
)
from ragsvc.core.gateway.upstream_access import UpstreamAccess
from ragsvc.core.json_outline import LARGE_BODY_BYTES
from ragsvc.providers.local_models import EmbeddingsRequest, RerankRequest
from ragsvc.services.passthrough import ProxyAnswer, ProxyCall, ProxyService
from ragsvc.web.auth import AccessRequirement
from ragsvc.web.bodies import LARGE_BODIES_KEY, MemoryBudget, read_body
from ragsvc.web.context import RequestContext, context_of
from ragsvc.web.disconnects import DisconnectWatcher
from ragsvc.web.keep_alive import COMMENT_EVERY_KEY
from ragsvc.web.openapi import ANY_JSON, BINARY, EVENTS, DocumentedAnswer, Schema, header_parameter
from ragsvc.web.passthrough.forms import StreamedForm
from ragsvc.web.passthrough.raw_responses import ClientGone, OpenAnswer, PassedThrough
from ragsvc.web.requested_documents import refuse_document_headers

AnyRequest = Request[Any, Any, Any]

Content = Mapping[str, Schema]
"""Media types with their schemas."""

_PASSED_HEADERS: Final = (b"accept", b"openai-beta")
_MODEL: Final[Schema] = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_MODEL_NAME_LENGTH,
    "description": "Required unless the operator has set a default for this kind of requests",
}
_FAMILY_ERRORS: Final = (402, 404, 502, 504)
ACCESS_PARAMETERS: Final = (
    header_parameter("X-Provider-Key", "Your own key for the provider of the model, instead of the stored key"),
    header_parameter("X-Provider-Base-URL", "Base URL of another provider, if the operator allows it"),
)


class FamilyServices(Protocol):
    """The services that these routes use."""

    @property
    def proxy(self) -> ProxyService: ...

    @property
    def may_spool_to_disk(self) -> bool:
        """Whether a part of a form may be buffered in a temporary file; not if data is encrypted at rest."""
        ...


class JsonBody:
    """A JSON body in memory, which can be sent again."""

    spent = False

    def __init__(self, raw: bytes, model: str | None, *, drops_retrieval: bool) -> None:
        """``model`` is the name in the body, if any; ``drops_retrieval``: it has fields that no provider knows."""
        self._raw = raw
        self._model = model
        self._drops_retrieval = drops_retrieval

    def for_model(self, model: str) -> tuple[bytes, dict[str, str]]:
        """The body with the provider's name of the model."""
        body = with_model(self._raw, self._model, model, drops_retrieval=self._drops_retrieval)
        return body, {"Content-Type": "application/json"}


def access_of(context: RequestContext) -> UpstreamAccess:
    """Key and base URL of a provider that the request supplies."""
    key = context.headers.get(b"x-provider-key")
    base_url = context.headers.get(b"x-provider-base-url")
    return UpstreamAccess(
        None if not key else key.decode("latin-1"), None if not base_url else base_url.decode("latin-1")
    )


def _services(request: AnyRequest) -> FamilyServices:
    return cast("FamilyServices", request.app.state["services"])


async def _pass_json(request: AnyRequest, family: Family, path: str) -> ASGIResponse:
    services, context = _services(request), context_of(request.scope)
    refuse_document_headers(context.headers, f"/v1{path}")
    default_model = services.proxy.default_models.get(default_model_kind(family, path))
    budget: MemoryBudget = request.app.state[LARGE_BODIES_KEY]
    with budget.share() as take:
        raw = await read_body(request.receive, context.body_limit, take)
        if raw is None:
            return ClientGone()
        if len(raw) < LARGE_BODY_BYTES:
            fields = read_fields(raw, default_model=default_model)
            quantities = expect_quantities(family, path, raw)
        else:
            quantities = await anyio.to_thread.run_sync(expect_quantities, family, path, raw)
            fields = await anyio.to_thread.run_sync(
                lambda: read_large_fields(
                    raw,
                    family,
                    max_prompt_characters=services.proxy.max_prompt_characters,
                    default_model=default_model,
                )
            )
    fields.refuse_retrieval(raw, f"/v1{path}")
    call = call_of(
        context,
        raw,
        fields,
        family=family,
        path=path,
        model=fields.model_or(default_model),
        quantities=quantities,
    )
    if fields.stream:
        return _passed(request, lambda prepared: _forward(request, call, prepared), expects_events=True)
    with DisconnectWatcher(request.receive):
        return await _answer(request, call)
    return ClientGone()


def call_of(
    context: RequestContext,
    raw: bytes,
    fields: ProxiedFields,
    *,
    family: Family,
    path: str,
    model: str,
    quantities: ExpectedQuantities = ONE_CALL,
) -> ProxyCall:
    """The call that passes on a JSON request."""
    return ProxyCall(
        family=family,
        path=path,
        model=model,
        body=JsonBody(raw, fields.named_model, drops_retrieval=fields.has_retrieval),
        headers=_headers(context),
        prompt_estimate=estimate_prompt(family, len(raw)),
        reply_estimate=estimate_reply(family, fields) * quantities.texts,
        limits_reply=bool(fields.max_output_tokens or fields.max_tokens),
        quantities=quantities,
    )


async def _pass_form(request: AnyRequest, family: Family, path: str) -> ASGIResponse:
    refuse_document_headers(context_of(request.scope).headers, f"/v1{path}")
    content_type = request.headers.get("content-type", "")
    kind, options = parse_options_header(content_type)
    if kind != "multipart/form-data":
        raise UnsupportedMediaType("This endpoint accepts multipart/form-data only.", param="Content-Type")
    length = request.headers.get("content-length", "")
    form = StreamedForm(
        cast("AsyncIterator[bytes]", request.stream()),
        route=f"/v1{path}",
        boundary=options.get("boundary", ""),
        content_type=content_type,
        length=int(length) if length.isdecimal() else None,
        may_use_disk=_services(request).may_spool_to_disk and not context_of(request.scope).encrypted,
    )
    async with form:
        model = await form.read_model(_services(request).proxy.default_models.get(default_model_kind(family, path)))
        call = ProxyCall(
            family=family,
            path=path,
            model=model,
            body=form,
            headers=_headers(context_of(request.scope)),
            quantities=expect_form_quantities(family, path, form.length),
        )
        return await _answer(request, call)


async def _answer(request: AnyRequest, call: ProxyCall) -> ASGIResponse:
    answer = await _forward(request, call)

    async def answered(_prepared: Callable[[], None]) -> ProxyAnswer:
        return answer

    return _passed(request, answered)


async def _forward(request: AnyRequest, call: ProxyCall, prepared: Callable[[], None] = lambda: None) -> ProxyAnswer:
    context = context_of(request.scope)
    proxy = _services(request).proxy
    return await proxy.forward(context.principal, call, access_of(context), prepared=prepared)


def _passed(request: AnyRequest, open_answer: OpenAnswer, *, expects_events: bool = False) -> PassedThrough:
    every_s: float = request.app.state[COMMENT_EVERY_KEY]
    return PassedThrough(open_answer, comment_every_s=every_s, expects_events=expects_events)


def _headers(context: RequestContext) -> dict[str, str]:
    headers = context.headers
    return {name.decode().title(): headers[name].decode("latin-1") for name in _PASSED_HEADERS if name in headers}


def _json_schema(**example: object) -> Schema:
    """A schema for any object with a model; the provider defines its other fields."""
    return {
        "type": "object",
        "properties": {"model": _MODEL},
        "examples": [example],
    }


def _form_schema(*files: str) -> Schema:
    parts: dict[str, Any] = {"model": _MODEL}
    parts.update(dict.fromkeys(files, BINARY))
    return {"type": "object", "required": list(files), "properties": parts}


def _json_route(
    path: str,
    family: Family,
    summary: str,
    body: Schema,
    *,
    answer: Content = ANY_JSON,
    scope: Scope = Scope.PROXY,
    also_at: str | None = None,
) -> HTTPRouteHandler:
    """``also_at`` is a path by which clients of another vendor know the route at ``path``."""
    opt = _opt(family, scope, {"application/json": body}, answer)
    operation = _operation(path) + ("" if also_at is None else _operation(also_at).replace("create", "At"))

    @post(also_at or f"/v1{path}", status_code=200, opt=opt, summary=summary, operation_id=operation)
    async def pass_json(request: Request[Any, Any, Any]) -> ASGIResponse:
        """Pass the request to the provider of its model; the provider defines all other fields."""
        return await _pass_json(request, family, path)

    return pass_json


def _form_route(
    path: str, family: Family, summary: str, body: Schema, *, answer: Content = ANY_JSON
) -> HTTPRouteHandler:
    opt = _opt(family, Scope.PROXY, {"multipart/form-data": body}, answer, errors=(415,))

    @post(f"/v1{path}", status_code=200, opt=opt, summary=summary, operation_id=_operation(path))
    async def pass_form(request: Request[Any, Any, Any]) -> ASGIResponse:
        """Stream the form to the provider of its model; send ``model`` before files, so that they need no buffer."""
        return await _pass_form(request, family, path)

    return pass_form


def _opt(
    family: Family, scope: Scope, body: Content, answer: Content, *, errors: tuple[int, ...] = ()
) -> dict[str, Any]:
    return {
        "scope": scope,
        "passes_query": True,
        "tag": family.value,
        "large_body": True,
        "body": body,
        "parameters": ACCESS_PARAMETERS,
        "answers": {200: DocumentedAnswer("The unchanged answer of the provider.", answer)},
        "errors": (*_FAMILY_ERRORS, *errors),
    }


def _operation(path: str) -> str:
    return "create" + "".join(word.title() for word in path.strip("/").split("/"))


_STREAMING: Final = {**ANY_JSON, **EVENTS}
_SPEECH: Final = {"audio/*": BINARY, "application/octet-stream": BINARY, **EVENTS}
_TEXTS: Final = {**ANY_JSON, **EVENTS, "text/plain": {"type": "string"}}

route_handlers: list[HTTPRouteHandler] = [
    _json_route(
        "/completions",
        Family.COMPLETIONS,
        "Complete a text",
        _json_schema(model="gpt-3.5-turbo-instruct", prompt="Say this is a test"),
        answer=_STREAMING,
    ),
    _json_route("/embeddings", Family.EMBEDDINGS, "Embed texts", EmbeddingsRequest, scope=Scope.EMBEDDINGS),
    _json_route(
        "/images/generations",
        Family.IMAGES,
        "Make an image",
        _json_schema(model="gpt-image-1", prompt="A clean product UI mockup"),
        answer=_STREAMING,
    ),
    _form_route("/images/edits", Family.IMAGES, "Edit an image", _form_schema("image"), answer=_STREAMING),
    _form_route("/images/variations", Family.IMAGES, "Vary an image", _form_schema("image")),
    _form_route("/audio/transcriptions", Family.AUDIO, "Transcribe speech", _form_schema("file"), answer=_TEXTS),
    _form_route("/audio/translations", Family.AUDIO, "Translate speech", _form_schema("file"), answer=_TEXTS),
    _json_route(
        "/audio/speech",
        Family.AUDIO,
        "Speak a text",
        _json_schema(model="tts-1", voice="alloy", input="Hello"),
        answer=_SPEECH,
    ),
    _json_route(
        "/moderations",
        Family.MODERATIONS,
        "Moderate a text",
        _json_schema(model="omni-moderation-latest", input="I love you."),
    ),
    _json_route("/rerank", Family.RERANK, "Order documents by relevance", RerankRequest),
    _json_route("/rerank", Family.RERANK, "The same, for Cohere's SDK", RerankRequest, also_at="/v2/rerank"),
    _json_route("/rerank", Family.RERANK, "The same, for Infinity's clients", RerankRequest, also_at="/rerank"),
    _json_route(
        "/ocr",
        Family.OCR,
        "Read a document's text",
        _json_schema(
            model="mistral-ocr-latest",
            document={"type": "document_url", "document_url": "https://example.com/report.pdf"},
        ),
    ),
    _json_route(
        "/videos/generations",
        Family.VIDEOS,
        "Make a video",
        _json_schema(model="veo-3", prompt="An ox crosses a river."),
    ),
]
"""The routes in the OpenAPI document; ``stateful_routes`` are not part of it."""

_STATEFUL: Final = {
    "batches": "Send the requests one by one.",
    "assistants": "Use /v1/chat/completions with use_rag.",
    "threads": "Use /v1/chat/completions, which takes the whole conversation.",
    "videos": "Videos can be created by /v1/videos/generations, but not retrieved.",
    "containers": "",
    "evals": "",
    "fine_tuning": "",
    "realtime": "",
    "chatkit": "",
    "skills": "",
}
"""Families whose objects are kept at a provider, and what to use instead."""

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


def _refusal(family: str) -> RouteNotFound:
    reason = (
        f"The endpoint /v1/{family} is not offered: its objects would be kept at a provider, "
        "and a proxy cannot know who owns them and when they expire."
    )
    return RouteNotFound(f"{reason} {_STATEFUL[family]}".rstrip())


def _refused(family: str, path: str, *, methods: tuple[str, ...] = _METHODS) -> HTTPRouteHandler:
    options: dict[str, Any] = {
        "opt": {"scope": AccessRequirement.ANY_KEY},
        "include_in_schema": False,
        "status_code": 200,
    }

    if "{" in path:

        @route(path, http_method=cast("Any", list(methods)), **options)
        async def refuse_object(rest: FromPath[str]) -> None:
            """Refuse the request with the reason."""
            del rest
            raise _refusal(family)

        return refuse_object

    @route(path, http_method=cast("Any", list(methods)), **options)
    async def refuse_family() -> None:
        """Refuse the request with the reason."""
        raise _refusal(family)

    return refuse_family


stateful_routes: list[HTTPRouteHandler] = [
    handler
    for family in _STATEFUL
    for handler in (
        _refused(family, f"/v1/{family}"),
        _refused(family, f"/v1/{family}/{{rest:path}}"),
    )
]
"""Answer 404 with the reason."""

__all__ = ["ACCESS_PARAMETERS", "access_of", "call_of", "route_handlers", "stateful_routes"]
