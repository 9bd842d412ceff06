"""Streamed responses: any slicing opens, truncated or changed streams are refused, also by a JavaScript client."""

from __future__ import annotations

import itertools
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto import hpke, sealed_headers
from ragsvc.crypto.framing import decode_varint, encode_varint
from ragsvc.crypto.hpke_stream import MAX_CHUNK_BYTES, StreamOpener, StreamSealer, bind_request, pad_event_stream
from tests.support.crypto import KEY, NODE_FOLDER, make_exchange

PRIVATE_KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))
EPHEMERAL = X25519PrivateKey.from_private_bytes(bytes(range(32, 64)))


def fixed_exchange() -> tuple[hpke.SenderContext, hpke.RecipientContext]:
    public = PRIVATE_KEY.public_key().public_bytes_raw()
    sender = hpke.set_up_sender(public, sealed_headers.INFO, ephemeral=EPHEMERAL)
    return sender, hpke.set_up_recipient(sender.enc, PRIVATE_KEY, sealed_headers.INFO)


def record(pieces: list[bytes]) -> bytes:
    sealer = StreamSealer(fixed_exchange()[1], response_nonce=bytes(32))
    return sealer.start() + b"".join(sealer.write(piece) + sealer.flush() for piece in pieces) + sealer.finish()


def open_whole(body: bytes, step: int | None = None) -> bytes:
    opener = StreamOpener(fixed_exchange()[0])
    step = step or max(1, len(body))
    parts = [opener.feed(body[start : start + step]) for start in range(0, len(body), step)]
    return b"".join(parts) + opener.finish()


RECORDED = record([b"data: one\n\n", b"data: two\n\n", b"x" * 70, b"data: [DONE]\n\n"])
PLAINTEXT = b"data: one\n\ndata: two\n\n" + b"x" * 70 + b"data: [DONE]\n\n"


def test_the_recorded_stream_opens_in_every_step_size():
    for step in range(1, len(RECORDED) + 1):
        assert open_whole(RECORDED, step) == PLAINTEXT


def test_every_truncation_point_is_refused():
    for end in range(len(RECORDED)):
        with pytest.raises(CryptoFailure):
            open_whole(RECORDED[:end])


def test_every_flipped_byte_is_refused():
    for position in range(len(RECORDED)):
        for mask in (0x01, 0x20, 0x40, 0x80, 0xFF):
            changed = bytearray(RECORDED)
            changed[position] ^= mask
            with pytest.raises(CryptoFailure):
                open_whole(bytes(changed))


def test_bytes_after_the_end_are_refused():
    for extra in (b"\0", b"more", RECORDED):
        with pytest.raises(CryptoFailure):
            open_whole(RECORDED + extra)


def test_chunks_cannot_be_swapped_repeated_or_dropped():
    frames = split_frames(RECORDED)
    head, tail = RECORDED[:32], RECORDED[32 + sum(map(len, frames)) :]
    for order in ([1, 0, 2, 3], [0, 0, 1, 2, 3], [1, 2, 3], [0, 1, 2]):
        with pytest.raises(CryptoFailure):
            open_whole(head + b"".join(frames[index] for index in order) + tail)
    assert open_whole(head + b"".join(frames) + tail) == PLAINTEXT


def split_frames(body: bytes) -> list[bytes]:
    frames, rest = [], body[32:]
    while rest[0] != 0:
        header = decode_varint(rest)
        assert header is not None
        length = sum(header)
        frames.append(rest[:length])
        rest = rest[length:]
    return frames


def test_a_stream_for_another_request_does_not_open():
    sealer = StreamSealer(make_exchange()[1])
    body = sealer.start() + sealer.write(b"secret") + sealer.finish()
    with pytest.raises(CryptoFailure):
        open_whole(body)


def test_after_a_failure_every_call_fails():
    opener = StreamOpener(fixed_exchange()[0])
    changed = bytearray(RECORDED)
    changed[40] ^= 1
    with pytest.raises(CryptoFailure):
        opener.feed(bytes(changed))
    for attempt in (lambda: opener.feed(RECORDED), lambda: opener.feed(b""), opener.finish):
        with pytest.raises(CryptoFailure):
            attempt()


