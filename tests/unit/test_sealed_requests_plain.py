"""What the sealed-request layer reads in an opened body, and how it recognises sealed requests."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.crypto import ehbp, sealed_headers
from ragsvc.services.request_encryption import SealedRequestMode
from ragsvc.web.sealed.plain_requests import as_streamed_chat, asks_for_stream
from ragsvc.web.sealed.recognition import is_rvenc_chat, recognise_mode

DEEP = b'{"stream": true, "x": ' + b"[" * 100_000
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))
ENC = sealed_headers.ENC_HEADER.lower().encode()
EHBP = ehbp.ENCAPSULATED_KEY_HEADER.lower().encode()


@pytest.mark.parametrize(
    ("headers", "mode"),
    [
        ({}, None),
        ({b"accept": b"text/event-stream", b"content-type": b"application/json"}, None),
        ({ENC: b""}, SealedRequestMode.HPKE),
        ({b"content-type": b"application/vnd.oryxen.hpke; v=1"}, SealedRequestMode.HPKE),
        ({ENC: b"x", b"accept": b"application/vnd.oryxen.hpke-stream"}, SealedRequestMode.HPKE_STREAM),
        ({b"accept": b"a/b, application/vnd.oryxen.hpke-stream"}, SealedRequestMode.HPKE_STREAM),
        ({EHBP: b""}, SealedRequestMode.EHBP),
        ({EHBP: b"x", ENC: b"x"}, SealedRequestMode.HPKE),
    ],
)
def test_any_sign_of_encryption_selects_a_mode(headers, mode):
    assert recognise_mode(headers) is mode


@pytest.mark.parametrize(
    ("method", "path", "root_path", "expected"),
    [
        ("POST", "/rvenc/chat/completions", "", True),
        ("POST", "//rvenc/chat//completions//", "", True),
        ("POST", "/behind/rvenc/chat/completions", "/behind", True),
        ("POST", "/behind/rvenc/chat/completions", "", False),
        ("POST", "/rvenc/chat/completions/x", "", False),
        ("GET", "/rvenc/chat/completions", "", False),
        ("POST", "/v1/chat/completions", "", False),
    ],
)
def test_an_rvenc_chat_is_recognised_by_method_and_path(method, path, root_path, expected):
    assert is_rvenc_chat(method, path, root_path=root_path) is expected


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b"[]", b"1", b'"text"', DEEP])
def test_a_payload_that_is_not_a_chat_is_left_to_the_chat_route(payload):
    assert as_streamed_chat(payload) == payload


@given(st.dictionaries(st.text(), JSON))
def test_every_rvenc_chat_asks_for_a_stream(fields):
    streamed = json.loads(as_streamed_chat(json.dumps(fields).encode()))
    assert streamed["stream"] is True
    if fields.get("stream") is True:
        assert streamed == fields
    else:
        assert streamed["stream_options"] == {"include_usage": True}
        changed = {"stream", "stream_options"}
        assert {name: streamed[name] for name in fields.keys() - changed} == {
            name: fields[name] for name in fields.keys() - changed
        }


@pytest.mark.parametrize("body", [b"", b'{"stream": false}', b'["stream"]', b'{"stream": true', b"\xff", DEEP])
def test_only_a_json_object_with_stream_true_asks_for_a_stream(body):
    assert not asks_for_stream(body)
    assert asks_for_stream(b' {"stream": true, "model": "m"}')
