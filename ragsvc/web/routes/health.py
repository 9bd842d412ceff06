"""``/livez``, ``/readyz``, ``/metrics``: for orchestrators and Prometheus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get
from litestar.params import QueryParameter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ragsvc.core.retry_after import retry_after_headers
from ragsvc.web.app_state import services_of
from ragsvc.web.auth import AccessRequirement

AnyRequest = Request[Any, Any, Any]
_Exclude = Annotated[
    str | None,
    QueryParameter(max_length=200, description="Parts that may be not ready, separated by commas, such as `storage`"),
]


class Liveness(msgspec.Struct, frozen=True):
    """The process is running."""

    status: str = "alive"


class ReadinessBody(msgspec.Struct, frozen=True):
    """``ready`` or ``not_ready``, with a reason for each part that is not ready."""

    status: str
    reasons: dict[str, str] = {}


@get("/livez", opt={"scope": AccessRequirement.PUBLIC, "tag": "operations"}, summary="Liveness")
async def livez() -> Liveness:
    """Answer as long as the event loop runs."""
    return Liveness()


@get(
    "/readyz",
    opt={"scope": AccessRequirement.PUBLIC, "tag": "operations", "errors": {503: ReadinessBody}},
    summary="Readiness",
)
async def readyz(request: AnyRequest, exclude: _Exclude = None) -> Response[ReadinessBody]:
    """Answer 503 with reasons until all parts are ready.

    With a full disk, ``storage`` is a reason, although searches and chats are answered. A load balancer that should
    still send them asks for ``/readyz?exclude=storage``.
    """
    excluded = {name.strip() for name in (exclude or "").split(",")}
    reasons = services_of(request).readiness.reasons()
    if reasons.keys() - excluded:
        return Response(ReadinessBody("not_ready", reasons), status_code=503, headers=retry_after_headers(1))
    return Response(ReadinessBody("ready", reasons))


@get(
    "/metrics",
    opt={"scope": AccessRequirement.PUBLIC, "tag": "operations"},
    summary="Prometheus metrics",
    media_type="text/plain",
)
async def metrics(request: AnyRequest) -> Response[bytes]:
    """All metrics in the text format of Prometheus."""
    refresh: Callable[[], Awaitable[None]] | None = request.app.state["before_metrics"]
    if refresh is not None:
        await refresh()
    return Response(generate_latest(services_of(request).registry), headers={"content-type": CONTENT_TYPE_LATEST})


route_handlers = [livez, readyz, metrics]
