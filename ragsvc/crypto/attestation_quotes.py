"""Attestation quotes: the report data that the server binds to its keys, and the client's comparison.

The report data of a quote contains a hash of the key sets and the client's nonce. This module reads and compares the
report data. It does not verify the quote's signature: clients need the hardware vendor's verifier for that.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import StrEnum
from typing import Final

import msgspec

from ragsvc.core.errors import CryptoFailure

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


def bind_report_data(canonical: bytes, nonce: bytes) -> bytes:
    """Return the 64 bytes of report data: SHA-256 of the labelled key sets, then the client's 32-byte nonce."""
    if len(nonce) != NONCE_BYTES:
        raise ValueError("an attestation nonce must have 32 bytes")
    return hashlib.sha256(_LABEL + canonical).digest() + nonce


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
