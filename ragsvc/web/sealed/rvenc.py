"""``POST /rvenc/chat/completions``: a chat sealed with X-Wing, answered by sealed events.

The plain chat underneath is the one of ``/v1/chat/completions``, always streamed: the format knows nothing else, and
its clients put one document together themselves.
"""

from __future__ import annotations

from typing import Any, Final, Protocol, cast

import msgspec
from litestar import Request, post
from litestar.response.base import ASGIResponse

from ragsvc.core.access.principal import Scope
from ragsvc.core.errors import CryptoFailure, UpstreamFailed
from ragsvc.core.gateway.chat import decode_chat_request
from ragsvc.crypto import rvenc
from ragsvc.crypto.sealed_requests import PendingInference
from ragsvc.services.answers import AnswerService
from ragsvc.services.request_encryption import EncryptionService, SealedRequestMode
from ragsvc.web.bodies import read_json
from ragsvc.web.context import context_of
from ragsvc.web.disconnects import DisconnectWatcher
from ragsvc.web.errors import is_unexpected, log_unexpected, render
from ragsvc.web.passthrough.raw_responses import ClientGone, EventSource, EventStream

PAD_CHUNKS_TO: Final = 512
"""Chunks are padded with blanks after their JSON to a multiple of this, so that lengths do not tell tokens apart."""
_decoder = msgspec.json.Decoder(rvenc.EncryptedInference)
_DONE = b"[DONE]"


class RvencServices(Protocol):
    """The part of the composed services that this route uses."""

    @property
    def answer(self) -> AnswerService:
        """Answers chats."""
        ...

    @property
    def encryption(self) -> EncryptionService:
        """Opens requests."""
        ...


class RvencEventSealer(Protocol):
    """Writes the events of one answer."""

    def data(self, chunk: bytes) -> bytes:
        """One chunk."""
        ...

    def error(self, error: bytes) -> bytes:
        """The last event of a failed answer."""
        ...

    def done(self) -> bytes:
        """The last event of a whole answer."""
        ...


class _LiteralSealer:
    """Writes events by the document's letter; see ``crypto.rvenc.seal_literal_chunk`` for why not to."""

    def __init__(self, pending: PendingInference) -> None:
        self._pending = pending

    def data(self, chunk: bytes) -> bytes:
        return self._pending.seal_literal_chunk(chunk)

    def error(self, error: bytes) -> bytes:
        return self._pending.seal_literal_chunk(error, name=rvenc.EventName.ERROR)

    def done(self) -> bytes:
        return rvenc.encode_literal_done()


class SealedEvents:
    """A chat's event stream as RVENC events. It never raises: a failure is its last event."""

    def __init__(self, source: EventSource, sealer: RvencEventSealer, *, request_id: str) -> None:
        self._source = source
        self._sealer = sealer
        self._request_id = request_id
        self.finished = False

    def __aiter__(self) -> SealedEvents:
        """Itself."""
        return self

    async def __anext__(self) -> bytes:
        """The next block of sealed events."""
        while not self.finished:
            try:
                block = await anext(self._source)
                sealed = b"".join([self._seal(event) for event in block.split(b"\n\n") if event])
                if not self.finished and self._source.finished:
                    sealed += self._fail(UpstreamFailed("The answer broke off."))
            except StopAsyncIteration:
                return self._fail(UpstreamFailed("The answer broke off."))
            except Exception as error:  # noqa: BLE001 - after the first byte every failure must become an event
                return self._fail(error)
            if sealed:
                return sealed
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop the chat."""
        await self._source.aclose()

    def _seal(self, event: bytes) -> bytes:
        if self.finished or not event.startswith(b"data: "):
            return b":\n\n"  # a comment keeps the connection alive
        payload = event.removeprefix(b"data: ")
        if payload == _DONE:
            self.finished = True
            return self._sealer.done()
        if payload.startswith(b'{"error"'):
            self.finished = True
            return self._sealer.error(payload)
        return self._sealer.data(payload + b" " * (-len(payload) % PAD_CHUNKS_TO))

    def _fail(self, error: Exception) -> bytes:
        self.finished = True
        return self._sealer.error(_error_bytes(error, self._request_id))


class _SingleEvent:
    """An answer that is one event: the error of a chat that did not begin."""

    def __init__(self, event: bytes) -> None:
        self._event = event
        self.finished = False

    def __aiter__(self) -> _SingleEvent:
        return self

    async def __anext__(self) -> bytes:
        if self.finished:
            raise StopAsyncIteration
        self.finished = True
        return self._event

    async def aclose(self) -> None:
        return


@post(
    "/rvenc/chat/completions",
    status_code=200,
    opt={"scope": Scope.CHAT, "tag": "encryption", "body": rvenc.EncryptedInference, "errors": (402, 404, 502, 504)},
    summary="Answer an encrypted chat (RVENC)",
)
async def create_encrypted_chat(request: Request[Any, Any, Any]) -> ASGIResponse:
    """Complete a chat whose request is sealed with X-Wing and XChaCha20-Poly1305; the answer is sealed events."""
    context = context_of(request.scope)
    context.encrypted = True
    services = cast("RvencServices", request.app.state["services"])
    inference = await read_json(request, _decoder)
    try:
        pending = services.encryption.open_inference(inference)
        payload = await services.encryption.accept(pending, SealedRequestMode.RVENC)
    except CryptoFailure:
        services.encryption.refused[SealedRequestMode.RVENC] += 1
        raise
    sealer, headers = _sealer_of(pending, literal=services.encryption.literal_rvenc)
    request_id = context.request_id
    with DisconnectWatcher(request.receive):
        try:
            source = await services.answer.stream(context.principal, decode_chat_request(_streamed(payload)))
        except Exception as error:  # noqa: BLE001 - nothing of an opened request may leave in the clear
            rendered = render(error, request_id)
            event = _SingleEvent(sealer.error(_error_bytes(error, request_id)))
            own = [(name.encode(), value.encode()) for name, value in rendered.headers.items()]
            return EventStream(event, request_id=request_id, status=rendered.status, headers=[*headers, *own])
        events = SealedEvents(source, sealer, request_id=request_id)
        return EventStream(events, request_id=request_id, headers=headers)
    return ClientGone()


def _sealer_of(pending: PendingInference, *, literal: bool) -> tuple[RvencEventSealer, list[tuple[bytes, bytes]]]:
    if literal:
        return _LiteralSealer(pending), []
    sealer = pending.seal_events()
    return sealer, [(rvenc.RESPONSE_NONCE_HEADER.lower().encode(), sealer.response_nonce_header.encode())]


def _error_bytes(error: Exception, request_id: str) -> bytes:
    if is_unexpected(error):
        log_unexpected(error, request_id=request_id, encrypted=True)
    return render(error, request_id).content


def _streamed(payload: bytes) -> bytes:
    """The request as one for a stream; who did not ask for one gets the usage that a whole answer would have."""
    try:
        fields = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return payload  # for the chat to refuse
    if not isinstance(fields, dict) or fields.get("stream") is True:
        return payload
    return msgspec.json.encode({**fields, "stream": True, "stream_options": {"include_usage": True}})


route_handlers: list[Any] = [create_encrypted_chat]
"""All routes of this module."""