def test_finish_works_once():
    opener = StreamOpener(fixed_exchange()[0])
    assert opener.feed(RECORDED) + opener.finish() == PLAINTEXT
    with pytest.raises(CryptoFailure):
        opener.finish()


@given(
    pieces=st.lists(st.binary(max_size=100) | st.just(b"y" * (MAX_CHUNK_BYTES + 5)), max_size=5),
    cuts=st.lists(st.integers(0, 60_000), max_size=12),
    flush=st.booleans(),
)
def test_any_pieces_survive_any_slicing(pieces, cuts, flush):
    sender, recipient = make_exchange()
    sealer = StreamSealer(recipient)
    body = sealer.start()
    for piece in pieces:
        body += sealer.write(piece) + (sealer.flush() if flush else b"")
    assert sealer.pending_bytes < MAX_CHUNK_BYTES
    body += sealer.finish()
    opener = StreamOpener(sender)
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    opened = b"".join(opener.feed(body[start:end]) for start, end in itertools.pairwise(edges))
    assert opened + opener.finish() == b"".join(pieces)


@given(
    pieces=st.lists(
        st.binary(max_size=60)
        | st.sampled_from([MAX_CHUNK_BYTES - 1, MAX_CHUNK_BYTES, 3 * MAX_CHUNK_BYTES + 7]).map(bytes),
        max_size=5,
    ),
    flush=st.booleans(),
)
def test_flushing_and_finishing_with_data_give_the_bytes_of_separate_calls(pieces, flush):
    separate, joined = (StreamSealer(fixed_exchange()[1], response_nonce=bytes(32)) for _ in range(2))
    expected, body = separate.start(), b""
    joined.start_with_first_chunk()
    for piece in pieces:
        expected += separate.write(piece) + (separate.flush() if flush else b"")
        body += joined.write(piece, flush=flush)
        assert body == (b"" if len(expected) == 32 else expected)  # the nonce comes with the first chunk
    expected += separate.write(b"the end") + separate.finish()
    assert body + joined.finish(b"the end") == expected


def test_small_writes_are_collected_into_few_chunks_of_at_most_16_kib():
    sealer = StreamSealer(make_exchange()[1])
    sealer.start()
    frames = b"".join(sealer.write(b"token ") for _ in range(6000))  # 36,000 bytes
    assert len(split_frames(bytes(32) + frames + b"\0")) == 2
    assert sealer.pending_bytes == 36_000 - 2 * MAX_CHUNK_BYTES
    assert all(len(frame) <= MAX_CHUNK_BYTES + 16 + 4 for frame in split_frames(bytes(32) + frames + b"\0"))


def test_an_idle_flush_sends_nothing_because_chunks_are_never_empty():
    sealer = StreamSealer(make_exchange()[1])
    sealer.start()
    assert sealer.flush() == b""


@pytest.mark.parametrize(
    "frame",
    [
        encode_varint(16) + bytes(16),  # an empty chunk
        encode_varint(MAX_CHUNK_BYTES + 17),  # a chunk over the limit, refused before it is buffered
        b"\xff" * 8,  # the largest length
        b"\x40\x20" + bytes(32),  # a length in two bytes that fits one
    ],
)
def test_frames_outside_the_format_are_refused_at_once(frame):
    opener = StreamOpener(fixed_exchange()[0])
    opener.feed(bytes(32))
    with pytest.raises(CryptoFailure):
        opener.feed(frame)


def test_an_overlong_final_chunk_is_refused_before_it_is_buffered():
    opener = StreamOpener(fixed_exchange()[0])
    opener.feed(bytes(32) + b"\0" + bytes(MAX_CHUNK_BYTES + 16))
    with pytest.raises(CryptoFailure):
        opener.feed(b"\0")


