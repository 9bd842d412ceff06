"""The HPKE-stream mode: every route, method, path and API key authenticated, responses as encrypted streams."""

from __future__ import annotations

from typing import Final

import httpx

from ragsvc.client.encryption_mode import BodyOpener, bearer_of, carry_headers, refuse_plaintext
from ragsvc.client.server_keys import ServerKey, parse_key
from ragsvc.crypto import hpke
from ragsvc.crypto.hpke_stream import STEERING_HEADERS, StreamOpener, bind_request
from ragsvc.crypto.sealed_headers import (
    CONTENT_TYPE_HEADER,
    ENC_HEADER,
    INFO,
    ONE_SHOT_MEDIA_TYPE,
    SEALED_BODY_HEADER,
    STREAM_MEDIA_TYPE,
    decode_base64,
    encode_base64,
)

DEFAULT_KEY_PATH: Final = "/v1/hpke/key"
_BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


class HpkeStreamExchange:
    """One request and its response, with a fresh encapsulated key."""

    buffered = False

    def __init__(self, request: httpx.Request, content: bytes, key: ServerKey, *, prefix: bytes) -> None:
        self._context = hpke.set_up_sender(key.public_key, INFO)
        content_type = request.headers.get("content-type", "")
        aad = bind_request(
            method=request.method,
            target=request.url.raw_path.removeprefix(prefix).decode("ascii"),
            content_type=content_type,
            api_key=bearer_of(request),
            headers=_steering_headers(request.headers),
        )
        sealed = self._context.seal(content, aad)
        headers = carry_headers(request.headers, "accept", "accept-encoding")
        headers["Accept"] = STREAM_MEDIA_TYPE
        headers["Accept-Encoding"] = "identity"
        headers[ENC_HEADER] = encode_base64(self._context.enc)
        if content_type:
            headers[CONTENT_TYPE_HEADER] = content_type
        body: bytes | None = sealed
        if request.method.upper() in _BODILESS and not content:
            headers[SEALED_BODY_HEADER] = encode_base64(sealed)
            body = None
        else:
            headers["Content-Type"] = ONE_SHOT_MEDIA_TYPE
        self.request = httpx.Request(
            request.method, request.url, headers=headers, content=body, extensions=request.extensions
        )

    def begin(self, response: httpx.Response) -> tuple[httpx.Headers, BodyOpener]:
        """Accept only encrypted streams, with any status except redirects. Raises ``CryptoFailure``."""
        if response.has_redirect_location or response.headers.get("content-type", "") != STREAM_MEDIA_TYPE:
            raise refuse_plaintext(response)
        headers = carry_headers(response.headers, CONTENT_TYPE_HEADER.lower())
        headers["Content-Type"] = response.headers.get(CONTENT_TYPE_HEADER, "application/json")
        return headers, StreamOpener(self._context)

    def status(self, response: httpx.Response) -> int:
        """The response's own status, which is not encrypted."""
        return response.status_code


def _steering_headers(headers: httpx.Headers) -> dict[str, str]:
    """The headers to authenticate, with the bytes that are sent; of several values the service reads the last one."""
    sent = {name.lower().decode("ascii"): value for name, value in headers.raw}
    return {name: sent[name].decode("utf-8", "surrogateescape") for name in STEERING_HEADERS if name in sent}


class HpkeStream:
    """Encrypts with HPKE. The server answers with an encrypted stream, also for requests without a body."""

    def __init__(self, *, key_path: str = DEFAULT_KEY_PATH) -> None:
        self.key_path = key_path

    def parse_key(self, content: bytes) -> ServerKey:
        """Parse the response of ``GET /v1/hpke/key``. Raises ``CryptoFailure``."""
        return parse_key(content, decode_base64, size=hpke.ENC_BYTES)

    def seal(
        self, request: httpx.Request, content: bytes, key: ServerKey, *, prefix: bytes = b""
    ) -> HpkeStreamExchange:
        """Seal a request of any method. Its target is authenticated as the service sees it, without ``prefix``."""
        return HpkeStreamExchange(request, content, key, prefix=prefix)
