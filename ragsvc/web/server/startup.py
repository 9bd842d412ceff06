"""Answers requests while the service starts: ``/livez`` at once, ``/readyz`` with the step that is in progress.

The port opens before modules are imported and models are loaded, so that supervisors see a living process, and clients
get an answer that says when to come back instead of a refused connection.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar.types import ASGIApp, Receive, Scope, Send

from ragsvc.core.errors import ServiceStarting
from ragsvc.core.origins import AllowedOrigins
from ragsvc.core.readiness import Readiness
from ragsvc.core.retry_after import retry_after_headers
from ragsvc.web.cross_origin import Preflights, SharedResponses
from ragsvc.web.errors import render
from ragsvc.web.headers import new_request_id

_COMPONENT: Final = "service"


class StartupApp:
    """ASGI application that stands in for the service until ``open``; pages of ``origins`` may read its answers."""

    def __init__(self, origins: AllowedOrigins | None = None) -> None:
        self._answer: ASGIApp = self._answer_while_starting
        if origins:
            self._answer = SharedResponses(Preflights(self._answer_while_starting, origins), origins)
        self.readiness = Readiness()
        self.report("starting")
        self._app: ASGIApp | None = None

    def report(self, step: str) -> None:
        """State what the start is doing, for ``/readyz``."""
        self.readiness.block(_COMPONENT, step)

    def open(self, app: ASGIApp) -> None:
        """Pass all further requests to the application of the service."""
        self.readiness.clear(_COMPONENT)
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._app or self._answer)(scope, receive, send)

    async def _answer_while_starting(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/livez":
            await _send_json(send, 200, {"status": "alive"}, {})
        elif scope["path"] == "/readyz":
            body = {"status": "not_ready", "reasons": self.readiness.reasons()}
            await _send_json(send, 503, body, retry_after_headers(1))
        else:
            step = self.readiness.reasons()[_COMPONENT]
            rendered = render(ServiceStarting(f"The service is starting: {step}.", retry_after_s=1), new_request_id())
            await _send_json(send, rendered.status, rendered.body, rendered.headers)


async def _send_json(send: Send, status: int, body: Any, headers: dict[str, str]) -> None:  # noqa: ANN401 - any JSON
    content = msgspec.json.encode(body)
    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    lines += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": content, "more_body": False})
