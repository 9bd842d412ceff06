"""What clients see, what is settled and what stays open when a provider misbehaves."""

import asyncio
import json
import time

import httpx
import pytest

from ragsvc.core.gateway.provider_settings import ModelSettings
from tests.support.chat_service import BALANCE, provider, serving_chat
from tests.support.upstream_server import DONE, HEAD, chunk, event, serving_upstream

HELLO = {"messages": [{"role": "user", "content": "Hello there"}]}  # 2 tokens, 4 for the message


@pytest.fixture(scope="module")
def upstream():
    with serving_upstream() as running:
        yield running


@pytest.fixture
def service(upstream, tmp_path):
    with serving_chat(tmp_path, [provider(upstream.url)]) as running:
        yield running


@pytest.fixture
def ask(service):
    with httpx.Client(headers=service.headers(), timeout=10) as client:

        def post(model, **fields):
            return client.post(f"{service.url}/v1/chat/completions", json=HELLO | {"model": model} | fields)

        yield post


def settles(service, expected, within_s=2.0):
    """Whether the key's balance comes to what it should be."""
    deadline = time.monotonic() + within_s
    while (left := service.tokens_left()) != expected and time.monotonic() < deadline:
        time.sleep(0.02)
    return left == expected or pytest.fail(f"{BALANCE - left} tokens were settled, not {BALANCE - expected}")


def nothing_is_open(service, upstream):
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        idle = all(one.in_use == 0 for one in service.services.providers.values())
        if idle and upstream.running == 0 and not service.services.access._open:
            return True
        time.sleep(0.02)
    return False


FAULTS = {
    # model: (status, code) for JSON; (status, code, words before) for a stream
    "slow": ((504, "upstream_timeout"), (504, "upstream_timeout", None)),
    "endless": ((504, "upstream_timeout"), (200, "upstream_timeout", "word ")),
    "reset": ((503, "model_unavailable"), (503, "model_unavailable", None)),
    "reset-midway": ((503, "model_unavailable"), (200, "upstream_error", "one two")),
    "garbage": ((502, "upstream_error"), (502, "upstream_error", None)),
    "unauthorized": ((502, "upstream_rejected"), (502, "upstream_rejected", None)),
    "limited-for-long": ((429, "rate_limited"), (429, "rate_limited", None)),
    "bad-request": ((400, "invalid_request"), (400, "invalid_request", None)),
    "cut-short": (None, (200, "upstream_error", "one two")),
    "stall": (None, (200, "upstream_timeout", "one two")),
    "garbage-midway": (None, (200, "upstream_error", "one two")),
    "error-midway": (None, (200, "upstream_error", "one two")),
}


