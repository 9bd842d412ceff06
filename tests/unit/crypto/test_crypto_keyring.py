"""Key sets rotate with an overlap and are never restored; a request is accepted once."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import sqlite3
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core.errors import ConfigurationError, CryptoFailure
from ragsvc.crypto import ehbp, hpke, rvenc, sealed_headers, sealed_requests
from ragsvc.crypto.hpke_stream import bind_request
from ragsvc.crypto.keyring import Keyring, KeySet, parse_secret
from ragsvc.crypto.replay import ReplayClaim
from ragsvc.store.replay_claims import CLAIMS_FILE_NAME, PRUNE_AFTER_S, SqliteClaims
from tests.support.crypto import Clock, in_memory_keyring

DAY = 86_400
SECRET = bytes(range(32))


def seal_one_shot(key_set: KeySet, body: bytes = b"{}", aad: bytes = b"") -> tuple[str, bytes, hpke.SenderContext]:
    sender = hpke.set_up_sender(key_set.hpke_public, sealed_headers.INFO)
    return sealed_headers.encode_base64(sender.enc), sender.seal(body, aad), sender


def test_a_key_rotates_overlaps_and_retires():
    clock = Clock(10 * DAY + 5.0)
    keyring = Keyring.in_memory(clock=clock, randomness=os.urandom, lifetime_s=DAY, overlap_s=3600)
    first = keyring.current()
    assert (first.expires_at, first.accepted_until) == (11 * DAY, 11 * DAY + 3600)
    assert keyring.accepted() == [first]
    enc, sealed, _ = seal_one_shot(first)

    clock.now = 11 * DAY
    second = keyring.current()
    assert second.key_id != first.key_id
    assert keyring.accepted() == [second, first]
    assert sealed_requests.open_one_shot(keyring.accepted(), enc, sealed).key_id == first.key_id

    clock.now = 11 * DAY + 3600
    assert keyring.accepted() == [second]
    with pytest.raises(CryptoFailure):
        sealed_requests.open_one_shot(keyring.accepted(), enc, sealed)


def test_a_clock_that_is_set_back_does_not_restore_a_key():
    clock = Clock(10 * DAY)
    keyring = Keyring.rotating(SECRET, clock=clock, claims_are_durable=True, lifetime_s=DAY, overlap_s=3600)
    first = keyring.current().key_id
    clock.now = 12 * DAY
    assert first not in {key_set.key_id for key_set in keyring.accepted()}
    clock.now = 10 * DAY
    assert first not in {key_set.key_id for key_set in keyring.accepted()}


@given(st.integers(0, 10**9), st.integers(-59, 59))
def test_processes_that_share_a_secret_accept_each_others_keys_whatever_their_clocks(now, skew):
    ours = Keyring.rotating(SECRET, clock=Clock(now + 3 * DAY), claims_are_durable=True)
    theirs = Keyring.rotating(SECRET, clock=Clock(now + 3 * DAY + skew), claims_are_durable=True)
    assert ours.current().key_id in {key_set.key_id for key_set in theirs.accepted()}
    assert ours.accepted()[0].key_id == ours.current().key_id


def test_keys_in_memory_differ_in_every_process_and_secrets_differ():
    assert in_memory_keyring().current().key_id != in_memory_keyring().current().key_id
    made = {Keyring.fixed(bytes([i]) * 32, clock=Clock(), claims_are_durable=True).current().key_id for i in range(3)}
    assert len(made) == 3


def test_a_fixed_key_neither_changes_nor_expires():
    clock = Clock(0)
    keyring = Keyring.fixed(SECRET, clock=clock, claims_are_durable=True)
    first = keyring.current()
    clock.now = 10_000 * DAY
    assert keyring.current() is first
    assert (first.expires_at, first.accepted_until) == (None, None)


@pytest.mark.parametrize("make", [Keyring.fixed, Keyring.rotating])
def test_keys_that_outlive_their_claims_are_refused(make):
    with pytest.raises(ConfigurationError, match="claim store"):
        make(SECRET, clock=Clock(), claims_are_durable=False)


def test_an_overlap_as_long_as_the_lifetime_is_refused():
    with pytest.raises(ConfigurationError):
        Keyring.in_memory(clock=Clock(), randomness=os.urandom, lifetime_s=10, overlap_s=10)


def test_secrets_are_read_raw_hexadecimal_or_base64():
    for content in (SECRET, SECRET.hex().encode() + b"\n", b" " + base64.b64encode(SECRET) + b"\r\n"):
        assert parse_secret(content) == SECRET
    for bad in (b"", b"correct horse battery staple", SECRET[:-1], SECRET.hex().encode()[:-2], b"=" * 44):
        with pytest.raises(ConfigurationError):
            parse_secret(bad)


@pytest.fixture
def claims(tmp_path) -> Iterator[SqliteClaims]:
    with contextlib.closing(SqliteClaims(tmp_path / CLAIMS_FILE_NAME, outlives_process=True)) as opened:
        yield opened


def test_of_64_parallel_copies_of_one_request_exactly_one_is_accepted(claims, tmp_path):
    keyring = in_memory_keyring()
    enc, sealed, _ = seal_one_shot(keyring.current())
    accepted, refused = [], []
    barrier = threading.Barrier(64)

    def attempt():
        pending = sealed_requests.open_one_shot(keyring.accepted(), enc, sealed)
        barrier.wait(10)
        try:
            accepted.append(pending.accept(claimed=claims.submit(pending.claim).result(10)))
        except CryptoFailure:
            refused.append(1)

    threads = [threading.Thread(target=attempt) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    with contextlib.closing(sqlite3.connect(tmp_path / CLAIMS_FILE_NAME)) as rows:
        remembered = rows.execute("SELECT count(*) FROM claims").fetchone()[0]
    assert (accepted, len(refused), remembered) == ([b"{}"], 63, 1)


def test_claims_are_kept_per_key_and_forgotten_with_it(claims):
    def claim(key_id: str, expires_at: float) -> bool:
        return claims.submit(ReplayClaim(key_id, b"1", expires_at)).result(10)

    assert claim("a", 1000.0)
    assert claim("b", 2000.0)
    assert not claim("a", 1000.0)
    claims.prune(1001.0 + PRUNE_AFTER_S)
    assert claim("a", 1000.0)
    assert not claim("b", 2000.0)


def test_a_request_that_does_not_open_has_no_claim():
    keyring = in_memory_keyring()
    with pytest.raises(CryptoFailure):
        sealed_requests.open_one_shot(
            keyring.accepted(), sealed_headers.encode_base64(bytes([9]) + bytes(31)), bytes(40)
        )


def test_the_claim_is_the_hash_of_enc_and_lasts_as_long_as_the_key():
    keyring = in_memory_keyring()
    enc, sealed, sender = seal_one_shot(keyring.current())
    claim = sealed_requests.open_one_shot(keyring.accepted(), enc, sealed).claim
    digest = sealed_requests.hashlib.sha256(sender.enc).digest()
    assert claim == ReplayClaim(keyring.current().key_id, digest, keyring.current().accepted_until)


def test_an_ehbp_request_is_claimed_once_its_first_frame_opened():
    key_sets = [in_memory_keyring().current(), in_memory_keyring().current()]
    client = ehbp.ClientExchange(key_sets[1].hpke_public)
    server = ehbp.ServerExchange(client.encapsulated_key_header, [key_set.hpke for key_set in key_sets])
    with pytest.raises(RuntimeError):
        sealed_requests.claim_exchange(server, key_sets)
    server.request.feed(client.seal_request(b"{}"))
    claim = sealed_requests.claim_exchange(server, key_sets)
    assert (claim.key_id, claim.expires_at) == (key_sets[1].key_id, key_sets[1].accepted_until)
    assert claim.digest == sealed_requests.hashlib.sha256(server.enc).digest()


def test_a_request_is_answered_once_and_only_after_its_claim():
    keyring = in_memory_keyring()
    enc, sealed, sender = seal_one_shot(keyring.current())
    pending = sealed_requests.open_one_shot(keyring.accepted(), enc, sealed)
    with pytest.raises(RuntimeError):
        pending.seal_response(b"early")
    with pytest.raises(CryptoFailure):
        pending.accept(claimed=False)
    with pytest.raises(RuntimeError):
        pending.stream_response()
    pending.accept(claimed=True)
    assert sender.open_response(pending.seal_response(b"answer")) == b"answer"
    with pytest.raises(RuntimeError):
        pending.seal_response(b"an encrypted error is an answer too")


def test_an_rvenc_request_is_claimed_and_answered_in_the_same_order():
    keyring = in_memory_keyring()
    keys = rvenc.generate_encryption_keys(keyring.current().xwing_public)
    request = rvenc.seal_request(keys, b"{}")
    pending = sealed_requests.open_inference(keyring.accepted(), request)
    with pytest.raises(RuntimeError):
        pending.seal_events()
    assert pending.accept(claimed=True) == b"{}"
    assert pending.seal_events().done().startswith(b"event: done\n")
    with pytest.raises(CryptoFailure):
        sealed_requests.open_inference(in_memory_keyring().accepted(), request)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda enc: None,
        lambda enc: "",
        lambda enc: enc[:-1],
        lambda enc: enc + "=",
        lambda enc: enc.replace("=", ""),
        lambda enc: "*" + enc[1:],
        lambda enc: " " + enc,
        lambda enc: enc + "\n",
        lambda enc: enc[:-2] + chr(ord(enc[-2]) + 1) + "=",  # other unused bits: a second encoding of the same bytes
    ],
)
def test_x_hpke_enc_has_one_valid_encoding(spoil):
    keyring = in_memory_keyring()
    for _ in itertools.repeat(None, 3):
        enc, sealed, _sender = seal_one_shot(keyring.current())
        with pytest.raises(CryptoFailure):
            sealed_requests.open_one_shot(keyring.accepted(), spoil(enc), sealed)


def test_a_streamed_request_opens_only_under_its_binding():
    keyring = in_memory_keyring()
    aad = bind_request(method="POST", target="/v1/x", content_type="", api_key="k")
    enc, sealed, _ = seal_one_shot(keyring.current(), aad=aad)
    assert sealed_requests.open_streamed(keyring.accepted(), enc, sealed, aad=aad).dialect == "rfc9180"
    with pytest.raises(CryptoFailure):
        sealed_requests.open_one_shot(keyring.accepted(), enc, sealed)


def test_the_repr_of_a_key_set_contains_only_its_id():
    key_set = in_memory_keyring().current()
    assert repr(key_set) == f"KeySet(key_id={key_set.key_id!r})"
