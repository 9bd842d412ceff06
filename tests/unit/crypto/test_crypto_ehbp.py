"""EHBP against both public clients, and against itself with sliced streams."""

from __future__ import annotations

import subprocess

import ehbp as public_client
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto import ehbp
from tests.support.crypto import NODE_FOLDER

PRIVATE_KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = PRIVATE_KEY.public_key().public_bytes_raw()
BODY = '{"model": "m", "stream": true, "messages": [{"role": "user", "content": "wie geht es"}]}'


def test_the_key_configuration_has_41_bytes_and_no_outer_length():
    config = ehbp.encode_key_config(PUBLIC_KEY)
    assert config.hex() == "000020" + PUBLIC_KEY.hex() + "000400010002"
    assert len(config) == ehbp.KEY_CONFIG_BYTES
    assert ehbp.decode_key_config(config) == PUBLIC_KEY
    for bad in (config[:-1], config + b"\0", b"\0\x29" + config, config[:-1] + b"\3"):
        with pytest.raises(CryptoFailure):
            ehbp.decode_key_config(bad)


@given(pieces=st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=5), step=st.integers(1, 200))
def test_requests_and_answers_survive_any_slicing(pieces, step):
    client = ehbp.ClientExchange(PUBLIC_KEY)
    server = ehbp.ServerExchange(client.encapsulated_key_header, [X25519PrivateKey.generate(), PRIVATE_KEY])
    body = b"\0\0\0\0".join(client.seal_request(piece) for piece in pieces)
    opened = b"".join(server.request.feed(body[start : start + step]) for start in range(0, len(body), step))
    server.request.finish()
    assert (opened, server.key_index) == (b"".join(pieces), 1)

    answer = b"\0\0\0\0" + b"".join(server.seal_response(piece) for piece in pieces)
    frames = client.open_response(server.response_nonce_header)
    opened = b"".join(frames.feed(answer[start : start + step]) for start in range(0, len(answer), step))
    frames.finish()
    assert opened == b"".join(pieces)


def test_an_answer_needs_an_opened_request():
    client = ehbp.ClientExchange(PUBLIC_KEY)
    server = ehbp.ServerExchange(client.encapsulated_key_header, [PRIVATE_KEY])
    with pytest.raises(RuntimeError):
        server.seal_response(b"unasked")


def test_another_key_a_truncated_frame_and_a_changed_byte_are_refused():
    client = ehbp.ClientExchange(PUBLIC_KEY)
    body = client.seal_request(b"question")
    other = ehbp.ServerExchange(client.encapsulated_key_header, [X25519PrivateKey.generate()])
    with pytest.raises(CryptoFailure):
        other.request.feed(body)
    assert other.request.opened_frames == 0  # the web layer's sign for status 422
    for end in range(1, len(body)):
        server = ehbp.ServerExchange(client.encapsulated_key_header, [PRIVATE_KEY])
        server.request.feed(body[:end])
        with pytest.raises(CryptoFailure):
            server.request.finish()
    for position in range(4, len(body)):
        changed = bytearray(body)
        changed[position] ^= 1
        with pytest.raises(CryptoFailure):
            ehbp.ServerExchange(client.encapsulated_key_header, [PRIVATE_KEY]).request.feed(bytes(changed))


def test_a_frame_over_the_limit_is_refused_before_it_is_buffered():
    client = ehbp.ClientExchange(PUBLIC_KEY)
    server = ehbp.ServerExchange(client.encapsulated_key_header, [PRIVATE_KEY], max_frame_bytes=1000)
    with pytest.raises(CryptoFailure):
        server.request.feed((1001).to_bytes(4, "big"))


@pytest.mark.parametrize("header", [None, "", "zz" * 32, "00" * 31, "00" * 33, "00 " * 21 + "0", "00" * 32])
def test_malformed_or_low_order_headers_are_the_uniform_failure(header):
    with pytest.raises(CryptoFailure):
        ehbp.ServerExchange(header, [PRIVATE_KEY])
    if header != "00" * 32:
        with pytest.raises(CryptoFailure):
            ehbp.ClientExchange(PUBLIC_KEY).open_response(header)


def test_the_public_python_client_streams_a_chat_unmodified(server):
    config = httpx.get(server.origin + ehbp.KEYS_PATH)
    identity = public_client.ServerIdentity.from_public_key_hex(ehbp.decode_key_config(config.content).hex())
    transport = public_client.EHBPTransport(identity, inner=httpx.HTTPTransport())
    with httpx.Client(transport=transport) as client:
        answer = client.post(server.origin + "/v1/chat/completions", content=BODY)
    assert [event for event in answer.text.split("\n\n") if event][-1] == "data: [DONE]"
    assert '"content": "geht"' in answer.text
    assert server.application.decrypted == [BODY.encode()]


def test_the_public_javascript_client_streams_a_chat_unmodified(server, node):
    script = """
    import { Transport } from "ehbp";
    const [origin, body] = process.argv.slice(1);
    const transport = await Transport.create(origin);
    console.log(await (await transport.post(origin + "/v1/chat/completions", body)).text());
    """
    done = subprocess.run(
        [node, "--input-type=module", "-e", script, server.origin, BODY],
        cwd=NODE_FOLDER,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "data: [DONE]" in done.stdout, done.stderr
    assert '"content": "geht"' in done.stdout
    assert server.application.decrypted == [BODY.encode()]


def test_the_public_python_client_gets_status_422_after_a_key_change(server):
    identity = public_client.ServerIdentity.from_public_key_hex(PUBLIC_KEY.hex())
    transport = public_client.EHBPTransport(identity, inner=httpx.HTTPTransport())
    with httpx.Client(transport=transport) as client, pytest.raises(public_client.KeyConfigMismatchError):
        client.post(server.origin + "/v1/chat/completions", content=BODY)
