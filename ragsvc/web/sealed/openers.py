"""One opener per encryption mode: from a sealed body to the plain request and the response that seals its answer.

The order is the same in each mode: open the body, claim it against replay, return the plaintext. Nothing is sent before
``open`` returns, and its errors are sent in plaintext.
"""

from __future__ import annotations

from typing import Protocol

import anyio
import msgspec
from litestar.types import ASGIApp, Receive, Scope, Send

from ragsvc.core.access import principal
from ragsvc.core.errors import InvalidRequest
from ragsvc.core.validation import decode_json
from ragsvc.crypto import ehbp, hpke, rvenc, sealed_headers, sealed_requests
from ragsvc.services.request_encryption import EncryptionService, SealedRequestMode
from ragsvc.web.auth import AccessRequirement, Requirement
from ragsvc.web.context import context_of
from ragsvc.web.sealed.offloading import run_in_thread_if_large
from ragsvc.web.sealed.plain_requests import (
    JSON_TYPE,
    as_streamed_chat,
    asks_for_stream,
    binding_of,
    inner_content_type,
    make_plain,
    make_plain_chat,
    refuse_steering_headers,
    refuse_unauthenticated_headers,
    take_provider_access,
)
from ragsvc.web.sealed.recognition import ENC, ENCAPSULATED_KEY, SEALED_BODY
from ragsvc.web.sealed.request_bodies import EhbpBody, OpenedBody, SealedBody
from ragsvc.web.sealed.responses import EhbpResponse, OneShotResponse, SealedResponse, StreamedResponse, refuse_stream
from ragsvc.web.sealed.rvenc_response import RvencResponse


class OpenedRequest(msgspec.Struct, frozen=True):
    """A request that was opened and claimed.

    ``scope`` and ``receive`` are those of the plain request, ``response`` seals the answer. ``application``, if set,
    answers in place of the real application. Cancelling ``running`` stops the application.
    """

    scope: Scope
    receive: Receive
    response: SealedResponse
    application: ASGIApp | None = None
    running: anyio.CancelScope = msgspec.field(default_factory=anyio.CancelScope)


class RequestOpener(Protocol):
    """Opens the requests of one mode."""

    @property
    def mode(self) -> SealedRequestMode:
        """Which requests it opens; labels metrics."""
        ...

    @property
    def requirement(self) -> Requirement:
        """The access that is required before the body is read."""
        ...

    def wire_limit_bytes(self, limit_bytes: int) -> int:
        """The largest encrypted body, where the route takes ``limit_bytes`` of plaintext."""
        ...

    async def open(self, scope: Scope, body: SealedBody, send: Send) -> OpenedRequest:
        """Open and claim a request.

        Raises:
            CryptoFailure: the request does not open, or it is a replay.
            KeyConfigMismatch: EHBP only; the client should fetch the key configuration again.
            StorageFull: the claim could not be stored.
            InvalidRequest, TooLarge, Overloaded: see ``SealedBody.read``.
        """
        ...


class OneShotOpener:
    """HPKE requests answered by a single sealed message."""

    mode = SealedRequestMode.HPKE
    requirement = AccessRequirement.ANY_KEY

    def __init__(self, encryption: EncryptionService) -> None:
        self._encryption = encryption

    def wire_limit_bytes(self, limit_bytes: int) -> int:
        return _with_framing(limit_bytes)

    async def open(self, scope: Scope, body: SealedBody, send: Send) -> OpenedRequest:
        refuse_unauthenticated_headers(context_of(scope).headers, "a one-shot HPKE")
        enc = _enc_header(scope)
        sealed = await _read_hpke_body(scope, body)
        pending = await run_in_thread_if_large(lambda data: self._encryption.open_one_shot(enc, data), sealed)
        del sealed
        plaintext = await self._encryption.accept(pending, self.mode)
        make_plain(scope, content_type=inner_content_type(scope), length=len(plaintext))
        running = anyio.CancelScope()
        return OpenedRequest(
            scope,
            OpenedBody(plaintext, body),
            OneShotResponse(pending, send, running.cancel),
            application=refuse_stream if asks_for_stream(plaintext) else None,
            running=running,
        )


