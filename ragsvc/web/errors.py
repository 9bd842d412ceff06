"""Renders the exceptions of requests: those of Litestar here, others in ``error_rendering``; logs unexpected ones."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap

from ragsvc.core import errors as e
from ragsvc.core.log_events import log_event
from ragsvc.core.storage_faults import is_storage_fault
from ragsvc.core.validation import as_sentence, invalid_value, missing_value
from ragsvc.web import error_rendering
from ragsvc.web.context import RequestContext
from ragsvc.web.error_rendering import (
    FAILED,
    INVALID,
    RENDERINGS,
    SERVER,
    ErrorBody,
    ErrorDetail,
    RenderedError,
    Rendering,
    document_location,
    render_error,
    rendering_of,
)

_log = logging.getLogger(__name__)


def render(error: Exception, request_id: str | None) -> RenderedError:
    """Render any exception; details of an unexpected exception are not shown to the client."""
    if isinstance(error, HTTPException):
        return render_error(_from_litestar(error), request_id, status=_litestar_status(error), headers=error.headers)
    return error_rendering.render(error, request_id)


def is_unexpected(error: Exception) -> bool:
    """Whether the exception is not part of the API, so that it must be logged with its traceback."""
    if isinstance(error, HTTPException):
        return error.status_code >= 500 and "disconnect" not in error.detail
    return not isinstance(error, e.RagsvcError | msgspec.DecodeError) and not is_storage_fault(error)


def _litestar_status(error: HTTPException) -> int:
    return 400 if error.status_code == HTTPStatus.UNPROCESSABLE_ENTITY else error.status_code


_ERRORS_BY_STATUS: dict[int, Callable[[HTTPException], e.RagsvcError]] = {
    401: lambda error: e.Unauthorized(as_sentence(error.detail)),
    403: lambda error: e.Forbidden(as_sentence(error.detail)),
    404: lambda _: e.RouteNotFound("Unknown request URL. /schema lists all routes."),
    405: lambda _: e.MethodNotAllowed("Method not allowed. The header 'Allow' lists the methods of this URL."),
    413: lambda _: e.TooLarge("The request body is too large.", limit_bytes=0),
    415: lambda error: e.UnsupportedMediaType(as_sentence(error.detail)),
    503: lambda error: e.Overloaded(as_sentence(error.detail)),
}


def _from_litestar(error: HTTPException) -> e.RagsvcError:
    """Convert an exception of Litestar; the caller keeps its status."""
    convert = _ERRORS_BY_STATUS.get(error.status_code)
    if convert is not None:
        return convert(error)
    return _from_validation(error) if error.status_code < 500 else e.RagsvcError(FAILED)


def _from_validation(error: HTTPException) -> e.InvalidRequest:
    """Convert the refusal of a query, path or header parameter; bodies are decoded by ``core.validation``."""
    extra = error.extra
    if isinstance(extra, list) and extra and isinstance(extra[0], dict):
        first = extra[0]
        key = first.get("key")
        return invalid_value(None if key is None else str(key), str(first.get("message", error.detail)))
    missing = _MISSING_PARAMETER.match(error.detail)  # the rest of this text quotes the URL
    return missing_value(missing[1]) if missing else e.InvalidRequest(as_sentence(error.detail))


_MISSING_PARAMETER = re.compile(r"Missing required \w+ parameter '([^']+)'")


def log_unexpected(error: Exception, *, request_id: str | None, encrypted: bool) -> None:
    """Log an unexpected exception. For an encrypted request without its message, which may quote the body."""
    if not encrypted:
        message = f"request {request_id} failed unexpectedly"
        log_event(_log, logging.ERROR, "unexpected_error", message, error=error, request_id=request_id)
        return
    stack = "".join(traceback.format_tb(error.__traceback__))
    _log.error("encrypted request %s failed unexpectedly with %s\n%s", request_id, type(error).__name__, stack)


def answer_exception(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Exception handler for Litestar: log unexpected exceptions and render all of them."""
    context = request.scope.get("ragsvc")
    request_id: str | None = getattr(context, "request_id", None)
    if is_unexpected(error):
        encrypted: bool = getattr(context, "encrypted", False)
        log_unexpected(error, request_id=request_id, encrypted=encrypted)
    rendered = render(error, request_id)
    if isinstance(context, RequestContext):
        context.error_code = rendered.body.error.code
    return Response(
        rendered.content, status_code=rendered.status, headers=rendered.headers, media_type="application/json"
    )


EXCEPTION_HANDLERS: ExceptionHandlersMap = {HTTPException: answer_exception, Exception: answer_exception}

__all__ = [
    "EXCEPTION_HANDLERS",
    "INVALID",
    "RENDERINGS",
    "SERVER",
    "ErrorBody",
    "ErrorDetail",
    "RenderedError",
    "Rendering",
    "answer_exception",
    "document_location",
    "is_unexpected",
    "log_unexpected",
    "render",
    "rendering_of",
]
