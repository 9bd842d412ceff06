"""The key schedules of Oryxen clients: RFC 9180, and the two dialects of the Oryxen document's code samples.

The code samples of the document do not implement RFC 9180. Their users must still succeed, so a request is opened by
trying the key schedules in turn over the same Diffie-Hellman output, and the response uses the dialect that opened it.

**The sample dialects must be considered insecure:** nobody has analysed their key schedules, and the security proofs of
RFC 9180 do not apply. ``RAGSVC_ENCRYPTION_SAMPLE_DIALECTS=false`` refuses them. The differences:

==============  ======================  ===========================  ==========================
step            RFC 9180                JavaScript and Go samples    Python sample
==============  ======================  ===========================  ==========================
suite id        ``KEM``/``HPKE`` form   one ``KEM…_KDF…_AEAD…``      as JavaScript
LabeledExpand   length prefix           none                         none
secret          salt is shared secret   salt is empty                as JavaScript
HKDF            extract or expand       extract or expand            both in every step
==============  ======================  ===========================  ==========================
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto import hpke

_SAMPLE_SUITE = b"KEM\x00\x20_KDF\x00\x01_AEAD\x00\x02"
_PREFIX = b"HPKE-v1" + _SAMPLE_SUITE

Extract = Callable[[bytes, bytes], bytes]
Expand = Callable[[bytes, bytes, int], bytes]


class KeyScheduleDialect(StrEnum):
    """The key schedule that a client uses. The value labels a metric."""

    RFC9180 = "rfc9180"
    SAMPLE_JAVASCRIPT = "sample-javascript"
    SAMPLE_PYTHON = "sample-python"


ALL_DIALECTS: Final = frozenset(KeyScheduleDialect)
ONLY_RFC9180: Final = frozenset({KeyScheduleDialect.RFC9180})


def _full_hkdf_extract(salt: bytes, ikm: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, b"").derive(ikm)


def _full_hkdf_expand(prk: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, None, info).derive(prk)


def _schedule_sample_keys(
    dh: bytes, enc: bytes, recipient_public: bytes, info: bytes, *, extract: Extract, expand: Expand
) -> hpke.KeySchedule:
    """The key schedule of the samples, which have no exporter."""

    def labeled_extract(label: bytes, ikm: bytes) -> bytes:
        return extract(b"", _PREFIX + label + ikm)

    def labeled_expand(prk: bytes, label: bytes, context: bytes, length: int) -> bytes:
        return expand(prk, _PREFIX + label + context, length)

    eae_prk = labeled_extract(b"eae_prk", dh)
    shared_secret = labeled_expand(eae_prk, b"shared_secret", enc + recipient_public, 32)
    context = b"\x00" + labeled_extract(b"psk_id_hash", b"") + labeled_extract(b"info_hash", info)
    secret = labeled_extract(b"secret", shared_secret)
    return hpke.KeySchedule(
        context=context,
        secret=secret,
        key=labeled_expand(secret, b"key", context, hpke.KEY_BYTES),
        base_nonce=labeled_expand(secret, b"base_nonce", context, hpke.NONCE_BYTES),
        exporter_secret=b"",
    )


def schedule_dialect(
    dialect: KeyScheduleDialect, dh: bytes, enc: bytes, recipient_public: bytes, info: bytes
) -> hpke.KeySchedule:
    """Derive the keys of ``dialect`` from a Diffie-Hellman output."""
    match dialect:
        case KeyScheduleDialect.RFC9180:
            return hpke.schedule_keys(hpke.shared_secret_of(dh, enc, recipient_public), info)
        case KeyScheduleDialect.SAMPLE_JAVASCRIPT:
            extract_and_expand: tuple[Extract, Expand] = (hpke.extract, hpke.expand)
        case KeyScheduleDialect.SAMPLE_PYTHON:
            extract_and_expand = (_full_hkdf_extract, _full_hkdf_expand)
    extract, expand = extract_and_expand
    return _schedule_sample_keys(dh, enc, recipient_public, info, extract=extract, expand=expand)


class OpenedByTrial(msgspec.Struct, frozen=True):
    """An opened request: its dialect, its plaintext, and the context that may seal one response."""

    dialect: KeyScheduleDialect
    plaintext: bytes
    context: hpke.RecipientContext

    def __repr__(self) -> str:
        """Show the dialect only, so that plaintext never reaches a log."""
        return f"OpenedByTrial(dialect={self.dialect!s})"


def open_by_trial(
    enc: bytes,
    ciphertext: bytes,
    *,
    private_key: X25519PrivateKey,
    info: bytes,
    aad: bytes = b"",
    accepted: Collection[KeyScheduleDialect] = ALL_DIALECTS,
) -> OpenedByTrial:
    """Open a sealed request with the first accepted dialect that fits: RFC 9180, then JavaScript, then Python.

    Raises:
        CryptoFailure: no accepted dialect opens the request, or ``enc`` is malformed or a point of low order.
    """
    dh = hpke.diffie_hellman(private_key, enc)
    public = private_key.public_key().public_bytes_raw()
    for dialect in KeyScheduleDialect:
        if dialect not in accepted:
            continue
        context = hpke.RecipientContext(schedule_dialect(dialect, dh, enc, public, info), enc)
        try:
            return OpenedByTrial(dialect, context.open(ciphertext, aad), context)
        except CryptoFailure:
            continue
    raise CryptoFailure
