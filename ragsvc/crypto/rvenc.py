"""RVENC: a JSON body sealed with XChaCha20-Poly1305 under an X-Wing secret, answered by encrypted events.

Encodings that the document does not specify are hexadecimal. **Deliberate deviation:** the document seals every chunk
of the response with the request's secret *and* nonce, a many-time pad from which requests were recovered. Here the
response has a separate key (HKDF over the secret, salted with both nonces) and a counter for each chunk, and the last
event is authenticated as the last. The document's insecure rule is ``seal_insecure_literal_chunk``, for clients that
cannot be changed.
"""

from __future__ import annotations

import hashlib
import os
from enum import StrEnum
from typing import Final

import msgspec

from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto import hpke, xchacha, xwing
from ragsvc.crypto.framing import require_bytes
from ragsvc.crypto.rvenc_events import RvencEvent, encode_rvenc_event

CHAT_PATH: Final = "/rvenc/chat/completions"
PROVIDER_KEY_FIELD: Final = "provider_key"
PROVIDER_BASE_URL_FIELD: Final = "provider_base_url"
"""Fields of the encrypted chat for what plain requests send as ``X-Provider-Key`` and ``X-Provider-Base-URL``."""
KEM_NAME: Final = "X-Wing"
AEAD_NAME: Final = "XChaCha20-Poly1305"
NONCE_BYTES: Final = 24
RESPONSE_NONCE_BYTES: Final = 32
RESPONSE_NONCE_HEADER: Final = "X-RVENC-Response-Nonce"
RESPONSE_INFO: Final = b"ragsvc-rvenc-v1 response"
_CLAIM_LABEL = b"ragsvc-rvenc-v1 request\x00"
_FINAL = b"final"
_DONE = b"[DONE]"


class EventName(StrEnum):
    """The names of events. ``error`` and ``done`` end a stream."""

    DATA = "data"
    ERROR = "error"
    DONE = "done"


class EncryptedInference(msgspec.Struct, frozen=True, rename="camel"):
    """The body of ``POST /rvenc/chat/completions``; all fields are hexadecimal."""

    encrypted_inference: str
    cipher_text: str
    nonce: str


class EncryptionKeys:
    """A client's keys: a shared secret and the ``cipherText`` that encapsulates it. Reusable. Has no ``repr``."""

    __slots__ = ("cipher_text", "shared_secret")

    def __init__(self, *, shared_secret: bytes, cipher_text: bytes) -> None:
        if len(shared_secret) != xwing.SHARED_SECRET_BYTES or len(cipher_text) != xwing.CIPHERTEXT_BYTES:
            raise ValueError("shared_secret must have 32 bytes and cipher_text 1120")
        self.shared_secret = shared_secret
        self.cipher_text = cipher_text


def generate_encryption_keys(public_key: bytes) -> EncryptionKeys:
    """Encapsulate to the server's 1216-byte public key. Raises ``CryptoFailure`` when it is not a valid key."""
    shared_secret, cipher_text = xwing.encapsulate(public_key)
    return EncryptionKeys(shared_secret=shared_secret, cipher_text=cipher_text)


def seal_request(keys: EncryptionKeys, payload: bytes, *, nonce: bytes | None = None) -> EncryptedInference:
    """Seal the JSON of a chat request with a fresh nonce; only tests pass ``nonce``."""
    nonce = os.urandom(NONCE_BYTES) if nonce is None else nonce
    return EncryptedInference(
        encrypted_inference=xchacha.seal(keys.shared_secret, nonce, payload).hex(),
        cipher_text=keys.cipher_text.hex(),
        nonce=nonce.hex(),
    )


class OpenedInference:
    """An opened request: its JSON, the digest to claim, and the secret for the response's key. Has no ``repr``."""

    __slots__ = ("claim_digest", "nonce", "payload", "shared_secret")

    def __init__(self, *, payload: bytes, shared_secret: bytes, nonce: bytes, claim_digest: bytes) -> None:
        self.payload = payload
        self.shared_secret = shared_secret
        self.nonce = nonce
        self.claim_digest = claim_digest


