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
    EndpointNotOffered,
    InvalidRequest,
    ModelNotFound,
    ModelUnavailable,
    NotFound,
    RagsvcError,
    RateLimited,
    TooLarge,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamTimeout,
)
from ragsvc.core.gateway.circuit_breaker import Circuit, CircuitBreaker
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.provider_settings import ProviderSettings
from ragsvc.core.log_events import RepetitionLimit, log_event
from ragsvc.core.retry_after import read_retry_after
from ragsvc.providers.concurrency_slots import ConcurrencySlots
from ragsvc.providers.credential_headers import request_headers, secrets_of, with_other_key
from ragsvc.providers.missing_endpoints import MissingEndpoints

logger = logging.getLogger(__name__)

T = TypeVar("T")
HTTP_FAILURES: Final = (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError)
"""Exceptions of aiohttp that a provider can cause."""

_FIRST_RETRY_S: Final = 0.1
_LONGEST_BACKOFF_S: Final = 2.0
_ERROR_BODY_BYTES: Final = 64 << 10
_MESSAGE_CHARACTERS: Final = 1000
_COPIED_BODY_BYTES: Final = 1 << 20
_PARAMETER_STATUSES: Final = frozenset({400, 409, 411, 415, 422})
_ENDPOINT_STATUSES: Final = frozenset({404, 405, 501})
_ENDPOINT_CODES: Final = frozenset({"404", "not_found", "not_found_error", "unknown_url"})
"""Codes of a 404 that may be about the endpoint; others are about something that the request names."""
_BUSY_STATUSES: Final = frozenset({408, 425})
_UNAVAILABLE_STATUSES: Final = frozenset({503, 529})
_REJECTIONS: Final = {
    401: "does not accept the key of this server",
    402: "demands payment for the account of this server",
    403: "denies the request to the account of this server",
    407: "is behind a proxy that demands credentials",
}
"""Statuses about this server's key or account, and what they say to the operator."""
_DEFAULT_RETRY_AFTER_S: Final = 1.0


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

    ``wait_s`` is the wait that the provider asks for. ``down``: the failure counts for the circuit breaker.
    ``status`` is the HTTP status of the provider, if it answered.
    """

    def __init__(
        self, error: RagsvcError, *, wait_s: float | None = None, down: bool = True, status: int | None = None
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait_s = wait_s
        self.down = down
        self.status = status


class UpstreamEndpoint(msgspec.Struct, frozen=True):
    """An endpoint of a provider, and the provider's name of the model that a request is for.

    Without ``family``, the request is for no model. It is always sent: it has no circuit breaker, and the answer that
    the endpoint is missing is not remembered.
    """

    path: str
    family: Family | None = None
    model: str = ""


class UpstreamClient:
    """HTTP client of a provider. ``sleep`` and ``jitter`` (0..1) are parameters for tests.

    Each endpoint family has a circuit breaker of its own. Only faults that show that the provider is down open it:
    failed connections, timeouts, and statuses from 500 except 501. What a single request can cause does not.
    """

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
        self._clock = clock
        self._breakers: dict[Family, CircuitBreaker] = {}
        self._missing = MissingEndpoints(clock=clock)
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
        self._has_own_key = True
        self._key_from_caller = False
        self._headers = {
            "User-Agent": f"ragsvc/{__version__}",
            "Accept-Encoding": "identity",
            **request_headers(settings),
        }
        self._secrets = secrets_of(settings)

    def with_key(self, api_key: str, *, from_caller: bool) -> UpstreamClient:
        """The same client with another key instead of all credentials in the settings.

        ``from_caller``: a refused key is an error of the request.
        """
        other = copy.copy(self)
        other.settings = with_other_key(self.settings, api_key)
        general = {name: self._headers[name] for name in ("User-Agent", "Accept-Encoding")}
        other._headers = general | request_headers(other.settings)  # noqa: SLF001 - its own copy
        other._secrets = (*secrets_of(other.settings), *self._secrets)  # noqa: SLF001 - its own copy
        other._has_own_key = False  # noqa: SLF001 - its own copy
        other._key_from_caller = from_caller  # noqa: SLF001 - its own copy
        return other

    @property
    def circuits(self) -> dict[Family, Circuit]:
        """State of the circuit breaker of each endpoint family that was requested so far."""
        return {family: breaker.state for family, breaker in self._breakers.items()}

    def _breaker(self, family: Family | None) -> CircuitBreaker:
        breaker = None if family is None else self._breakers.get(family)
        if breaker is None:
            settings = self.settings
            breaker = CircuitBreaker(
                failures=settings.breaker_failures, cooldown_s=settings.breaker_cooldown_s, clock=self._clock
            )
            if family is not None:
                self._breakers[family] = breaker
        return breaker

    async def attempt(
        self, endpoint: UpstreamEndpoint, send: Callable[[], Awaitable[T]], *, retries: int | None = None
    ) -> T:
        """Await ``send()`` until it succeeds, fails permanently or no retries are left; the caller holds a slot."""
        if endpoint.path in self._missing:
            raise self._not_offered(endpoint.path, status=None)
        breaker = self._breaker(endpoint.family)
        left = self.settings.retries if retries is None else retries
        backoff_s = _FIRST_RETRY_S
        while True:
            if not breaker.admit():
                raise ModelUnavailable(
                    f"Provider '{self.settings.name}' gets no requests after repeated failures (circuit breaker open).",
                    retry_after_s=max(1.0, breaker.wait_s),
                )
            since = time.perf_counter()
            try:
                result = await send()
            except RetriableFailure as failure:
                try:
                    wait_s = await self._wait_before_retry(
                        failure, endpoint.family, breaker, left=left, backoff_s=backoff_s
                    )
                finally:
                    self._report(
                        endpoint.family, failure.__cause__, status=failure.status, retries_left=left, since=since
                    )
            except RagsvcError as error:
                self._record(endpoint, breaker, error, since=since)
                raise
            else:
                self._answered(endpoint.family, breaker)
                self._missing.served(endpoint.path)
                return result
            left -= 1
            backoff_s = min(backoff_s * 2, _LONGEST_BACKOFF_S)
            await self._sleep(wait_s)

    def report_broken_answer(self, family: Family | None, cause: BaseException | None, *, since: float) -> None:
        """Record that an answer, begun at ``since``, broke off. Only a timeout shows that the provider is down."""
        if isinstance(cause, TimeoutError):
            self._down(family, self._breaker(family))
        self._report(family, cause, status=None, retries_left=0, since=since)

    def _record(self, endpoint: UpstreamEndpoint, breaker: CircuitBreaker, error: RagsvcError, *, since: float) -> None:
        """Record a failure after which no other attempt is made."""
        match error:
            case UpstreamTimeout():
                self._down(endpoint.family, breaker)
            case UpstreamFailed() | UpstreamRejected():
                breaker.ignored()
            case EndpointNotOffered():
                breaker.ignored()
                if self._has_own_key and endpoint.family is not None:
                    self._missing.note(endpoint.path)
            case _:  # the provider refuses the request
                self._answered(endpoint.family, breaker)
                return
        status = getattr(error, "upstream_status", None)
        self._report(endpoint.family, error.__cause__, status=status, retries_left=0, since=since)

    def _answered(self, family: Family | None, breaker: CircuitBreaker) -> None:
        """Record an answer that shows that the provider is not down."""
        was_closed = breaker.state is Circuit.CLOSED
        breaker.succeeded()
        if not was_closed:
            self._log_circuit(family, breaker, logging.INFO, "answers again: the circuit breaker closes")

    def _down(self, family: Family | None, breaker: CircuitBreaker) -> None:
        """Record a fault that shows that the provider is down."""
        was_closed = breaker.state is Circuit.CLOSED
        breaker.failed()
        if was_closed and breaker.state is not Circuit.CLOSED:
            problem = f"gets no requests for {self.settings.breaker_cooldown_s:g} s: the circuit breaker opens"
            self._log_circuit(family, breaker, logging.WARNING, problem)

    def _log_circuit(self, family: Family | None, breaker: CircuitBreaker, level: int, change: str) -> None:
        if family is None:  # a request for no model has a breaker of its own, which ends with it
            return
        log_event(
            logger,
            level,
            "circuit_breaker",
            f"provider {self.settings.name} {change}",
            provider=self.settings.name,
            family=family.value,
            circuit=breaker.state.value,
        )

    def _report(
        self,
        family: Family | None,
        cause: BaseException | None,
        *,
        status: int | None,
        retries_left: int,
        since: float,
    ) -> None:
        """Count and log a failure. The message of the provider may quote the prompt, and is left out."""
        reason = failure_reason(cause, status=status)
        self._on_failure(self.settings.name, reason)
        left_out = self._repetitions.admit((self.settings.name, family, reason))
        problem = "failed" if status is None else _REJECTIONS.get(status, "failed")
        log_event(
            logger,
            logging.DEBUG if left_out is None else logging.WARNING,
            "upstream_error",
            f"provider {self.settings.name} {problem}",
            provider=self.settings.name,
            family=None if family is None else family.value,
            reason=reason,
            error_type=None if cause is None else type(cause).__name__,
            status=status,
            duration_ms=round((time.perf_counter() - since) * 1000, 1),
            retries_left=retries_left,
            circuit=None if family is None else self._breaker(family).state.value,
            left_out=left_out or None,
        )

    async def _wait_before_retry(
        self,
        failure: RetriableFailure,
        family: Family | None,
        breaker: CircuitBreaker,
        *,
        left: int,
        backoff_s: float,
    ) -> float:
        if failure.down:
            self._down(family, breaker)
        else:
            self._answered(family, breaker)
        wait_s = backoff_s * (0.5 + self._jitter() / 2) if failure.wait_s is None else failure.wait_s
        if left <= 0 or wait_s > self.settings.max_retry_wait_s or breaker.wait_s > 0:
            raise failure.error from failure.__cause__
        return wait_s

    async def open(
        self,
        method: str,
        endpoint: UpstreamEndpoint,
        body: bytes | AsyncIterator[bytes],
        headers: Mapping[str, str],
    ) -> aiohttp.ClientResponse:
        """Send a request; return the response once its headers have arrived, with a status below 300.

        Raises:
            RetriableFailure: another attempt may succeed.
            RagsvcError: another attempt would fail as well.
        """
        path = endpoint.path
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
        raise self._refusal(endpoint, response.status, response.headers, text)

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
        for secret in self._secrets:
            message = message.replace(secret, "***")
        return message

    def _refused_key(self, status: int) -> Exception:
        if self._key_from_caller:
            name = self.settings.name
            return InvalidRequest(f"Provider '{name}' does not accept the given key.", param="X-Provider-Key")
        return UpstreamRejected(
            "The provider of the model refuses the access of this server. The operator finds the reason in the log.",
            upstream_status=status,
        )

    def _not_offered(self, path: str, *, status: int | None) -> EndpointNotOffered:
        return EndpointNotOffered(f"Provider '{self.settings.name}' does not offer {path}.", upstream_status=status)

    def _refusal(self, endpoint: UpstreamEndpoint, status: int, headers: Mapping[str, str], body: bytes) -> Exception:
        """The error for a status of 300 or above."""
        name = self.settings.name
        message, param, code = _error_fields(body)
        message = self._without_key(message)
        if status in _REJECTIONS:
            return self._refused_key(status)
        if status == 413:
            return TooLarge(message or f"The request is too large for provider '{name}'.", limit_bytes=0)
        if status in _ENDPOINT_STATUSES:
            return self._not_found(endpoint, status, message, param, code)
        if status in _PARAMETER_STATUSES:
            return InvalidRequest(message or f"Provider '{name}' refused the request.", param=param)
        return self._failure(status, wait_s=read_retry_after(headers))

    def _not_found(
        self, endpoint: UpstreamEndpoint, status: int, message: str, param: str | None, code: str | None
    ) -> Exception:
        """The error for a status that is about the endpoint, or, as some 404, about what the request names."""
        name = self.settings.name
        if status == 404 and _is_about_model(endpoint.model, message, code):
            return ModelNotFound(message or f"Provider '{name}' has no such model.", param="model")
        if status == 404 and code is not None and code not in _ENDPOINT_CODES:
            return NotFound(message or f"Provider '{name}' does not find what the request names.", param=param)
        return self._not_offered(endpoint.path, status=status)

    def _failure(self, status: int, *, wait_s: float | None) -> Exception:
        """The error for a status that is not about the request."""
        name = self.settings.name
        problem = f"Provider '{name}' answered with status {status}."
        if status == 429:
            limited = RateLimited(
                f"Provider '{name}' accepts no further requests of this server for now.",
                retry_after_s=_DEFAULT_RETRY_AFTER_S if wait_s is None else wait_s,
            )
            return RetriableFailure(limited, wait_s=wait_s, down=False, status=status)
        if status in _BUSY_STATUSES or status in _UNAVAILABLE_STATUSES:
            unavailable = ModelUnavailable(problem, retry_after_s=wait_s)
            return RetriableFailure(unavailable, wait_s=wait_s, down=status in _UNAVAILABLE_STATUSES, status=status)
        failed = UpstreamFailed(problem, upstream_status=status)
        return RetriableFailure(failed, wait_s=wait_s, status=status) if status >= 500 else failed


def _is_about_model(model: str, message: str, code: str | None) -> bool:
    """Whether a 404 says that the model is unknown; otherwise the endpoint is.

    Only a 404 about the endpoint is remembered, so the name of the model in the message decides as well: OpenRouter
    answers "No endpoints found for NAME".
    """
    return code == "model_not_found" or "model" in message.lower() or (bool(model) and model in message)


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
