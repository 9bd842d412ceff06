"""Attestation: evidence that the encryption keys are held in a trusted execution environment.

The report data of a quote contains a hash of the key sets and the client's nonce. Quotes come from Linux's
configfs-tsm; on a machine without it, requests for evidence fail. This module reads and compares a quote's report data.
It does not verify the quote's signature: clients need the hardware vendor's verifier for that.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from ragsvc.core.errors import AttestationUnavailable, CryptoFailure
from ragsvc.crypto.keyring import KeySet

TSM_ROOT: Final = Path("/sys/kernel/config/tsm/report")
REPORT_DATA_BYTES: Final = 64
NONCE_BYTES: Final = 32
_LABEL = b"ragsvc-attest-v1\x00"
_SNP_REPORT_BYTES = 1184
_SNP_REPORT_DATA = slice(0x50, 0x90)
_TDX_REPORT_DATA = slice(568, 632)
_TDX_V4_HEADER = bytes.fromhex("0400")
_TDX_TEE_TYPE = bytes.fromhex("81000000")


class QuoteProvider(StrEnum):
    """The configfs-tsm providers whose quotes this module can read, by the names the kernel uses."""

    SEV_SNP = "sev_guest"
    TDX = "tdx_guest"


class AttestationQuote(msgspec.Struct, frozen=True):
    """A quote (``outblob``) with the name of its provider and, if the provider has it, the certificate table."""

    provider: str
    quote: bytes
    auxiliary: bytes = b""


def canonical_key_sets(key_sets: list[KeySet]) -> bytes:
    """Encode key sets as canonical JSON: ordered by id, with sorted member names and without whitespace.

    ``expires_at`` is whole Unix seconds or ``null``. The X25519 key is hexadecimal; of the X-Wing key, the SHA-256 is.
    """
    entries = [
        {
            "key_id": key_set.key_id,
            "x25519": key_set.hpke_public.hex(),
            "xwing_sha256": hashlib.sha256(key_set.xwing_public).hexdigest(),
            "expires_at": None if key_set.expires_at is None else int(key_set.expires_at),
        }
        for key_set in sorted(key_sets, key=lambda key_set: key_set.key_id)
    ]
    return json.dumps({"keys": entries}, sort_keys=True, separators=(",", ":")).encode("ascii")


def bind_report_data(canonical: bytes, nonce: bytes) -> bytes:
    """Return the 64 bytes of report data: SHA-256 of the labelled key sets, then the client's 32-byte nonce."""
    if len(nonce) != NONCE_BYTES:
        raise ValueError("an attestation nonce must have 32 bytes")
    return hashlib.sha256(_LABEL + canonical).digest() + nonce


def request_evidence(report_data: bytes, *, root: Path = TSM_ROOT) -> AttestationQuote:
    """Request a quote over ``report_data`` (at most 64 bytes) from the kernel. Blocks for milliseconds to seconds.

    Source: Linux, Documentation/ABI/testing/configfs-tsm-report.

    Raises:
        AttestationUnavailable: the machine has no configfs-tsm, or the kernel reported an error.
    """
    if len(report_data) > REPORT_DATA_BYTES:
        raise ValueError("report data must have at most 64 bytes")
    entry = root / f"ragsvc-{secrets.token_hex(8)}"
    try:
        entry.mkdir()
    except OSError as error:
        raise AttestationUnavailable("This server runs outside a trusted execution environment.") from error
    try:
        return _read_entry(entry, report_data)
    except OSError as error:
        raise AttestationUnavailable("The platform did not answer with an attestation report.") from error
    finally:
        entry.rmdir()


def _read_entry(entry: Path, report_data: bytes) -> AttestationQuote:
    """Write the report data, read the quote, and check by ``generation`` that no other process wrote in between."""
    generation = entry / "generation"
    before = int(generation.read_text("ascii"))
    (entry / "inblob").write_bytes(report_data)
    quote = (entry / "outblob").read_bytes()
    provider = (entry / "provider").read_text("ascii").strip()
    auxiliary_file = entry / "auxblob"
    auxiliary = auxiliary_file.read_bytes() if auxiliary_file.exists() else b""
    if int(generation.read_text("ascii")) != before + 1 or not quote:
        raise OSError("the report entry changed while it was read")
    return AttestationQuote(provider=provider, quote=quote, auxiliary=auxiliary)


def read_report_data(provider: str, quote: bytes) -> bytes:
    """Return the 64 bytes of report data in an SNP report or a TDX quote of version 4.

    Source: AMD 56860 (ATTESTATION_REPORT), Intel TDX DCAP Quoting Library API (TD Quote Body).

    Raises:
        CryptoFailure: the provider is not supported, or the quote is too short or of another type.
    """
    if provider == QuoteProvider.SEV_SNP and len(quote) >= _SNP_REPORT_BYTES:
        return quote[_SNP_REPORT_DATA]
    if (
        provider == QuoteProvider.TDX
        and len(quote) >= _TDX_REPORT_DATA.stop
        and quote[:2] == _TDX_V4_HEADER
        and quote[4:8] == _TDX_TEE_TYPE
    ):
        return quote[_TDX_REPORT_DATA]
    raise CryptoFailure


def check_binding(evidence: AttestationQuote, *, canonical: bytes, nonce: bytes) -> None:
    """Check on the client that a quote's report data matches the key sets and the nonce.

    This does not check the quote's *signature*. Without the hardware vendor's verifier, the result proves nothing.

    Raises:
        CryptoFailure: the report data does not match.
    """
    expected = bind_report_data(canonical, nonce)
    if not hmac.compare_digest(read_report_data(evidence.provider, evidence.quote), expected):
        raise CryptoFailure
