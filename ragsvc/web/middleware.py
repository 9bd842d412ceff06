"""The outermost middleware, in pure ASGI: request id, rate limit headers, metrics, access log, unhandled exceptions.

It wraps routing, so that unknown URLs and wrong methods are counted and logged like all other requests.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from ragsvc.core.access.request_note import REQUEST_NOTE, RequestNote
from ragsvc.core.errors import RagsvcError
from ragsvc.core.log_events import REQUEST_ID, TRACE_PARENT, RepetitionLimit, log_event
from ragsvc.core.network import client_network
from ragsvc.services.access_control import LiveKey
from ragsvc.web.context import SCOPE_KEY, RequestContext
from ragsvc.web.errors import log_unexpected
from ragsvc.web.headers import OUR_HEADERS, Header, limit_headers, new_request_id, valid_id
from ragsvc.web.metrics import RequestMetrics
from ragsvc.web.passthrough.raw_responses import send_error
from ragsvc.web.usage_families import family_of_route

_log = logging.getLogger(__name__)

_UNMATCHED = "unmatched"

AccessLog = Callable[[bytes], None]
"""Called with a line of JSON for each request."""


class CountOutcome(Protocol):
    """Counts the end of a request; ``duration_s`` is ``None`` if it was answered with an error."""

    def __call__(self, live: LiveKey, *, model: str, family: str, duration_s: float | None) -> None: ...


class RequestMiddleware:
    """ASGI middleware around the whole application; ``clock`` gives Unix seconds."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: RequestMetrics,
        clock: Callable[[], float],
        access_log: AccessLog | None = None,
        slow_request_s: float | None = None,
        count_outcome: CountOutcome | None = None,
    ) -> None:
        """``count_outcome`` is told the outcome of each request that the usage report counts."""
        self._app = app
        self._count_outcome = count_outcome
        self._metrics = metrics
        self._clock = clock
        self._access_log = access_log
        self._problems = None if slow_request_s is None else ProblemLog(slow_request_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        client = scope.get("client")
        context = RequestContext(
            valid_id(headers.get(b"x-request-id")) or new_request_id(),
            time.monotonic(),
            headers,
            address=client_network(client[0]) if client else None,
        )
        scope[SCOPE_KEY] = context  # type: ignore[literal-required]  # our own key
        REQUEST_ID.set(context.request_id)
        note = RequestNote()
        REQUEST_NOTE.set(note)
        parent = headers.get(b"traceparent")
        TRACE_PARENT.set(None if parent is None else parent.decode("latin-1"))
        status = 0
        answered_s = 0.0

        async def send_with_headers(message: Message) -> None:
            nonlocal status, answered_s
            if message["type"] == "http.response.start":
                status = message["status"]
                answered_s = time.monotonic() - context.started
                extra = [(b"x-request-id", context.request_id.encode()), *_vary(context)]
                if context.live is not None:
                    extra += limit_headers(context.live, monotonic=time.monotonic(), now=self._clock())
                headers_sent = message.get("headers", ())
                message["headers"] = [header for header in headers_sent if header[0] not in OUR_HEADERS] + extra
            await send(message)

        self._metrics.running += 1
        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:  # noqa: BLE001 - the last handler: everything that was not handled is logged here
            cause = error.__cause__
            unexpected = cause if isinstance(cause, Exception) else error
            log_unexpected(unexpected, request_id=context.request_id, encrypted=context.encrypted)
            if not status:
                context.error_code = await send_error(error, context.request_id, send_with_headers)
        finally:
            self._metrics.running -= 1
            if context.admitted and context.live is not None:
                context.live.gate.leave()
            duration_s = time.monotonic() - context.started
            route = str(scope.get("path_template") or _UNMATCHED)
            self._metrics.observe(route, scope["method"], status, duration_s)
            self._report(context, note, scope["method"], route, status, duration_s)
            if self._problems is not None:
                self._problems.note(context, scope["method"], route, status, answered_s=answered_s or duration_s)
            if self._access_log is not None:
                self._access_log(_line(context, scope["method"], route, status, duration_s, at=self._clock()))

    def _report(
        self, context: RequestContext, note: RequestNote, method: str, route: str, status: int, duration_s: float
    ) -> None:
        """Count the outcome for the usage report; not of requests whose client disconnected (status 0)."""
        if self._count_outcome is None or context.live is None or not status:
            return
        failed = status >= HTTPStatus.BAD_REQUEST or context.stream_failed
        family = note.family or (family_of_route(method, route) if failed else None)
        if family is not None:
            self._count_outcome(
                context.live, model=note.model, family=family, duration_s=None if failed else duration_s
            )


def _vary(context: RequestContext) -> list[Header]:
    """Responses to a session vary by its cookie: the next user of a browser must not get them from its cache."""
    return [] if context.session_token is None else [(b"vary", b"Cookie")]


_NOT_READY = ("/readyz", HTTPStatus.SERVICE_UNAVAILABLE)


class ProblemLog:
    """Logs requests that the service failed to answer, and slow ones; of many alike only the first and a count.

    ``/readyz`` did not fail when it answers that the service is not ready; load balancers ask for it all the time.
    Unexpected errors are not logged again: ``log_unexpected`` has logged them, with their stack.
    """

    def __init__(self, slow_request_s: float) -> None:
        self._slow_s = slow_request_s
        self._limit = RepetitionLimit()

    def note(self, context: RequestContext, method: str, route: str, status: int, *, answered_s: float) -> None:
        """Log the request if it is one of them; ``answered_s`` is the time until the response began."""
        if context.error_code == RagsvcError.code or (route, status) == _NOT_READY:
            return
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            event, message = "request_failed", "a request was answered with an error of the server"
        elif context.stream_failed:
            event, message = "stream_failed", "a streamed answer ended with an error"
        elif answered_s > self._slow_s and not context.may_wait:
            event, message = "slow_request", "a request was answered slowly"
        else:
            return
        left_out = self._limit.admit((event, route, status))
        log_event(
            _log,
            logging.DEBUG if left_out is None else logging.WARNING,
            event,
            message,
            request_id=context.request_id,
            client_request_id=valid_id(context.headers.get(b"x-client-request-id")),
            method=method,
            route=route,
            status=status,
            code=context.error_code,
            answered_ms=round(answered_s * 1000),
            key_id=None if context.live is None else context.live.key.id,
            tenant=None if context.live is None else context.live.key.tenant,
            left_out=left_out or None,
        )


def _line(context: RequestContext, method: str, route: str, status: int, duration_s: float, *, at: float) -> bytes:
    """A request as JSON: the route template, never path, body or secrets. Status 0: the client disconnected first."""
    entry: dict[str, Any] = {
        "at": round(at, 3),
        "request_id": context.request_id,
        "client_request_id": valid_id(context.headers.get(b"x-client-request-id")),
        "method": method,
        "route": route,
        "status": status,
        "duration_ms": round(duration_s * 1000, 2),
    }
    if context.live is not None:
        entry["key_id"] = context.live.key.id
        entry["tenant"] = context.live.key.tenant
    return msgspec.json.encode(entry)
