"""X-Wing and RVENC against vectors, noble and cryptography's HPKE; response encryption; the insecure literal mode."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hpke as oracle
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto import hpke, rvenc, xwing
from ragsvc.crypto.rvenc_events import EventReader, RvencEvent, encode_rvenc_event
from tests.support.crypto import load_vectors

VECTORS = load_vectors("hpke_pq_xwing_base.json")
XWING_SUITE = b"HPKE" + bytes.fromhex("647a00010002")
KEY = xwing.XWingPrivateKey(bytes(range(32)))
KEYS = rvenc.generate_encryption_keys(KEY.public_key)
NONCE = bytes(range(24))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["kdf_id"]))
def test_key_expansion_and_decapsulation_match_the_vectors(vector):
    private_key = xwing.XWingPrivateKey(bytes.fromhex(vector["skRm"]))
    assert private_key.public_key.hex() == vector["pkRm"]
    assert private_key.decapsulate(bytes.fromhex(vector["enc"])).hex() == vector["shared_secret"]


def test_the_key_schedule_over_x_wing_matches_the_vector():
    vector = VECTORS[0]
    info = bytes.fromhex(vector["info"])
    suite = bytes.fromhex(vector["suite_id"])
    schedule = hpke.schedule_keys(bytes.fromhex(vector["shared_secret"]), info, suite=suite)
    assert schedule.key.hex() == vector["key"]
    assert schedule.base_nonce.hex() == vector["base_nonce"]
    assert schedule.exporter_secret.hex() == vector["exporter_secret"]


def test_noble_derives_the_same_keys_and_secrets(node_peer):
    assert node_peer().say(command="xwingPublicKey", seed=bytes(range(32)).hex())["publicKey"] == KEY.public_key.hex()
    made = node_peer().say(command="xwingEncapsulate", publicKey=KEY.public_key.hex())
    assert KEY.decapsulate(bytes.fromhex(made["cipherText"])).hex() == made["sharedSecret"]
    shared_secret, cipher_text = xwing.encapsulate(KEY.public_key)
    back = node_peer().say(command="xwingDecapsulate", seed=bytes(range(32)).hex(), cipherText=cipher_text.hex())
    assert back["sharedSecret"] == shared_secret.hex()


def test_noble_encapsulates_the_vector(node_peer):
    vector = VECTORS[0]
    made = node_peer().say(command="xwingEncapsulate", publicKey=vector["pkRm"], randomness=vector["ikmE"])
    assert (made["cipherText"], made["sharedSecret"]) == (vector["enc"], vector["shared_secret"])


def test_cryptographys_own_x_wing_hpke_agrees_in_both_directions():
    suite = oracle.Suite(oracle.KEM.MLKEM768_X25519, oracle.KDF.HKDF_SHA256, oracle.AEAD.AES_256_GCM)
    public = oracle.MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(KEY.public_key[:1184]),
        X25519PublicKey.from_public_bytes(KEY.public_key[1184:]),
    )
    sealed = suite.encrypt(b"message", public, b"info")
    schedule = hpke.schedule_keys(KEY.decapsulate(sealed[:1120]), b"info", suite=XWING_SUITE)
    assert hpke.AESGCM(schedule.key).decrypt(schedule.base_nonce, sealed[1120:], b"") == b"message"

    shared_secret, cipher_text = xwing.encapsulate(KEY.public_key)
    schedule = hpke.schedule_keys(shared_secret, b"info", suite=XWING_SUITE)
    ours = cipher_text + hpke.AESGCM(schedule.key).encrypt(schedule.base_nonce, b"message", b"")
    expanded = xwing.hashlib.shake_256(bytes(range(32))).digest(96)
    private = oracle.MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])
    )
    assert suite.decrypt(ours, private, b"info") == b"message"


def test_malformed_keys_and_ciphertexts_are_the_uniform_failure():
    cipher_text = KEYS.cipher_text
    for bad in (b"", cipher_text[:-1], cipher_text + b"\0", cipher_text[:1088] + bytes(32)):
        with pytest.raises(CryptoFailure):
            KEY.decapsulate(bad)
    public = KEY.public_key
    for bad in (b"", public[:-1], b"\xff" * 1184 + public[1184:], public[:1184] + bytes(32)):
        with pytest.raises(CryptoFailure):
            xwing.encapsulate(bad)


def test_a_request_opens_and_names_its_claim():
    request = rvenc.seal_request(KEYS, b'{"model": "m"}')
    opened = rvenc.open_request(request, KEY)
    assert opened.payload == b'{"model": "m"}'
    upper = rvenc.EncryptedInference(
        request.encrypted_inference.upper(), request.cipher_text.upper(), request.nonce.upper()
    )
    assert (
        rvenc.open_request(upper, KEY).claim_digest == opened.claim_digest
    )  # a replay in another encoding is a replay
    other = rvenc.open_request(rvenc.seal_request(KEYS, b"{}"), KEY)
    assert other.claim_digest != opened.claim_digest  # same cipherText, other nonce: allowed


def test_noble_seals_requests_we_open_and_opens_answers_we_seal(node_peer):
    parameters = {"key": KEYS.shared_secret.hex(), "nonce": NONCE.hex(), "aad": ""}
    sealed = node_peer().say(command="xchachaSeal", message=b'{"a": 1}'.hex(), **parameters)["sealed"]
    request = rvenc.EncryptedInference(sealed, KEYS.cipher_text.hex(), NONCE.hex())
    assert rvenc.open_request(request, KEY).payload == b'{"a": 1}'
    event = rvenc.seal_insecure_literal_chunk(KEYS.shared_secret, NONCE, b"literal")
    data = event.decode().split("data: ")[1].strip()
    opened = node_peer().say(command="xchachaOpen", sealed=data, **parameters)
    assert bytes.fromhex(opened["message"]) == b"literal"


@pytest.mark.parametrize("field", ["encrypted_inference", "cipher_text", "nonce"])
@pytest.mark.parametrize("value", ["", "0", "zz", "00", "flip"])
def test_malformed_or_changed_requests_are_the_uniform_failure(field, value):
    request = rvenc.seal_request(KEYS, b"{}")
    fields = {name: getattr(request, name) for name in request.__struct_fields__}
    first = fields[field][0]
    fields[field] = ("0" if first != "0" else "1") + fields[field][1:] if value == "flip" else value
    with pytest.raises(CryptoFailure) as caught:
        rvenc.open_request(rvenc.EncryptedInference(**fields), KEY)
    assert str(caught.value) == str(CryptoFailure())


def record() -> bytes:
    sealer = rvenc.ResponseSealer(KEYS.shared_secret, NONCE, response_nonce=bytes(range(32)))
    return sealer.data(b'{"a": 1}') + sealer.data(b'{"b": 2}') + sealer.done()


def open_whole(body: bytes, step: int = 10**6, header: str | None = None) -> list[bytes]:
    reader = EventReader()
    opener = rvenc.ResponseOpener(KEYS.shared_secret, NONCE, response_nonce_header=header)
    payloads = [
        opener.open(event).payload
        for start in range(0, len(body), step)
        for event in reader.feed(body[start : start + step])
    ]
    reader.finish()
    opener.finish()
    return payloads


def test_answers_open_in_every_step_size():
    body = record()
    for step in range(1, len(body) + 1, 3):
        assert open_whole(body, step) == [b'{"a": 1}', b'{"b": 2}', b"[DONE]"]
    assert open_whole(body, header=bytes(range(32)).hex())[0] == b'{"a": 1}'
    with pytest.raises(CryptoFailure):
        open_whole(body, header=bytes(32).hex())


def test_every_truncation_point_of_an_answer_is_refused():
    body = record()
    for end in range(len(body)):
        with pytest.raises(CryptoFailure):
            open_whole(body[:end])


def test_every_flipped_byte_of_an_answer_is_refused():
    body = record()
    for position in range(len(body)):
        for mask in (0x01, 0x06, 0x20, 0x80, body[position] ^ ord(":"), body[position] ^ ord("\n")):
            if mask == 0:
                continue
            changed = bytearray(body)
            changed[position] ^= mask
            with pytest.raises(CryptoFailure):
                open_whole(bytes(changed))


def test_events_cannot_be_dropped_swapped_renamed_or_added():
    first, second, done = [block + b"\n\n" for block in record().split(b"\n\n")[:-1]]
    error = done.replace(b"event: done", b"event: error")
    for body in (second + done, first + done, second + first + done, first + second + error, first + second + done * 2):
        with pytest.raises(CryptoFailure):
            open_whole(body)
    assert open_whole(b": hello\n\n" + first + b": ping\n\n" + second + done)[-1] == b"[DONE]"


def test_an_error_ends_the_answer_and_is_authenticated():
    sealer = rvenc.ResponseSealer(KEYS.shared_secret, NONCE)
    body = sealer.data(b"{}") + sealer.error(b'{"error": {}}')
    assert open_whole(body) == [b"{}", b'{"error": {}}']
    with pytest.raises(RuntimeError):
        sealer.data(b"more")
    with pytest.raises(CryptoFailure):
        open_whole(body.replace(b"event: error", b"event: done"))


def test_two_answers_to_one_request_share_no_key_stream():
    plaintext = bytes(64)
    sealed = [rvenc.ResponseSealer(KEYS.shared_secret, NONCE).data(plaintext) for _ in range(2)]
    streams = {event.split(b"data: ")[1][64:192] for event in sealed}
    assert len(streams) == 2


def test_the_insecure_literal_mode_is_a_many_time_pad_and_therefore_off_by_default():
    question = rvenc.seal_request(KEYS, b'{"content": "my secret"}', nonce=NONCE).encrypted_inference
    known = b'{"choices": [{"delta": {"content": "known"}}]}'
    answer = rvenc.seal_insecure_literal_chunk(KEYS.shared_secret, NONCE, known).decode().split("data: ")[1]
    key_stream = bytes(a ^ b for a, b in zip(bytes.fromhex(answer), known, strict=False))
    recovered = bytes(a ^ b for a, b in zip(bytes.fromhex(question), key_stream, strict=False))
    assert recovered.startswith(b'{"content": "my secret"}')
    assert rvenc.open_insecure_literal_chunk(KEYS, NONCE, answer.strip()) == known
    assert rvenc.encode_insecure_literal_done() == b"event: done\ndata: [DONE]\n\n"


def test_the_event_reader_bounds_its_buffer():
    reader = EventReader(max_buffer_bytes=100)
    reader.feed(b"event: data\ndata: " + b"0" * 80)
    with pytest.raises(CryptoFailure):
        reader.feed(b"0" * 80)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from(["data", "done"]), st.text("0123456789abcdef")), max_size=5), st.integers(1, 50)
)
def test_events_survive_any_slicing(events, step):
    body = b": comment\n\n".join(encode_rvenc_event(name, data) for name, data in events)
    reader = EventReader()
    read = [event for start in range(0, len(body), step) for event in reader.feed(body[start : start + step])]
    reader.finish()
    assert read == [RvencEvent(name, data) for name, data in events]


def test_no_repr_contains_a_secret_or_plaintext():
    opened = rvenc.open_request(rvenc.seal_request(KEYS, b"canary"), KEY)
    event = rvenc.OpenedEvent(rvenc.EventName.DATA, b"canary")
    for value in (opened, event, KEYS, KEY):
        assert "canary" not in repr(value)
        assert KEYS.shared_secret.hex() not in repr(value)
