"""HPKE against the official vector, pyhpke, cryptography's own HPKE and @hpke/core."""

from __future__ import annotations

import inspect

import pyhpke
import pytest
from cryptography.hazmat.primitives import hpke as oracle
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto import hpke
from tests.support.crypto import load_vectors

(VECTOR,) = load_vectors("rfc9180_x25519_aes256gcm_base.json")
INFO = bytes.fromhex(VECTOR["info"])
LOW_ORDER_POINTS = [  # RFC 7748 and its errata: the points whose product is zero for every scalar
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def vector_bytes(name: str) -> bytes:
    return bytes.fromhex(VECTOR[name])


@pytest.mark.parametrize("end", ["R", "E"])
def test_derived_key_pairs_match_the_vector(end):
    private_key = hpke.derive_key_pair(vector_bytes(f"ikm{end}"))
    assert private_key.private_bytes_raw() == vector_bytes(f"sk{end}m")
    assert private_key.public_key().public_bytes_raw() == vector_bytes(f"pk{end}m")


def test_every_intermediate_value_matches_the_official_vector():
    ephemeral = X25519PrivateKey.from_private_bytes(vector_bytes("skEm"))
    recipient = X25519PrivateKey.from_private_bytes(vector_bytes("skRm"))
    shared_secret, enc = hpke.encapsulate(vector_bytes("pkRm"), ephemeral=ephemeral)
    assert enc == vector_bytes("enc")
    assert shared_secret == vector_bytes("shared_secret") == hpke.decapsulate(enc, recipient)
    schedule = hpke.schedule_keys(shared_secret, INFO)
    assert schedule.context == vector_bytes("key_schedule_context")
    assert schedule.secret == vector_bytes("secret")
    assert schedule.key == vector_bytes("key")
    assert schedule.base_nonce == vector_bytes("base_nonce")
    assert schedule.exporter_secret == vector_bytes("exporter_secret")


def test_all_encryptions_and_exports_match_the_official_vector_at_both_ends():
    ephemeral = X25519PrivateKey.from_private_bytes(vector_bytes("skEm"))
    sender = hpke.set_up_sender(vector_bytes("pkRm"), INFO, ephemeral=ephemeral)
    recipient = hpke.set_up_recipient(
        vector_bytes("enc"), X25519PrivateKey.from_private_bytes(vector_bytes("skRm")), INFO
    )
    assert len(VECTOR["encryptions"]) == 257  # sequence numbers over one byte
    for sequence, entry in enumerate(VECTOR["encryptions"]):
        plaintext, aad, sealed = (bytes.fromhex(entry[name]) for name in ("pt", "aad", "ct"))
        assert hpke.nonce_at(vector_bytes("base_nonce"), sequence).hex() == entry["nonce"]
        assert sender.seal(plaintext, aad) == sealed
        assert recipient.open(sealed, aad) == plaintext
    for entry in VECTOR["exports"]:
        for context in (sender, recipient):
            exported = context.export(bytes.fromhex(entry["exporter_context"]), entry["L"])
            assert exported.hex() == entry["exported_value"]


def pyhpke_suite():
    return pyhpke.CipherSuite.new(
        pyhpke.KEMId.DHKEM_X25519_HKDF_SHA256, pyhpke.KDFId.HKDF_SHA256, pyhpke.AEADId.AES256_GCM
    )


@given(messages=st.lists(st.binary(max_size=200), min_size=1, max_size=4), aad=st.binary(max_size=40))
def test_pyhpke_opens_what_we_seal_and_seals_what_we_open(messages, aad):
    suite = pyhpke_suite()
    private_key = X25519PrivateKey.generate()
    public = private_key.public_key().public_bytes_raw()
    ours = hpke.set_up_sender(public, INFO)
    theirs = suite.create_recipient_context(
        ours.enc, suite.kem.deserialize_private_key(private_key.private_bytes_raw()), INFO
    )
    assert [theirs.open(ours.seal(message, aad), aad) for message in messages] == messages
    assert theirs.export(b"label", 32) == ours.export(b"label", 32)

    enc, sender = suite.create_sender_context(suite.kem.deserialize_public_key(public), INFO)
    recipient = hpke.set_up_recipient(enc, private_key, INFO)
    assert [recipient.open(sender.seal(message, aad), aad) for message in messages] == messages
    assert sender.export(b"label", 32) == recipient.export(b"label", 32)


@given(message=st.binary(max_size=500), info=st.binary(max_size=40))
def test_cryptographys_own_hpke_agrees_in_both_directions(message, info):
    suite = oracle.Suite(oracle.KEM.X25519, oracle.KDF.HKDF_SHA256, oracle.AEAD.AES_256_GCM)
    private_key = X25519PrivateKey.generate()
    ours = hpke.set_up_sender(private_key.public_key().public_bytes_raw(), info)
    assert suite.decrypt(ours.enc + ours.seal(message), private_key, info) == message
    sealed = suite.encrypt(message, private_key.public_key(), info)
    assert hpke.set_up_recipient(sealed[:32], private_key, info).open(sealed[32:]) == message


def test_hpke_core_agrees_in_both_directions(node_peer):
    private_key = X25519PrivateKey.generate()
    public = private_key.public_key().public_bytes_raw()
    messages = [b"first", b"", b"third"]
    hexed = [message.hex() for message in messages]
    made = node_peer().say(command="hpkeSeal", publicKey=public.hex(), info=INFO.hex(), aad="0102", messages=hexed)
    recipient = hpke.set_up_recipient(bytes.fromhex(made["enc"]), private_key, INFO)
    assert [recipient.open(bytes.fromhex(sealed), b"\1\2") for sealed in made["sealed"]] == messages
    assert recipient.export(b"\0", 32).hex() == made["exported"]

    sender = hpke.set_up_sender(public, INFO)
    opened = node_peer().say(
        command="hpkeOpen",
        privateKey=private_key.private_bytes_raw().hex(),
        enc=sender.enc.hex(),
        info=INFO.hex(),
        aad="0102",
        sealed=[sender.seal(message, b"\1\2").hex() for message in messages],
    )
    assert opened == {"messages": hexed, "exported": sender.export(b"\0", 32).hex()}


def exchange() -> tuple[hpke.SenderContext, hpke.RecipientContext]:
    private_key = X25519PrivateKey.generate()
    sender = hpke.set_up_sender(private_key.public_key().public_bytes_raw(), INFO)
    return sender, hpke.set_up_recipient(sender.enc, private_key, INFO)


def test_the_answer_is_sealed_at_sequence_number_one_of_the_same_key():
    ephemeral = X25519PrivateKey.from_private_bytes(vector_bytes("skEm"))
    sender = hpke.set_up_sender(vector_bytes("pkRm"), INFO, ephemeral=ephemeral)
    recipient = hpke.set_up_recipient(sender.enc, X25519PrivateKey.from_private_bytes(vector_bytes("skRm")), INFO)
    recipient.open(sender.seal(b"question"))
    sealed = recipient.seal_response(b"answer")
    direct = hpke.AESGCM(vector_bytes("key"))
    assert direct.decrypt(bytes.fromhex(VECTOR["encryptions"][1]["nonce"]), sealed, b"") == b"answer"
    assert sender.open_response(sealed) == b"answer"


def test_a_context_never_seals_twice_under_one_nonce():
    sender, recipient = exchange()
    with pytest.raises(RuntimeError):
        recipient.seal_response(b"before anything was opened")
    recipient.open(sender.seal(b"question"))
    sealed = recipient.seal_response(b"answer")
    with pytest.raises(RuntimeError):
        recipient.seal_response(b"another answer")
    with pytest.raises(RuntimeError):
        recipient.open(b"whatever")
    sender.open_response(sealed)
    with pytest.raises(RuntimeError):
        sender.seal(b"would use the answer's nonce")


def test_an_answer_after_two_request_messages_is_refused():
    sender, recipient = exchange()
    recipient.open(sender.seal(b"one"))
    recipient.open(sender.seal(b"two"))
    with pytest.raises(RuntimeError):
        recipient.seal_response(b"answer")


def test_a_failed_open_does_not_change_the_sequence_number():
    sender, recipient = exchange()
    sealed = sender.seal(b"question")
    with pytest.raises(CryptoFailure):
        recipient.open(bytes(len(sealed)))
    assert recipient.open(sealed) == b"question"


@pytest.mark.parametrize("point", LOW_ORDER_POINTS)
def test_a_low_order_point_is_the_uniform_failure(point):
    with pytest.raises(CryptoFailure):
        hpke.set_up_recipient(bytes.fromhex(point), X25519PrivateKey.generate(), INFO)
    with pytest.raises(CryptoFailure):
        hpke.set_up_sender(bytes.fromhex(point), INFO)


def test_all_failures_look_identical_from_outside():
    private_key = X25519PrivateKey.generate()
    sender, recipient = exchange()
    failures = []
    for attempt in (
        lambda: hpke.set_up_recipient(bytes(32), private_key, INFO),
        lambda: hpke.set_up_recipient(bytes(31), private_key, INFO),
        lambda: hpke.set_up_recipient(sender.enc, private_key, INFO).open(sender.seal(b"for another key")),
        lambda: recipient.open(b"short"),
        lambda: recipient.open(bytes(16)),
    ):
        with pytest.raises(CryptoFailure) as caught:
            attempt()
        failures.append((str(caught.value), caught.value.code, caught.value.param, caught.value.args))
    assert len(set(failures)) == 1


def test_no_repr_contains_a_key():
    sender, recipient = exchange()
    schedule = sender._schedule
    for value in (sender, recipient, schedule):
        assert schedule.key.hex() not in repr(value)
        assert repr(schedule.key) not in repr(value)
    assert inspect.getattr_static(type(schedule), "__repr__") is object.__repr__


def test_x25519_public_keys_of_the_wrong_size_are_the_uniform_failure():
    for size in (0, 31, 33):
        with pytest.raises(CryptoFailure):
            hpke.set_up_sender(bytes(size), INFO)
    assert X25519PublicKey.from_public_bytes(bytes(32))  # the library accepts the zero point until it is used
