"""Builds the ASGI application from routes and middleware."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
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
from ragsvc.core.gateway.provider_settings import Pricing
from ragsvc.services.request_encryption import EncryptionService
from ragsvc.web import openapi
from ragsvc.web.app_state import FoundationServices
from ragsvc.web.auth import AccessGate, requirement_of
from ragsvc.web.bodies import LARGE_BODIES_BYTES, LARGE_BODIES_KEY, MemoryBudget
from ragsvc.web.errors import EXCEPTION_HANDLERS
from ragsvc.web.headers import DROPPED_PASSAGES_HEADER, MISSPELT_PARAMETERS_HEADER, OUR_HEADERS
from ragsvc.web.metrics import RequestMetrics
from ragsvc.web.middleware import AccessLog, RequestMiddleware
from ragsvc.web.passthrough.raw_routes import RawRoutes
from ragsvc.web.routes import health, keys, tokens, usage
from ragsvc.web.sealed.middleware import SealedRequestMiddleware
from ragsvc.web.sealed.request_bodies import body_limit_of

FOUNDATION_ROUTES = [*health.route_handlers, *keys.route_handlers, *tokens.route_handlers, *usage.route_handlers]

_EXPOSED = sorted(
    {
        "retry-after",
        "location",
        *(name.decode() for name in (DROPPED_PASSAGES_HEADER, MISSPELT_PARAMETERS_HEADER, *OUR_HEADERS)),
    }
)

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


def create_app(
    services: FoundationServices,
    *,
    route_handlers: Sequence[ControllerRouterHandler] = (),
    lifespan: Sequence[Lifespan] = (),
    body_limit_bytes: int = DEFAULT_MAX_BODY_BYTES,
    access_log: AccessLog | None = None,
    slow_request_s: float | None = None,
    price_of: Callable[[str], Pricing] = lambda _: Pricing(),
    before_metrics: Callable[[], Awaitable[None]] | None = None,
    cors_origins: Sequence[str] = (),
    encryption: EncryptionService | None = None,
    document_limit_bytes: int = DEFAULT_MAX_DOCUMENT_BYTES,
    encrypted_memory_bytes: int = DEFAULT_ENCRYPTED_MEMORY_BYTES,
    model_label: Callable[[str], str] = str,
) -> Litestar:
    """Build the application; routes find ``services`` in ``app.state``.

    ``route_handlers`` are added to ``FOUNDATION_ROUTES``; each declares ``opt["scope"]`` and may set
    ``request_max_body_size``. ``lifespan`` runs inside that of access control, so that its parts can settle tokens
    until they end. With ``encryption`` all routes also accept encrypted requests. Their bodies are held in memory: in
    total up to ``encrypted_memory_bytes``, each up to ``body_limit_bytes``, or up to ``document_limit_bytes`` if the
    handler declares ``opt["streams_body"]``. ``model_label`` returns the name of a model in metrics.

    ``price_of`` is the price of a model by name; ``before_metrics`` is awaited before metrics are collected.

    Raises:
        ConfigurationError: a handler declares no ``opt["scope"]``.
    """

    @asynccontextmanager
    async def access_running(_: Litestar) -> AsyncGenerator[None, None]:
        async with services.access.running():
            yield

    handlers = [*FOUNDATION_ROUTES, *route_handlers]
    metrics = RequestMetrics(services.registry, model_label=model_label)
    app = Litestar(
        route_handlers=[*handlers, *openapi.schema_routes(handlers)],
        middleware=[DefineMiddleware(AccessGate, access=services.access, body_limit_bytes=body_limit_bytes)],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=[access_running, *lifespan],
        request_max_body_size=body_limit_bytes,
        cors_config=_cors(cors_origins),
        state=State(
            {
                "services": services,
                "before_metrics": before_metrics,
                LARGE_BODIES_KEY: MemoryBudget(LARGE_BODIES_BYTES, what="large requests"),
            }
        ),
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    _check_requirements(app)
    metrics.price_of = price_of
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
    app.asgi_handler = RequestMiddleware(
        inner, metrics=metrics, clock=services.access.clock, access_log=access_log, slow_request_s=slow_request_s
    )
    return app


def _inside_cors(app: Litestar, add_layers: Callable[[ASGIApp], ASGIApp]) -> ASGIApp:
    """Put layers around routing but inside CORS, so that browsers may read the responses of the layers."""
    outermost = app.asgi_handler
    if isinstance(outermost, AbstractMiddleware):
        outermost.app = add_layers(outermost.app)
        return outermost
    return add_layers(outermost)


def _cors(origins: Sequence[str]) -> CORSConfig | None:
    if not origins:
        return None
    return CORSConfig(allow_origins=list(origins), expose_headers=_EXPOSED)


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
