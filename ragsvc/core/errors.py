"""The error tree. Errors carry typed fields, a stable ``code`` and ``retryable``.

They know no HTTP status, and carry no secrets and no document text.

::

    RagsvcError
    ├── InvalidRequest            the caller must change the request (``param`` names the field)
    │   ├── UnsupportedMediaType
    │   ├── TooLarge
    │   ├── HeadersTooLarge
    │   ├── PromptTooLong
    │   ├── UnsupportedParameter  a documented parameter that the model or route does not support
    │   ├── FileUnreadable        a file of a chat request cannot be read; ``reason`` as in ``ExtractionFailed``
    │   ├── CryptoFailure         an encrypted message cannot be decrypted; the reason is not given
    │   └── MethodNotAllowed
    ├── Unauthorized              the API key is missing, malformed, unknown or revoked
    ├── Forbidden
    │   ├── KeyInactive
    │   ├── ForeignRequest        a request with the cookie of a session does not come from a page of the service
    │   ├── QuotaExceeded         the tenant has as many documents, bytes, collections … as it may have
    │   └── PolicyDenied
    ├── BalanceExhausted
    ├── RateLimited
    ├── NotFound
    │   ├── DocumentNotFound, FileNotFound, UploadNotFound, CollectionNotFound
    │   ├── VectorStoreNotFound, VectorStoreFileNotFound, FileBatchNotFound
    │   ├── TenantNotFound, KeyNotFound, RouteNotFound
    │   ├── ResponseNotFound, ConversationNotFound, ConversationItemNotFound, FeedbackNotFound
    │   ├── PageHasNoPicture      documents of this type have no page pictures; their pages have text
    │   ├── EndpointNotOffered    the provider of the model does not offer the endpoint
    │   └── ModelNotFound
    ├── RequestTimedOut           the client sent too slowly
    ├── Conflict                  the state of the resource does not allow the operation
    ├── Overloaded                a bounded queue is full
    │   └── DatabaseUnavailable   the database server cannot be reached
    ├── ModelUnavailable          no provider can serve the model at the moment
    ├── UpstreamFailed            the provider returned an error or ended the response early
    ├── UpstreamTimeout
    ├── UpstreamRejected          the provider refuses this server's key or account; the operator has to act
    ├── AttestationUnavailable    this machine provides no attestation reports
    ├── StorageFull
    ├── StorageUnavailable        the store of the uploaded files does not answer or refuses
    ├── StoredDataDamaged         a stored file or text is missing or was altered
    ├── ServiceStarting
    ├── ShuttingDown
    ├── BackgroundTaskFailed      a task that has to live as long as the service has ended
    ├── DataDirectoryLocked       another process uses this data directory
    ├── BackupDamaged             a part of a backup is missing or was changed
    ├── ConfigurationError
    ├── EmbeddingFailed
    ├── ExtractionFailed          a document cannot be read; ``reason`` is a ``FailureReason``
    ├── DocumentUnreadable        the answer to the upload of such a document
    └── PageNotShown              a page of a stored document cannot be drawn; ``reason`` as in ``ExtractionFailed``
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class RagsvcError(Exception):
    """Root of all errors that ragsvc raises deliberately."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class InvalidRequest(RagsvcError):
    """The request is malformed or violates a rule; repeating it unchanged fails again."""

    code = "invalid_request"


class UnsupportedMediaType(InvalidRequest):
    """The media type of the body is not supported."""

    code = "unsupported_media_type"


