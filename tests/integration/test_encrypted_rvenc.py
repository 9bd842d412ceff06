"""``POST /rvenc/chat/completions`` on the real application: every status, header and event a client sees."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from ragsvc.client.rvenc_mode import Rvenc
from ragsvc.client.transport import EncryptedTransport
from ragsvc.core.access.principal import Scope
from ragsvc.crypto import rvenc
from tests.support.chat_service import BALANCE, provider, serving_chat
from tests.support.sealing import OneShot, SealedInference, fetch_hpke_key, fetch_rvenc_key
from tests.support.upstream_server import serving_upstream

PATH = "/rvenc/chat/completions"
HELLO = {"model": "real-model", "messages": [{"role": "user", "content": "Hello"}]}
ORIGIN = "https://app.example"
SPELLINGS = [PATH, PATH + "/", "//rvenc//chat/completions"]
VOLATILE = ("date", "server", "x-request-id", "x-rvenc-response-nonce")


@pytest.fixture(scope="module")
def upstream():
    with serving_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def service(upstream, tmp_path_factory):
    settings = [provider(upstream.url, read_timeout_s=0.5, total_timeout_s=2.0, retries=0)]
    with serving_chat(tmp_path_factory.mktemp("rvenc"), settings, cors_origins=[ORIGIN]) as running:
        yield running


@pytest.fixture(scope="module")
def http(service):
    with httpx.Client(base_url=service.url, headers=service.headers(), timeout=10) as client:
        yield client


@pytest.fixture
def ask(http):
    """Send one sealed chat; returns the response and its opened events."""

    def send(fields, *, path=PATH, headers=None):
        payload = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
        inference = SealedInference(fetch_rvenc_key(http), payload)
        reply = http.post(f"{http.base_url}".rstrip("/") + path, json=inference.body, headers=headers)
        return reply, inference.open(reply)

    return send


def headers_of(reply: httpx.Response) -> dict[str, str]:
    kept = {name: value for name, value in reply.headers.items() if name not in VOLATILE}
    return {name: value for name, value in kept.items() if not name.startswith("x-ratelimit-")}


def metric(http: httpx.Client, name: str, **labels: object) -> float:
    text = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    found = re.search(rf"^{name}{{{re.escape(text)}}} ([\d.]+)$", http.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


EVENT_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
    "transfer-encoding": "chunked",
    "vary": "Origin",  # the service of this module knows origins
}


def test_a_chat_is_answered_with_the_plain_streams_events_in_order_and_padded(ask, http):
    reply, events = ask({**HELLO, "stream": True})
    plain = http.post("/v1/chat/completions", json={**HELLO, "stream": True})
    assert reply.status_code == 200
    assert headers_of(reply) == EVENT_HEADERS
    assert re.fullmatch("[0-9a-f]{64}", reply.headers["x-rvenc-response-nonce"])
    assert re.fullmatch(r"(event: (data|done)\ndata: [0-9a-f]+\n\n)+", reply.text)
    assert [event.name for event in events] == ["data"] * (len(events) - 1) + ["done"]
    assert all(len(event.payload) % 512 == 0 for event in events[:-1])
    unsealed = [b"data: " + event.payload.rstrip(b" ") for event in events]
    assert b"\n\n".join(unsealed) + b"\n\n" == plain.content


def test_without_stream_the_last_chunk_brings_the_usage(ask):
    for fields in (HELLO, {**HELLO, "stream": False}, {**HELLO, "stream": None, "stream_options": None}):
        _, events = ask(fields)
        assert json.loads(events[-2].payload)["usage"]["total_tokens"] == 16
    _, events = ask({**HELLO, "stream": True})
    assert not any(json.loads(event.payload).get("usage") for event in events[:-1])


@pytest.mark.parametrize(
    ("payload", "status", "code"),
    [
        ({**HELLO, "temperature": 9}, 400, "invalid_request"),
        ({"model": "real-model"}, 400, "invalid_request"),
        (b"{broken", 400, "invalid_request"),
        (b"\xff\xfe", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b"", 400, "invalid_request"),
        (b'{"model": "real-model", "messages": ' + b"[" * 100_000, 400, "invalid_request"),
        ({**HELLO, "model": "limited-for-long"}, 429, "rate_limited"),
        ({**HELLO, "model": "bad-request"}, 400, "invalid_request"),
        ({**HELLO, "model": "reset"}, 503, "model_unavailable"),
        ({**HELLO, "model": "slow"}, 504, "upstream_timeout"),
    ],
)
def test_a_chat_that_does_not_start_is_one_sealed_error_with_the_status_and_advice_of_the_plain_route(
    ask, http, payload, status, code
):
    reply, (event,) = ask(payload)
    error = json.loads(event.payload)["error"]
    assert (reply.status_code, event.name) == (status, "error")
    assert error["request_id"] == reply.headers["x-request-id"]
    content = payload if isinstance(payload, bytes) else json.dumps({**payload, "stream": True}).encode()
    plain = http.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
    assert plain.status_code == status
    assert error | {"request_id": ""} == plain.json()["error"] | {"request_id": ""}
    assert error["code"] == code
    advice = {name: value for name, value in headers_of(plain).items() if not name.startswith("content-")}
    assert headers_of(reply) == EVENT_HEADERS | advice


@pytest.mark.parametrize("model", ["reset-midway", "garbage-midway", "error-midway", "stall", "cut-short"])
def test_a_chat_that_breaks_off_ends_with_a_sealed_error(ask, model):
    reply, events = ask({**HELLO, "model": model})
    assert reply.status_code == 200
    assert [event.name for event in events] == ["data"] * (len(events) - 1) + ["error"]
    assert json.loads(events[0].payload)["choices"][0]["delta"]["content"] == "one two"
    assert json.loads(events[-1].payload)["error"]["request_id"] == reply.headers["x-request-id"]


def test_requests_refused_before_they_open_are_answered_in_plaintext(http, service):
    good = SealedInference(fetch_rvenc_key(http), json.dumps(HELLO).encode()).body
    flipped = {**good, "nonce": good["nonce"][:-1] + ("0" if good["nonce"][-1] != "0" else "1")}
    searcher = {"authorization": f"Bearer {service.new_key(scopes=frozenset({Scope.SEARCH}))}"}
    attempts = [
        ({"json": good, "headers": {"authorization": "Bearer wrong"}}, 401, "unauthorized", None),
        ({"json": good, "headers": searcher}, 403, "policy_denied", None),
        ({"json": {**good, "nonce": 1}}, 400, "invalid_request", "nonce"),
        ({"json": {"nonce": ""}}, 400, "invalid_request", "encryptedInference"),
        ({"content": b"{broken"}, 400, "invalid_request", None),
        ({"content": b""}, 400, "invalid_request", None),
        ({"json": flipped}, 400, "encryption_error", None),
        ({"json": {**good, "cipherText": "00"}}, 400, "encryption_error", None),
        ({"json": {**good, "encryptedInference": ""}}, 400, "encryption_error", None),
        ({"content": b" " * 80_000_000}, 413, "request_too_large", None),
        ({"content": (b" " * 1_000_000 for _ in range(80))}, 413, "request_too_large", None),
    ]
    for options, status, code, param in attempts:
        reply = http.post(PATH, **options)
        error = reply.json()["error"]
        assert (reply.status_code, error["code"], error["param"]) == (status, code, param)
        assert error["request_id"] == reply.headers["x-request-id"]
        assert reply.headers["content-type"] == "application/json"
    assert http.post(PATH, json=good).status_code == 200  # none of the attempts used the request up
    replayed = http.post(PATH, json=good)
    assert (replayed.status_code, replayed.json()["error"]["code"]) == (400, "encryption_error")


def test_a_request_that_a_limit_refuses_is_not_opened_and_may_be_sent_again(http, service):
    limited = service.new_key(requests_per_minute=1)
    inference = SealedInference(fetch_rvenc_key(http), json.dumps(HELLO).encode())
    headers = {"authorization": f"Bearer {limited}"}
    assert http.post("/v1/chat/completions", json=HELLO, headers=headers).status_code == 200
    refused = http.post(PATH, json=inference.body, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) > 0
    assert http.post(PATH, json=inference.body).status_code == 200


@pytest.mark.parametrize("path", SPELLINGS)
def test_every_spelling_of_the_path_is_sealed_and_counted_under_the_route(ask, http, service, path):
    labels = {"route": PATH, "method": "POST", "status": 200}
    before = metric(http, "ragsvc_http_requests_total", **labels)
    counts = service.services.encryption.opened
    opened = counts["rvenc", "rfc9180"]
    reply, events = ask(HELLO, path=path)
    assert (reply.status_code, events[-1].name) == (200, "done")
    assert metric(http, "ragsvc_http_requests_total", **labels) == before + 1
    assert counts["rvenc", "rfc9180"] == opened + 1


def test_refusals_are_counted_under_the_route_and_the_mode(http, service):
    labels = {"route": PATH, "method": "POST", "status": 400}
    before = metric(http, "ragsvc_http_requests_total", **labels)
    counts = service.services.encryption.refused
    refused = counts["rvenc"]
    assert http.post(PATH, json={"encryptedInference": "", "cipherText": "", "nonce": ""}).status_code == 400
    assert metric(http, "ragsvc_http_requests_total", **labels) == before + 1
    assert counts["rvenc"] == refused + 1


def test_other_methods_are_those_of_a_route_that_takes_post(http):
    assert http.get(PATH).status_code == 405
    assert "POST" in http.options(PATH).headers["allow"]


@pytest.mark.parametrize(
    ("header", "field"),
    [("X-Provider-Base-URL", "provider_base_url"), ("X-Provider-Key", "provider_key"), ("X-RAGSVC-Use-RAG", None)],
)
def test_headers_outside_the_encryption_are_refused_and_no_provider_is_called(http, upstream, header, field):
    inference = SealedInference(fetch_rvenc_key(http), json.dumps(HELLO).encode())
    calls = len(upstream.requests)
    reply = http.post(PATH, json=inference.body, headers={header: "http://127.0.0.1:9/v1"})
    error = reply.json()["error"]
    assert (reply.status_code, error["param"].lower()) == (400, header.lower())
    assert field is None or f"'{field}'" in error["message"]
    assert len(upstream.requests) == calls
    assert http.post(PATH, json=inference.body).status_code == 200  # the refused attempt did not use the request up


@pytest.mark.parametrize("stream", [True, False])
def test_the_encrypted_body_brings_the_callers_own_key(ask, upstream, stream):
    reply, events = ask({**HELLO, "stream": stream, "provider_key": "sk-mine", "provider_base_url": None})
    assert (reply.status_code, events[-1].name) == (200, "done")
    assert upstream.headers[-1]["authorization"] == "Bearer sk-mine"
    assert not {"provider_key", "provider_base_url"} & upstream.requests[-1].keys()


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"provider_base_url": "http://127.0.0.1:9/v1"}, 403, "X-Provider-Base-URL"),
        ({"provider_key": 7}, 400, "provider_key"),
        ({"provider_key": ""}, 400, "provider_key"),
        ({"provider_key": "sk\r\nX-Injected: 1"}, 400, "provider_key"),
    ],
)
def test_a_provider_that_the_body_may_not_name_is_refused_sealed(ask, upstream, fields, status, param):
    calls = len(upstream.requests)
    reply, (event,) = ask({**HELLO, **fields})
    assert (reply.status_code, event.name) == (status, "error")
    assert json.loads(event.payload)["error"]["param"] == param
    assert len(upstream.requests) == calls


def test_the_encrypting_client_moves_the_headers_into_the_encrypted_body(service, upstream):
    transport = EncryptedTransport(service.url, Rvenc())
    with httpx.Client(transport=transport, base_url=service.url, headers=service.headers()) as client:
        reply = client.post("/v1/chat/completions", json=HELLO, headers={"X-Provider-Key": "sk-mine"})
    assert reply.json()["choices"][0]["message"]["content"] == "Hello from the provider."
    assert upstream.headers[-1]["authorization"] == "Bearer sk-mine"


def test_tokens_are_metered_as_for_a_plain_chat(service, http):
    key = service.new_key()
    headers = {"authorization": f"Bearer {key}"}
    http.post("/v1/chat/completions", json={**HELLO, "stream": True}, headers=headers)
    cost = BALANCE - http.get("/v1/tokens", headers=headers).json()["tokens_remaining"]
    assert cost > 0
    inference = SealedInference(fetch_rvenc_key(http), json.dumps(HELLO).encode())
    inference.open(http.post(PATH, json=inference.body, headers=headers))
    assert http.get("/v1/tokens", headers=headers).json()["tokens_remaining"] == BALANCE - 2 * cost


def test_a_client_that_leaves_stops_the_model(http, upstream):
    inference = SealedInference(fetch_rvenc_key(http), json.dumps({**HELLO, "model": "endless"}).encode())
    cancelled = upstream.cancelled
    with (
        httpx.Client(base_url=http.base_url, headers=http.headers) as leaving,
        leaving.stream("POST", PATH, json=inference.body) as reply,
    ):
        assert next(reply.iter_bytes()).startswith(b"event: data\n")
    for _ in range(100):
        if upstream.cancelled > cancelled and not upstream.running:
            break
        http.get("/livez")
    assert upstream.cancelled == cancelled + 1


def test_a_chat_sealed_twice_is_opened_twice(http):
    inference = SealedInference(fetch_rvenc_key(http), json.dumps(HELLO).encode())
    outer = OneShot(fetch_hpke_key(http), json.dumps({**inference.body, "nonce": "00"}).encode())
    reply = http.post(PATH, headers=outer.headers, content=outer.body)
    assert json.loads(outer.open(reply))["error"]["code"] == "encryption_error"
    outer = OneShot(fetch_hpke_key(http), json.dumps(inference.body).encode())
    reply = http.post(PATH, headers=outer.headers, content=outer.body)
    assert (
        json.loads(outer.open(reply))["error"]["type"] == "proxy_error"
    )  # a one-shot response cannot contain an event stream


def test_a_web_page_may_read_answers_and_refusals(http):
    inference = SealedInference(fetch_rvenc_key(http), json.dumps(HELLO).encode())
    sealed = OneShot(fetch_hpke_key(http), b"{}")
    refused = {"json": {**inference.body, "nonce": ""}, "status": 400}
    not_opened = {"content": b"", "headers": sealed.headers, "status": 400}
    requests = [
        (PATH, {"json": inference.body, "status": 200}),
        (PATH, refused),
        ("/v1/chat/completions", {"content": sealed.body, "headers": sealed.headers, "status": 400}),
        ("/v1/chat/completions", not_opened),
    ]
    for path, options in requests:
        headers = {**options.pop("headers", {}), "origin": ORIGIN}
        status = options.pop("status")
        reply = http.post(path, headers=headers, **options)
        assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (status, ORIGIN)


def test_the_response_nonce_is_fresh_for_each_answer(ask):
    nonces = {ask(HELLO)[0].headers[rvenc.RESPONSE_NONCE_HEADER] for _ in range(3)}
    assert len(nonces) == 3
