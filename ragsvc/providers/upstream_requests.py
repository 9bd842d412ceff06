"""HTTP requests to a provider: concurrency limits, timeouts, retries, and failures as errors of ``core.errors``.

Knows nothing about chats. All retries happen before the first byte is sent to the client.
"""

from __future__ import annotations

import asyncio
import copy
import io
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from yarl import URL

from ragsvc import __version__
from ragsvc.core.errors import (
    InvalidRequest,
    ModelNotFound,
    ModelUnavailable,
    RagsvcError,
    TooLarge,
    UpstreamFailed,
    UpstreamTimeout,
)
from ragsvc.core.gateway.circuit_breaker import CircuitBreaker
from ragsvc.core.gateway.provider_settings import ProviderSettings
from ragsvc.core.log_events import RepetitionLimit, log_event
from ragsvc.core.retry_after import read_retry_after
from ragsvc.providers.concurrency_slots import ConcurrencySlots

logger = logging.getLogger(__name__)

T = TypeVar("T")
HTTP_FAILURES: Final = (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError)
"""Exceptions of aiohttp that a provider can cause."""

_FIRST_RETRY_S: Final = 0.1
_LONGEST_BACKOFF_S: Final = 2.0
_ERROR_BODY_BYTES: Final = 64 << 10
_MESSAGE_CHARACTERS: Final = 1000
_COPIED_BODY_BYTES: Final = 1 << 20
_PARAMETER_STATUSES: Final = frozenset({400, 405, 409, 411, 415, 422})
_CREDENTIAL_STATUSES: Final = frozenset({401, 402, 403, 407})
_TEMPORARY_STATUSES: Final = frozenset({408, 425, 429})


def open_session(resolver: AbstractResolver | None = None) -> aiohttp.ClientSession:
    """Open the session that all providers share; connections are pooled and limited by ``ConcurrencySlots``."""
    # uvicorn, and so vLLM, closes idle connections after 5 s; a request sent at that moment would have to be repeated
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=4, resolver=resolver)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        requote_redirect_url=False,
    )


