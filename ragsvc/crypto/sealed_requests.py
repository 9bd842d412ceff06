"""Opens sealed requests with all accepted keys, and seals the one response that each may get.

The classes enforce the order: open, claim, ``accept``, act, respond once. This module knows the values of headers, but
not HTTP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence

from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto import ehbp, rvenc
from ragsvc.crypto.hpke_stream import StreamSealer
from ragsvc.crypto.keyring import KeySet
from ragsvc.crypto.replay import ReplayClaim
from ragsvc.crypto.sample_key_schedules import (
    ALL_DIALECTS,
    ONLY_RFC9180,
    KeyScheduleDialect,
    OpenedByTrial,
    open_by_trial,
)
from ragsvc.crypto.sealed_headers import INFO, decode_enc


class PendingRequest:
    """An opened HPKE request; ``accept`` returns its plaintext once ``claim`` has been stored."""

    def __init__(self, opened: OpenedByTrial, key_set: KeySet) -> None:
        self._opened = opened
        self._accepted = False
        self.dialect: KeyScheduleDialect = opened.dialect
        self.key_id = key_set.key_id
        digest = hashlib.sha256(opened.context.enc).digest()
        self.claim = ReplayClaim(key_id=key_set.key_id, digest=digest, expires_at=key_set.accepted_until)

    def accept(self, *, claimed: bool) -> bytes:
        """Return the plaintext; ``claimed``: whether ``claim`` was new. Raises ``CryptoFailure`` for a replay."""
        if not claimed:
            raise CryptoFailure
        self._accepted = True
        return self._opened.plaintext

    def seal_response(self, plaintext: bytes) -> bytes:
        """Seal the only response, success or error. Raises ``RuntimeError`` the second time."""
        self._require_accepted()
        return self._opened.context.seal_response(plaintext)

    def stream_response(self, *, response_nonce: bytes | None = None) -> StreamSealer:
        """Start a streamed response, for requests opened by ``open_streamed``."""
        self._require_accepted()
        return StreamSealer(self._opened.context, response_nonce=response_nonce)

    def _require_accepted(self) -> None:
        if not self._accepted:
            raise RuntimeError("a request must be accepted before it is answered")


def open_one_shot(
    key_sets: Iterable[KeySet],
    enc_header: str | None,
    body: bytes,
    *,
    accepted: Collection[KeyScheduleDialect] = ALL_DIALECTS,
) -> PendingRequest:
    """Open a request of the Oryxen document (empty AAD). Raises ``CryptoFailure``, the same for every cause."""
    return _open(key_sets, enc_header, body, aad=b"", accepted=accepted)


def open_streamed(key_sets: Iterable[KeySet], enc_header: str | None, body: bytes, *, aad: bytes) -> PendingRequest:
    """Open a request for a streamed response; ``aad`` comes from ``bind_request``. Raises ``CryptoFailure``."""
    return _open(key_sets, enc_header, body, aad=aad, accepted=ONLY_RFC9180)


def _open(
    key_sets: Iterable[KeySet],
    enc_header: str | None,
    body: bytes,
    *,
    aad: bytes,
    accepted: Collection[KeyScheduleDialect],
) -> PendingRequest:
    enc = decode_enc(enc_header)
    for key_set in key_sets:
        try:
            opened = open_by_trial(enc, body, private_key=key_set.hpke, info=INFO, aad=aad, accepted=accepted)
        except CryptoFailure:
            continue
        return PendingRequest(opened, key_set)
    raise CryptoFailure


def claim_exchange(exchange: ehbp.ServerExchange, key_sets: Sequence[KeySet]) -> ReplayClaim:
    """Return the claim of an EHBP request, after its first frame was opened.

    ``key_sets`` are those whose keys ``exchange`` was created with, in the same order.

    Raises:
        RuntimeError: no frame was opened yet.
    """
    if exchange.key_index is None:
        raise RuntimeError("a request must be opened before it is claimed")
    key_set = key_sets[exchange.key_index]
    digest = hashlib.sha256(exchange.enc).digest()
    return ReplayClaim(key_id=key_set.key_id, digest=digest, expires_at=key_set.accepted_until)


class PendingInference:
    """An opened RVENC request; ``accept`` returns its JSON once ``claim`` has been stored."""

    def __init__(self, opened: rvenc.OpenedInference, key_set: KeySet) -> None:
        self._opened = opened
        self._accepted = False
        self.key_id = key_set.key_id
        self.claim = ReplayClaim(key_id=key_set.key_id, digest=opened.claim_digest, expires_at=key_set.accepted_until)

    def accept(self, *, claimed: bool) -> bytes:
        """Return the JSON; ``claimed``: whether ``claim`` was new. Raises ``CryptoFailure`` for a replay."""
        if not claimed:
            raise CryptoFailure
        self._accepted = True
        return self._opened.payload

    def seal_events(self, *, response_nonce: bytes | None = None) -> rvenc.ResponseSealer:
        """Return the sealer of the response's events."""
        self._require_accepted()
        return rvenc.ResponseSealer(self._opened.shared_secret, self._opened.nonce, response_nonce=response_nonce)

    def seal_insecure_literal_events(self) -> rvenc.InsecureLiteralSealer:
        """Start a response as the document specifies it. **Insecure:** see ``rvenc.seal_insecure_literal_chunk``."""
        self._require_accepted()
        return rvenc.InsecureLiteralSealer(self._opened.shared_secret, self._opened.nonce)

    def _require_accepted(self) -> None:
        if not self._accepted:
            raise RuntimeError("a request must be accepted before it is answered")


def open_inference(key_sets: Iterable[KeySet], request: rvenc.EncryptedInference) -> PendingInference:
    """Open an RVENC request with any accepted key. Raises ``CryptoFailure``, the same for every cause."""
    for key_set in key_sets:
        try:
            opened = rvenc.open_request(request, key_set.xwing)
        except CryptoFailure:
            continue
        return PendingInference(opened, key_set)
    raise CryptoFailure
