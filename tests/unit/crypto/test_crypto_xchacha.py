"""XChaCha20-Poly1305 against the vectors of its draft and against libsodium."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings

from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto import xchacha

# draft-irtf-cfrg-xchacha-03, appendix A.3.1
PLAINTEXT = (
    b"Ladies and Gentlemen of the class of '99: "
    b"If I could offer you only one tip for the future, sunscreen would be it."
)
AAD = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
KEY = bytes(range(0x80, 0xA0))
NONCE = bytes(range(0x40, 0x58))
CIPHERTEXT = bytes.fromhex(
    "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff921f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49"
)


def test_the_subkey_is_that_of_the_draft() -> None:
    """§2.2.1."""
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    expected = "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    assert xchacha.derive_subkey(bytes(range(32)), nonce).hex() == expected


def test_the_ciphertext_is_that_of_the_draft() -> None:
    assert xchacha.seal(KEY, NONCE, PLAINTEXT, AAD) == CIPHERTEXT
    assert xchacha.open_sealed(KEY, NONCE, CIPHERTEXT, AAD) == PLAINTEXT


@given(
    key=st.binary(min_size=32, max_size=32),
    nonce=st.binary(min_size=24, max_size=24),
    plaintext=st.binary(max_size=300),
    aad=st.binary(max_size=40),
)
def test_libsodium_agrees(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> None:
    sealed = xchacha.seal(key, nonce, plaintext, aad)
    assert sealed == bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, aad, nonce, key)
    assert xchacha.open_sealed(key, nonce, sealed, aad) == plaintext


@given(st.data())
def test_every_change_is_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(CIPHERTEXT) * 8 - 1))
    changed = bytearray(CIPHERTEXT)
    changed[at // 8] ^= 1 << at % 8
    length = data.draw(st.integers(0, len(CIPHERTEXT) - 1))
    for ciphertext, nonce, aad in (
        (bytes(changed), NONCE, AAD),
        (CIPHERTEXT[:length], NONCE, AAD),
        (CIPHERTEXT, NONCE[::-1], AAD),
        (CIPHERTEXT, NONCE, AAD[:-1]),
    ):
        with pytest.raises(CryptoFailure):
            xchacha.open_sealed(KEY, nonce, ciphertext, aad)


@pytest.mark.parametrize(("key", "nonce"), [(KEY[:-1], NONCE), (KEY, NONCE[:12]), (b"", NONCE)])
def test_keys_and_nonces_of_other_lengths_are_refused(key: bytes, nonce: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        xchacha.seal(key, nonce, b"")
