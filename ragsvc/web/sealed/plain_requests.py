"""Turns the scope of a sealed request into the scope of the plain request inside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from litestar.types import Scope

from ragsvc.core.errors import UnsupportedParameter
from ragsvc.core.validation import invalid_value
from ragsvc.crypto import hpke_stream, rvenc
from ragsvc.crypto.sealed_headers import STREAM_MEDIA_TYPE
from ragsvc.web.auth import credential_of
from ragsvc.web.context import context_of
from ragsvc.web.requested_documents import refuse_document_headers
from ragsvc.web.sealed.recognition import ENC, ENCAPSULATED_KEY, INNER_CONTENT_TYPE, SEALED_BODY

PLAIN_CHAT_PATH: Final = "/v1/chat/completions"
"""The plain route that answers the chat inside an RVENC request."""
JSON_TYPE: Final = b"application/json"
_REPLACED = frozenset(
    {
        b"content-type",
        b"content-length",
        b"transfer-encoding",
        b"accept",
        b"accept-encoding",
        b"expect",
        ENC,
        INNER_CONTENT_TYPE,
        SEALED_BODY,
        ENCAPSULATED_KEY,
    }
)
_KEPT_OF_RVENC = frozenset({b"host", b"x-client-request-id"})
_SHOWN_HEADERS: Final = {
    b"x-provider-key": "X-Provider-Key",
    b"x-provider-base-url": "X-Provider-Base-URL",
    b"x-ragsvc-use-rag": "X-Ragsvc-Use-Rag",
    b"x-ragsvc-collection": "X-Ragsvc-Collection",
}
"""The headers of ``hpke_stream.STEERING_HEADERS`` as they are documented."""
_PROVIDER_FIELDS: Final = {
    rvenc.PROVIDER_KEY_FIELD: (b"x-provider-key", "X-Provider-Key"),
    rvenc.PROVIDER_BASE_URL_FIELD: (b"x-provider-base-url", "X-Provider-Base-URL"),
}
"""Fields of an encrypted RVENC chat, with the headers of a plain chat that they stand for."""


def make_plain(scope: Scope, *, content_type: bytes, length: int | None) -> None:
    """Replace the headers of ``scope``, in place, by the headers of the plain request.

    ``length`` is that of the plaintext in bytes, ``None`` where it is not known yet.
    """
    kept = [(name, value) for name, value in scope["headers"] if name not in _REPLACED]
    _set_headers(scope, kept, content_type=content_type, length=length)


def refuse_steering_headers(headers: Mapping[bytes, bytes]) -> None:
    """Refuse headers of an RVENC request that would steer the chat.

    RVENC authenticates no header, so anybody between client and server could add them, and ``X-Provider-Base-URL``
    would send the prompt elsewhere. The encrypted body has fields for the provider instead.

    Raises:
        UnsupportedParameter: a header asks for documents, or names the key or the address of a provider.
    """
    refuse_document_headers(headers, "an RVENC request outside of its encrypted body")
    for name, (header, shown) in _PROVIDER_FIELDS.items():
        if headers.get(header):
            raise UnsupportedParameter(
                f"The header '{shown}' is not authenticated in an RVENC request. Put the value into the encrypted "
                f"body, as the field '{name}'.",
                param=shown,
            )


def refuse_unauthenticated_headers(headers: Mapping[bytes, bytes], mode: str) -> None:
    """Refuse headers that steer a request, in a mode that authenticates no header.

    Anybody between client and server could add them: the prompt would reach another provider or account, or an answer
    would be taken from other documents.

    Raises:
        UnsupportedParameter: such a header is present.
    """
    for name in hpke_stream.STEERING_HEADERS:
        if name.encode() in headers:
            shown = _SHOWN_HEADERS[name.encode()]
            raise UnsupportedParameter(
                f"The header '{shown}' is not authenticated in {mode} request. Use HPKE with an encrypted stream "
                f"('Accept: {STREAM_MEDIA_TYPE}'), which authenticates it.",
                param=shown,
            )


def take_provider_access(payload: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Take the provider's key and base URL out of an RVENC chat; returns the rest, and the headers of the plain chat.

    Raises:
        InvalidRequest: a value is not a text that a header can hold.
    """
    if not any(b'"%s"' % name.encode() in payload for name in _PROVIDER_FIELDS):
        return payload, []
    try:
        fields = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return payload, []  # the chat route refuses it
    if not isinstance(fields, dict):
        return payload, []
    headers: list[tuple[bytes, bytes]] = []
    for name, (header, _) in _PROVIDER_FIELDS.items():
        value = fields.pop(name, None)
        if value is None:
            continue
        if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
            raise invalid_value(name, "Expected a text of printable ASCII characters")
        headers.append((header, value.encode()))
    return msgspec.json.encode(fields), headers


