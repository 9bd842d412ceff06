"""Composes the application: the routes of every module behind one gate and one edge."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.middleware import AbstractMiddleware, DefineMiddleware
from litestar.types import ASGIApp, ControllerRouterHandler

from ragsvc.core.defaults import (
    DEFAULT_ENCRYPTED_MEMORY_BYTES,
    DEFAULT_MAX_BODY_BYTES,
    DEFAULT_MAX_DOCUMENT_BYTES,
)
from ragsvc.core.errors import ConfigurationError
from ragsvc.services.request_encryption import EncryptionService
from ragsvc.web import openapi
from ragsvc.web.auth import AccessGate, requirement_of
from ragsvc.web.errors import EXCEPTION_HANDLERS
from ragsvc.web.headers import OUR_HEADERS
from ragsvc.web.metrics import RequestMetrics
from ragsvc.web.middleware import AccessLog, RequestMiddleware
from ragsvc.web.passthrough.raw_routes import RawRoutes
from ragsvc.web.routes import health, keys, tokens
from ragsvc.web.sealed.middleware import SealedRequestMiddleware
from ragsvc.web.sealed.request_bodies import body_limit_of
from ragsvc.web.state import FoundationServices

FOUNDATION_ROUTES = [*health.route_handlers, *keys.route_handlers, *tokens.route_handlers]

_EXPOSED = sorted({"retry-after", "location", *(name.decode() for name in OUR_HEADERS)})

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


def create_app(
    services: FoundationServices,
    *,
    route_handlers: Sequence[ControllerRouterHandler] = (),
    lifespan: Sequence[Lifespan] = (),
    body_limit_bytes: int = DEFAULT_MAX_BODY_BYTES,
    access_log: AccessLog | None = None,
    cors_origins: Sequence[str] = (),
    encryption: EncryptionService | None = None,
    document_limit_bytes: int = DEFAULT_MAX_DOCUMENT_BYTES,
    encrypted_memory_bytes: int = DEFAULT_ENCRYPTED_MEMORY_BYTES,
) -> Litestar:
    """Build the application around ``services`` (found by routes in ``app.state.services``).

    ``route_handlers`` are those of other modules; each declares ``opt["scope"]``. ``lifespan`` runs inside that of
    access control, so its parts may meter until they end. A handler may set ``request_max_body_size`` for itself.
    With ``encryption`` every route also takes sealed requests; their bodies are held in memory, all together up to
    ``encrypted_memory_bytes``, one up to ``document_limit_bytes`` where a handler declares ``opt["streams_body"]``.

    Raises:
        ConfigurationError: a handler does not say what it needs.
    """

    @asynccontextmanager
    async def access_running(_: Litestar) -> AsyncGenerator[None, None]:
        async with services.access.running():
            yield

    handlers = [*FOUNDATION_ROUTES, *route_handlers]
    metrics = RequestMetrics(services.registry)
    app = Litestar(
        route_handlers=[*handlers, *openapi.schema_routes(handlers)],
        middleware=[DefineMiddleware(AccessGate, access=services.access, body_limit_bytes=body_limit_bytes)],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=[access_running, *lifespan],
        request_max_body_size=body_limit_bytes,
        cors_config=_cors(cors_origins),
        state=State({"services": services}),
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    _check_needs(app)
    services.access.on_usage = metrics.count_tokens

    def add_layers(inner: ASGIApp) -> ASGIApp:
        inner = RawRoutes(inner, app, access=services.access)
        if encryption is None:
            return inner
        return SealedRequestMiddleware(
            inner,
            encryption=encryption,
            access=services.access,
            body_limit=body_limit_of(app, body_bytes=body_limit_bytes, document_bytes=document_limit_bytes),
            memory_bytes=encrypted_memory_bytes,
        )

    inner = _inside_cors(app, add_layers)
    app.asgi_handler = RequestMiddleware(inner, metrics=metrics, clock=services.access.clock, access_log=access_log)
    return app


def _inside_cors(app: Litestar, add_layers: Callable[[ASGIApp], ASGIApp]) -> ASGIApp:
    """Put layers around routing but inside CORS, so that browsers may read what the layers answer themselves."""
    outermost = app.asgi_handler
    if isinstance(outermost, AbstractMiddleware):
        outermost.app = add_layers(outermost.app)
        return outermost
    return add_layers(outermost)


def _cors(origins: Sequence[str]) -> CORSConfig | None:
    if not origins:
        return None
    return CORSConfig(allow_origins=list(origins), expose_headers=_EXPOSED)


def _check_needs(app: Litestar) -> None:
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
