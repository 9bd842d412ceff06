"""The whole application: every module's routes around running services, the same for ``serve`` and in-process use."""

from __future__ import annotations

import logging
import sys

from litestar import Litestar

from ragsvc.web.service import create_service
from ragsvc.wiring import Services


def application(services: Services) -> Litestar:
    """The application with all routes."""
    return create_service(services)


def log_to_standard_error(level: str) -> None:
    """Send all logs to standard error, one line each; those of libraries from warnings on."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    logging.getLogger("ragsvc").setLevel(level.upper())