def make_plain_chat(scope: Scope, *, length: int, steering: list[tuple[bytes, bytes]]) -> Scope:
    """Return the scope of a plain chat for an RVENC request. ``scope`` keeps its path.

    ``steering`` are headers that the encrypted body asked for.
    """
    plain = scope.copy()
    plain["path"] = scope.get("root_path", "") + PLAIN_CHAT_PATH
    plain["raw_path"] = plain["path"].encode()
    kept = [(name, value) for name, value in scope["headers"] if name in _KEPT_OF_RVENC]
    _set_headers(plain, kept + steering, content_type=JSON_TYPE, length=length)
    return plain


def _set_headers(scope: Scope, kept: list[tuple[bytes, bytes]], *, content_type: bytes, length: int | None) -> None:
    headers = [*kept, (b"content-type", content_type)]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    scope["headers"] = headers
    context_of(scope).headers = dict(headers)


def inner_content_type(scope: Scope) -> bytes:
    """The media type of an HPKE request's plaintext: as declared, else JSON; uploads are recognised by their bytes."""
    declared = context_of(scope).headers.get(INNER_CONTENT_TYPE)
    if declared is not None:
        return declared
    return b"application/octet-stream" if scope["path"].endswith(("/documents", "/files")) else JSON_TYPE


def binding_of(scope: Scope) -> bytes:
    """The AAD of an HPKE-stream request, made from its method, target, media type, API key and steering headers.

    Raises:
        CryptoFailure: a part is too long.
    """
    headers = context_of(scope).headers
    query: bytes = scope["query_string"]
    target: bytes = scope["raw_path"] + (b"?" + query if query else b"")
    return hpke_stream.bind_request(
        method=str(scope.get("method")),
        target=_text(target),
        content_type=_text(headers.get(INNER_CONTENT_TYPE, b"")),
        api_key=_text(_bare_credential(headers)),
        headers={_text(name): _text(value) for name, value in headers.items()},
    )


def _bare_credential(headers: Mapping[bytes, bytes]) -> bytes:
    """The API key without its scheme, as the client has it."""
    credential = credential_of(headers) or b""
    return (credential[7:] if credential[:7].lower() == b"bearer " else credential).strip()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


class _StreamField(msgspec.Struct):
    stream: object = None


_stream_field = msgspec.json.Decoder(_StreamField)


def asks_for_stream(plaintext: bytes) -> bool:
    """Return whether a JSON body has ``stream: true``. The route judges every other body.

    >>> asks_for_stream(b'{"stream": true}'), asks_for_stream(b'{"stream": 1}'), asks_for_stream(b"%PDF-1.7")
    (True, False, False)
    """
    if b'"stream"' not in plaintext or not plaintext.lstrip().startswith(b"{"):
        return False
    try:
        return _stream_field.decode(plaintext).stream is True
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def as_streamed_chat(payload: bytes) -> bytes:
    """Return a chat request that asks for a stream, which is the only answer RVENC has.

    A client that did not ask for a stream gets the token usage that a complete answer would have.

    >>> as_streamed_chat(b'{"model":"m"}')
    b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    """
    try:
        fields = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return payload  # the chat route refuses it
    if not isinstance(fields, dict) or fields.get("stream") is True:
        return payload
    return msgspec.json.encode({**fields, "stream": True, "stream_options": {"include_usage": True}})
