"""Decides from headers and path whether a request is sealed, and in which mode. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from litestar.utils.path import normalize_path

from ragsvc.crypto import ehbp, rvenc, sealed_headers
from ragsvc.services.request_encryption import SealedRequestMode

ENC: Final = sealed_headers.ENC_HEADER.lower().encode()
INNER_CONTENT_TYPE: Final = sealed_headers.CONTENT_TYPE_HEADER.lower().encode()
SEALED_BODY: Final = sealed_headers.SEALED_BODY_HEADER.lower().encode()
ENCAPSULATED_KEY: Final = ehbp.ENCAPSULATED_KEY_HEADER.lower().encode()
"""Header names as ASGI has them: lower-case bytes."""

_ONE_SHOT_TYPE = sealed_headers.ONE_SHOT_MEDIA_TYPE.encode()
_STREAM_TYPE = sealed_headers.STREAM_MEDIA_TYPE.encode()


def recognise_mode(headers: Mapping[bytes, bytes]) -> SealedRequestMode | None:
    """The mode that the headers announce, ``None`` for a plain request or an RVENC request.

    A request with any sign of encryption is never served as plaintext: when it cannot be opened, it is refused.

    >>> recognise_mode({b"content-type": b"application/vnd.oryxen.hpke"})
    <SealedRequestMode.HPKE: 'hpke'>
    >>> recognise_mode({b"content-type": b"application/json"}) is None
    True
    """
    if _STREAM_TYPE in headers.get(b"accept", b""):
        return SealedRequestMode.HPKE_STREAM
    if ENC in headers or headers.get(b"content-type", b"").startswith(_ONE_SHOT_TYPE):
        return SealedRequestMode.HPKE
    return SealedRequestMode.EHBP if ENCAPSULATED_KEY in headers else None


def is_rvenc_chat(method: str, path: str, *, root_path: str = "") -> bool:
    """Return whether a request is an RVENC chat, judged by its method and path.

    Accepts the spellings of the path that Litestar's router accepts: repeated and trailing slashes.

    >>> is_rvenc_chat("POST", "/rvenc//chat/completions/")
    True
    >>> is_rvenc_chat("GET", "/rvenc/chat/completions")
    False
    """
    if root_path:
        path = path.split(root_path, maxsplit=1)[-1]
    return method == "POST" and normalize_path(path) == rvenc.CHAT_PATH