class RetriableFailure(Exception):
    """A failure after which another attempt may succeed; never leaves this package.

    ``wait_s`` is the wait that the provider asks for. ``healthy``: the failure does not count for the circuit breaker.
    ``status`` is the HTTP status of the provider, if it answered.
    """

    def __init__(
        self, error: RagsvcError, *, wait_s: float | None = None, healthy: bool = False, status: int | None = None
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait_s = wait_s
        self.healthy = healthy
        self.status = status


class UpstreamClient:
    """HTTP client of a provider. ``sleep`` and ``jitter`` (0..1) are parameters for tests."""

    def __init__(
        self,
        settings: ProviderSettings,
        session: aiohttp.ClientSession,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        on_failure: Callable[[str, str], None] = lambda _provider, _reason: None,
    ) -> None:
        """``on_failure`` receives the name of the provider and the reason of each failed attempt."""
        self.settings = settings
        self._session = session
        self._sleep = sleep
        self._jitter = jitter
        self._on_failure = on_failure
        self._repetitions = RepetitionLimit()
        self.breaker = CircuitBreaker(
            failures=settings.breaker_failures, cooldown_s=settings.breaker_cooldown_s, clock=clock
        )
        self.slots = ConcurrencySlots(
            settings.max_concurrency, max_waiting=settings.max_waiting, timeout_s=settings.queue_timeout_s
        )
        self._timeout = aiohttp.ClientTimeout(
            total=settings.total_timeout_s,
            sock_connect=settings.connect_timeout_s,
            sock_read=settings.read_timeout_s,
        )
        self._base = settings.base_url.rstrip("/")
        self._urls: dict[str, URL] = {}
        self._key_from_caller = False
        self._headers = {
            "User-Agent": f"ragsvc/{__version__}",
            "Accept-Encoding": "identity",
            **({"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}),
            **settings.headers,
        }

    def with_key(self, api_key: str, *, from_caller: bool) -> UpstreamClient:
        """The same client with another key; ``from_caller``: a refused key is an error of the request."""
        other = copy.copy(self)
        other.settings = msgspec.structs.replace(self.settings, api_key=api_key)
        other._headers = self._headers | {"Authorization": f"Bearer {api_key}"}  # noqa: SLF001 - its own copy
        other._key_from_caller = from_caller  # noqa: SLF001 - its own copy
        return other

    async def attempt(self, send: Callable[[], Awaitable[T]], *, retries: int | None = None) -> T:
        """Await ``send()`` until it succeeds, fails permanently or no retries are left; the caller holds a slot."""
        left = self.settings.retries if retries is None else retries
        backoff_s = _FIRST_RETRY_S
        while True:
            if not self.breaker.admit():
                raise ModelUnavailable(
                    f"Provider '{self.settings.name}' gets no requests after repeated failures (circuit breaker open).",
                    retry_after_s=max(1.0, self.breaker.wait_s),
                )
            try:
                result = await send()
            except RetriableFailure as failure:
                try:
                    wait_s = await self._wait_before_retry(failure, left=left, backoff_s=backoff_s)
                finally:
                    self._report(failure.__cause__, status=failure.status, retries_left=left)
            except (UpstreamFailed, UpstreamTimeout) as error:
                self.breaker.failed()
                self._report(error.__cause__, status=getattr(error, "upstream_status", None), retries_left=0)
                raise
            except InvalidRequest:
                self.breaker.succeeded()
                raise
            else:
                self.breaker.succeeded()
                return result
            left -= 1
            backoff_s = min(backoff_s * 2, _LONGEST_BACKOFF_S)
            await self._sleep(wait_s)

    def report_broken_answer(self, cause: BaseException | None) -> None:
        """Record that an answer broke off after it had begun."""
        self.breaker.failed()
        self._report(cause, status=None, retries_left=0)

    def _report(self, cause: BaseException | None, *, status: int | None, retries_left: int) -> None:
        """Count and log a failure. The message of the provider may quote the prompt, and is left out."""
        reason = failure_reason(cause, status=status)
        self._on_failure(self.settings.name, reason)
        left_out = self._repetitions.admit((self.settings.name, reason))
        log_event(
            logger,
            logging.DEBUG if left_out is None else logging.WARNING,
            "upstream_error",
            f"provider {self.settings.name} failed",
            provider=self.settings.name,
            reason=reason,
            error_type=None if cause is None else type(cause).__name__,
            status=status,
            retries_left=retries_left,
            circuit=self.breaker.state.value,
            left_out=left_out or None,
        )

    async def _wait_before_retry(self, failure: RetriableFailure, *, left: int, backoff_s: float) -> float:
        if failure.healthy:
            self.breaker.succeeded()
        else:
            self.breaker.failed()
        wait_s = backoff_s * (0.5 + self._jitter() / 2) if failure.wait_s is None else failure.wait_s
        if left <= 0 or wait_s > self.settings.max_retry_wait_s or self.breaker.wait_s > 0:
            raise failure.error from failure.__cause__
        return wait_s

    async def open(
        self, method: str, path: str, body: bytes | AsyncIterator[bytes], headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """Send a request; return the response once its headers have arrived, with a status below 300.

        Raises:
            RetriableFailure: another attempt may succeed.
            RagsvcError: another attempt would fail as well.
        """
        url = self._urls.get(path)
        if url is None:
            url = URL(self._base + path, encoded=True)
            if len(self._urls) < 64:  # endpoint families, not ids
                self._urls[path] = url
        try:
            response = await self._session.request(
                method,
                url,
                data=_payload(body),
                headers={**self._headers, **headers},
                timeout=self._timeout,
                allow_redirects=False,
            )
        except HTTP_FAILURES as error:
            body_failure = getattr(body, "failure", None)  # why a streamed request body ended early
            raise body_failure or self.translate(error, before_body=True) from error
        if response.status < 300:
            return response
        try:
            text = await _read_at_most(response, _ERROR_BODY_BYTES)
        except HTTP_FAILURES as error:
            raise self.translate(error, before_body=True) from error
        finally:
            response.close()
        raise self._refusal(response.status, response.headers, text)

    async def read(self, response: aiohttp.ClientResponse) -> bytes:
        """Read the body. Raises ``RetriableFailure`` if it breaks off, ``UpstreamFailed`` if it is too large."""
        try:
            body = await _read_at_most(response, self.settings.max_reply_bytes)
        except HTTP_FAILURES as error:
            response.close()
            raise self.translate(error, before_body=True) from error
        except BaseException:
            response.close()
            raise
        if not response.content.at_eof():
            response.close()
            raise UpstreamFailed(f"Provider '{self.settings.name}' sent an answer that is too large.")
        response.release()
        return body

    def translate(self, error: Exception, *, before_body: bool) -> Exception:
        """Translate one of ``HTTP_FAILURES``; a connection that breaks before the body is a ``RetriableFailure``."""
        name = self.settings.name
        match error:
            case aiohttp.ConnectionTimeoutError():
                return RetriableFailure(
                    ModelUnavailable(f"Provider '{name}' cannot be reached in time.", retry_after_s=1)
                )
            case TimeoutError():
                return UpstreamTimeout(f"Provider '{name}' did not answer in time.")
            case aiohttp.ClientPayloadError() | aiohttp.ClientConnectionError() | ConnectionError() if before_body:
                reached = not isinstance(error, aiohttp.ClientConnectorError)
                problem = "closed the connection without an answer" if reached else "cannot be reached"
                return RetriableFailure(ModelUnavailable(f"Provider '{name}' {problem}.", retry_after_s=1))
            case aiohttp.ClientPayloadError() | aiohttp.ClientConnectionError() | ConnectionError():
                return UpstreamFailed(f"Provider '{name}' broke off its answer.")
            case _:
                return UpstreamFailed(f"Provider '{name}' sent an invalid HTTP response.")

    def error_in_body(self, body: bytes) -> UpstreamFailed:
        """The error in the body of an answer whose status is a success."""
        message = self._without_key(_error_fields(body)[0])
        return UpstreamFailed(message or f"Provider '{self.settings.name}' reports an error.")

    def _without_key(self, message: str) -> str:
        return message.replace(self.settings.api_key, "***") if self.settings.api_key else message

    def _refused_key(self, status: int) -> Exception:
        name = self.settings.name
        if self._key_from_caller:
            return InvalidRequest(f"Provider '{name}' does not accept the given key.", param="X-Provider-Key")
        return RetriableFailure(
            ModelUnavailable(f"Provider '{name}' does not accept the configured key."),
            wait_s=float("inf"),
            healthy=True,
            status=status,
        )

    def _refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> Exception:
        """The error for a status of 300 or above."""
        name = self.settings.name
        message, param, code = _error_fields(body)
        message = self._without_key(message)
        wait_s = read_retry_after(headers)
        if status in _CREDENTIAL_STATUSES:
            return self._refused_key(status)
        if status == 413:
            return TooLarge(message or f"The request is too large for provider '{name}'.", limit_bytes=0)
        if status == 404 and (code == "model_not_found" or "model" in message.lower()):
            return ModelNotFound(message or f"Provider '{name}' has no such model.", param="model")
        if status in _PARAMETER_STATUSES:
            return InvalidRequest(message or f"Provider '{name}' refused the request.", param=param)
        if status in _TEMPORARY_STATUSES or status >= 500:
            return RetriableFailure(
                ModelUnavailable(f"Provider '{name}' answered with status {status}.", retry_after_s=wait_s),
                wait_s=wait_s,
                healthy=status in _TEMPORARY_STATUSES,
                status=status,
            )
        return UpstreamFailed(f"Provider '{name}' answered with status {status}.", upstream_status=status)


def failure_reason(cause: BaseException | None, *, status: int | None) -> str:
    """A short stable name for a failed attempt, for metrics and the log.

    >>> failure_reason(None, status=503), failure_reason(TimeoutError(), status=None)
    ('status_503', 'timeout')
    """
    if status is not None:
        return f"status_{status}"
    match cause:
        case aiohttp.ConnectionTimeoutError():
            return "connect_timeout"
        case TimeoutError():
            return "timeout"
        case aiohttp.ClientConnectorError():
            return "unreachable"
        case aiohttp.ClientConnectionError() | ConnectionError() | aiohttp.ClientPayloadError():
            return "disconnected"
        case _:
            return "invalid_answer"


def _payload(body: bytes | AsyncIterator[bytes]) -> bytes | io.BytesIO | AsyncIterator[bytes]:
    """Wrap large bodies in a file object, which aiohttp writes in portions."""
    if isinstance(body, bytes) and len(body) >= _COPIED_BODY_BYTES:
        return io.BytesIO(body)
    return body


async def _read_at_most(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """Read the body up to about the limit. ``response.content.at_eof()`` is true if that was the whole body."""
    content = response.content
    first = await content.readany()
    if content.at_eof():
        return first
    parts, size = [first], len(first)
    while size <= limit_bytes and not content.at_eof():
        part = await content.readany()
        parts.append(part)
        size += len(part)
    return b"".join(parts)


class _ErrorDetail(msgspec.Struct):
    message: str = ""
    param: str | None = None
    code: str | int | None = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorDetail | str | None = None
    message: str = ""
    detail: Any = None


_ERRORS: Final = msgspec.json.Decoder(_ErrorBody)


def _error_fields(body: bytes) -> tuple[str, str | None, str | None]:
    """Message, param and code in the error body of a provider, as far as it has them."""
    try:
        decoded = _ERRORS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", None, None
    error = decoded.error
    if isinstance(error, _ErrorDetail):
        return error.message[:_MESSAGE_CHARACTERS], error.param, None if error.code is None else str(error.code)
    text = error or decoded.message or (decoded.detail if isinstance(decoded.detail, str) else "")
    return text[:_MESSAGE_CHARACTERS], None, None
