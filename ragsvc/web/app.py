"""Builds the ASGI application from routes and middleware."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from litestar import Litestar
from litestar.datastructures import State
from litestar.middleware import DefineMiddleware
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import ASGIApp, ControllerRouterHandler

from ragsvc.core.defaults import (
    DEFAULT_ENCRYPTED_MEMORY_BYTES,
    DEFAULT_MAX_BODY_BYTES,
    DEFAULT_MAX_DOCUMENT_BYTES,
    DEFAULT_STREAM_COMMENT_S,
)
from ragsvc.core.errors import ConfigurationError
from ragsvc.core.origins import AllowedOrigins
from ragsvc.services.request_encryption import EncryptionService
from ragsvc.web import openapi
from ragsvc.web.app_state import FoundationServices
from ragsvc.web.auth import AccessGate, requirement_of
from ragsvc.web.bodies import CHAT_FILES_KEY, LARGE_BODIES_BYTES, LARGE_BODIES_KEY, ChatFileRules, MemoryBudget
from ragsvc.web.cross_origin import Preflights, SharedResponses
from ragsvc.web.errors import EXCEPTION_HANDLERS
from ragsvc.web.keep_alive import COMMENT_EVERY_KEY
from ragsvc.web.llama_stack_paths import LlamaStackPaths
from ragsvc.web.metrics import RequestMetrics
from ragsvc.web.middleware import AccessLog, RequestMiddleware
from ragsvc.web.passthrough.raw_routes import RawRoutes
from ragsvc.web.public_address import PublicAddress
from ragsvc.web.routes import health, keys, own_key, tokens, usage
from ragsvc.web.sealed.middleware import SealedRequestMiddleware
from ragsvc.web.sealed.request_bodies import body_limit_of

FOUNDATION_ROUTES = [
    *health.route_handlers,
    *keys.route_handlers,
    *own_key.route_handlers,
    *tokens.route_handlers,
    *usage.route_handlers,
]

_ROOM_BESIDE_FILES_BYTES = 1_000_000
"""Of a body with files: its texts, line ends in base64."""

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


class _Application(Litestar):
    """Litestar without its default plugins for pydantic and attrs: they import both interfaces of pydantic (30 ms)."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


def create_app(
    services: FoundationServices,
    *,
    route_handlers: Sequence[ControllerRouterHandler] = (),
    lifespan: Sequence[Lifespan] = (),
    body_limit_bytes: int = DEFAULT_MAX_BODY_BYTES,
    access_log: AccessLog | None = None,
    slow_request_s: float | None = None,
    before_metrics: Callable[[], Awaitable[None]] | None = None,
    cors_origins: Sequence[str] = (),
    public_url: str | None = None,
    encryption: EncryptionService | None = None,
    document_limit_bytes: int = DEFAULT_MAX_DOCUMENT_BYTES,
    chat_files_bytes: int = DEFAULT_MAX_DOCUMENT_BYTES,
    pass_chat_files: bool = False,
    encrypted_memory_bytes: int = DEFAULT_ENCRYPTED_MEMORY_BYTES,
    model_label: Callable[[str], str] = str,
    stream_comment_s: float = DEFAULT_STREAM_COMMENT_S,
) -> Litestar:
    """Build the application; routes find ``services`` in ``app.state``.

    ``route_handlers`` are added to ``FOUNDATION_ROUTES``; each declares ``opt["scope"]`` and may set
    ``request_max_body_size``. ``lifespan`` runs inside that of access control, so that its parts can settle tokens
    until they end. With ``encryption`` all routes also accept encrypted requests. Their bodies are held in memory: in
    total up to ``encrypted_memory_bytes``, each up to ``body_limit_bytes``, or up to ``document_limit_bytes`` if the
    handler declares ``opt["streams_body"]``. A handler that declares ``opt["takes_files"]`` takes bodies with
    ``chat_files_bytes`` in base64. ``model_label`` returns the name of a model in metrics.
    ``stream_comment_s``: event streams get a comment after so many seconds of silence.

    ``before_metrics`` is awaited before metrics are collected.
    ``cors_origins`` are the origins whose pages may call the API, or ``*``; ``public_url`` is the address of the
    service for its clients, if it is not that of the requests.

    Raises:
        ConfigurationError: a handler declares no ``opt["scope"]``.
    """

    @asynccontextmanager
    async def access_running(_: Litestar) -> AsyncGenerator[None, None]:
        async with services.access.running():
            yield

    files_limit_bytes = max(body_limit_bytes, chat_files_bytes * 4 // 3 + _ROOM_BESIDE_FILES_BYTES)
    handlers = [*FOUNDATION_ROUTES, *route_handlers]
    metrics = RequestMetrics(services.registry, model_label=model_label)
    app = _Application(
        route_handlers=[*handlers, *openapi.schema_routes(handlers)],
        middleware=[
            DefineMiddleware(
                AccessGate,
                access=services.access,
                body_limit_bytes=body_limit_bytes,
                files_limit_bytes=files_limit_bytes,
            )
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=[access_running, *lifespan],
        request_max_body_size=body_limit_bytes,
        state=State(
            {
                "services": services,
                "before_metrics": before_metrics,
                COMMENT_EVERY_KEY: stream_comment_s,
                CHAT_FILES_KEY: ChatFileRules(max_bytes=chat_files_bytes, pass_on=pass_chat_files),
                LARGE_BODIES_KEY: MemoryBudget(max(LARGE_BODIES_BYTES, files_limit_bytes), what="large requests"),
            }
        ),
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    _check_requirements(app)
    services.access.on_usage = metrics.count_tokens

    routes = RawRoutes(app.asgi_handler, app, access=services.access, files_limit_bytes=files_limit_bytes)
    inner: ASGIApp = LlamaStackPaths(routes)
    if encryption is not None:
        inner = SealedRequestMiddleware(
            inner,
            encryption=encryption,
            access=services.access,
            body_limit=body_limit_of(
                app, body_bytes=body_limit_bytes, document_bytes=document_limit_bytes, files_bytes=files_limit_bytes
            ),
            memory_bytes=encrypted_memory_bytes,
        )
    origins = AllowedOrigins.parse(",".join(cors_origins))
    if origins:
        inner = Preflights(inner, origins)
    outermost: ASGIApp = RequestMiddleware(
        inner,
        metrics=metrics,
        clock=services.access.clock,
        access_log=access_log,
        slow_request_s=slow_request_s,
        count_outcome=services.access.count_outcome,
    )
    outermost = PublicAddress(outermost, public_url)
    app.asgi_handler = SharedResponses(outermost, origins) if origins else outermost
    return app


def _check_requirements(app: Litestar) -> None:
    problems: list[str] = []
    for route in app.routes:
        route_handlers = getattr(route, "route_handlers", None) or [route.route_handler]  # type: ignore[union-attr]  # HTTP routes have several
        for handler in route_handlers:
            if getattr(handler, "http_methods", None) == {"OPTIONS"}:
                continue
            try:
                requirement_of(handler.opt)
            except ConfigurationError:
                problems.append(f"the handler of {route.path} declares no 'scope' in its opt")
    if problems:
        raise ConfigurationError(problems)