def open_request(request: EncryptedInference, private_key: xwing.XWingPrivateKey) -> OpenedInference:
    """Open a request. The caller claims ``claim_digest`` (of ``cipherText`` and ``nonce``) before any side effect.

    Raises:
        CryptoFailure: a field is malformed, or the request was not sealed for this private key.
    """
    cipher_text = require_bytes(request.cipher_text, size=xwing.CIPHERTEXT_BYTES)
    nonce = require_bytes(request.nonce, size=NONCE_BYTES)
    sealed = require_bytes(request.encrypted_inference, size=len(request.encrypted_inference) // 2)
    shared_secret = private_key.decapsulate(cipher_text)
    payload = xchacha.open_sealed(shared_secret, nonce, sealed)
    digest = hashlib.sha256(_CLAIM_LABEL + cipher_text + nonce).digest()
    return OpenedInference(payload=payload, shared_secret=shared_secret, nonce=nonce, claim_digest=digest)


def _response_key(shared_secret: bytes, nonce: bytes, response_nonce: bytes) -> bytes:
    return hpke.expand(hpke.extract(nonce + response_nonce, shared_secret), RESPONSE_INFO, 32)


def _chunk_nonce(index: int) -> bytes:
    return bytes(16) + index.to_bytes(8, "big")


class ResponseSealer:
    """Seals one response into events. The first event starts with ``response_nonce`` (64 hexadecimal digits)."""

    def __init__(self, shared_secret: bytes, nonce: bytes, *, response_nonce: bytes | None = None) -> None:
        self._response_nonce = os.urandom(RESPONSE_NONCE_BYTES) if response_nonce is None else response_nonce
        self._key = _response_key(shared_secret, nonce, self._response_nonce)
        self._index = 0
        self._finished = False

    @property
    def response_nonce_header(self) -> str:
        """The value of ``X-RVENC-Response-Nonce``."""
        return self._response_nonce.hex()

    def data(self, chunk: bytes) -> bytes:
        """Seal a chat chunk (JSON) into an event."""
        return self._event(EventName.DATA, chunk, b"")

    def error(self, error: bytes) -> bytes:
        """Seal an error (JSON, ``{"error": …}``) as the last event."""
        return self._last(EventName.ERROR, error)

    def done(self) -> bytes:
        """Seal the end of a complete response."""
        return self._last(EventName.DONE, _DONE)

    def _last(self, name: EventName, plaintext: bytes) -> bytes:
        event = self._event(name, plaintext, _FINAL)
        self._finished = True
        return event

    def _event(self, name: EventName, plaintext: bytes, aad: bytes) -> bytes:
        if self._finished:
            raise RuntimeError("the response is finished")
        prefix = self._response_nonce.hex() if self._index == 0 else ""
        sealed = xchacha.seal(self._key, _chunk_nonce(self._index), plaintext, aad)
        self._index += 1
        return encode_rvenc_event(name, prefix + sealed.hex())


class OpenedEvent(msgspec.Struct, frozen=True):
    """An authenticated event of a response. ``payload`` is JSON, or ``[DONE]`` for the event ``done``."""

    name: EventName
    payload: bytes

    def __repr__(self) -> str:
        """Show the event's name only, so that plaintext never reaches a log."""
        return f"OpenedEvent(name={self.name!s})"


class ResponseOpener:
    """Opens the events of one response in order. No event may follow ``error`` or ``done``."""

    def __init__(self, shared_secret: bytes, nonce: bytes, *, response_nonce_header: str | None = None) -> None:
        self._shared_secret = shared_secret
        self._nonce = nonce
        self._expected_nonce = response_nonce_header
        self._key: bytes | None = None
        self._index = 0
        self._finished = False

    def open(self, event: RvencEvent) -> OpenedEvent:
        """Open the next event.

        Raises:
            CryptoFailure: the event was changed, reordered or renamed, or it follows the last event.
        """
        try:
            name = EventName(event.name)
        except ValueError as error:
            raise CryptoFailure from error
        if self._finished or event.data != event.data.lower():  # each event has exactly one encoding
            raise CryptoFailure
        payload = self._open_payload(event.data, b"" if name is EventName.DATA else _FINAL)
        if (name is EventName.DONE) != (payload == _DONE):
            raise CryptoFailure
        self._finished = name is not EventName.DATA
        return OpenedEvent(name, payload)

    def finish(self) -> None:
        """Check that the stream has ended with its last event. Raises ``CryptoFailure`` otherwise."""
        if not self._finished:
            raise CryptoFailure

    def _open_payload(self, data: str, aad: bytes) -> bytes:
        if self._key is None:
            prefix, data = data[: 2 * RESPONSE_NONCE_BYTES], data[2 * RESPONSE_NONCE_BYTES :]
            if self._expected_nonce is not None and prefix != self._expected_nonce:
                raise CryptoFailure
            response_nonce = require_bytes(prefix, size=RESPONSE_NONCE_BYTES)
            self._key = _response_key(self._shared_secret, self._nonce, response_nonce)
        sealed = require_bytes(data, size=len(data) // 2)
        payload = xchacha.open_sealed(self._key, _chunk_nonce(self._index), sealed, aad)
        self._index += 1
        return payload


def seal_insecure_literal_chunk(
    shared_secret: bytes, nonce: bytes, chunk: bytes, *, name: EventName = EventName.DATA
) -> bytes:
    """Seal one event as the document specifies it: with the request's secret and nonce, the same for every chunk.

    **Insecure.** The request and all chunks share one key stream: an attacker who records two of them can read both,
    and with the plaintext of one can forge others. Only for clients that support no other format, behind a
    setting that is off by default.
    """
    return encode_rvenc_event(name, xchacha.seal(shared_secret, nonce, chunk).hex())


def encode_insecure_literal_done() -> bytes:
    """The document's own end marker, in plaintext. **Insecure:** anybody between server and client can write it."""
    return encode_rvenc_event(EventName.DONE, _DONE.decode())


class InsecureLiteralSealer:
    """Writes a response's events as the document specifies them; see ``seal_insecure_literal_chunk``."""

    def __init__(self, shared_secret: bytes, nonce: bytes) -> None:
        self._shared_secret = shared_secret
        self._nonce = nonce

    def data(self, chunk: bytes) -> bytes:
        return seal_insecure_literal_chunk(self._shared_secret, self._nonce, chunk)

    def error(self, error: bytes) -> bytes:
        return seal_insecure_literal_chunk(self._shared_secret, self._nonce, error, name=EventName.ERROR)

    def done(self) -> bytes:
        return encode_insecure_literal_done()


def open_insecure_literal_chunk(keys: EncryptionKeys, nonce: bytes, data: str) -> bytes:
    """Open the ``data`` of one literal event, for tests and interoperation. Raises ``CryptoFailure``."""
    return xchacha.open_sealed(keys.shared_secret, nonce, require_bytes(data, size=len(data) // 2))