class TooLarge(InvalidRequest):
    """The body is larger than ``limit_bytes``."""

    code = "request_too_large"

    def __init__(self, message: str, *, limit_bytes: int, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.limit_bytes = limit_bytes


class HeadersTooLarge(InvalidRequest):
    """The request line and headers have too many bytes or fields."""

    code = "headers_too_large"


class PromptTooLong(InvalidRequest):
    """The prompt has more characters than the model accepts. OpenAI's code for a text that is too long."""

    code = "string_above_max_length"


class UnsupportedParameter(InvalidRequest):
    """A documented parameter that the model or route does not support. It is rejected and never silently ignored."""

    code = "unsupported_parameter"


class FileUnreadable(InvalidRequest):
    """A file of a chat request cannot be read. ``reason`` takes the place of the code."""

    code = "file_unreadable"

    def __init__(self, message: str, *, reason: str | None = None, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.reason = reason


class CryptoFailure(InvalidRequest):
    """An encrypted message cannot be decrypted, is truncated, was modified or is a replay.

    The message is the same for every cause, because distinguishable causes would give an attacker an oracle.
    """

    code = "encryption_error"

    def __init__(self) -> None:
        super().__init__("The encrypted message cannot be decrypted.")


class MethodNotAllowed(InvalidRequest):
    """The route does not support the HTTP method."""

    code = "method_not_allowed"


class Unauthorized(RagsvcError):
    """The API key is missing, malformed, unknown or revoked."""

    code = "unauthorized"


class Forbidden(RagsvcError):
    """The key is valid but lacks the permission."""

    code = "forbidden"


class KeyInactive(Forbidden):
    """The key exists but is disabled."""

    code = "key_inactive"


class PolicyDenied(Forbidden):
    """The key's model list, its scopes or a policy denies the request."""

    code = "policy_denied"


class ForeignRequest(Forbidden):
    """A request with the cookie of a session lacks the session's CSRF token, or comes from a page of another origin."""

    code = "csrf_failed"


class QuotaExceeded(Forbidden):
    """The tenant has as many documents, bytes, collections, conversations or responses as it may have."""

    code = "quota_exceeded"


class BalanceExhausted(RagsvcError):
    """A balance of the key, or a money budget of the key or its tenant, does not cover the request."""

    code = "balance_exhausted"


class RateLimited(RagsvcError):
    """A limit of the key is reached. If ``budget_gone``, a daily budget is used up and a short wait does not help."""

    code = "rate_limited"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float, budget_gone: bool = False) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.budget_gone = budget_gone


class NotFound(RagsvcError):
    """A resource named in the request does not exist in this tenant."""

    code = "not_found"


class RouteNotFound(NotFound):
    """No route has this URL."""

    code = "unknown_url"


class DocumentNotFound(NotFound):
    """The tenant has no document with this id."""

    code = "document_not_found"


class PageHasNoPicture(NotFound):
    """Documents of this type have no pages that can be drawn; the text of their pages can be shown instead."""

    code = "page_has_no_picture"


class FileNotFound(NotFound):
    """The tenant has no file with this id, or it has expired."""

    code = "file_not_found"


class UploadNotFound(NotFound):
    """The tenant has no upload with this id, or the upload has no part with this id."""

    code = "upload_not_found"


class CollectionNotFound(NotFound):
    """The tenant has no collection with this name."""

    code = "collection_not_found"


class ResponseNotFound(NotFound):
    """The tenant has no stored response with this id."""

    code = "response_not_found"


class ConversationNotFound(NotFound):
    """The tenant has no conversation with this id."""

    code = "conversation_not_found"


class ConversationItemNotFound(NotFound):
    """The conversation has no item with this id."""

    code = "conversation_item_not_found"


class FeedbackNotFound(NotFound):
    """The key has given no feedback with this id."""

    code = "feedback_not_found"


class VectorStoreNotFound(NotFound):
    """The tenant has no vector store with this id, or it has expired."""

    code = "vector_store_not_found"


class VectorStoreFileNotFound(NotFound):
    """The vector store has no file with this id."""

    code = "vector_store_file_not_found"


class FileBatchNotFound(NotFound):
    """The vector store has no file batch with this id."""

    code = "file_batch_not_found"


class TenantNotFound(NotFound):
    """No tenant has this name: it has neither keys nor collections."""

    code = "tenant_not_found"


class KeyNotFound(NotFound):
    """No API key has this id."""

    code = "key_not_found"


class ModelNotFound(NotFound):
    """No provider offers the model."""

    code = "model_not_found"


class EndpointNotOffered(NotFound):
    """The provider of the model does not offer the endpoint (it answers 404, 405 or 501). A repetition fails again."""

    code = "endpoint_not_offered"

    def __init__(self, message: str, *, upstream_status: int | None = None) -> None:
        super().__init__(message, param="model")
        self.upstream_status = upstream_status


class RequestTimedOut(RagsvcError):
    """The client sent its request too slowly."""

    code = "request_timeout"
    retryable = True


class Conflict(RagsvcError):
    """The state of the resource does not allow the operation, for example ``retry`` of a ready document."""

    code = "conflict"


class Overloaded(RagsvcError):
    """A bounded queue is full; retry after ``retry_after_s``."""

    code = "overloaded"
    retryable = True


class DatabaseUnavailable(Overloaded):
    """The database server cannot be reached, or did not answer in time; retry after ``retry_after_s``."""

    code = "database_unavailable"


class ModelUnavailable(RagsvcError):
    """The model is known, but no provider can serve it at the moment."""

    code = "model_unavailable"
    retryable = True


class UpstreamFailed(RagsvcError):
    """The model backend returned an error or ended the response early.

    ``upstream_status`` is the HTTP status of the backend, if there was a response.
    """

    code = "upstream_error"
    retryable = True

    def __init__(self, message: str, *, upstream_status: int | None = None, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.upstream_status = upstream_status


class UpstreamTimeout(RagsvcError):
    """The model backend did not respond within the time limit."""

    code = "upstream_timeout"
    retryable = True


class UpstreamRejected(RagsvcError):
    """The provider refuses the key or the account of this server. The reason is in the log, for the operator."""

    code = "upstream_rejected"

    def __init__(self, message: str, *, upstream_status: int | None = None) -> None:
        super().__init__(message)
        self.upstream_status = upstream_status


class AttestationUnavailable(RagsvcError):
    """This machine provides no attestation reports. ragsvc never substitutes a fake report."""

    code = "attestation_unavailable"


class StorageFull(RagsvcError):
    """The disk is full. Nothing of the request was stored."""

    code = "storage_full"
    retryable = True


class StorageUnavailable(RagsvcError):
    """The store of the uploaded files, such as an S3 bucket, cannot be used at the moment. Nothing was stored."""

    code = "storage_unavailable"
    retryable = True


class StoredDataDamaged(RagsvcError):
    """A stored file or text is missing, or is not what was stored. The operator has to restore it."""

    code = "stored_data_damaged"


class ServiceStarting(RagsvcError):
    """The service has opened its port and is not ready yet; ``/readyz`` states the reason."""

    code = "service_starting"
    retryable = True


class ShuttingDown(RagsvcError):
    """The service finishes open requests before it stops, and accepts no new ones."""

    code = "shutting_down"
    retryable = True


class BackgroundTaskFailed(RagsvcError):
    """A task that has to live as long as the service has failed, so the service stops."""


class DataDirectoryLocked(RagsvcError):
    """Another process uses the data directory."""

    code = "data_directory_locked"


class BackupDamaged(RagsvcError):
    """A part of a backup is missing or was changed, so it cannot be restored."""

    code = "backup_damaged"


class ConfigurationError(RagsvcError):
    """Settings contradict each other or name something that does not exist; ``problems`` lists every problem."""

    code = "configuration_error"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class EmbeddingFailed(RagsvcError):
    """The embedding model could not be loaded or run."""

    code = "embedding_failed"
    retryable = True


class FailureReason(StrEnum):
    """Why a document has the status *failed*. The values are stable, so clients may depend on them."""

    PASSWORD_REQUIRED = "password_required"  # noqa: S105 - the name of a reason, not a secret
    PASSWORD_WRONG = "password_wrong"  # noqa: S105 - the name of a reason, not a secret
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
    STORED_FILE_DAMAGED = "stored_file_damaged"
    EMBEDDING_FAILED = "embedding_failed"
    INTERNAL_ERROR = "internal_error"
    UNSUPPORTED_FILE = "unsupported_file"
    FILE_TOO_LARGE = "file_too_large"
    CANCELLED = "cancelled"


class ExtractionFailed(RagsvcError):
    """The text of a document cannot be extracted. ``reason`` is a stable code, ``message`` is human-readable."""

    code = "extraction_failed"

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class DocumentUnreadable(RagsvcError):
    """The uploaded file cannot be read; its document is listed as failed. ``reason`` takes the place of the code."""

    code = "document_unreadable"

    def __init__(self, message: str, *, reason: str | None = None, document_id: str | None = None) -> None:
        super().__init__(message, param="file")
        self.reason = reason
        self.document_id = document_id


class PageNotShown(RagsvcError):
    """A page of a stored document cannot be drawn. ``reason`` takes the place of the code."""

    code = "page_not_shown"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
