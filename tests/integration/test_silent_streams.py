"""Streams of models that are silent: the head of the response and comments go out while nothing else can be sent."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager

import httpx
import pytest

from ragsvc.client import EncryptedTransport, HpkeStream, Rvenc
from ragsvc.config import Settings
from ragsvc.testing.service_runner import RunningService, create_key
from ragsvc.web.keep_alive import COMMENT
from tests.support.chat_service import BALANCE, provider, serving_chat
from tests.support.recording_provider import COMPLETION_STREAM, RecordingProvider
from tests.support.upstream_server import DONE, chunk, event, serving, serving_upstream

HELLO = {"messages": [{"role": "user", "content": "Hello there"}], "stream": True}
QUESTION = {"messages": [{"role": "user", "content": "By how much did revenue rise in 2021?"}], "stream": True}
EVERY_S = 0.2
MODES = {"plain": None, "hpke-stream": HpkeStream, "rvenc": Rvenc}


@pytest.fixture
def upstream():
    with serving_upstream() as running:
        yield running
        running.released.set()


@pytest.fixture
def service(upstream, tmp_path):
    settings = provider(upstream.url, read_timeout_s=20.0, retries=0)
    with serving_chat(tmp_path, [settings], stream_comment_s=EVERY_S) as running:
        yield running


@contextmanager
def asking(service, body, mode="plain"):
    encrypt = MODES[mode]
    transport = None if encrypt is None else EncryptedTransport(service.url, encrypt())
    with (
        httpx.Client(transport=transport, headers=service.headers(), timeout=20) as client,
        client.stream("POST", f"{service.url}/v1/chat/completions", json=body) as reply,
    ):
        yield reply


def pieces_until(pieces, count):
    """The text of a stream until it has so many comments."""
    text = b""
    for piece in pieces:
        text += piece
        if text.count(COMMENT) >= count:
            return text
    pytest.fail(f"the stream ended after {text!r}")
    return text


def without_comments(text: bytes) -> bytes:
    return b"\n\n".join(part for part in text.split(b"\n\n") if part.strip() != COMMENT.strip())


def test_the_default_interval_is_fifteen_seconds():
    assert Settings().stream_comment_s == 15


@pytest.mark.parametrize("model", ["late", "late-token"])
def test_headers_and_comments_go_out_before_the_first_token(service, upstream, model):
    started = time.monotonic()
    with asking(service, HELLO | {"model": model}) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["x-request-id"].startswith("req_")
        pieces = reply.iter_raw()
        text = pieces_until(pieces, 3)
        assert text == COMMENT * 3
        assert time.monotonic() - started < 10
        upstream.released.set()
        text += b"".join(pieces)
    events = without_comments(text)
    assert text.startswith(COMMENT)
    assert events.endswith(DONE)
    assert events.startswith(b'data: {"id":"chatcmpl-upstream"')


@pytest.mark.parametrize("mode", ["hpke-stream", "rvenc"])
def test_encrypted_streams_begin_before_the_first_token(service, upstream, mode):
    with asking(service, HELLO | {"model": "late"}, mode) as reply:
        assert reply.status_code == 200
        pieces = reply.iter_bytes()
        text = b""
        if mode == "hpke-stream":  # the client of RVENC hands on no comments
            text = next(pieces)
            assert b"data:" not in text
        upstream.released.set()
        text += b"".join(pieces)
    assert b"Hello" in text
    assert text.count(b"data: [DONE]") == 1


def test_comments_follow_every_interval_of_silence_and_never_inside_an_event(service, upstream):
    upstream.pause_s = 1.0
    with asking(service, HELLO | {"model": "pauses"}) as reply:
        text = b"".join(reply.iter_raw())
    first, second = event(chunk({"role": "assistant", "content": "one"})), event(chunk({"content": " two"}))
    last = event(chunk({}, finish_reason="stop")) + DONE
    begin, between = text.split(first)[0], text.removeprefix(text.split(first)[0]).removeprefix(first)
    assert begin == b""
    comments = between.removesuffix(second + last)
    count = len(comments) // len(COMMENT)
    assert comments == COMMENT * count
    assert 5 <= count <= 10  # two seconds of silence


def test_a_stream_without_silence_has_no_comments(service, upstream):
    upstream.chunk_delay_s = 0.05
    with asking(service, HELLO | {"model": "any"}) as reply:
        assert COMMENT not in b"".join(reply.iter_raw())


@pytest.mark.parametrize("mode", MODES)
def test_a_failure_after_the_first_comment_is_an_event_and_costs_nothing(service, upstream, mode):
    with asking(service, HELLO | {"model": "late-failure"}, mode) as reply:
        assert reply.status_code == 200
        upstream.released.set()
        text = b"".join(reply.iter_bytes())
    assert b"upstream_error" in text
    assert b"internal details" not in text
    assert service.tokens_left() == BALANCE


def test_refusals_of_our_own_keep_their_status(service):
    for fields, status in (
        ({"model": "late", "temperature": 9}, 400),
        ({"model": "late", "use_rag": True, "rag": {"collection": "absent"}}, 404),
    ):
        with asking(service, QUESTION | fields) as reply:
            assert reply.status_code == status
            assert reply.headers["content-type"] == "application/json"


def test_the_number_of_dropped_passages_is_known_before_the_first_token(service, upstream):
    upstream.models = [{"id": "late", "max_model_len": 1350}]
    with asking(service, QUESTION | {"model": "late", "use_rag": True}) as reply:
        assert reply.headers["x-ragsvc-passages-dropped"] == "1"
        upstream.released.set()
        assert b"12 percent" in b"".join(reply.iter_raw()).replace(b'"}', b"")


def test_a_client_that_leaves_before_the_first_token_stops_the_provider(service, upstream):
    async def leave():
        async with (
            httpx.AsyncClient(headers=service.headers(), timeout=20) as client,
            client.stream("POST", f"{service.url}/v1/chat/completions", json=HELLO | {"model": "slow"}) as reply,
        ):
            async for piece in reply.aiter_raw():
                assert piece == COMMENT
                return

    asyncio.run(leave())
    deadline = time.monotonic() + 5
    while upstream.cancelled == 0:
        assert time.monotonic() < deadline, "the provider still works for nobody"
        time.sleep(0.01)


@pytest.mark.model
def test_other_families_send_comments_too(tmp_path):
    data_dir = tmp_path / "data"
    admin_key = create_key(data_dir, tenant="operator", extra=("--scope", "admin"))
    key = create_key(data_dir)
    recording = RecordingProvider()
    with serving(recording) as (url, _server):
        config = tmp_path / "ragsvc.toml"
        config.write_text(f'[[providers]]\nname = "up"\nbase_url = "{url}/v1"\nmodels = ["*"]\nretries = 0\n')
        env = {"RAGSVC_CONFIG": str(config), "RAGSVC_STREAM_COMMENT_S": str(EVERY_S)}
        running = RunningService(data_dir, env=env)
        running.admin_key = admin_key
        try:
            with running.client(key) as client:
                body = {"model": "holds", "prompt": "x", "stream": True}
                with client.stream("POST", "/v1/completions", json=body) as reply:
                    pieces = reply.iter_raw()
                    text = pieces_until(pieces, 3)
                    recording.loop.call_soon_threadsafe(recording.released.set)
                    text += b"".join(pieces)
                assert without_comments(text) == COMPLETION_STREAM
                body = {"model": "hangs", "input": "x", "stream": True, "store": False}
                with client.stream("POST", "/v1/responses", json=body) as reply:  # no headers of the provider yet
                    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
                    assert pieces_until(reply.iter_raw(), 2) == COMMENT * 2
        finally:
            assert running.stop() == 0
