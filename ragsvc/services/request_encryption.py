"""Opens sealed requests with the service's keys, claims each request once, and counts requests by mode and dialect.

Owns the keyring and the replay claims. Does not know HTTP. ``crypto.sealed_requests`` enforces the order open, claim,
act, respond once.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Literal, TypeVar

from ragsvc.core.errors import ConfigurationError, CryptoFailure
from ragsvc.crypto import ehbp, rvenc, sealed_requests
from ragsvc.crypto.attestation import TSM_ROOT
from ragsvc.crypto.keyring import DEFAULT_LIFETIME_S, DEFAULT_OVERLAP_S, Keyring, KeySet, parse_secret
from ragsvc.crypto.replay import ReplayClaim
from ragsvc.crypto.sample_key_schedules import ALL_DIALECTS, ONLY_RFC9180, KeyScheduleDialect
from ragsvc.store.replay_claims import CLAIMS_FILE_NAME, SqliteClaims

KeySource = Literal["memory", "derived", "fixed"]
_PRUNE_EVERY_S = 600.0


class SealedRequestMode(StrEnum):
    """The encryption modes of requests. Values label metrics."""

    HPKE = "hpke"
    HPKE_STREAM = "hpke-stream"
    EHBP = "ehbp"
    RVENC = "rvenc"


Pending = TypeVar("Pending", sealed_requests.PendingRequest, sealed_requests.PendingInference)


class EncryptionService:
    """Opens sealed requests. ``opened`` counts accepted requests by mode and dialect, ``refused`` all others by mode.

    Refusals are counted without a reason, which must not become visible outside. ``insecure_sample_dialects`` accepts
    the key schedules of the Oryxen document's samples, ``insecure_literal_rvenc`` seals RVENC responses as the document
    says; see ``crypto.sample_key_schedules`` and ``crypto.rvenc``.
    """

    def __init__(
        self,
        keyring: Keyring,
        claims: SqliteClaims,
        *,
        insecure_sample_dialects: bool = True,
        insecure_literal_rvenc: bool = False,
        attestation_root: Path = TSM_ROOT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.insecure_literal_rvenc = insecure_literal_rvenc
        self.attestation_root = attestation_root
        self.opened: Counter[tuple[SealedRequestMode, str]] = Counter()
        self.refused: Counter[SealedRequestMode] = Counter()
        self._keyring = keyring
        self._claims = claims
        self._dialects: Collection[KeyScheduleDialect] = ALL_DIALECTS if insecure_sample_dialects else ONLY_RFC9180
        self._clock = clock
        self._prune_at = clock()

    def current(self) -> KeySet:
        """The key set to publish."""
        return self._keyring.current()

    def accepted(self) -> list[KeySet]:
        """The key sets that requests may be sealed for, the most likely first."""
        return self._keyring.accepted()

    def open_one_shot(self, enc: str | None, body: bytes) -> sealed_requests.PendingRequest:
        """Open a one-shot HPKE request (Oryxen document). Raises ``CryptoFailure``."""
        return sealed_requests.open_one_shot(self._keyring.accepted(), enc, body, accepted=self._dialects)

    def open_streamed(self, enc: str | None, body: bytes, *, aad: bytes) -> sealed_requests.PendingRequest:
        """Open an HPKE request for a streamed response. Raises ``CryptoFailure``."""
        return sealed_requests.open_streamed(self._keyring.accepted(), enc, body, aad=aad)

    def open_inference(self, inference: rvenc.EncryptedInference) -> sealed_requests.PendingInference:
        """Open an RVENC request. Raises ``CryptoFailure``."""
        return sealed_requests.open_inference(self._keyring.accepted(), inference)

    async def accept(self, pending: Pending, mode: SealedRequestMode) -> bytes:
        """Claim an opened request and return its plaintext.

        Raises:
            CryptoFailure: the request was accepted before (a replay).
            StorageFull: the claim could not be written.
        """
        plaintext = pending.accept(claimed=await self._claim(pending.claim))
        dialect = pending.dialect if isinstance(pending, sealed_requests.PendingRequest) else KeyScheduleDialect.RFC9180
        self.opened[mode, str(dialect)] += 1
        return plaintext

    async def accept_exchange(self, exchange: ehbp.ServerExchange, key_sets: Sequence[KeySet]) -> None:
        """Claim an EHBP request whose first frame was opened. Raises as ``accept`` does."""
        if not await self._claim(sealed_requests.claim_exchange(exchange, key_sets)):
            raise CryptoFailure
        self.opened[SealedRequestMode.EHBP, str(KeyScheduleDialect.RFC9180)] += 1

    async def _claim(self, claim: ReplayClaim) -> bool:
        now = self._clock()
        if now >= self._prune_at:
            self._prune_at = now + _PRUNE_EVERY_S
            self._claims.prune(now)
        return await self._claims.claim(claim)

    def close(self) -> None:
        """Close the claim store."""
        self._claims.close()


def open_encryption(
    data_dir: Path,
    *,
    source: KeySource,
    key_file: Path | None,
    lifetime_s: float = DEFAULT_LIFETIME_S,
    overlap_s: float = DEFAULT_OVERLAP_S,
    insecure_sample_dialects: bool = True,
    insecure_literal_rvenc: bool = False,
    attestation_root: Path = TSM_ROOT,
    clock: Callable[[], float] = time.time,
) -> EncryptionService:
    """Create or read the keys and open their claim store.

    Raises:
        ConfigurationError: the key file is missing, unreadable, without a key, or given for keys in memory.
    """
    keyring = _open_keyring(source, key_file, lifetime_s=lifetime_s, overlap_s=overlap_s, clock=clock)
    claims = SqliteClaims(data_dir / CLAIMS_FILE_NAME, outlives_process=source != "memory")
    return EncryptionService(
        keyring,
        claims,
        insecure_sample_dialects=insecure_sample_dialects,
        insecure_literal_rvenc=insecure_literal_rvenc,
        attestation_root=attestation_root,
        clock=clock,
    )


def _open_keyring(
    source: KeySource, key_file: Path | None, *, lifetime_s: float, overlap_s: float, clock: Callable[[], float]
) -> Keyring:
    if source == "memory":
        if key_file is not None:
            raise ConfigurationError(
                ["encryption_key_file needs encryption_keys 'derived' or 'fixed'; with 'memory' remove it"]
            )
        return Keyring.in_memory(clock=clock, randomness=os.urandom, lifetime_s=lifetime_s, overlap_s=overlap_s)
    if key_file is None:
        raise ConfigurationError([f"encryption_keys '{source}' needs encryption_key_file"])
    try:
        secret = parse_secret(key_file.read_bytes())
    except OSError as error:
        raise ConfigurationError([f"encryption_key_file: {key_file} cannot be read ({error.strerror})"]) from error
    if source == "fixed":
        return Keyring.fixed(secret, clock=clock, claims_are_durable=True)
    return Keyring.rotating(secret, clock=clock, claims_are_durable=True, lifetime_s=lifetime_s, overlap_s=overlap_s)
