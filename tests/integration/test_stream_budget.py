"""Streams of a provider that ignores ``max_tokens`` are cut at the tokens reserved, so that no balance is overdrawn."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from ragsvc.testing.service_runner import RunningService, create_key
from tests.conftest import NO_LIMITS, Gateway
from tests.support.upstream_server import DONE, chunk, event, serving

pytestmark = pytest.mark.model

WORDS_OF_A_CHUNK = 8
MOST_TOKENS_OF_A_CHUNK = 2 * WORDS_OF_A_CHUNK


class Babbler:
    """A provider that streams 4,000 chunks of words, many at once, whatever the limit. It counts clients that left."""

    def __init__(self) -> None:
        self.url = ""
        self.stopped = 0

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request = json.loads(body)
        await send({
            "type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]
        })  # fmt: skip
        words = 5 if request["model"] == "short" else 32_000
        text = "harbour " * WORDS_OF_A_CHUNK
        gone = asyncio.ensure_future(receive())
        for _ in range(0, words, WORDS_OF_A_CHUNK * 20):
            if gone.done():
                self.stopped += 1
                return
            piece = event(chunk({"content": text})) * 20 if words > 5 else event(chunk({"content": "five words"}))
            if scope["path"].endswith("/completions") and "chat" not in scope["path"]:
                words_of_it = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
                piece = event({**words_of_it, "choices": [{"index": 0, "text": text, "finish_reason": None}]}) * 20
            elif scope["path"].endswith("/responses"):
                delta = {"type": "response.output_text.delta", "sequence_number": 1, "delta": text}
                piece = (b"event: response.output_text.delta\r\n" + event(delta)[:-2] + b"\r\n\r\n") * 20
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0.001)
        gone.cancel()
        last = event(chunk({}, finish_reason="stop")) + DONE
        await send({"type": "http.response.body", "body": last, "more_body": False})


CONFIG = """
[[providers]]
name = "babbler"
base_url = "{url}/v1"
models = ["*"]
"""


@pytest.fixture(scope="module")
def babbling(tmp_path_factory: pytest.TempPathFactory, service: RunningService) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("babbler")
    data_dir = folder / "data"
    shutil.copytree(service.data_dir / "models", data_dir / "models")
    admin_key = create_key(data_dir, tenant="operator", extra=("--scope", "admin"))
    upstream = Babbler()
    with serving(upstream) as (url, _server):
        config = folder / "ragsvc.toml"
        config.write_text(CONFIG.format(url=url))
        running = RunningService(data_dir, env={"RAGSVC_CONFIG": str(config)})
        running.admin_key = admin_key
        yield Gateway(running, upstream)  # type: ignore[arg-type]
        assert running.stop() == 0


def ask(gateway: Gateway, key: str, **fields: object) -> list[dict]:
    """The chunks of a streamed answer."""
    body = {"model": "babble", "messages": [{"role": "user", "content": "Talk"}], "stream": True, **fields}
    with gateway.service.client(key) as client:
        reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    lines = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def finish_reasons(chunks: list[dict]) -> list[str]:
    return [choice["finish_reason"] for one in chunks for choice in one["choices"] if choice["finish_reason"]]


def balance(gateway: Gateway, key: str) -> int:
    with gateway.service.client(gateway.admin_key) as admin:
        return admin.get(f"/v1/keys/key_{key.split('_')[1]}").json()["token_balance"]


def settled_balance(gateway: Gateway, key: str, requests: int) -> int:
    """The balance once the usage of all requests is written."""
    with gateway.service.client(gateway.admin_key) as admin:
        for _ in range(100):
            usage = admin.get(f"/v1/keys/key_{key.split('_')[1]}/usage").json()["data"]
            if sum(entry["requests"] for entry in usage) >= requests:
                break
            admin.get("/livez")
    return balance(gateway, key)


def test_forty_streams_that_ignore_max_tokens_overdraw_by_at_most_a_chunk_each(babbling: Gateway) -> None:
    streams = 40
    granted = streams * (60 + MOST_TOKENS_OF_A_CHUNK)  # the last to begin is not refused if others have ended before
    key = babbling.new_key(token_balance=granted, **NO_LIMITS)
    with ThreadPoolExecutor(streams) as pool:
        answers = list(pool.map(lambda _: ask(babbling, key, max_tokens=50), range(streams)))
    assert [finish_reasons(chunks) for chunks in answers] == [["length"]] * streams
    left = settled_balance(babbling, key, streams)
    assert left >= 0  # each used at most what it reserved, and a chunk
    assert left < granted - streams * 40  # what was sent is charged
    with babbling.service.client(babbling.admin_key) as admin:
        usage = admin.get(f"/v1/keys/key_{key.split('_')[1]}/usage").json()["data"]
    assert sum(entry["prompt_tokens"] + entry["completion_tokens"] for entry in usage) == granted - left


def test_a_cut_stream_has_a_finish_reason_its_usage_and_stops_the_provider(babbling: Gateway) -> None:
    key = babbling.new_key(token_balance=100_000, **NO_LIMITS)
    before = babbling.upstream.stopped
    chunks = ask(babbling, key, max_tokens=20, stream_options={"include_usage": True})
    assert finish_reasons(chunks) == ["length"]
    usage = chunks[-1]["usage"]
    words = sum(len(choice["delta"].get("content", "").split()) for one in chunks for choice in one["choices"])
    assert words <= usage["completion_tokens"] <= 20 + 10 + MOST_TOKENS_OF_A_CHUNK
    assert settled_balance(babbling, key, 1) == 100_000 - usage["total_tokens"]
    deadline = time.monotonic() + 5
    while babbling.upstream.stopped == before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert babbling.upstream.stopped > before


def test_without_a_limit_of_the_request_a_stream_goes_on_while_the_balance_covers_it(babbling: Gateway) -> None:
    key = babbling.new_key(token_balance=3000, **NO_LIMITS)
    chunks = ask(babbling, key)
    words = sum(len(choice["delta"].get("content", "").split()) for one in chunks for choice in one["choices"])
    assert words > 1200  # more than the 1,024 that are reserved at first
    assert finish_reasons(chunks) == ["length"]
    assert -MOST_TOKENS_OF_A_CHUNK <= settled_balance(babbling, key, 1) < 600


def test_a_daily_budget_is_not_passed_and_keys_without_limits_are_not_cut(babbling: Gateway) -> None:
    key = babbling.new_key(tokens_per_day=200, **NO_LIMITS)
    assert finish_reasons(ask(babbling, key, max_tokens=50)) == ["length"]
    with babbling.service.client(key) as client:
        assert client.get("/v1/tokens").json()["tokens_remaining"] >= 200 - 2 * 50 - MOST_TOKENS_OF_A_CHUNK - 10
    unlimited = babbling.new_key(**NO_LIMITS)
    assert finish_reasons(ask(babbling, unlimited, max_tokens=50)) == ["stop"]
    short = babbling.new_key(token_balance=1000, **NO_LIMITS)
    assert finish_reasons(ask(babbling, short, model="short", max_tokens=50)) == ["stop"]


def test_a_refused_request_reserves_nothing(babbling: Gateway) -> None:
    key = babbling.new_key(token_balance=40, **NO_LIMITS)
    body = {"model": "babble", "messages": [{"role": "user", "content": "Talk"}], "stream": True, "max_tokens": 50}
    with babbling.service.client(key) as client:
        reply: httpx.Response = client.post("/v1/chat/completions", json=body)
        assert reply.status_code == 402
        assert client.get("/v1/tokens").json()["tokens_remaining"] == 40


def stream_events(gateway: Gateway, key: str, path: str, **body: object) -> list[dict]:
    with gateway.service.client(key) as client:
        reply = client.post(path, json={"model": "babble", "stream": True, **body})
    assert reply.status_code == 200, reply.text
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_completions_and_responses_are_cut_as_well(babbling: Gateway) -> None:
    streams, granted = 10, 10 * 90
    key = babbling.new_key(token_balance=granted, **NO_LIMITS)
    with ThreadPoolExecutor(streams) as pool:
        answers = list(
            pool.map(
                lambda _: stream_events(babbling, key, "/v1/completions", prompt="Talk", max_tokens=50), range(streams)
            )
        )
    assert [chunks[-1]["choices"][0]["finish_reason"] for chunks in answers] == ["length"] * streams
    assert [chunks[-1]["id"] for chunks in answers] == ["cmpl-1"] * streams
    assert settled_balance(babbling, key, streams) >= -streams * MOST_TOKENS_OF_A_CHUNK
    other = babbling.new_key(token_balance=100_000, **NO_LIMITS)
    events = stream_events(babbling, other, "/v1/responses", input="Talk", max_output_tokens=50, store=False)
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    usage = events[-1]["response"]["usage"]
    assert 30 < usage["output_tokens"] <= 50 + 20 + MOST_TOKENS_OF_A_CHUNK
    assert settled_balance(babbling, other, 1) == 100_000 - usage["total_tokens"]
    unlimited = babbling.new_key(**NO_LIMITS)
    whole = stream_events(babbling, unlimited, "/v1/completions", prompt="Talk", max_tokens=50)
    assert len(whole) > 3900