def test_a_finished_sealer_seals_no_more():
    sealer = StreamSealer(make_exchange()[1])
    with pytest.raises(RuntimeError):
        sealer.write(b"before the start")
    sealer.start()
    sealer.finish()
    for attempt in (sealer.flush, sealer.finish, sealer.start, lambda: sealer.write(b"late")):
        with pytest.raises(RuntimeError):
            attempt()


@given(st.integers(0, (1 << 62) - 1))
def test_varints_round_trip_in_the_fewest_bytes(value):
    encoded = encode_varint(value)
    assert decode_varint(encoded) == (value, len(encoded))
    assert all(decode_varint(encoded[:end]) is None for end in range(len(encoded)))
    assert len(encoded) == next(size for size in (1, 2, 4, 8) if value < 1 << (8 * size - 2))


BOUND = {"method": "POST", "target": "/v1/chat/completions", "content_type": "application/json", "api_key": "k"}


@pytest.mark.parametrize("changed", ["method", "target", "content_type", "api_key"])
def test_a_request_moved_to_another_account_path_or_method_does_not_open(changed):
    sender, recipient = make_exchange()
    sealed = sender.seal(b"{}", bind_request(**BOUND))
    with pytest.raises(CryptoFailure):
        recipient.open(sealed, bind_request(**{**BOUND, changed: "GET"}))
    assert recipient.open(sealed, bind_request(**BOUND)) == b"{}"


def test_parts_of_the_binding_cannot_run_into_each_other():
    first = bind_request(method="POST", target="/a", content_type="b", api_key="k")
    second = bind_request(method="POST", target="/ab", content_type="", api_key="k")
    assert first != second


def test_a_stream_request_does_not_open_as_one_shot_nor_the_other_way():
    sender, recipient = make_exchange()
    sealed = sender.seal(b"{}", bind_request(**BOUND))
    with pytest.raises(CryptoFailure):
        recipient.open(sealed)


@given(st.binary(max_size=300), st.integers(1, 300))
def test_padding_is_a_comment_and_gives_the_requested_multiple(events, multiple):
    padded = pad_event_stream(events, multiple=multiple)
    assert len(padded) % multiple == 0
    assert padded.startswith(events)
    assert padded[len(events) :] == b"" or padded[len(events) :].startswith(b":")


@pytest.mark.parametrize("cut", [False, True])
def test_a_javascript_client_opens_the_stream_and_refuses_a_truncated_stream(node_peer, cut):
    request = {
        "method": "POST",
        "target": "/v1/x?y=1",
        "contentType": "application/json",
        "apiKey": "kéy",
        "body": "{}",
    }
    peer = node_peer()
    public = PRIVATE_KEY.public_key().public_bytes_raw().hex()
    made = peer.say(command="streamExchange", publicKey=public, request=request)
    recipient = hpke.set_up_recipient(bytes.fromhex(made["enc"]), PRIVATE_KEY, sealed_headers.INFO)
    aad = bind_request(method="post", target="/v1/x?y=1", content_type="application/json", api_key="kéy")
    assert recipient.open(bytes.fromhex(made["sealed"]), aad) == b"{}"
    sealer = StreamSealer(recipient)
    text = "täglich ".encode() * 9000
    body = sealer.start() + sealer.write(text[:7]) + sealer.flush() + sealer.write(text[7:]) + sealer.finish()
    if cut:
        body = body[:-1]
    slices = [body[start : start + 5000].hex() for start in range(0, len(body), 5000)]
    answer = peer.say(slices=slices)
    assert ("refused" in answer) if cut else (bytes.fromhex(answer["message"]) == text)


def test_the_javascript_example_streams_a_chat_from_a_server(server, node):
    command = [node, "encrypted_chat.mjs", server.origin, KEY, "wie geht es"]
    done = subprocess.run(command, cwd=NODE_FOLDER, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.endswith("data: [DONE]\n\n"), done.stderr
    assert b"wie geht es" in server.application.decrypted[0]
    server.application.cut_streams = True
    cut = subprocess.run(command, cwd=NODE_FOLDER, capture_output=True, text=True, timeout=30, check=False)
    assert cut.returncode != 0
    assert "cut off" in cut.stderr
