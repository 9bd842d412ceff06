"""One HTTP exchange with a provider: limits, timeouts, retries, and every failure as an error of ours.

Knows nothing of chats. All retries happen before the client has seen a byte.
"""

from __future__ import annotations

import asyncio
import copy
import io
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
from ragsvc.core.retry_after import read_retry_after
from ragsvc.providers.concurrency_slots import ConcurrencySlots

T = TypeVar("T")
HTTP_FAILURES: Final = (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError)
"""All that aiohttp raises for what a provider does."""

_FIRST_RETRY_S: Final = 0.1
_LONGEST_BACKOFF_S: Final = 2.0
_ERROR_BODY_BYTES: Final = 64 << 10
_MESSAGE_CHARACTERS: Final = 1000
_COPIED_BODY_BYTES: Final = 1 << 20
_PARAMETER_STATUSES: Final = frozenset({400, 405, 409, 411, 415, 422})
_CREDENTIAL_STATUSES: Final = frozenset({401, 402, 403, 407})
_TEMPORARY_STATUSES: Final = frozenset({408, 425, 429})


def open_session(resolver: AbstractResolver | None = None) -> aiohttp.ClientSession:
    """The session that all providers share: pooled connections; ``ConcurrencySlots`` limits how many are used."""
    # uvicorn, and so vLLM, closes idle connections after 5 s; a request that meets the close would have to be repeated
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=4, resolver=resolver)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        requote_redirect_url=False,
    )


