"""Errors of the clients, from the error body ``{"error": {message, type, param, code, request_id}}`` of the service.

::

    ServiceError
    ├── ServiceUnreachable     no answer: the connection failed, was lost, or timed out
    ├── UnexpectedAnswer       an answer that is not one of ragsvc: another server, a proxy's page
    ├── AnswerInterrupted      a stream that ended with an error, or before its end
    ├── DocumentUnfinished     the document failed, was deleted, or was not ready in time
    └── StatusError            a status of 400 and higher
        ├── BadRequest         400, and statuses that have no class
        ├── AuthenticationFailed   401
        ├── BalanceUsedUp          402
        ├── PermissionDenied       403
        ├── ResourceNotFound       404
        ├── ConflictingState       409
        ├── UnreadableUpload       422
        ├── TooManyRequests        429
        └── ServiceFault           500 and higher
            └── ServiceBusy        503
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ragsvc.core.retry_after import read_retry_after


class ServiceError(Exception):
    """Base of all errors. ``code`` is stable; ``None`` if the answer has no error body of ragsvc."""

    def __init__(self, message: str, *, code: str | None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class ServiceUnreachable(ServiceError):
    """The service did not answer. ``reason`` is the text of the network error."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"No service answers at {url} ({reason}).", code="service_unreachable")
        self.url = url
        self.reason = reason


class UnexpectedAnswer(ServiceError):
    """The answer is not one of ragsvc; the URL is probably wrong."""

    def __init__(self, url: str, expected: str) -> None:
        super().__init__(f"{url} did not answer with {expected}; check the URL of the service.", code="bad_answer")
        self.url = url
        self.expected = expected


class AnswerInterrupted(ServiceError):
    """A stream ended with an error event or before its end; the text received until then is incomplete."""


class DocumentUnfinished(ServiceError):
    """A document is not ready: ``code`` is the reason of its failure, ``document_not_found`` or ``timeout``."""

    def __init__(self, message: str, *, code: str, document_id: str) -> None:
        super().__init__(message, code=code)
        self.document_id = document_id


class StatusError(ServiceError):
    """An error answer.

    ``param`` names the invalid field, ``request_id`` identifies the log entries of the service. ``location`` is the
    path of the document that an upload has stored although it cannot be read. ``should_retry`` is the header
    ``x-should-retry``; ``None`` without it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        kind: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, code=code)
        headers = headers or {}
        self.status = status
        self.type = kind
        self.param = param
        self.request_id = request_id or headers.get("x-request-id")
        self.retry_after_s = read_retry_after(headers)
        self.location = headers.get("location")
        self.should_retry = {"true": True, "false": False}.get(headers.get("x-should-retry", "").lower())


class BadRequest(StatusError):
    """The request is malformed or not allowed in this form; repeating it unchanged fails again."""


class AuthenticationFailed(StatusError):
    """The API key is missing, unknown or revoked."""


class BalanceUsedUp(StatusError):
    """The key has no tokens left."""


class PermissionDenied(StatusError):
    """The key lacks a scope, or a policy, a quota or its state forbids the request."""


class ResourceNotFound(StatusError):
    """There is no such document, collection, key, tenant, model or route."""


class ConflictingState(StatusError):
    """The request contradicts the state of the resource, or reuses an idempotency key for another request."""


class UnreadableUpload(StatusError):
    """The uploaded file cannot be read. ``location`` is the path of the failed document."""


class TooManyRequests(StatusError):
    """A limit of the key; see ``retry_after_s``."""


class ServiceFault(StatusError):
    """The service or a provider failed."""


class ServiceBusy(ServiceFault):
    """The service is starting, stopping or overloaded; see ``retry_after_s``."""


_BY_STATUS: Final[Mapping[int, type[StatusError]]] = {
    401: AuthenticationFailed,
    402: BalanceUsedUp,
    403: PermissionDenied,
    404: ResourceNotFound,
    409: ConflictingState,
    422: UnreadableUpload,
    429: TooManyRequests,
    503: ServiceBusy,
}


class _EnvelopeDetail(msgspec.Struct):
    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | None = None
    request_id: str | None = None


class _Envelope(msgspec.Struct):
    error: _EnvelopeDetail


def status_error(status: int, headers: Mapping[str, str], content: bytes) -> StatusError:
    """The error of an answer with a status of 400 and higher.

    >>> body = b'{"error": {"message": "There is no document.", "code": "document_not_found"}}'
    >>> type(status_error(404, {}, body)).__name__, status_error(404, {}, body).code
    ('ResourceNotFound', 'document_not_found')
    """
    try:
        detail = msgspec.json.decode(content, type=_Envelope).error
    except (msgspec.DecodeError, msgspec.ValidationError):
        detail = _EnvelopeDetail(message=f"The service answered with status {status} and no error body of ragsvc.")
    cls = _BY_STATUS.get(status, ServiceFault if status >= 500 else BadRequest)
    return cls(
        detail.message or f"The service answered with status {status}.",
        status=status,
        code=detail.code,
        kind=detail.type,
        param=detail.param,
        request_id=detail.request_id,
        headers=headers,
    )


def interruption(event: Mapping[str, Any]) -> AnswerInterrupted | None:
    """The error of an event in a stream; ``None`` if the event is not an error."""
    error = event.get("error")
    if not isinstance(error, Mapping):
        return None
    message, code = error.get("message"), error.get("code")
    return AnswerInterrupted(str(message or "The answer ended early."), code=None if code is None else str(code))
