"""Answers requests while the service starts: ``/livez`` at once, ``/readyz`` with the step that is in progress.

The port opens before modules are imported and models are loaded, so that supervisors see a living process, and clients
get an answer that says when to come back instead of a refused connection. A person who opens a page in a browser gets
a page that reloads itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from ragsvc.core.errors import ServiceStarting
from ragsvc.core.origins import AllowedOrigins
from ragsvc.core.readiness import Readiness
from ragsvc.core.retry_after import retry_after_headers
from ragsvc.web.cross_origin import Preflights, SharedResponses
from ragsvc.web.error_rendering import render
from ragsvc.web.headers import new_request_id

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send

_COMPONENT: Final = "service"
_RELOAD_S: Final = 2
_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
_PAGE: Final = """<!doctype html>
<html lang="{language}">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="{seconds}">
<title>ragsvc</title>
<h1>{title}</h1>
<p role="status">{text}</p>
</html>
"""
_TEXTS: Final = {
    "en": ("The service is starting", "This page reloads by itself until the service is ready."),
    "de": ("Der Dienst startet", "Diese Seite lädt sich selbst neu, bis der Dienst bereit ist."),
}


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
        elif _wants_page(scope):
            await _send_page(send, _language(scope))
        else:
            step = self.readiness.reasons()[_COMPONENT]
            rendered = render(ServiceStarting(f"The service is starting: {step}.", retry_after_s=1), new_request_id())
            await _send_json(send, rendered.status, rendered.body, rendered.headers)


def _wants_page(scope: Scope) -> bool:
    """Whether a browser opens a page: it names ``text/html`` in ``Accept``, which programs do not."""
    return scope.get("method") in {"GET", "HEAD"} and "text/html" in _header(scope, b"accept")


def _language(scope: Scope) -> str:
    """The first language of ``Accept-Language`` that there are texts of; browsers put the preferred one first."""
    named = (part.strip()[:2] for part in _header(scope, b"accept-language").split(","))
    return next((language for language in named if language in _TEXTS), "en")


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1").lower() for key, value in scope["headers"] if key == name), "")


async def _send_page(send: Send, language: str) -> None:
    title, text = _TEXTS[language]
    content = _PAGE.format(language=language, seconds=_RELOAD_S, title=title, text=text).encode()
    headers = {**retry_after_headers(_RELOAD_S), "content-security-policy": _POLICY}
    await _send(send, 503, content, "text/html; charset=utf-8", headers)


async def _send_json(send: Send, status: int, body: Any, headers: dict[str, str]) -> None:  # noqa: ANN401 - any JSON
    await _send(send, status, msgspec.json.encode(body), "application/json", headers)


async def _send(send: Send, status: int, content: bytes, media_type: str, headers: dict[str, str]) -> None:
    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    lines += [(b"cache-control", b"no-store"), (b"content-type", media_type.encode())]
    lines.append((b"content-length", b"%d" % len(content)))
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": content, "more_body": False})
