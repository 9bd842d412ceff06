"""The whole application: every module's routes around running services, the same for ``serve`` and in-process use."""

from __future__ import annotations

import logging
import sys
from typing import Any

from litestar import Litestar

from ragsvc.web import chat, documents, models, search
from ragsvc.web.app import create_app
from ragsvc.wiring import Services

_ROUTES: list[Any] = [
    *documents.route_handlers,
    *search.route_handlers,
    *chat.route_handlers,
    *models.route_handlers,
]


def application(services: Services) -> Litestar:
    """The application with all routes."""
    settings = services.settings
    return create_app(
        services,
        route_handlers=_ROUTES,
        body_limit_bytes=settings.max_body_bytes,
        access_log=_write_access_line if settings.access_log else None,
    )


def log_to_standard_error(level: str) -> None:
    """Send all logs to standard error, one line each; those of libraries from warnings on."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    logging.getLogger("ragsvc").setLevel(level.upper())


def _write_access_line(line: bytes) -> None:
    sys.stderr.buffer.write(line + b"\n")
    sys.stderr.buffer.flush()
