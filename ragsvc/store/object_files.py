"""Stored files as objects of an S3 bucket, by obstore (extra ``s3``).

An object is complete when it has its name. What obstore raises becomes ``FileNotFoundError`` or ``StorageUnavailable``
here; its texts are not passed on, because answers of a store quote requests and key ids.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError
from obstore.store import S3Store

from ragsvc.core.errors import StorageUnavailable
from ragsvc.core.gateway.circuit_breaker import CircuitBreaker
from ragsvc.core.ports.file_storage import StoredEntry
from ragsvc.store.file_cache import FileCache

logger = logging.getLogger(__name__)

_PIECE_BYTES: Final = 8 << 20
"""Bytes of a request: larger files are sent and fetched in pieces, so that each has its own time limit."""
_PIECES_AT_ONCE: Final = 4
_ATTEMPTS: Final = 4
"""How often a file is fetched again because it was replaced meanwhile."""
_CONNECT_TIMEOUT: Final = timedelta(seconds=3)
_REQUEST_TIMEOUT: Final = timedelta(seconds=30)
_RETRY_TIMEOUT: Final = timedelta(seconds=10)
_MOST_RETRIES: Final = 3
_FIRST_PAUSE: Final = timedelta(milliseconds=200)
_CLOSED_S: Final = 2.0
"""After a failure, requests fail at once for this time; then one of them tries again."""
_RETRY_AFTER_S: Final = 5.0

_CODE: Final = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_STATUS: Final = re.compile(r"status code: (\d{3}(?: [A-Z][A-Za-z ]{1,40})?)")
_SYSTEM: Final = re.compile(
    r"(Connection refused|Connection reset|timed out|dns error|No route to host)", re.IGNORECASE
)
_NO_BUCKET: Final = "NoSuchBucket"


def open_bucket(bucket: str, *, prefix: str, endpoint: str | None, region: str | None) -> S3Store:
    """A bucket; what is not given comes from the variables ``AWS_*``, and nothing is requested yet.

    Raises:
        ValueError: obstore does not accept the address.
    """
    config: dict[str, Any] = {}
    if endpoint is not None:
        config["endpoint"] = endpoint
    if region is not None:
        config["region"] = region
    options: dict[str, Any] = {"connect_timeout": _CONNECT_TIMEOUT, "timeout": _REQUEST_TIMEOUT}
    if endpoint is not None and endpoint.startswith("http://"):
        options["allow_http"] = True  # otherwise AWS_ALLOW_HTTP decides
    try:
        return S3Store(
            bucket,
            prefix=prefix or None,
            config=config,  # type: ignore[arg-type]  # the keys above
            client_options=options,  # type: ignore[arg-type]  # the keys above
            retry_config={
                "max_retries": _MOST_RETRIES,
                "retry_timeout": _RETRY_TIMEOUT,
                "backoff": {"init_backoff": _FIRST_PAUSE, "max_backoff": timedelta(seconds=2), "base": 2},
            },
        )
    except BaseError as error:
        raise ValueError(reason_of(error)) from None


def reason_of(error: Exception) -> str:
    """What failed, in a few words without a request, a name or a key.

    >>> reason_of(ValueError("403 Forbidden: <Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>AKIA…"))
    'InvalidAccessKeyId'
    >>> reason_of(ValueError('tcp connect error: code: 111, message: "Connection refused"'))
    'Connection refused'
    """
    text = str(error)
    found = _CODE.search(text) or _SYSTEM.search(text) or _STATUS.search(text)
    return found[1].strip() if found else type(error).__name__


class ObjectFiles:
    """Files as objects of a bucket, with local copies of those that were read; implements ``FileStorage``."""

    is_elsewhere = True
    makes_copies = True

    def __init__(
        self,
        bucket: S3Store,
        cache: FileCache,
        *,
        location: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bucket = bucket
        self._cache = cache
        self.location = location
        self._breaker = CircuitBreaker(failures=1, cooldown_s=_CLOSED_S, clock=monotonic)
        self._lock = threading.Lock()
        self._fault: str | None = None

    @property
    def fault(self) -> str | None:
        """Why the store cannot be used, in a few words; ``None`` if the last request succeeded."""
        return self._fault

    def __repr__(self) -> str:
        """Name the place only."""
        return f"ObjectFiles({self.location!r})"

    def put(self, source: Path, name: str, *, is_intact: Callable[[], bool]) -> None:
        if not self._create(source, name) and not is_intact():
            with self._request():
                self._send(source, name)
        self._cache.adopt(name, source)

    def local_copy(
        self, name: str, *, verify: Callable[[Path], None], fresh: bool = False
    ) -> AbstractContextManager[Path]:
        def fetch(path: Path) -> None:
            self._fetch(name, path)
            verify(path)

        return self._cache.copy(name, fetch, fresh=fresh)

    def find(self, name: str) -> StoredEntry | None:
        try:
            with self._request():
                return _entry(obstore.head(self._bucket, name))
        except FileNotFoundError:
            return None

    def entries(self, folder: str) -> Iterator[StoredEntry]:
        pages = obstore.list(self._bucket, f"{folder}/")
        while True:
            with self._request():
                page = next(pages, None)
            if page is None:
                return
            yield from map(_entry, page)

    def delete(self, name: str) -> None:
        self._cache.forget(name)
        with self._request(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._bucket, name)

    def move(self, source: str, target: str) -> None:
        """Copy, then delete: after a crash in between, both exist."""
        self._cache.forget(source)
        with self._request():
            obstore.rename(self._bucket, source, target)

    def prune(self, folder: str) -> None:
        """A bucket has no folders."""

    def remove_leftovers(self) -> None:
        """The parts of an interrupted upload are invisible; a lifecycle rule of the bucket removes them."""

    def probe(self) -> bool:
        try:
            with self._request():
                next(obstore.list(self._bucket, "blobs/", chunk_size=1), None)
        except StorageUnavailable:
            return False
        return True

    def _create(self, source: Path, name: str) -> bool:
        """Store a file unless there is one of this name; returns whether it was stored."""
        if source.stat().st_size > _PIECE_BYTES:  # an upload in parts has no condition
            if self.find(name) is not None:
                return False
            with self._request():
                self._send(source, name)
            return True
        content = source.read_bytes()
        with self._request():
            try:
                obstore.put(self._bucket, name, content, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
            except (NotSupportedError, BaseError) as error:
                if not _has_no_conditions(error):
                    raise
                obstore.put(self._bucket, name, content, use_multipart=False)
        return True

    def _send(self, source: Path, name: str) -> None:
        obstore.put(self._bucket, name, source, chunk_size=_PIECE_BYTES, max_concurrency=_PIECES_AT_ONCE)

    def _fetch(self, name: str, path: Path) -> None:
        """Write an object to a file, a piece at a time; begins again if it is replaced meanwhile."""
        for attempt in range(_ATTEMPTS):
            try:
                with path.open("wb") as file:
                    for piece in self._pieces(name):
                        file.write(piece)
            except PreconditionError:
                if attempt == _ATTEMPTS - 1:
                    raise _unavailable() from None
            else:
                return

    def _pieces(self, name: str) -> Iterator[memoryview]:
        with self._request():
            begun = obstore.get(self._bucket, name)
            size, tag = begun.meta["size"], begun.meta["e_tag"]
            first = memoryview(begun.bytes()) if size <= _PIECE_BYTES else None
        if first is not None:
            yield first
            return
        for begin in range(0, size, _PIECE_BYTES):
            with self._request():
                options: Any = {"range": (begin, min(begin + _PIECE_BYTES, size))}
                if tag is not None:
                    options["if_match"] = tag
                piece = memoryview(obstore.get(self._bucket, name, options=options).bytes())
            yield piece

    @contextlib.contextmanager
    def _request(self) -> Generator[None]:
        """Map the failures of requests; while the store is known to be gone, fail at once.

        Raises:
            FileNotFoundError: no such object.
            StorageUnavailable: the store does not answer, or refuses.
            PreconditionError: the object is another one by now.
        """
        with self._lock:
            if not self._breaker.admit():
                raise _unavailable()
        try:
            yield
        except FileNotFoundError as error:
            if (reason := reason_of(error)) == _NO_BUCKET:
                raise self._failed(reason) from None
            self._worked()
            raise FileNotFoundError("There is no such object.") from None
        except PreconditionError:
            self._worked()
            raise
        except BaseError as error:
            raise self._failed(reason_of(error)) from None
        except BaseException:
            with self._lock:
                self._breaker.ignored()
            raise
        else:
            self._worked()

    def _worked(self) -> None:
        with self._lock:
            self._breaker.succeeded()
            if self._fault is not None:
                self._fault = None
                logger.warning("the file store %s can be used again", self.location)

    def _failed(self, reason: str) -> StorageUnavailable:
        with self._lock:
            self._breaker.failed()
            if self._fault != reason:
                self._fault = reason
                logger.error("the file store %s cannot be used (%s)", self.location, reason)
        return _unavailable()


def _unavailable() -> StorageUnavailable:
    return StorageUnavailable(
        "The store of the files cannot be used at the moment. Try again later.", retry_after_s=_RETRY_AFTER_S
    )


def _entry(meta: Any) -> StoredEntry:  # noqa: ANN401 - obstore's metadata is declared in a stub only
    return StoredEntry(str(meta["path"]), int(meta["size"]), meta["last_modified"].timestamp())


def _has_no_conditions(error: Exception) -> bool:
    """Whether the store does not know conditional requests."""
    return isinstance(error, NotSupportedError) or reason_of(error) == "NotImplemented"
