"""What names and encodes the parts of an HPKE request in HTTP: headers, media types and base64."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto import hpke

INFO: Final = b"oryxen-hpke-e2ee-v1"
ENC_HEADER: Final = "X-HPKE-Enc"
CONTENT_TYPE_HEADER: Final = "X-HPKE-Content-Type"
"""The media type of the plaintext, in requests and responses; JSON when absent."""
SEALED_BODY_HEADER: Final = "X-HPKE-Body"
"""The sealed empty body in base64, for methods without a body. Opening it shows that the sender has the key."""
ONE_SHOT_MEDIA_TYPE: Final = "application/vnd.oryxen.hpke"
STREAM_MEDIA_TYPE: Final = "application/vnd.oryxen.hpke-stream"
KEM_NAME: Final = "DHKEM(X25519, HKDF-SHA256)"
KDF_NAME: Final = "HKDF-SHA256"
AEAD_NAME: Final = "AES-256-GCM"


def decode_enc(header: str | None) -> bytes:
    """Decode ``X-HPKE-Enc``: standard base64 of 32 bytes, 44 characters. Raises ``CryptoFailure``."""
    enc = decode_base64(header)
    if len(enc) != hpke.ENC_BYTES or encode_base64(enc) != header:  # each value has exactly one encoding
        raise CryptoFailure
    return enc


def decode_base64(header: str | None) -> bytes:
    """Decode standard base64 with padding. Raises ``CryptoFailure``."""
    try:
        return base64.b64decode(header or "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise CryptoFailure from error


def encode_base64(data: bytes) -> str:
    """Encode as standard base64 with padding, as all headers of the format do."""
    return base64.b64encode(data).decode("ascii")
