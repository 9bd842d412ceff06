"""``Idempotency-Key``: a repeated ``POST`` gets the first one's answer and changes nothing.

Change and answer are written in one transaction of the single writer, so a duplicate that comes at the same moment
waits, and no crash can separate the two. Answers may hold a secret shown once; they are sealed with a key that only
the caller's own credential yields (AES-256-GCM), so the rows give nothing away.
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
from ragsvc.store import idempotency_rows

KEEP_S = 86_400
_NONCE_BYTES = 12
_MAX_NAME_BYTES = 255

T = TypeVar("T")


class IdempotentRequest(msgspec.Struct, frozen=True):
    """Identity of a repeatable request: who, under which name, asking for what; ``credential`` seals the answer."""

    owner: str
    name: bytes
    fingerprint: bytes
    credential: bytes


def repeatable(*, owner: str, name: bytes, credential: bytes, parts: list[bytes]) -> IdempotentRequest:
    """Name a request. ``parts`` are what must be equal in a repetition (method, path, body).

    Raises:
        InvalidRequest: the name is empty or too long.
    """
    if not 0 < len(name) <= _MAX_NAME_BYTES:
        raise InvalidRequest(f"Idempotency-Key has 1 to {_MAX_NAME_BYTES} characters.", param="Idempotency-Key")
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return IdempotentRequest(owner, name, digest.digest(), credential)


def once(
    connection: Connection, request: IdempotentRequest | None, *, now: int, kind: type[T], change: Callable[[], T]
) -> T:
    """Run ``change`` inside the caller's transaction, or give back what it gave the first time.

    Raises:
        InvalidRequest: the name was used for another request within the last day.
    """
    if request is None:
        return change()
    name_hash = hashlib.sha256(request.name).digest()
    since = now - KEEP_S
    earlier = idempotency_rows.find(connection, owner=request.owner, name_hash=name_hash, since=since)
    cipher = AESGCM(hashlib.sha256(b"ragsvc idempotent answer\x00" + name_hash + request.credential).digest())
    if earlier is not None:
        fingerprint, sealed = earlier
        if fingerprint != request.fingerprint:
            raise _reused()
        try:
            plain = cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], fingerprint)
        except InvalidTag as error:
            raise _reused() from error  # the caller's own key was rotated in between
        return msgspec.json.decode(plain, type=kind)
    result = change()
    nonce = os.urandom(_NONCE_BYTES)
    sealed = nonce + cipher.encrypt(nonce, msgspec.json.encode(result), request.fingerprint)
    idempotency_rows.remember(
        connection,
        owner=request.owner,
        name_hash=name_hash,
        fingerprint=request.fingerprint,
        sealed=sealed,
        at=now,
        since=since,
    )
    return result


def _reused() -> InvalidRequest:
    return InvalidRequest("This Idempotency-Key was used for another request.", param="Idempotency-Key")
