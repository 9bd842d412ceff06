"""HPKE base mode (RFC 9180) for one suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.

Contains the KEM, the key schedule and both contexts. The key schedule is implemented here by choice: in the Oryxen
format the *recipient* seals its response with the request's key at sequence number 1, and no HPKE library lets a
recipient seal (``cryptography`` offers single-shot HPKE only, and pyhpke's recipient cannot seal). All primitives
(X25519, HKDF, AES-GCM) are those of ``cryptography``. The tests compare with the RFC's vectors and with
other implementations. This module does not know wire formats, key rotation or replay protection.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from ragsvc.core.errors import CryptoFailure

KEM_ID: Final = 0x0020
KDF_ID: Final = 0x0001
AEAD_ID: Final = 0x0002
KEM_SUITE: Final = b"KEM" + KEM_ID.to_bytes(2, "big")
HPKE_SUITE: Final = b"HPKE" + b"".join(i.to_bytes(2, "big") for i in (KEM_ID, KDF_ID, AEAD_ID))
ENC_BYTES: Final = 32
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
RESPONSE_SEQUENCE: Final = 1
"""The sequence number of the recipient's only response in the Oryxen format."""

_MODE_BASE = b"\x00"
_VERSION = b"HPKE-v1"
_MAX_SEQUENCE = (1 << 64) - 1  # RFC 9180 allows 2^96 - 1, which is out of reach in practice


def extract(salt: bytes, ikm: bytes) -> bytes:
    """HKDF-Extract with SHA-256, 32 bytes (RFC 5869 §2.2)."""
    return HKDF.extract(SHA256(), salt, ikm)


