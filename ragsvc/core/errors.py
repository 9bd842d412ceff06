"""The one error tree: typed fields, a stable ``code``, ``retryable``; no HTTP, no secrets, no document text.

::

    RagsvcError
    ├── InvalidRequest            the caller must change the request (``param`` names the field)
    │   ├── UnsupportedMediaType
    │   ├── TooLarge
    │   ├── UnsupportedParameter  a known parameter that this model cannot honour
    │   ├── CryptoFailure         something encrypted cannot be opened; never says why
    │   └── MethodNotAllowed
    ├── Unauthorized              no key, a malformed one, an unknown or revoked one
    ├── Forbidden
    │   ├── KeyInactive
    │   └── PolicyDenied
    ├── BalanceExhausted
    ├── RateLimited
    ├── NotFound
    │   ├── DocumentNotFound, CollectionNotFound, KeyNotFound, RouteNotFound
    │   └── ModelNotFound
    ├── Conflict                  the resource is not in a state that allows it
    ├── Overloaded                a bounded queue is full
    ├── ModelUnavailable          no provider can answer now
    ├── UpstreamFailed            the provider answered with an error or broke off
    ├── UpstreamTimeout
    ├── AttestationUnavailable   this machine gives no attestation reports
    ├── StorageFull
    ├── ShuttingDown
    ├── DataDirectoryLocked       another process serves this data directory
    ├── ConfigurationError
    ├── EmbeddingFailed
    └── ExtractionFailed          a document cannot be read; ``reason`` is one of ``FailureReason``
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class RagsvcError(Exception):
    """Root of all errors ragsvc raises on purpose."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class InvalidRequest(RagsvcError):
    """The request cannot be understood or breaks a rule; sending it again will not help."""

    code = "invalid_request"


class UnsupportedMediaType(InvalidRequest):
    """The body's type is none that ragsvc reads."""

    code = "unsupported_media_type"


class TooLarge(InvalidRequest):
    """The body exceeds ``limit_bytes``."""

    code = "request_too_large"

    def __init__(self, message: str, *, limit_bytes: int, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.limit_bytes = limit_bytes


class UnsupportedParameter(InvalidRequest):
    """A documented parameter that the chosen model cannot honour; refused, never ignored."""

    code = "unsupported_parameter"


class CryptoFailure(InvalidRequest):
    """Something encrypted cannot be opened, is cut off, was changed or was sent before.

    There is one message for every cause: a caller that could tell causes apart would have an oracle.
    """

    code = "encryption_error"

    def __init__(self) -> None:
        super().__init__("The encrypted message cannot be opened.")


class MethodNotAllowed(InvalidRequest):
    """The route exists, the method does not."""

    code = "method_not_allowed"


class Unauthorized(RagsvcError):
    """No API key, a malformed one, or one that ragsvc does not know (any more)."""

    code = "unauthorized"


class Forbidden(RagsvcError):
    """The key is known and may not do this."""

    code = "forbidden"


class KeyInactive(Forbidden):
    """The key exists and was switched off."""

    code = "key_inactive"


class PolicyDenied(Forbidden):
    """A rule of the key (model, scope) or a policy says no."""

    code = "policy_denied"


class BalanceExhausted(RagsvcError):
    """The key's token balance does not cover the request."""

    code = "balance_exhausted"


class RateLimited(RagsvcError):
    """A limit of the key is reached. ``budget_gone`` tells that waiting a little will not help."""

    code = "rate_limited"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float, budget_gone: bool = False) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.budget_gone = budget_gone


class NotFound(RagsvcError):
    """Something named in the request does not exist for this tenant."""

    code = "not_found"


class RouteNotFound(NotFound):
    """No such URL."""

    code = "unknown_url"


class DocumentNotFound(NotFound):
    """No document with that id in this tenant."""

    code = "document_not_found"


class CollectionNotFound(NotFound):
    """No collection with that name in this tenant."""

    code = "collection_not_found"


class KeyNotFound(NotFound):
    """No API key with that id."""

    code = "key_not_found"


class ModelNotFound(NotFound):
    """No provider offers the model."""

    code = "model_not_found"


class Conflict(RagsvcError):
    """The resource's state does not allow the operation (``retry`` of a ready document, say)."""

    code = "conflict"


class Overloaded(RagsvcError):
    """A bounded queue is full; try again after ``retry_after_s``."""

    code = "overloaded"
    retryable = True


class ModelUnavailable(RagsvcError):
    """The model is known, and nobody can serve it now."""

    code = "model_unavailable"
    retryable = True


class UpstreamFailed(RagsvcError):
    """The model backend answered with an error or broke off. ``upstream_status`` is its HTTP status if it gave one."""

    code = "upstream_error"
    retryable = True

    def __init__(self, message: str, *, upstream_status: int | None = None, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.upstream_status = upstream_status


class UpstreamTimeout(RagsvcError):
    """The model backend did not answer in time."""

    code = "upstream_timeout"
    retryable = True


class AttestationUnavailable(RagsvcError):
    """This machine gives no attestation reports, and none is invented."""

    code = "attestation_unavailable"


class StorageFull(RagsvcError):
    """The disk has no room for what was sent; nothing of it was kept."""

    code = "storage_full"
    retryable = True


class ShuttingDown(RagsvcError):
    """The service drains before it stops."""

    code = "shutting_down"
    retryable = True


class DataDirectoryLocked(RagsvcError):
    """Another process serves the data directory."""

    code = "data_directory_locked"


class ConfigurationError(RagsvcError):
    """Settings contradict themselves or name something that is not there; ``problems`` lists all of them."""

    code = "configuration_error"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class EmbeddingFailed(RagsvcError):
    """The embedding model could not be loaded or run."""

    code = "embedding_failed"
    retryable = True


class FailureReason(StrEnum):
    """Why a document ended as *failed*; stable strings a client may switch on."""

    PASSWORD_REQUIRED = "password_required"  # noqa: S105 - a reason's name, not a secret
    PASSWORD_WRONG = "password_wrong"  # noqa: S105 - a reason's name, not a secret
    EMPTY_FILE = "empty_file"
    NOT_A_PDF = "not_a_pdf"
    DAMAGED = "damaged"
    NO_TEXT = "no_text"
    TOO_MANY_PAGES = "too_many_pages"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    PARSER_CRASHED = "parser_crashed"
    NOT_TEXT = "not_text"
    UNSUPPORTED_ENCRYPTION = "unsupported_encryption"
    EMBEDDING_FAILED = "embedding_failed"
    INTERNAL_ERROR = "internal_error"


class ExtractionFailed(RagsvcError):
    """A document cannot be turned into text. ``reason`` is stable, ``message`` is for a person."""

    code = "extraction_failed"

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
