"""Encrypted requests on every route: one ASGI layer that opens them, runs the application, and seals its answer.

It stands between the edge and routing. Routes see an ordinary request and do not know. Who calls is settled first,
from headers, so that only callers with a key cost a Diffie-Hellman and a claim; what is refused before a request
opened is answered in the clear, since nothing of it is known, and everything after it is sealed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, Final

import anyio
import msgspec
from litestar import Litestar
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, ReceiveMessage, Scope, Send

from ragsvc.core.errors import CryptoFailure, InvalidRequest, Overloaded, RagsvcError, TooLarge
from ragsvc.crypto import ehbp, hpke, hpke_stream, sealed_requests
from ragsvc.services.access_control import Access
from ragsvc.services.request_encryption import EncryptionService, SealedRequestMode
from ragsvc.web.auth import admit, check_length, credential_of
from ragsvc.web.context import RequestContext, context_of
from ragsvc.web.errors import is_unexpected, log_unexpected, render
from ragsvc.web.passthrough.raw_responses import send_error
from ragsvc.web.sealed.responses import EhbpAnswer, OneShotAnswer, SealedAnswer, StreamedAnswer, in_thread_if_long

BodyLimit = Callable[[str, str], int]
"""Largest plain body of a method and path, in bytes."""

FORM_OVERHEAD_BYTES: Final = 256 * 1024
"""What a form may hold beside its file: fields and boundaries."""
_ENC = sealed_requests.ENC_HEADER.lower().encode()
_INNER_TYPE = sealed_requests.CONTENT_TYPE_HEADER.lower().encode()
_SEALED_BODY = sealed_requests.SEALED_BODY_HEADER.lower().encode()
_ENCAPSULATED = ehbp.ENCAPSULATED_KEY_HEADER.lower().encode()
_ONE_SHOT_TYPE = sealed_requests.ONE_SHOT_MEDIA_TYPE.encode()
_STREAM_TYPE = sealed_requests.STREAM_MEDIA_TYPE.encode()
_PIECE_BYTES = 256 * 1024
_REPLACED = frozenset(
    {
        b"content-type",
        b"content-length",
        b"transfer-encoding",
        b"accept",
        b"accept-encoding",
        b"expect",
        _ENC,
        _INNER_TYPE,
        _SEALED_BODY,
        _ENCAPSULATED,
    }
)
_KEY_CONFIG = msgspec.json.encode({"type": ehbp.KEY_CONFIG_PROBLEM, "title": "key configuration mismatch"})


class SealedRequestMiddleware:
    """Wraps an ASGI application; see the module. ``memory_bytes`` bounds the sealed bodies held at the same time."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        encryption: EncryptionService,
        access: Access,
        body_limit: BodyLimit,
        memory_bytes: int,
    ) -> None:
        self._app = app
        self._encryption = encryption
        self._access = access
        self._body_limit = body_limit
        self._room = _MemoryBudget(memory_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        mode = _mode_of(context_of(scope).headers) if scope["type"] == ScopeType.HTTP else None
        if mode is None:
            await self._app(scope, receive, send)
            return
        context = context_of(scope)
        context.encrypted = True
        with self._room.share() as share:
            try:
                await self._admit(context)
                limit = self._body_limit(str(scope.get("method")), scope["path"])
                body = _SealedBody(receive, share, limit_bytes=limit, announced=context.headers.get(b"content-length"))
                await self._exchange(mode, scope, body, receive, send)
            except (RagsvcError, _KeyConfigMismatch) as error:
                self._encryption.refused[mode] += 1
                await _refuse(error, context.request_id, send)

    async def _admit(self, context: RequestContext) -> None:
        live = context.live = await self._access.authenticate(credential_of(context.headers))
        admit(context, live)

    async def _exchange(
        self, mode: SealedRequestMode, scope: Scope, body: _SealedBody, receive: Receive, send: Send
    ) -> None:
        """Open, claim, run. Raises only while nothing has been sent."""
        if mode is SealedRequestMode.EHBP:
            await self._run_ehbp(scope, body, send)
            return
        context = context_of(scope)
        sealed_header = context.headers.get(_SEALED_BODY)
        sealed = await body.read_all()
        if sealed_header is not None and not sealed:
            sealed = sealed_requests.decode_base64(sealed_header.decode("latin-1"))
        enc = context.headers.get(_ENC, b"").decode("latin-1")

        def open_request(ciphertext: bytes) -> sealed_requests.PendingRequest:
            if mode is SealedRequestMode.HPKE:
                return self._encryption.open_one_shot(enc, ciphertext)
            return self._encryption.open_streamed(enc, ciphertext, aad=_bound(scope, context.headers))

        pending = await in_thread_if_long(open_request, sealed)
        del sealed
        plaintext = await self._encryption.accept(pending, mode)
        _replace_headers(scope, context, content_type=_inner_type(scope, context.headers), length=len(plaintext))
        replay = _ReplayedBody(plaintext, receive)
        with anyio.CancelScope() as running:
            if mode is SealedRequestMode.HPKE_STREAM:
                await self._run(scope, replay, StreamedAnswer(pending, send))
                return
            answer = OneShotAnswer(pending, send, running.cancel)
            if _asks_for_stream(plaintext):
                await answer.refuse_stream()
                return
            await self._run(scope, replay, answer)

    async def _run_ehbp(self, scope: Scope, body: _SealedBody, send: Send) -> None:
        context = context_of(scope)
        key_sets = self._encryption.accepted()
        exchange = ehbp.ServerExchange(
            context.headers[_ENCAPSULATED].decode("latin-1"),
            [key_set.hpke for key_set in key_sets],
            max_frame_bytes=body.limit_bytes + hpke.TAG_BYTES,
        )
        opening = _EhbpRequest(exchange, body)
        await opening.open_first()
        await self._encryption.accept_exchange(exchange, key_sets)
        content_type = context.headers.get(b"content-type", b"application/json")
        _replace_headers(scope, context, content_type=content_type, length=None)
        await self._run(scope, opening, EhbpAnswer(exchange, send))

    async def _run(self, scope: Scope, receive: Receive, answer: SealedAnswer) -> None:
        """Run the application; whatever it raises is sealed, and logged without its words."""
        context = context_of(scope)
        try:
            await self._app(scope, receive, answer)
        except Exception as error:  # noqa: BLE001 - nothing of an opened request may leave in the clear
            if is_unexpected(error):
                log_unexpected(error, request_id=context.request_id, encrypted=True)
            await answer.fail(render(error, context.request_id))


class _KeyConfigMismatch(Exception):
    """An EHBP request was sealed for a key that is not ours (any more)."""


class _MemoryBudget:
    """A budget of bytes."""

    def __init__(self, size_bytes: int) -> None:
        self._free_bytes = size_bytes

    @contextmanager
    def share(self) -> Generator[Callable[[int], None]]:
        """Yield a function that takes bytes of the budget until the block ends; it raises ``Overloaded``."""
        taken = 0

        def take(size_bytes: int) -> None:
            nonlocal taken
            if size_bytes > self._free_bytes:
                raise Overloaded("too many large encrypted requests are being received", retry_after_s=1)
            self._free_bytes -= size_bytes
            taken += size_bytes

        try:
            yield take
        finally:
            self._free_bytes += taken


class _SealedBody:
    """A request's body as it comes over the wire, within its limit."""

    def __init__(
        self, receive: Receive, take: Callable[[int], None], *, limit_bytes: int, announced: bytes | None
    ) -> None:
        """Raises ``TooLarge`` for what is announced as too large."""
        self.limit_bytes = limit_bytes
        self.ended = False
        self._receive = receive
        self._take = take
        self._wire_limit_bytes = limit_bytes + limit_bytes // 64 + hpke.TAG_BYTES  # frames of 1 KiB cost 20 bytes each
        self._read_bytes = 0
        if announced is not None:
            check_length(announced, self._wire_limit_bytes)

    async def read(self) -> bytes:
        """The next piece.

        Raises:
            TooLarge: over the limit.
            Overloaded: no memory is free for it.
            InvalidRequest: the client left.
        """
        message = await self._receive()
        if message["type"] != "http.request":
            raise InvalidRequest("The client left before its request was complete.")
        self.ended = not message["more_body"]
        piece = message["body"]
        self._read_bytes += len(piece)
        if self._read_bytes > self._wire_limit_bytes:
            raise TooLarge(f"The request body may have {self.limit_bytes} bytes.", limit_bytes=self.limit_bytes)
        self._take(len(piece))
        return piece

    async def read_all(self) -> bytes:
        """All of it."""
        pieces = [await self.read()]
        while not self.ended:
            pieces.append(await self.read())
        return b"".join(pieces)

    async def disconnect(self) -> ReceiveMessage:
        """Wait for what comes after the body."""
        return await self._receive()


class _ReplayedBody:
    """``receive`` for the application: a plaintext in pieces, then whatever the connection says."""

    def __init__(self, plaintext: bytes, receive: Receive) -> None:
        self._plaintext: memoryview | None = memoryview(plaintext)
        self._receive = receive

    async def __call__(self) -> ReceiveMessage:
        rest = self._plaintext
        if rest is None:
            return await self._receive()
        piece, rest = bytes(rest[:_PIECE_BYTES]), rest[_PIECE_BYTES:]
        self._plaintext = rest if len(rest) else None
        return {"type": "http.request", "body": piece, "more_body": self._plaintext is not None}


class _EhbpRequest:
    """``receive`` for the application: frames opened as they come. A bad one fails the request from inside."""

    def __init__(self, exchange: ehbp.ServerExchange, body: _SealedBody) -> None:
        self._opener = exchange.request
        self._body = body
        self._first: bytes | None = None
        self._finished = False

    async def open_first(self) -> None:
        """Read until one frame opened.

        Raises:
            CryptoFailure: the body has none.
        """
        while not self._opener.opened_frames:
            if self._body.ended:
                raise CryptoFailure
            data = await self._body.read()
            try:
                self._first = await self._feed(data)
            except CryptoFailure as error:
                raise _KeyConfigMismatch from error

    async def _feed(self, data: bytes) -> bytes:
        size = self._opener.buffered_bytes + len(data)
        return await in_thread_if_long(self._opener.feed, data, size_bytes=size)

    async def __call__(self) -> ReceiveMessage:
        if self._finished:
            return await self._body.disconnect()
        if self._first is not None:
            plaintext, self._first = self._first, None
        else:
            plaintext = await self._feed(await self._body.read())
        if self._body.ended:
            self._opener.finish()
            self._finished = True
        return {"type": "http.request", "body": plaintext, "more_body": not self._finished}


def _mode_of(headers: Mapping[bytes, bytes]) -> SealedRequestMode | None:
    """How a request is sealed; whatever looks sealed is never served as plaintext."""
    streamed = _STREAM_TYPE in headers.get(b"accept", b"")
    if streamed:
        return SealedRequestMode.HPKE_STREAM
    if _ENC in headers or headers.get(b"content-type", b"").startswith(_ONE_SHOT_TYPE):
        return SealedRequestMode.HPKE
    return SealedRequestMode.EHBP if _ENCAPSULATED in headers else None


def _bound(scope: Scope, headers: Mapping[bytes, bytes]) -> bytes:
    """The request's AAD. Raises ``CryptoFailure``."""
    query: bytes = scope["query_string"]
    target: bytes = scope["raw_path"] + (b"?" + query if query else b"")
    return hpke_stream.bind_request(
        method=str(scope.get("method")),
        target=_text(target),
        content_type=_text(headers.get(_INNER_TYPE, b"")),
        api_key=_text(bare_credential(headers)),
    )


def bare_credential(headers: Mapping[bytes, bytes]) -> bytes:
    """The API key as the client knows it, without its scheme."""
    credential = credential_of(headers) or b""
    return (credential[7:] if credential[:7].lower() == b"bearer " else credential).strip()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _inner_type(scope: Scope, headers: Mapping[bytes, bytes]) -> bytes:
    """The plaintext's media type: as declared, else JSON, and for documents what their bytes say."""
    declared = headers.get(_INNER_TYPE)
    if declared is not None:
        return declared
    return b"application/octet-stream" if scope["path"].endswith(("/documents", "/files")) else b"application/json"


def _replace_headers(scope: Scope, context: RequestContext, *, content_type: bytes, length: int | None) -> None:
    """Make the scope that of the plain request."""
    headers = [(name, value) for name, value in scope["headers"] if name not in _REPLACED]
    headers.append((b"content-type", content_type))
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    scope["headers"] = headers
    context.headers = dict(headers)


class _Peek(msgspec.Struct):
    stream: object = None


_peek = msgspec.json.Decoder(_Peek)


def _asks_for_stream(plaintext: bytes) -> bool:
    """Whether a JSON body has ``stream: true``; anything else is for the route to judge."""
    if b'"stream"' not in plaintext or not plaintext.lstrip().startswith(b"{"):
        return False
    try:
        return _peek.decode(plaintext).stream is True
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


async def _refuse(error: Exception, request_id: str, send: Send) -> None:
    if isinstance(error, _KeyConfigMismatch):
        headers = [(b"content-type", ehbp.PROBLEM_MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(_KEY_CONFIG))]
        await send({"type": "http.response.start", "status": 422, "headers": headers})
        await send({"type": "http.response.body", "body": _KEY_CONFIG, "more_body": False})
    else:
        await send_error(error, request_id, send)


def body_limit_of(app: Litestar, *, body_bytes: int, document_bytes: int) -> BodyLimit:
    """Limits by route: a document and its form where a handler has ``opt["streams_body"]``, else ``body_bytes``."""
    uploads = [
        (method, re.compile(re.sub(r"\{[^}]*\}", "[^/]+", route.path_format) + "/?"))
        for route in app.routes
        for handler in _handlers(route)
        if handler.opt.get("streams_body")
        for method in handler.http_methods
    ]

    def limit(method: str, path: str) -> int:
        is_upload = any(method == one and pattern.fullmatch(path) for one, pattern in uploads)
        return document_bytes + FORM_OVERHEAD_BYTES if is_upload else body_bytes

    return limit


def _handlers(route: Any) -> Iterable[Any]:  # noqa: ANN401 - Litestar's kinds of routes share no such attribute
    return getattr(route, "route_handlers", ())


__all__ = ["BodyLimit", "SealedRequestMiddleware", "bare_credential", "body_limit_of"]
