"""Renders the errors of ``core.errors``: HTTP statuses and ``{"error": {message, type, param, code, request_id}}``.

``type`` and ``code`` follow OpenAI's API (the product's specification gives ``policy_denied`` the type ``policy``).
``x-should-retry`` overrides the rule of OpenAI's SDKs (they repeat 408, 409, 429 and 5xx) where that would be wrong.
This module does not import the framework, so that the port opens before the framework is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from ragsvc.core import errors as e
from ragsvc.core.gateway.event_stream import write_event
from ragsvc.core.retry_after import retry_after_headers
from ragsvc.core.storage_faults import is_storage_fault
from ragsvc.core.validation import invalid_field, invalid_json

INVALID = "invalid_request_error"
SERVER = "server_error"


class Rendering(NamedTuple):
    """HTTP status and ``type`` of an error class."""

    status: int
    type: str


RENDERINGS: dict[type[e.RagsvcError], Rendering] = {
    e.InvalidRequest: Rendering(400, INVALID),
    e.UnsupportedMediaType: Rendering(415, INVALID),
    e.TooLarge: Rendering(413, INVALID),
    e.HeadersTooLarge: Rendering(431, INVALID),
    e.PromptTooLong: Rendering(400, INVALID),
    e.RequestTimedOut: Rendering(408, INVALID),
    e.UnsupportedParameter: Rendering(400, INVALID),
    e.FileUnreadable: Rendering(400, INVALID),
    e.CryptoFailure: Rendering(400, INVALID),
    e.MethodNotAllowed: Rendering(405, INVALID),
    e.Unauthorized: Rendering(401, "authentication_error"),
    e.Forbidden: Rendering(403, "permission_error"),
    e.QuotaExceeded: Rendering(403, "permission_error"),
    e.KeyInactive: Rendering(403, "permission_error"),
    e.ForeignRequest: Rendering(403, "permission_error"),
    e.PolicyDenied: Rendering(403, "policy"),
    e.BalanceExhausted: Rendering(402, "insufficient_quota"),
    e.RateLimited: Rendering(429, "rate_limit_error"),
    e.NotFound: Rendering(404, INVALID),
    e.RouteNotFound: Rendering(404, INVALID),
    e.DocumentNotFound: Rendering(404, INVALID),
    e.FileNotFound: Rendering(404, INVALID),
    e.UploadNotFound: Rendering(404, INVALID),
    e.CollectionNotFound: Rendering(404, INVALID),
    e.ResponseNotFound: Rendering(404, INVALID),
    e.ConversationNotFound: Rendering(404, INVALID),
    e.ConversationItemNotFound: Rendering(404, INVALID),
    e.FeedbackNotFound: Rendering(404, INVALID),
    e.VectorStoreNotFound: Rendering(404, INVALID),
    e.VectorStoreFileNotFound: Rendering(404, INVALID),
    e.FileBatchNotFound: Rendering(404, INVALID),
    e.TenantNotFound: Rendering(404, INVALID),
    e.KeyNotFound: Rendering(404, INVALID),
    e.PageHasNoPicture: Rendering(404, INVALID),
    e.EndpointNotOffered: Rendering(404, INVALID),
    e.ModelNotFound: Rendering(404, INVALID),
    e.Conflict: Rendering(409, INVALID),
    e.Overloaded: Rendering(503, SERVER),
    e.DatabaseUnavailable: Rendering(503, SERVER),
    e.ModelUnavailable: Rendering(503, SERVER),
    e.UpstreamFailed: Rendering(502, SERVER),
    e.UpstreamTimeout: Rendering(504, SERVER),
    e.UpstreamRejected: Rendering(502, SERVER),
    e.StorageFull: Rendering(507, SERVER),
    e.StorageUnavailable: Rendering(503, SERVER),
    e.StoredDataDamaged: Rendering(500, SERVER),
    e.AttestationUnavailable: Rendering(503, SERVER),
    e.ServiceStarting: Rendering(503, SERVER),
    e.ShuttingDown: Rendering(503, SERVER),
    e.BackgroundTaskFailed: Rendering(503, SERVER),
    e.DataDirectoryLocked: Rendering(503, SERVER),
    e.BackupDamaged: Rendering(500, SERVER),
    e.ConfigurationError: Rendering(500, SERVER),
    e.EmbeddingFailed: Rendering(503, SERVER),
    e.ExtractionFailed: Rendering(400, INVALID),
    e.DocumentUnreadable: Rendering(422, INVALID),
    e.PageNotShown: Rendering(422, INVALID),
}
"""A class that is not listed is rendered like its nearest listed ancestor, else as 500."""

_UNEXPECTED = Rendering(500, SERVER)
_SDK_REPEATS = {408, 409, 429}
_DEFAULT_RETRY_AFTER_S = {503: 1.0}


FAILED = "The server failed unexpectedly. The operator finds details in the log under the request id."
_FULL = "The disk is full. The request was not carried out."


class ErrorDetail(msgspec.Struct, frozen=True):
    """An error. ``param`` names the invalid field; ``code`` is stable; ``request_id`` identifies the log entries."""

    message: str
    type: str
    param: str | None
    code: str
    request_id: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of all error responses."""

    error: ErrorDetail


