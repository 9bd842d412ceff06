"""The interface between transports and encryption modes. Without I/O, so that both transports share it."""

from __future__ import annotations

from typing import Protocol

import httpx

from ragsvc.client.server_keys import ServerKey
from ragsvc.core.errors import CryptoFailure


class BodyOpener(Protocol):
    """Decrypts a response body slice by slice."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return the plaintext they complete. Raises ``CryptoFailure``."""
        ...

    def finish(self) -> bytes:
        """Return the rest, at the end of the body. Raises ``CryptoFailure`` when the body was truncated."""
        ...


class SealedExchange(Protocol):
    """A sealed request, and the state that opens its response."""

    @property
    def request(self) -> httpx.Request:
        """The encrypted request to send."""
        ...

    @property
    def buffered(self) -> bool:
        """Whether ``status`` is only known at the end of the body."""
        ...

    def begin(self, response: httpx.Response) -> tuple[httpx.Headers, BodyOpener]:
        """Check a response's status and headers; return the plain headers. Raises ``CryptoFailure`` for plaintext."""
        ...

    def status(self, response: httpx.Response) -> int:
        """The status of the plain response."""
        ...


class EncryptionMode(Protocol):
    """Encrypts the requests to one server; ``HpkeStream`` and ``Rvenc`` implement it."""

    @property
    def key_path(self) -> str:
        """The path of the server's key endpoint."""
        ...

    def parse_key(self, content: bytes) -> ServerKey:
        """Parse the key endpoint's response. Raises ``CryptoFailure``."""
        ...

    def seal(self, request: httpx.Request, content: bytes, key: ServerKey, *, prefix: bytes = b"") -> SealedExchange:
        """Seal a request; ``prefix`` is the part of its path that a proxy removes before the service.

        Raises:
            ConfigurationError: this mode does not support the request.
        """
        ...


def refuse_plaintext(response: httpx.Response) -> CryptoFailure:
    """Return the exception for a response that should have been encrypted."""
    failure = CryptoFailure()
    failure.add_note(f"The server answered {response.status_code} without encryption.")
    return failure


def bearer_of(request: httpx.Request) -> str:
    """The API key of a request without its scheme, as the server reads it; ``""`` if the request has none."""
    headers = request.headers
    value: str = headers.get("authorization") or headers.get("x-api-key") or headers.get("api-key") or ""
    return value[7:].strip() if value[:7].lower() == "bearer " else value.strip()


def carry_headers(headers: httpx.Headers, *dropped: str) -> httpx.Headers:
    """Copy headers, except those that describe the replaced body and ``dropped``."""
    replaced = {"content-length", "transfer-encoding", "content-encoding", "content-type", *dropped}
    return httpx.Headers([(name, value) for name, value in headers.raw if name.decode().lower() not in replaced])
