"""``Idempotency-Key``: a repeated ``POST`` gets the response of the first request and changes nothing.

The change and the response are written in one transaction of the write thread: a concurrent duplicate waits, and no
crash separates the two. A response may contain a secret that is shown once. It is sealed (AES-256-GCM) with a key that
is derived from the caller's credential, so the rows alone reveal nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection

from ragsvc.core.errors import InvalidRequest
from ragsvc.core.validation import check_text_length, invalid_value
from ragsvc.store import idempotency_rows

KEEP_S = 86_400
_NONCE_BYTES = 12
_MAX_NAME_BYTES = 255
_HEADER = "Idempotency-Key"

T = TypeVar("T")


class IdempotentRequest(msgspec.Struct, frozen=True):
    """Identity of a repeatable request: its owner, its idempotency key and a fingerprint of its content.

    The response is sealed with a key derived from ``credential``.
    """

    owner: str
    name: bytes
    fingerprint: bytes
    credential: bytes


def repeatable(*, owner: str, name: bytes, credential: bytes, parts: list[bytes]) -> IdempotentRequest:
    """Make the identity of a request. ``parts`` must be equal in a repetition (method, path, body).

    Raises:
        InvalidRequest: the idempotency key is empty or too long.
    """
    check_text_length(_HEADER, name.decode("latin-1"), maximum=_MAX_NAME_BYTES)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return IdempotentRequest(owner, name, digest.digest(), credential)


def recall(connection: Connection, request: IdempotentRequest | None, *, now: int, kind: type[T]) -> T | None:
    """The result of an earlier, equal request within the last day; ``None`` if there was none.

    Raises:
        InvalidRequest: the idempotency key was used for another request within the last day.
    """
    if request is None:
        return None
    name_hash = hashlib.sha256(request.name).digest()
    earlier = idempotency_rows.find(connection, owner=request.owner, name_hash=name_hash, since=now - KEEP_S)
    if earlier is None:
        return None
    fingerprint, sealed = earlier
    if fingerprint != request.fingerprint:
        raise _reused()
    try:
        plain = _cipher(request).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], fingerprint)
    except InvalidTag as error:
        raise _reused() from error  # the caller's key was rotated in between
    return msgspec.json.decode(plain, type=kind)


def once(
    connection: Connection, request: IdempotentRequest | None, *, now: int, kind: type[T], change: Callable[[], T]
) -> T:
    """Run ``change`` in the caller's transaction, or return its result of the first time.

    Raises:
        InvalidRequest: the idempotency key was used for another request within the last day.
    """
    if request is None:
        return change()
    earlier = recall(connection, request, now=now, kind=kind)
    if earlier is not None:
        return earlier
    result = change()
    nonce = os.urandom(_NONCE_BYTES)
    sealed = nonce + _cipher(request).encrypt(nonce, msgspec.json.encode(result), request.fingerprint)
    idempotency_rows.remember(
        connection,
        owner=request.owner,
        name_hash=hashlib.sha256(request.name).digest(),
        fingerprint=request.fingerprint,
        sealed=sealed,
        at=now,
        since=now - KEEP_S,
    )
    return result


def _cipher(request: IdempotentRequest) -> AESGCM:
    name_hash = hashlib.sha256(request.name).digest()
    return AESGCM(hashlib.sha256(b"ragsvc idempotent answer\x00" + name_hash + request.credential).digest())


def _reused() -> InvalidRequest:
    return invalid_value(_HEADER, "Already used for another request; use a new key for a new request")
