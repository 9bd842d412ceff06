"""What a mode of encryption must do for a transport; pure, so that both transports share it."""

from __future__ import annotations

from typing import Protocol

import httpx

from ragsvc.client.server_keys import ServerKey
from ragsvc.core.errors import CryptoFailure


class BodyOpener(Protocol):
    """Turns the encrypted body into the plain one, slice by slice."""

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return what became plain. Raises ``CryptoFailure``."""
        ...

    def finish(self) -> bytes:
        """The body has ended: return the rest. Raises ``CryptoFailure`` when it was cut off."""
        ...


class SealedExchange(Protocol):
    """One sealed request and the way to open its answer."""

    @property
    def request(self) -> httpx.Request:
        """What goes over the wire."""
        ...

    @property
    def buffered(self) -> bool:
        """Whether ``status`` is known only after the whole body."""
        ...

    def begin(self, response: httpx.Response) -> tuple[httpx.Headers, BodyOpener]:
        """Judge an answer's status and headers; return the plain headers. Raises ``CryptoFailure`` for plaintext."""
        ...

    def status(self, response: httpx.Response) -> int:
        """The plain answer's status."""
        ...


class EncryptionMode(Protocol):
    """A way to encrypt requests for one server."""

    @property
    def key_path(self) -> str:
        """Where the server hands out its key."""
        ...

    def parse_key(self, content: bytes) -> ServerKey:
        """Read the key endpoint's answer. Raises ``CryptoFailure``."""
        ...

    def seal(self, request: httpx.Request, content: bytes, key: ServerKey) -> SealedExchange:
        """Seal a request. Raises ``ConfigurationError`` for one this mode cannot carry."""
        ...


def refuse_plaintext(response: httpx.Response) -> CryptoFailure:
    """The failure of an answer that should have been encrypted and was not."""
    failure = CryptoFailure()
    failure.add_note(f"The server answered {response.status_code} without encryption.")
    return failure


def bearer_of(request: httpx.Request) -> str:
    """The API key of a request, without its scheme, as the server reads it; empty without one."""
    headers = request.headers
    value: str = headers.get("authorization") or headers.get("x-api-key") or headers.get("api-key") or ""
    return value[7:].strip() if value[:7].lower() == "bearer " else value.strip()


def carry_headers(headers: httpx.Headers, *dropped: str) -> httpx.Headers:
    """Copy headers without those that describe the body that is replaced."""
    replaced = {"content-length", "transfer-encoding", "content-encoding", "content-type", *dropped}
    return httpx.Headers([(name, value) for name, value in headers.multi_items() if name.lower() not in replaced])