def expand(prk: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand with SHA-256 (RFC 5869 §2.3)."""
    return HKDFExpand(SHA256(), length, info).derive(prk)


def labeled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    """RFC 9180 §4, LabeledExtract."""
    return extract(salt, _VERSION + suite + label + ikm)


def labeled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """RFC 9180 §4, LabeledExpand."""
    return expand(prk, length.to_bytes(2, "big") + _VERSION + suite + label + info, length)


def derive_key_pair(ikm: bytes) -> X25519PrivateKey:
    """Derive a private key from at least 32 secret bytes (RFC 9180 §7.1.3, DeriveKeyPair)."""
    prk = labeled_extract(KEM_SUITE, b"", b"dkp_prk", ikm)
    return X25519PrivateKey.from_private_bytes(labeled_expand(KEM_SUITE, prk, b"sk", b"", 32))


def diffie_hellman(private_key: X25519PrivateKey, public_bytes: bytes) -> bytes:
    """X25519 with the checks of RFC 9180 §7.1.4.

    Raises:
        CryptoFailure: ``public_bytes`` does not have 32 bytes or is a point of low order.
    """
    try:
        return private_key.exchange(X25519PublicKey.from_public_bytes(public_bytes))
    except ValueError as error:
        raise CryptoFailure from error


def shared_secret_of(dh: bytes, enc: bytes, recipient_public: bytes) -> bytes:
    """RFC 9180 §4.1, ExtractAndExpand over ``enc || pkRm``."""
    prk = labeled_extract(KEM_SUITE, b"", b"eae_prk", dh)
    return labeled_expand(KEM_SUITE, prk, b"shared_secret", enc + recipient_public, 32)


def encapsulate(recipient_public: bytes, *, ephemeral: X25519PrivateKey | None = None) -> tuple[bytes, bytes]:
    """Return ``(shared_secret, enc)``, 32 bytes each; ``ephemeral`` is for test vectors (RFC 9180 §4.1, Encap)."""
    ephemeral = ephemeral or X25519PrivateKey.generate()
    enc = ephemeral.public_key().public_bytes_raw()
    return shared_secret_of(diffie_hellman(ephemeral, recipient_public), enc, recipient_public), enc


def decapsulate(enc: bytes, private_key: X25519PrivateKey) -> bytes:
    """Return the shared secret that ``enc`` encapsulates (RFC 9180 §4.1, Decap). Raises ``CryptoFailure``."""
    dh = diffie_hellman(private_key, enc)
    return shared_secret_of(dh, enc, private_key.public_key().public_bytes_raw())


class KeySchedule:
    """The values of RFC 9180 §5.1; ``exporter_secret`` is empty for dialects without an exporter. Has no ``repr``."""

    __slots__ = ("base_nonce", "context", "exporter_secret", "key", "secret")

    def __init__(self, *, context: bytes, secret: bytes, key: bytes, base_nonce: bytes, exporter_secret: bytes) -> None:
        self.context = context
        self.secret = secret
        self.key = key
        self.base_nonce = base_nonce
        self.exporter_secret = exporter_secret


def schedule_keys(shared_secret: bytes, info: bytes, *, suite: bytes = HPKE_SUITE) -> KeySchedule:
    """Run KeySchedule of RFC 9180 §5.1 in base mode; pass ``suite`` only for another KEM with the same KDF."""
    psk_id_hash = labeled_extract(suite, b"", b"psk_id_hash", b"")
    info_hash = labeled_extract(suite, b"", b"info_hash", info)
    context = _MODE_BASE + psk_id_hash + info_hash
    secret = labeled_extract(suite, shared_secret, b"secret", b"")
    return KeySchedule(
        context=context,
        secret=secret,
        key=labeled_expand(suite, secret, b"key", context, KEY_BYTES),
        base_nonce=labeled_expand(suite, secret, b"base_nonce", context, NONCE_BYTES),
        exporter_secret=labeled_expand(suite, secret, b"exp", context, 32),
    )


def nonce_at(base_nonce: bytes, sequence: int) -> bytes:
    r"""``base_nonce XOR I2OSP(sequence, 12)`` (RFC 9180 §5.2).

    >>> nonce_at(bytes(11) + b"\x01", 3).hex()
    '000000000000000000000002'
    """
    if not 0 <= sequence <= _MAX_SEQUENCE:
        raise OverflowError("the sequence numbers of this key are exhausted")
    return (int.from_bytes(base_nonce, "big") ^ sequence).to_bytes(NONCE_BYTES, "big")


def open_sealed(aead: AESGCM, nonce: bytes, ciphertext: bytes | bytearray | memoryview, aad: bytes) -> bytes:
    """Decrypt with AES-GCM. Raises ``CryptoFailure``, the same for every cause."""
    try:
        return aead.decrypt(nonce, ciphertext, aad)
    except (InvalidTag, ValueError) as error:
        raise CryptoFailure from error


def open_sealed_into(aead: AESGCM, nonce: bytes, ciphertext: memoryview, plaintext: memoryview) -> None:
    """Decrypt with AES-GCM and without AAD into ``plaintext``, which is 16 bytes shorter than ``ciphertext``.

    Raises:
        CryptoFailure: as ``open_sealed``; ``plaintext`` must not be used then.
    """
    try:
        aead.decrypt_into(nonce, ciphertext, None, plaintext)
    except (InvalidTag, ValueError) as error:
        raise CryptoFailure from error


class _Context:
    """State of both sides: the key, the next sequence number of the request direction, and the exporter."""

    def __init__(self, schedule: KeySchedule) -> None:
        self._aead = AESGCM(schedule.key)
        self._schedule = schedule
        self._sequence = 0
        self._answered = False

    def export(self, exporter_context: bytes, length: int) -> bytes:
        """RFC 9180 §5.3, Context.Export."""
        if not self._schedule.exporter_secret:
            raise RuntimeError("this dialect has no exporter")
        return labeled_expand(HPKE_SUITE, self._schedule.exporter_secret, b"sec", exporter_context, length)

    def _take_request_nonce(self) -> bytes:
        if self._answered:
            raise RuntimeError("the context is used up: its response has used the next sequence number")
        return nonce_at(self._schedule.base_nonce, self._sequence)

    def _take_response_nonce(self) -> bytes:
        """Return the response's nonce, once, and only if no request message has used it."""
        if self._answered or self._sequence != RESPONSE_SEQUENCE:
            raise RuntimeError("a context seals or opens one response, after exactly one request message")
        self._answered = True
        return nonce_at(self._schedule.base_nonce, RESPONSE_SEQUENCE)


class SenderContext(_Context):
    """The client's side of one encapsulation. Never use it for more than one request."""

    def __init__(self, schedule: KeySchedule, enc: bytes) -> None:
        super().__init__(schedule)
        self.enc = enc

    def seal(self, plaintext: bytes, aad: bytes = b"") -> bytes:
        """Encrypt the next message into ``len(plaintext) + 16`` bytes (RFC 9180 §5.2, ContextS.Seal)."""
        sealed = self._aead.encrypt(self._take_request_nonce(), plaintext, aad)
        self._sequence += 1
        return sealed

    def open_response(self, ciphertext: bytes) -> bytes:
        """Open the recipient's only response (sequence number 1, empty AAD). Raises ``CryptoFailure``."""
        return open_sealed(self._aead, self._take_response_nonce(), ciphertext, b"")


class RecipientContext(_Context):
    """The server's side of one encapsulation."""

    def __init__(self, schedule: KeySchedule, enc: bytes) -> None:
        super().__init__(schedule)
        self.enc = enc

    def open(self, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """Decrypt the next message (RFC 9180 §5.2, ContextR.Open).

        Raises:
            CryptoFailure: ``ciphertext`` is not the next message. The sequence number does not change.
        """
        plaintext = open_sealed(self._aead, self._take_request_nonce(), ciphertext, aad)
        self._sequence += 1
        return plaintext

    def seal_response(self, plaintext: bytes) -> bytes:
        """Seal the only response of this context. A second response would reuse key and nonce.

        Raises:
            RuntimeError: the context has not opened exactly one message, or it has sealed a response already. Both are
                bugs of the caller.
        """
        return self._aead.encrypt(self._take_response_nonce(), plaintext, b"")


def set_up_sender(recipient_public: bytes, info: bytes, *, ephemeral: X25519PrivateKey | None = None) -> SenderContext:
    """SetupBaseS of RFC 9180 §5.1.1. Raises ``CryptoFailure`` when ``recipient_public`` is not a usable key."""
    shared_secret, enc = encapsulate(recipient_public, ephemeral=ephemeral)
    return SenderContext(schedule_keys(shared_secret, info), enc)


def set_up_recipient(enc: bytes, private_key: X25519PrivateKey, info: bytes) -> RecipientContext:
    """SetupBaseR of RFC 9180 §5.1.1. Raises ``CryptoFailure`` when ``enc`` is malformed or of low order."""
    return RecipientContext(schedule_keys(decapsulate(enc, private_key), info), enc)