@pytest.mark.parametrize("model", [model for model, (json_case, _) in FAULTS.items() if json_case])
def test_a_fault_in_json_is_answered_and_costs_nothing(tmp_path, upstream, model):
    status, code = FAULTS[model][0]
    with serving_chat(tmp_path, [provider(upstream.url, read_timeout_s=0.3, total_timeout_s=1.0)]) as service:
        answer = httpx.post(
            f"{service.url}/v1/chat/completions", json=HELLO | {"model": model}, headers=service.headers(), timeout=10
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert "sk-" not in answer.text
        assert settles(service, BALANCE)
        assert nothing_is_open(service, upstream)


@pytest.mark.parametrize("model", FAULTS)
def test_a_fault_in_a_stream_ends_it_and_costs_what_was_said(tmp_path, upstream, model):
    status, code, words = FAULTS[model][1]
    with serving_chat(tmp_path, [provider(upstream.url, read_timeout_s=0.3, total_timeout_s=1.0)]) as service:
        answer = httpx.post(
            f"{service.url}/v1/chat/completions",
            json=HELLO | {"model": model, "stream": True},
            headers=service.headers(),
            timeout=10,
        )
        assert answer.status_code == status
        if words is None:
            assert answer.json()["error"]["code"] == code
            assert settles(service, BALANCE)
        else:
            events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
            assert events[-1]["error"]["code"] == code
            assert events[-1]["error"]["request_id"] == answer.headers["x-request-id"]
            said = "".join(one["choices"][0]["delta"]["content"] for one in events[:-1])
            assert said.startswith(words)
            assert settles(service, BALANCE - 6 - len(said.split()))
        assert nothing_is_open(service, upstream)


@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_connection_is_unavailable(tmp_path, stream):
    with serving_chat(tmp_path, [provider("http://127.0.0.1:1/v1", retries=1)]) as service:
        body = HELLO | {"model": "x", "stream": stream}
        answer = httpx.post(f"{service.url}/v1/chat/completions", json=body, headers=service.headers())
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert settles(service, BALANCE)


@pytest.mark.parametrize("model", ["limited", "broken"])
@pytest.mark.parametrize("stream", [False, True])
def test_temporary_failures_are_tried_again(ask, upstream, model, stream):
    upstream.failures_left = 2
    asked = len(upstream.requests)
    answer = ask(model, stream=stream)
    assert answer.status_code == 200
    assert "provider" in answer.text
    assert len(upstream.requests) - asked == 3


@pytest.mark.parametrize("stream", [False, True])
def test_lasting_failures_end_after_the_retries(service, ask, upstream, stream):
    upstream.failures_left = 100
    asked = len(upstream.requests)
    answer = ask("broken", stream=stream)
    upstream.failures_left = 0
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    assert "internal details" not in answer.text
    assert len(upstream.requests) - asked == 3
    assert settles(service, BALANCE)


def test_a_broken_provider_is_replaced_and_then_left_alone(tmp_path, upstream):
    first = provider(
        "http://127.0.0.1:1/v1",
        "first",
        models=(ModelSettings("ok"), ModelSettings("alone", fallback=())),
        retries=0,
        breaker_failures=2,
        breaker_cooldown_s=60,
        fallback=("second",),
    )
    second = provider(upstream.url, "second", models=(ModelSettings("ok"),))
    with serving_chat(tmp_path, [first, second]) as service, httpx.Client(headers=service.headers()) as client:
        for stream in (False, True, False):
            answer = client.post(f"{service.url}/v1/chat/completions", json=HELLO | {"model": "ok", "stream": stream})
            assert answer.status_code == 200
            assert "provider" in answer.text
        assert service.services.models.circuits()["first"] == "open"
        listed = {one["id"]: one["available"] for one in client.get(f"{service.url}/v1/models").json()["data"]}
        assert listed == {"local/chat-model": True, "ok": True, "alone": False}
        answer = client.post(f"{service.url}/v1/chat/completions", json=HELLO | {"model": "alone"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unavailable")
        assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_bytes_pass_unchanged_where_nothing_of_ours_applies(service, upstream):
    body = b'{ "model" :"any-model","messages":[{"role":"user","content":"caf\\u00e9"}],\n "unknown": 1.50 }'
    answer = httpx.post(f"{service.url}/v1/chat/completions", content=body, headers=service.headers())
    assert upstream.requests[-1]["unknown"] == 1.5
    assert b'"messages":[{"role":"user","content":"caf\\u00e9"}]' in upstream.bodies[-1]
    assert b"1.50" in upstream.bodies[-1]
    assert answer.json()["x_extra"] == {"kept": [1.5, None]}
    body = body.replace(b"\\u00e9", "é".encode())
    httpx.post(f"{service.url}/v1/chat/completions", content=body, headers=service.headers())
    assert upstream.bodies[-1] == body


def test_a_repeated_model_cannot_pass_the_policy_under_another_name(service, upstream):
    body = b'{"model":"forbidden","m\\u006fdel":"allowed-x","messages":[{"role":"user","content":"hi"}]}'
    key = service.new_key(allowed_models=("allowed-*",))
    httpx.post(f"{service.url}/v1/chat/completions", content=body, headers={"Authorization": f"Bearer {key}"})
    assert b"forbidden" not in upstream.bodies[-1]
    assert upstream.requests[-1]["model"] == "allowed-x"


def test_exact_bytes_of_a_stream(ask):
    body = ask("any", stream=True).content
    events = [event(chunk({"role": "assistant", "content": ""}))]
    events += [event(chunk({"content": word})) for word in ["Hello", " from", " the", " provider", "."]]
    assert body == b"".join([*events, event(chunk({}, finish_reason="stop")), DONE])
    assert ask("any", stream=True).headers["content-type"] == "text/event-stream; charset=utf-8"


def test_other_line_ends_and_comments_are_understood(ask):
    body = ask("crlf", stream=True).content
    assert body == b": hello\n\n" + event(chunk({"content": "one"})) + event(chunk({}, finish_reason="stop")) + DONE


def test_a_missing_done_is_added(ask):
    assert ask("no-done", stream=True).content.endswith(DONE)


def test_what_strict_clients_need_is_added(ask):
    answer = ask("sparse").json()
    assert answer["object"] == "chat.completion"
    assert answer["id"]
    assert answer["created"]
    assert answer["usage"]["total_tokens"] > 0
    first = json.loads(ask("sparse", stream=True).text.splitlines()[0][6:])
    assert first == HEAD | {"object": "chat.completion.chunk", "choices": []}


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_are_counted_where_the_provider_does_not(service, ask, stream):
    options = {"stream_options": {"include_usage": True}} if stream else {}
    answer = ask("no-usage", stream=stream, **options)
    assert settles(service, BALANCE - 6 - 5)
    if stream:
        last = json.loads(answer.text.split("\n\n")[-3][6:])
        assert last["choices"] == []
        assert last["usage"] == {"prompt_tokens": 6, "completion_tokens": 5, "total_tokens": 11}


@pytest.mark.parametrize("stream", [False, True])
def test_the_providers_usage_is_settled_before_the_client_sees_the_end(service, ask, stream):
    ask("any", stream=stream)
    assert service.tokens_left() == BALANCE - 16


@pytest.mark.parametrize(
    ("model", "stream"), [("slow", False), ("slow", True), ("stall", True), ("endless", False), ("endless", True)]
)
def test_a_client_that_leaves_stops_the_provider(service, upstream, model, stream):
    before = upstream.cancelled

    async def leave():
        async with httpx.AsyncClient(headers=service.headers()) as client:
            request = HELLO | {"model": model, "stream": stream}
            task = asyncio.create_task(client.post(f"{service.url}/v1/chat/completions", json=request))
            while upstream.running == 0:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.15)
            task.cancel()

    asyncio.run(leave())
    started = time.monotonic()
    while upstream.cancelled == before:
        assert time.monotonic() - started < 0.8, "the provider still works for nobody"
        time.sleep(0.01)
    assert nothing_is_open(service, upstream)
    assert service.tokens_left() < BALANCE


def test_no_connection_leaks(service, upstream, ask):
    for model in ("any", "reset-midway", "garbage", "garbage-midway", "bad-request", "cut-short", "error-midway"):
        for stream in (False, True):
            if stream or model in ("any", "garbage", "bad-request"):
                ask(model, stream=stream)
    for _ in range(5):
        ask("any", stream=True)
        ask("any")
    assert nothing_is_open(service, upstream)
    time.sleep(0.1)
    assert len(upstream.server.server_state.connections) <= 2


def test_a_full_provider_makes_others_wait_and_then_refuses(tmp_path, upstream):
    settings = provider(upstream.url, max_concurrency=1, max_waiting=1, queue_timeout_s=0.2, read_timeout_s=1.5)
    with serving_chat(tmp_path, [settings]) as service:

        async def three():
            async with httpx.AsyncClient(headers=service.headers(), timeout=10) as client:

                async def one():
                    answer = await client.post(f"{service.url}/v1/chat/completions", json=HELLO | {"model": "slow"})
                    return answer.status_code, answer.json()["error"]["code"]

                return await asyncio.gather(one(), one(), one())

        codes = sorted(asyncio.run(three()))
        assert codes == [(503, "overloaded"), (503, "overloaded"), (504, "upstream_timeout")]
        assert nothing_is_open(service, upstream)