class HpkeStreamOpener:
    """HPKE requests answered by an encrypted stream.

    Method, target, media type, API key and the headers that steer the request are authenticated.
    """

    mode = SealedRequestMode.HPKE_STREAM
    requirement = AccessRequirement.ANY_KEY

    def __init__(self, encryption: EncryptionService) -> None:
        self._encryption = encryption

    def wire_limit_bytes(self, limit_bytes: int) -> int:
        return _with_framing(limit_bytes)

    async def open(self, scope: Scope, body: SealedBody, send: Send) -> OpenedRequest:
        enc = _enc_header(scope)
        sealed = await _read_hpke_body(scope, body)
        aad = binding_of(scope)
        pending = await run_in_thread_if_large(lambda data: self._encryption.open_streamed(enc, data, aad=aad), sealed)
        del sealed
        plaintext = await self._encryption.accept(pending, self.mode)
        make_plain(scope, content_type=inner_content_type(scope), length=len(plaintext))
        return OpenedRequest(scope, OpenedBody(plaintext, body), StreamedResponse(pending, send))


class EhbpOpener:
    """EHBP requests: frames are opened while the application reads; the first one decides whether the key fits."""

    mode = SealedRequestMode.EHBP
    requirement = AccessRequirement.ANY_KEY

    def __init__(self, encryption: EncryptionService) -> None:
        self._encryption = encryption

    def wire_limit_bytes(self, limit_bytes: int) -> int:
        return _with_framing(limit_bytes)

    async def open(self, scope: Scope, body: SealedBody, send: Send) -> OpenedRequest:
        headers = context_of(scope).headers
        refuse_unauthenticated_headers(headers, "an EHBP")
        key_sets = self._encryption.accepted()
        exchange = ehbp.ServerExchange(
            headers[ENCAPSULATED_KEY].decode("latin-1"),
            [key_set.hpke for key_set in key_sets],
            max_frame_bytes=body.limit_bytes + hpke.TAG_BYTES,
        )
        receive = EhbpBody(exchange.request, body)
        await receive.open_first()
        await self._encryption.accept_exchange(exchange, key_sets)
        make_plain(scope, content_type=headers.get(b"content-type", JSON_TYPE), length=None)
        return OpenedRequest(scope, receive, EhbpResponse(exchange, send))


class RvencOpener:
    """RVENC chats, run as plain streamed chats and answered by sealed events."""

    mode = SealedRequestMode.RVENC
    requirement = principal.Scope.CHAT_PLAIN

    def __init__(self, encryption: EncryptionService) -> None:
        self._encryption = encryption

    def wire_limit_bytes(self, limit_bytes: int) -> int:
        return limit_bytes  # of the JSON document with its hexadecimal fields: twice the plaintext

    async def open(self, scope: Scope, body: SealedBody, send: Send) -> OpenedRequest:
        refuse_steering_headers(context_of(scope).headers)
        pending = await run_in_thread_if_large(self._open_document, await body.read_all())
        payload = as_streamed_chat(await self._encryption.accept(pending, self.mode))
        steering: list[tuple[bytes, bytes]] = []
        refusal: ASGIApp | None = None
        try:
            payload, steering = take_provider_access(payload)
        except InvalidRequest as error:
            refusal = _refusing(error)
        plain = make_plain_chat(scope, length=len(payload), steering=steering)
        response = RvencResponse(
            pending,
            send,
            request_id=context_of(scope).request_id,
            insecure_literal=self._encryption.insecure_literal_rvenc,
        )
        return OpenedRequest(plain, OpenedBody(payload, body), response, application=refusal)

    def _open_document(self, document: bytes) -> sealed_requests.PendingInference:
        return self._encryption.open_inference(decode_json(document, _inference))


_inference = msgspec.json.Decoder(rvenc.EncryptedInference)


def all_openers(encryption: EncryptionService) -> dict[SealedRequestMode, RequestOpener]:
    """Return the opener of each mode."""
    openers: tuple[RequestOpener, ...] = (
        OneShotOpener(encryption),
        HpkeStreamOpener(encryption),
        EhbpOpener(encryption),
        RvencOpener(encryption),
    )
    return {opener.mode: opener for opener in openers}


def _refusing(error: InvalidRequest) -> ASGIApp:
    """An application that refuses an opened request, so that the error is sealed."""

    async def refuse(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error

    return refuse


def _with_framing(limit_bytes: int) -> int:
    return limit_bytes + limit_bytes // 64 + hpke.TAG_BYTES  # frames of 1 KiB cost 20 bytes each


def _enc_header(scope: Scope) -> str:
    return context_of(scope).headers.get(ENC, b"").decode("latin-1")


async def _read_hpke_body(scope: Scope, body: SealedBody) -> bytes:
    """The encrypted body, or the ``X-HPKE-Body`` header of a request whose method has no body."""
    sealed_header = context_of(scope).headers.get(SEALED_BODY)
    sealed = await body.read_all()
    if sealed_header is not None and not sealed:
        return sealed_headers.decode_base64(sealed_header.decode("latin-1"))
    return sealed
