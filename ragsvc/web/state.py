"""What routes find in ``app.state``: the services, and what the HTTP foundation asks of them."""

from __future__ import annotations

from typing import Any, Protocol, cast

from litestar import Request
from prometheus_client import CollectorRegistry

from ragsvc.core.readiness import Readiness
from ragsvc.services.access_control import Access
from ragsvc.services.key_administration import KeyAdministration


class FoundationServices(Protocol):
    """The part of the composed services that this package's foundation uses."""

    @property
    def access(self) -> Access: ...

    @property
    def keys(self) -> KeyAdministration: ...

    @property
    def readiness(self) -> Readiness:
        """What keeps the service from working."""
        ...

    @property
    def registry(self) -> CollectorRegistry:
        """Where every part registers its metrics."""
        ...


def services_of(request: Request[Any, Any, Any]) -> FoundationServices:
    """The services of the application that serves this request."""
    return cast("FoundationServices", request.app.state["services"])