class RetriableFailure(Exception):
    """An attempt failed in a way that another may not; never leaves this package."""

    def __init__(self, error: RagsvcError, *, wait_s: float | None = None, healthy: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait_s = wait_s
        self.healthy = healthy


class UpstreamClient:
    """HTTP with one provider. ``sleep`` and ``jitter`` (0..1) are injected for tests."""

    def __init__(
        self,
        settings: ProviderSettings,
        session: aiohttp.ClientSession,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.settings = settings
        self._session = session
        self._sleep = sleep
        self._jitter = jitter
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
        self._callers_key = False
        self._headers = {
            "User-Agent": f"ragsvc/{__version__}",
            "Accept-Encoding": "identity",
            **({"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}),
            **settings.headers,
        }

    def with_key(self, api_key: str, *, callers: bool) -> UpstreamClient:
        """The same exchange with another key in the place of its own; ``callers``: a refusal of it is the caller's."""
        other = copy.copy(self)
        other.settings = msgspec.structs.replace(self.settings, api_key=api_key)
        other._headers = self._headers | {"Authorization": f"Bearer {api_key}"}  # noqa: SLF001 - its own copy
        other._callers_key = callers  # noqa: SLF001 - its own copy
        return other

    async def attempt(self, once: Callable[[], Awaitable[T]], *, retries: int | None = None) -> T:
        """Run ``once`` until it succeeds, fails for good, or the retries are used up; a slot is held meanwhile."""
        left = self.settings.retries if retries is None else retries
        backoff_s = _FIRST_RETRY_S
        while True:
            if not self.breaker.admit():
                raise ModelUnavailable(
                    f"provider '{self.settings.name}' is left alone after repeated failures",
                    retry_after_s=max(1.0, self.breaker.wait_s),
                )
            try:
                result = await once()
            except RetriableFailure as failure:
                wait_s = await self._wait_before_retry(failure, left=left, backoff_s=backoff_s)
            except (UpstreamFailed, UpstreamTimeout):
                self.breaker.failed()
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
        """Send a request and return the response once its headers are there and its status is below 300.

        Raises:
            Retriable: another attempt may succeed.
            RagsvcError: it would not.
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
            own = getattr(body, "failure", None)  # what kept a streamed body from being sent to its end
            raise own or self.translate(error, before_body=True) from error
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
        """The whole body. Raises ``RetriableFailure`` when it breaks off, ``UpstreamFailed`` when it has no end."""
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
            raise UpstreamFailed(f"provider '{self.settings.name}' sent more than a reply may hold")
        response.release()
        return body

    def translate(self, error: Exception, *, before_body: bool) -> Exception:
        """Translate one of ``HTTP_FAILURES``; a connection that breaks before the body is a ``RetriableFailure``."""
        name = self.settings.name
        match error:
            case aiohttp.ConnectionTimeoutError():
                return RetriableFailure(
                    ModelUnavailable(f"provider '{name}' cannot be reached in time", retry_after_s=1)
                )
            case TimeoutError():
                return UpstreamTimeout(f"provider '{name}' did not answer in time")
            case aiohttp.ClientPayloadError() | aiohttp.ClientConnectionError() | ConnectionError() if before_body:
                reached = not isinstance(error, aiohttp.ClientConnectorError)
                what = "closed the connection without an answer" if reached else "cannot be reached"
                return RetriableFailure(ModelUnavailable(f"provider '{name}' {what}", retry_after_s=1))
            case aiohttp.ClientPayloadError() | aiohttp.ClientConnectionError() | ConnectionError():
                return UpstreamFailed(f"provider '{name}' broke off its answer")
            case _:
                return UpstreamFailed(f"provider '{name}' does not speak proper HTTP")

    def said_error(self, body: bytes) -> UpstreamFailed:
        """The error that a provider put into the body of a good status."""
        message = self._without_key(_error_fields(body)[0])
        return UpstreamFailed(message or f"provider '{self.settings.name}' reports an error")

    def _without_key(self, message: str) -> str:
        return message.replace(self.settings.api_key, "***") if self.settings.api_key else message

    def _refused_key(self) -> Exception:
        name = self.settings.name
        if self._callers_key:
            return InvalidRequest(f"provider '{name}' does not accept the given key", param="X-Provider-Key")
        return RetriableFailure(
            ModelUnavailable(f"provider '{name}' does not accept the credentials it is called with"),
            wait_s=float("inf"),
            healthy=True,
        )

    def _refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> Exception:
        """What a status of 300 or above means to our caller."""
        name = self.settings.name
        message, param, code = _error_fields(body)
        message = self._without_key(message)
        wait_s = read_retry_after(headers)
        if status in _CREDENTIAL_STATUSES:
            return self._refused_key()
        if status == 413:
            return TooLarge(message or "the request is too large for the model's provider", limit_bytes=0)
        if status == 404 and (code == "model_not_found" or "model" in message.lower()):
            return ModelNotFound(message or f"provider '{name}' has no such model", param="model")
        if status in _PARAMETER_STATUSES:
            return InvalidRequest(message or f"provider '{name}' refused the request", param=param)
        if status in _TEMPORARY_STATUSES or status >= 500:
            return RetriableFailure(
                ModelUnavailable(f"provider '{name}' answered {status}", retry_after_s=wait_s),
                wait_s=wait_s,
                healthy=status in _TEMPORARY_STATUSES,
            )
        return UpstreamFailed(f"provider '{name}' answered {status}", upstream_status=status)


def _payload(body: bytes | AsyncIterator[bytes]) -> bytes | io.BytesIO | AsyncIterator[bytes]:
    """Large bodies go as a file object: aiohttp writes those in portions."""
    if isinstance(body, bytes) and len(body) >= _COPIED_BODY_BYTES:
        return io.BytesIO(body)
    return body


async def _read_at_most(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """The body up to about the limit; the caller sees by ``at_eof`` whether that was all."""
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
    """Message, param and code of a provider's error body, whatever of them it has."""
    try:
        said = _ERRORS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", None, None
    if isinstance(said.error, _ErrorDetail):
        code = said.error.code
        return said.error.message[:_MESSAGE_CHARACTERS], said.error.param, None if code is None else str(code)
    text = said.error or said.message or (said.detail if isinstance(said.detail, str) else "")
    return text[:_MESSAGE_CHARACTERS], None, None
