"""Attestation: report data, a copy of the kernel's interface, and recorded quotes."""

from __future__ import annotations

import hashlib
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from ragsvc.core.errors import AttestationUnavailable, CryptoFailure
from ragsvc.crypto import attestation, attestation_quotes
from ragsvc.crypto.attestation_quotes import AttestationQuote, QuoteProvider
from ragsvc.crypto.keyring import Keyring
from tests.support.configfs_tsm import TsmFolder
from tests.support.crypto import Clock, load_vectors

QUOTES = load_vectors("recorded_quotes.json")
SNP = bytes.fromhex(QUOTES["snp_report"]["quote"])
TDX = bytes.fromhex(QUOTES["tdx_v4_quote"]["quote_until_attestation_key"])
NONCE = bytes(range(32))


def key_sets():
    return Keyring.rotating(bytes(32), clock=Clock(10 * 86_400), claims_are_durable=True).accepted()


def test_key_sets_have_one_canonical_encoding():
    sets = key_sets()
    canonical = attestation.canonical_key_sets(sets)
    assert attestation.canonical_key_sets(sets[::-1]) == canonical
    current = next(key_set for key_set in sets if key_set.expires_at == 11 * 86_400)
    entry = (
        f'{{"expires_at":950400,"key_id":"{current.key_id}","x25519":"{current.hpke_public.hex()}",'
        f'"xwing_sha256":"{hashlib.sha256(current.xwing_public).hexdigest()}"}}'
    )
    assert entry.encode() in canonical


def test_report_data_binds_keys_and_nonce():
    canonical = attestation.canonical_key_sets(key_sets())
    bound = attestation_quotes.bind_report_data(canonical, NONCE)
    assert bound == hashlib.sha256(b"ragsvc-attest-v1\x00" + canonical).digest() + NONCE
    with pytest.raises(ValueError, match="32 bytes"):
        attestation_quotes.bind_report_data(canonical, bytes(31))


def test_the_report_data_of_a_recorded_snp_report_is_found():
    assert attestation_quotes.read_report_data(QuoteProvider.SEV_SNP, SNP).hex() == QUOTES["snp_report"]["report_data"]


def test_the_report_data_of_a_recorded_tdx_quote_ends_its_signed_body():
    report_data = attestation_quotes.read_report_data(QuoteProvider.TDX, TDX)
    signed, rest = TDX[: TDX.index(report_data) + 64], TDX[TDX.index(report_data) + 64 :]
    signature, public = rest[4:68], rest[68:132]  # after a length: ECDSA P-256 signature and attestation key
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + public)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA256()))  # raises unless the body ends right there


@pytest.mark.parametrize(
    ("provider", "quote"),
    [
        ("arm_cca_guest", SNP),
        (QuoteProvider.SEV_SNP, SNP[:-1]),
        (QuoteProvider.TDX, TDX[:631]),
        (QuoteProvider.TDX, SNP),
        ("", b""),
    ],
)
def test_other_quotes_are_refused(provider, quote):
    with pytest.raises(CryptoFailure):
        attestation_quotes.read_report_data(provider, quote)


def test_a_client_refuses_a_quote_with_other_report_data():
    canonical = attestation.canonical_key_sets(key_sets())
    quote = SNP[:0x50] + attestation_quotes.bind_report_data(canonical, NONCE) + SNP[0x90:]
    evidence = AttestationQuote(QuoteProvider.SEV_SNP, quote)
    attestation_quotes.check_binding(evidence, canonical=canonical, nonce=NONCE)
    for canonical_then, nonce in ((canonical + b" ", NONCE), (canonical, bytes(32))):
        with pytest.raises(CryptoFailure):
            attestation_quotes.check_binding(evidence, canonical=canonical_then, nonce=nonce)


@pytest.fixture
def tsm(tmp_path):
    class Folder(TsmFolder):
        log: ClassVar[list[str]] = []

    return Folder(tmp_path)


def test_a_report_entry_is_written_read_and_removed(tsm):
    report_data = attestation_quotes.bind_report_data(b"{}", NONCE)
    type(tsm).auxiliary = b"certificates"
    evidence = attestation.request_evidence(report_data, root=tsm)
    assert evidence.provider == QuoteProvider.SEV_SNP
    assert attestation_quotes.read_report_data(evidence.provider, evidence.quote) == report_data
    assert evidence.auxiliary == b"certificates"
    assert type(tsm).log == ["inblob 64", "rmdir"]
    assert list(tsm.iterdir()) == []


def test_an_entry_that_another_process_wrote_to_is_refused_and_removed(tsm):
    type(tsm).generation_step = 2
    with pytest.raises(AttestationUnavailable):
        attestation.request_evidence(bytes(64), root=tsm)
    assert type(tsm).log[-1] == "rmdir"
    assert list(tsm.iterdir()) == []


def test_without_the_interface_there_is_no_evidence(tmp_path):
    with pytest.raises(AttestationUnavailable, match="outside a trusted execution environment"):
        attestation.request_evidence(bytes(64), root=tmp_path / "absent")


def test_report_data_over_64_bytes_is_refused():
    with pytest.raises(ValueError, match="64 bytes"):
        attestation.request_evidence(bytes(65))
