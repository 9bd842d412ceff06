"""``app.state``: the services, as far as the routes that every application has use them."""

from __future__ import annotations

from typing import Any, Protocol, cast

from litestar import Request
from prometheus_client import CollectorRegistry

from ragsvc.core.readiness import Readiness
from ragsvc.services.access_control import Access
from ragsvc.services.key_administration import KeyAdministration


class FoundationServices(Protocol):
    """The services that the routes of health, keys and tokens use."""

    @property
    def access(self) -> Access: ...

    @property
    def keys(self) -> KeyAdministration: ...

    @property
    def readiness(self) -> Readiness:
        """Reasons why the service is not ready."""
        ...

    @property
    def registry(self) -> CollectorRegistry:
        """The registry of all metrics."""
        ...


def services_of(request: Request[Any, Any, Any]) -> FoundationServices:
    """The services of the application that handles this request."""
    return cast("FoundationServices", request.app.state["services"])