class RenderedError(msgspec.Struct, frozen=True):
    """Status, headers and body of an error response."""

    status: int
    headers: dict[str, str]
    body: ErrorBody

    @property
    def content(self) -> bytes:
        return msgspec.json.encode(self.body)

    @property
    def event(self) -> bytes:
        """The body as a server-sent event, for failures after the first byte of a stream."""
        return write_event(self.content)


def document_location(document_id: str) -> str:
    """The path of a document, for the header ``Location``."""
    return f"/v1/rag/documents/{document_id}"


def rendering_of(error: e.RagsvcError) -> Rendering:
    """The rendering of the error's class or of its nearest listed ancestor."""
    for cls in type(error).__mro__:
        if cls in RENDERINGS:
            return RENDERINGS[cls]
    return _UNEXPECTED


def render(error: Exception, request_id: str | None) -> RenderedError:
    """Render an exception that is not Litestar's; details of an unexpected exception are not shown to the client."""
    if isinstance(error, e.RagsvcError):
        return render_error(error, request_id)
    if isinstance(error, msgspec.DecodeError):
        return render_error(_from_msgspec(error), request_id)
    if is_storage_fault(error):
        return render_error(e.StorageFull(_FULL), request_id)
    return render_error(e.RagsvcError(FAILED), request_id)


def _from_msgspec(error: msgspec.DecodeError) -> e.InvalidRequest:
    return invalid_field(error) if isinstance(error, msgspec.ValidationError) else invalid_json(error)


def render_error(
    error: e.RagsvcError, request_id: str | None, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> RenderedError:
    """Render an error of the tree, with another status or more headers if they are given."""
    kind = rendering_of(error)
    code = status or kind.status
    type_ = kind.type if code < 500 or kind.type == SERVER else SERVER
    reason = error.reason if isinstance(error, e.DocumentUnreadable | e.FileUnreadable | e.PageNotShown) else None
    body = ErrorBody(ErrorDetail(error.message, type_, error.param, reason or error.code, request_id))
    rendered = {str(name): str(value) for name, value in (headers or {}).items()}
    rendered.update(_retry_advice(error, code))
    if isinstance(error, e.DocumentUnreadable) and error.document_id is not None:
        rendered["location"] = document_location(error.document_id)
    return RenderedError(code, rendered, body)


def _retry_advice(error: e.RagsvcError, status: int) -> dict[str, str]:
    """Headers that state whether and when the client should repeat the request."""
    headers: dict[str, str] = {}
    retry_after_s = error.retry_after_s
    if retry_after_s is None and error.retryable:
        retry_after_s = _DEFAULT_RETRY_AFTER_S.get(status)
    if retry_after_s is not None:
        headers |= retry_after_headers(retry_after_s)
    is_advised = status in _SDK_REPEATS or status >= 500 or status == HTTPStatus.PAYMENT_REQUIRED
    if type(error) is not e.RagsvcError and is_advised:
        should_retry = error.retryable and not (isinstance(error, e.RateLimited) and error.budget_gone)
        headers["x-should-retry"] = "true" if should_retry else "false"
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = 'Bearer realm="ragsvc"'
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        headers["connection"] = "close"  # the rest of the body is not read
    return headers
