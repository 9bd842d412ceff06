"""OpenAPI 3.1 at ``/schema``, generated from the routes and their structs.

Litestar describes paths, declared parameters and responses. This module adds what Litestar cannot know: bodies that
handlers read themselves (``opt["body"]``: a struct for JSON, or media types with their schemas), parameters that they
read themselves (``opt["parameters"]``), responses that are not structs (``opt["answers"]``), the error responses of a
route (``opt["errors"]``, in addition to those that all routes have), and authentication. The pages served load nothing
from other hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import anyio.to_thread
import msgspec
from litestar import Litestar, MediaType, Request, Response, Router, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.params import KwargDefinition
from litestar.types import ControllerRouterHandler

from ragsvc import __version__
from ragsvc.web.auth import AccessRequirement, requirement_of
from ragsvc.web.errors import ErrorBody
from ragsvc.web.public_address import server_url

_ERRORS = {
    400: "The request is malformed or a field is invalid (`param` names the field).",
    401: "The API key is missing, unknown, revoked or expired.",
    402: "The token balance of the key is exhausted.",
    403: "The key is inactive, or its rules or a policy deny the request (`policy_denied`).",
    404: "Nothing with this name or id exists.",
    409: "The state of the resource does not allow the operation.",
    413: "The body is too large.",
    415: "The media type of the body is not supported.",
    422: "The file cannot be read (`code` is the reason); the document is listed as failed, see `Location`.",
    429: "A rate limit of the key is reached; see `Retry-After`.",
    500: "The server failed unexpectedly.",
    502: "The provider of the model failed.",
    503: "Temporarily unavailable; see `Retry-After`.",
    504: "The provider of the model did not answer in time.",
    507: "There is not enough disk space to store the file.",
}
_REF = "#/components/schemas/{name}"
_ERROR_REFERENCE = {"$ref": "#/components/schemas/ErrorBody"}
_KEPT_DOCUMENTS = 4
"""Documents that are kept encoded, for as many addresses of the service."""
_BODY_METHODS = frozenset({"post", "put", "patch"})
Document = dict[str, Any]
Schema = type[msgspec.Struct] | Document
"""A struct, or a JSON Schema."""

BINARY: Document = {"type": "string", "format": "binary"}
ANY_JSON: Mapping[str, Schema] = {"application/json": {"type": "object"}}
EVENTS: Mapping[str, Schema] = {"text/event-stream": {"type": "string"}}


class DocumentedAnswer(NamedTuple):
    """A successful response: its meaning, and its body as a struct (JSON) or by media type."""

    description: str
    content: type[msgspec.Struct] | Mapping[str, Schema]


def query_parameter(name: str, description: str, *, max_length: int | None = None) -> Document:
    """An optional query parameter that a handler reads itself."""
    schema = {"type": "string"} | ({} if max_length is None else {"maxLength": max_length})
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def header_parameter(name: str, description: str) -> Document:
    """An optional header that a handler reads itself."""
    return {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": description}


def described_download(description: str, content: Mapping[str, Schema]) -> Document:
    """The route options that describe a stored file: whole, a range of it, or not at all (RFC 9110 §13, §14)."""
    return {
        "answers": {
            200: DocumentedAnswer(description, content),
            206: DocumentedAnswer("The range that `Range` asks for.", content),
            304: DocumentedAnswer("`If-None-Match` has the file's `ETag`.", {}),
            416: DocumentedAnswer("The file has none of the bytes that `Range` asks for.", {}),
        },
        "parameters": [
            header_parameter("Range", "A single range of bytes (RFC 9110 §14)"),
            header_parameter("If-None-Match", "The `ETag` of a copy that the client has"),
        ],
    }


def schema_routes(handlers: Sequence[ControllerRouterHandler]) -> list[ControllerRouterHandler]:
    """Routes that serve the OpenAPI document of ``handlers``, which is built in a thread at the first request."""

    @cache
    def document() -> Document:
        return describe(handlers)

    @lru_cache(_KEPT_DOCUMENTS)
    def as_json(server: str) -> bytes:
        return msgspec.json.encode(document() | {"servers": [{"url": server}]})

    @lru_cache(_KEPT_DOCUMENTS)
    def as_yaml(server: str) -> bytes:
        return msgspec.yaml.encode(document() | {"servers": [{"url": server}]})

    async def serve(
        request: Request[Any, Any, Any], render: Callable[[str], bytes], content_type: str
    ) -> Response[bytes]:
        content = await anyio.to_thread.run_sync(render, server_url(request.scope))
        return Response(content, headers={"content-type": content_type})

    @get(["/", "/openapi.json"], media_type=MediaType.JSON)
    async def schema_json(request: Request[Any, Any, Any]) -> Response[bytes]:
        return await serve(request, as_json, "application/vnd.oai.openapi+json")

    @get(["/openapi.yaml", "/openapi.yml"], media_type=MediaType.TEXT)
    async def schema_yaml(request: Request[Any, Any, Any]) -> Response[bytes]:
        return await serve(request, as_yaml, "application/yaml")

    return [
        Router(
            "/schema",
            route_handlers=[schema_json, schema_yaml],
            opt={"scope": AccessRequirement.PUBLIC},
            include_in_schema=False,
        )
    ]


def describe(handlers: Sequence[ControllerRouterHandler]) -> Document:
    """Build the OpenAPI document of ``handlers``."""
    config = OpenAPIConfig(
        title="ragsvc",
        version=__version__,
        description="A private, OpenAI-compatible document service.",
        use_handler_docstrings=True,
    )
    app = Litestar(route_handlers=list(handlers), openapi_config=config, logging_config=None)
    document: Document = app.openapi_schema.to_schema()
    handlers_of = {
        (route.path_format, method.lower()): handler
        for route in app.routes
        for handler in getattr(route, "route_handlers", ())
        for method in handler.http_methods
    }
    components: Document = document.setdefault("components", {})
    schemas: Document = components.setdefault("schemas", {})
    schemas.pop("ValidationException", None)
    schemas.update(_components([ErrorBody, *_bodies(handler.opt for handler in handlers_of.values())]))
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer rag_…`"},
        "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    for path, item in document.get("paths", {}).items():
        for method, operation in item.items():
            handler = handlers_of.get((path, method))
            if isinstance(operation, dict) and handler is not None:
                _complete(operation, handler.opt, path=path, method=method)
                _add_zero_bounds(operation, handler)
    document["paths"] = dict(sorted(document.get("paths", {}).items()))  # Litestar has them in sets
    return document


def _add_zero_bounds(operation: Document, handler: HTTPRouteHandler) -> None:
    """Add minimums of 0, which Litestar leaves out: it tests bounds for truth."""
    minimums: dict[str, float] = {}
    for name, parameter in handler.parsed_fn_signature.parameters.items():
        kwarg = parameter.kwarg_definition
        if isinstance(kwarg, KwargDefinition) and kwarg.ge == 0:
            minimums[getattr(kwarg, "query", None) or name] = 0
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in minimums:
            parameter["schema"].setdefault("minimum", minimums[parameter["name"]])


def _complete(operation: Document, opt: Mapping[str, Any], *, path: str, method: str) -> None:
    requirement = requirement_of(opt)
    if requirement is AccessRequirement.PUBLIC:
        operation["security"] = []
    else:
        operation["security"] = [{"bearer": []}, {"apiKey": []}]
        operation["x-ragsvc-scope"] = requirement.value
    if tag := opt.get("tag"):
        operation["tags"] = [tag]
    body = opt.get("body")
    if body is not None:
        operation["requestBody"] = {"required": not opt.get("body_optional", False), "content": _content(body)}
    operation.setdefault("parameters", []).extend(opt.get("parameters", ()))
    if opt.get("idempotent"):
        operation.setdefault("parameters", []).append(_IDEMPOTENCY)
    responses: Document = operation.setdefault("responses", {})
    responses.pop("400", None)  # Litestar's own shape
    for status, answer in opt.get("answers", {}).items():
        described = {"description": answer.description, "headers": _HEADERS, "content": _content(answer.content)}
        responses[str(status)] = described
    extra = opt.get("errors", ())
    shapes = dict(extra) if isinstance(extra, Mapping) else dict.fromkeys(extra)
    for status in sorted({*_common_statuses(requirement, path=path, method=method), *shapes}):
        shape = shapes.get(status)
        schema = _ERROR_REFERENCE if shape is None else _reference(shape)
        content = {"application/json": {"schema": schema}}
        responses[str(status)] = {"description": _ERRORS[status], "headers": _HEADERS, "content": content}


_HEADERS = {"x-request-id": {"schema": {"type": "string"}, "description": "Identifies the request in the logs."}}
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "A repeated request with the same body gets the first response; with another body, 400.",
}


def _common_statuses(requirement: object, *, path: str, method: str) -> Iterable[int]:
    """Error statuses of a route that it need not declare."""
    yield from (400, 500)
    if requirement is not AccessRequirement.PUBLIC:
        yield from (401, 403, 429, 503)
    if "{" in path:
        yield 404
    if method in _BODY_METHODS:
        yield 413


def _bodies(options: Iterable[Mapping[str, Any]]) -> Iterable[type[Any]]:
    for opt in options:
        contents = [opt.get("body"), *(answer.content for answer in opt.get("answers", {}).values())]
        if isinstance(errors := opt.get("errors"), Mapping):
            contents.extend(errors.values())
        for content in contents:
            for schema in content.values() if isinstance(content, Mapping) else (content,):
                if isinstance(schema, type):
                    yield schema


def _components(types: Iterable[type[Any]]) -> Document:
    _, components = msgspec.json.schema_components(list(dict.fromkeys(types)), ref_template=_REF)
    return components


def _content(content: type[msgspec.Struct] | Mapping[str, Schema]) -> Document:
    """Media types with their schemas; a struct means JSON."""
    if isinstance(content, type):
        return {"application/json": {"schema": _reference(content)}}
    return {
        media_type: {"schema": _reference(schema) if isinstance(schema, type) else schema}
        for media_type, schema in content.items()
    }


def _reference(kind: type[Any]) -> Document:
    return {"$ref": _REF.format(name=kind.__name__)}
