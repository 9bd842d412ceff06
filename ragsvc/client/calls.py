"""Calls of the service as values: what to send, how to read the answer, and when to send it again. Without I/O."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast

import httpx
import msgspec

from ragsvc.client.service_errors import ServiceError, ServiceUnreachable, UnexpectedAnswer, status_error
from ragsvc.client.upload_bodies import UploadBody

T = TypeVar("T")

BUSY: Final = frozenset({429, 503})
"""Statuses that say: later."""

DEFAULT_TIMEOUT_S: Final = 300.0
DEFAULT_PATIENCE_S: Final = 60.0
"""Longest time in which a call is repeated."""
LONG_TIMEOUT_S: Final = 3600.0
"""A large deletion takes minutes, and its answer comes at the end."""
CONNECT_TIMEOUT_S: Final = 5.0
SILENCE_S: Final = 60.0
"""Longest time between two parts of a stream: the service sends a comment every 15 s."""

_LONGEST_PAUSE_S = 300.0
_FIRST_PAUSE_S = 0.25
_CONNECT_TRIES = 4
_FIRST_ERROR_STATUS = 400


class Call(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A request and the type of its answer.

    ``repeatable``: the request may be sent again when its connection was lost, because a repetition changes nothing.
    """

    method: str
    path: str
    decode: Callable[[bytes], T]
    params: Mapping[str, Any] | None = None
    document: Any = msgspec.UNSET
    body: UploadBody | None = None
    headers: Mapping[str, str] = {}
    repeatable: bool = True
    timeout_s: float = DEFAULT_TIMEOUT_S

    @property
    def content(self) -> bytes | None:
        """The JSON body; ``None`` for requests without."""
        return None if self.document is msgspec.UNSET else msgspec.json.encode(self.document)

    @property
    def sent_headers(self) -> dict[str, str]:
        """The headers with those that describe the body."""
        headers = dict(self.headers)
        if self.document is not msgspec.UNSET:
            headers["content-type"] = "application/json"
        if self.body is not None and "content-length" not in headers and (size := self.body.size_bytes) is not None:
            headers["content-length"] = str(size)
        return headers

    @property
    def timeout(self) -> httpx.Timeout:
        return httpx.Timeout(self.timeout_s, connect=CONNECT_TIMEOUT_S, pool=None)

    def read(self, url: str, content: bytes) -> T:
        """Decode an answer. Raises ``UnexpectedAnswer``."""
        try:
            return self.decode(content)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            raise UnexpectedAnswer(url, "JSON of ragsvc") from error


OnBytes = Callable[[], None]
"""Called whenever bytes of a stream arrive."""


class Pause(NamedTuple):
    """Seconds to wait before a call is sent again, and the error that is the reason."""

    seconds: float
    error: ServiceError


class Retries:
    """Decides whether a call is sent again: after 429 and 503, and after lost connections, for ``patience_s``."""

    def __init__(self, call: Call[Any], *, url: str, patience_s: float) -> None:
        self._url = url
        self._patience_s = patience_s if call.body is None or call.body.repeatable else 0.0
        self._repeatable = call.repeatable
        self._waited_s = 0.0
        self._failures = 0

    def after_failure(self, error: httpx.TransportError) -> Pause:
        """The pause after a network error. Raises ``ServiceUnreachable``."""
        failure = unreachable(self._url, error)
        self._failures += 1
        never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        seconds = _FIRST_PAUSE_S * 4**self._failures
        impatient = self._waited_s + seconds > self._patience_s
        if impatient or self._failures >= _CONNECT_TRIES or not (self._repeatable or never_sent):
            raise failure from error
        return self._pause(seconds, failure)

    def after_answer(self, status: int, headers: Mapping[str, str], content: bytes) -> Pause:
        """The pause after an error answer. Raises ``StatusError``."""
        error = status_error(status, headers, content)
        seconds = min(error.retry_after_s or 1.0, _LONGEST_PAUSE_S)
        refused = status not in BUSY or error.should_retry is False
        if refused or self._waited_s + seconds > self._patience_s:
            raise error
        return self._pause(seconds, error)

    def _pause(self, seconds: float, error: ServiceError) -> Pause:
        self._waited_s += seconds
        return Pause(seconds, error)


def is_error(status: int) -> bool:
    return status >= _FIRST_ERROR_STATUS


def unreachable(url: str, error: httpx.TransportError) -> ServiceUnreachable:
    """The error for a network error of httpx."""
    return ServiceUnreachable(url, str(error) or type(error).__name__)


@functools.cache
def decoder_of(kind: object) -> Callable[[bytes], Any]:
    """The function that decodes JSON into ``kind``; fields that ``kind`` does not know are ignored."""
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(cast("Any", kind))
    return decoder.decode


def base_url(url: str) -> str:
    """The base URL without a trailing ``/v1``, which clients of OpenAI's API include.

    >>> base_url("https://example.com/rag/v1/")
    'https://example.com/rag'
    """
    return url.strip().rstrip("/").removesuffix("/v1").rstrip("/")
