"""Providers added, changed, tried and removed as the service runs; whose key is used; policies in Rego and OPA."""

from __future__ import annotations

import httpx
import pytest

from ragsvc.client.rvenc_mode import Rvenc
from ragsvc.client.transport import EncryptedTransport
from tests.support.engines import bytes_of_rows

pytestmark = pytest.mark.model


@pytest.fixture
def admin(gateway):
    with gateway.service.client(gateway.admin_key) as client:
        yield client


@pytest.fixture
def provider(gateway, admin):
    body = {
        "name": "added",
        "base_url": f"{gateway.upstream.url}/v1",
        "api_key": "sk-added-secret",
        "models": [{"id": "added-model", "pricing": {"input": 0.5, "output": 1}}],
        "headers": {"x-team": "blue-secret"},
        "retries": 0,
        "breaker_failures": 2,
    }
    reply = admin.post("/v1/providers", json=body)
    assert reply.status_code == 201, reply.text
    assert reply.headers["location"] == "/v1/providers/added"
    yield reply.json()
    admin.delete("/v1/providers/added")


def embed(gateway, model: str, key: str | None = None, **headers: str) -> httpx.Response:
    with gateway.service.client(key or gateway.key) as client:
        return client.post("/v1/embeddings", json={"model": model, "input": "x"}, headers=headers)


def test_a_provider_serves_from_its_creation_to_its_end(gateway, admin, provider) -> None:
    assert embed(gateway, "added-model").status_code == 200
    recorded = gateway.upstream.last
    assert recorded.headers["authorization"] == "Bearer sk-added-secret"
    assert recorded.headers["x-team"] == "blue-secret"
    card = admin.get("/v1/models/added-model").json()
    assert (card["owned_by"], card["pricing"]["input"], card["available"]) == ("added", 0.5, True)
    changed = admin.patch("/v1/providers/added", json={"models": [{"id": "other-model", "upstream": "real"}]})
    assert [one["id"] for one in changed.json()["models"]] == ["other-model"]
    assert embed(gateway, "other-model").status_code == 200
    assert gateway.upstream.last.headers["authorization"] == "Bearer sk-added-secret"
    assert b'"real"' in gateway.upstream.last.body
    assert admin.delete("/v1/providers/added").json()["deleted"] is True
    assert admin.get("/v1/providers/added").status_code == 404
    assert "other-model" not in {model["id"] for model in admin.get("/v1/models").json()["data"]}


def test_no_secret_is_shown_or_stored_readably(gateway, admin, provider) -> None:
    set_key = admin.put("/v1/providers/added/key", json={"api_key": "sk-tenant-secret", "tenant": "gateway"})
    shown = [
        admin.get("/v1/providers"),
        admin.get("/v1/providers/added"),
        admin.get("/v1/providers/added/keys"),
        set_key,
    ]
    for reply in shown:
        assert reply.status_code == 200
        assert "secret" not in reply.text
    assert shown[1].json()["header_names"] == ["x-team"]
    assert shown[1].json()["has_api_key"] is True
    folder = gateway.service.data_dir
    stored = bytes_of_rows(folder)
    assert b"sk-added-secret" not in stored
    assert b"sk-tenant-secret" not in stored
    assert (folder / "sealing.key").stat().st_mode & 0o777 == 0o600
    assert "secret" not in "".join(gateway.service.log)


def test_a_tenants_key_goes_before_the_operators(gateway, admin) -> None:
    other = gateway.new_key(tenant="other-tenant")
    reply = admin.put("/v1/providers/recording/key", json={"api_key": "sk-of-other-tenant", "tenant": "other-tenant"})
    assert reply.json()["tenant"] == "other-tenant"
    assert embed(gateway, "m", other).status_code == 200
    assert gateway.upstream.last.headers["authorization"] == "Bearer sk-of-other-tenant"
    with gateway.service.client(other) as client:
        chat = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        assert client.post("/v1/chat/completions", json=chat).status_code == 200
    assert gateway.upstream.last.headers["authorization"] == "Bearer sk-of-other-tenant"
    embed(gateway, "m")
    assert gateway.upstream.last.headers["authorization"] == "Bearer sk-operator"
    assert admin.delete("/v1/providers/recording/key", params={"tenant": "other-tenant"}).status_code == 200
    embed(gateway, "m", other)
    assert gateway.upstream.last.headers["authorization"] == "Bearer sk-operator"
    assert admin.delete("/v1/providers/recording/key", params={"tenant": "other-tenant"}).status_code == 404


def test_a_request_may_bring_its_own_key(gateway) -> None:
    assert embed(gateway, "m", **{"X-Provider-Key": "sk-mine"}).status_code == 200
    assert gateway.upstream.last.headers["authorization"] == "Bearer sk-mine"
    assert "x-provider-key" not in gateway.upstream.last.headers
    with gateway.service.client(
        gateway.key,
    ) as client:
        chat = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
        assert "world" in client.post("/v1/chat/completions", json=chat, headers={"X-Provider-Key": "sk-mine"}).text
    assert gateway.upstream.last.headers["authorization"] == "Bearer sk-mine"
    refused = embed(gateway, "m", **{"X-Provider-Key": "wrong"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "X-Provider-Key")
    local = embed(gateway, "local/embedding-model", **{"X-Provider-Key": "sk-mine"})
    assert (local.status_code, local.json()["error"]["param"]) == (400, "X-Provider-Key")


@pytest.mark.parametrize(
    "sent",
    [
        ({"api_key": "", "headers": {"api-key": "sk-op"}}, {"api-key": "sk-op"}, {"api-key": "sk-mine"}),
        (
            {"api_key": "", "headers": {"X-API-Key": "sk-op", "anthropic-version": "1"}},
            {"x-api-key": "sk-op", "anthropic-version": "1"},
            {"x-api-key": "sk-mine", "anthropic-version": "1"},
        ),
        (
            {"api_key": "", "headers": {"authorization": "Token sk-op"}},
            {"authorization": "Token sk-op"},
            {"authorization": "Token sk-mine"},
        ),
        ({"api_key": "sk-op", "key_header": "api-key"}, {"api-key": "sk-op"}, {"api-key": "sk-mine"}),
        (
            {"api_key": "sk-op", "headers": {"x-goog-api-key": "sk-op-2"}},
            {"authorization": "Bearer sk-op", "x-goog-api-key": "sk-op-2"},
            {"authorization": "Bearer sk-mine", "x-goog-api-key": "sk-mine"},
        ),
    ],
)
def test_a_callers_key_takes_the_place_of_each_key_of_the_operator(gateway, admin, provider, sent) -> None:
    settings, operators, callers = sent
    assert admin.patch("/v1/providers/added", json={"headers": {}, **settings}).status_code == 200
    known = {"authorization", "api-key", "x-api-key", "x-goog-api-key", "anthropic-version"}
    chat = {"model": "added-model", "messages": [{"role": "user", "content": "x"}]}
    with gateway.service.client(gateway.key) as client:
        for headers, expected in (({}, operators), ({"X-Provider-Key": "sk-mine"}, callers)):
            assert embed(gateway, "added-model", **headers).status_code == 200
            assert {name: text for name, text in gateway.upstream.last.headers.items() if name in known} == expected
            assert client.post("/v1/chat/completions", json=chat, headers=headers).status_code == 200
            assert {name: text for name, text in gateway.upstream.last.headers.items() if name in known} == expected
    tenants = {"api_key": "sk-mine", "tenant": "gateway"}
    assert admin.put("/v1/providers/added/key", json=tenants).status_code == 200
    assert embed(gateway, "added-model").status_code == 200
    assert {name: value for name, value in gateway.upstream.last.headers.items() if name in known} == callers
    admin.delete("/v1/providers/added/key", params={"tenant": "gateway"})


def test_a_tenants_budget_is_shared_by_its_keys_and_ends_with_it(gateway, admin, provider) -> None:
    first, second = gateway.new_key(tenant="spending"), gateway.new_key(tenant="spending")
    changed = admin.patch("/v1/tenants/spending", json={"money_balance": 0.01, "money_per_day": 5, "max_documents": 3})
    limits = changed.json()["limits"]
    assert (limits["money_balance"], limits["money_per_day"], limits["max_documents"]) == (0.01, 5, 3)
    assert admin.patch("/v1/tenants/spending", json={"max_documents": None}).json()["limits"]["money_balance"] == 0.01
    assert embed(gateway, "added-model", first).status_code == 200  # 8 tokens of 0.5 for 1,000
    assert embed(gateway, "added-model", second).status_code == 200
    refused = embed(gateway, "added-model", first)
    assert (refused.status_code, refused.headers["x-should-retry"]) == (402, "false")
    assert "budget of this tenant" in refused.json()["error"]["message"]
    with gateway.service.client(second) as client:
        assert client.get("/v1/tokens").json()["money_remaining"] == 0.002
    assert embed(gateway, "added-model").status_code == 200  # of another tenant
    assert admin.delete("/v1/tenants/spending").status_code == 200
    again = gateway.new_key(tenant="spending")
    assert embed(gateway, "added-model", again).status_code == 200
    with gateway.service.client(again) as client:
        assert "money_remaining" not in client.get("/v1/tokens").json()


def test_an_rvenc_chat_may_name_an_allowed_address_inside_its_encryption(gateway) -> None:
    transport = EncryptedTransport(gateway.service.url, Rvenc())
    headers = {"X-Provider-Base-URL": f"{gateway.upstream.url}/other/v1", "X-Provider-Key": "sk-mine"}
    with httpx.Client(transport=transport, base_url=gateway.service.url) as client:
        client.headers["authorization"] = f"Bearer {gateway.key}"
        chat = {"model": "anything", "messages": [{"role": "user", "content": "x"}]}
        client.post("/v1/chat/completions", json=chat, headers=headers)
    assert gateway.upstream.last.path == "/other/v1/chat/completions"
    assert gateway.upstream.last.headers["authorization"] == "Bearer sk-mine"


def test_a_request_may_name_an_allowed_address_only(gateway) -> None:
    allowed = {"X-Provider-Base-URL": f"{gateway.upstream.url}/other/v1", "X-Provider-Key": "sk-mine"}
    assert embed(gateway, "anything", **allowed).status_code == 200
    assert gateway.upstream.last.path == "/other/v1/embeddings"
    assert gateway.upstream.last.headers["authorization"] == "Bearer sk-mine"
    del allowed["X-Provider-Key"]
    assert embed(gateway, "anything", **allowed).status_code == 200
    assert "authorization" not in gateway.upstream.last.headers
    for address, status in (
        (f"{gateway.upstream.url}/v1", 403),
        (f"{gateway.upstream.url}/other/v1x", 403),
        (f"{gateway.upstream.url}/other/v1/../../v1", 403),
        (f"{gateway.upstream.url}/other/v1?x=1", 400),
        ("http://169.254.169.254/latest", 403),
        ("https://10.0.0.1", 403),
        ("https://evil-example.com", 403),
        ("http://user@a.example.com", 400),
        ("file:///etc/passwd", 400),
        ("nonsense", 400),
    ):
        refused = embed(gateway, "m", **{"X-Provider-Base-URL": address})
        assert (refused.status_code, refused.json()["error"]["param"]) == (status, "X-Provider-Base-URL"), address
    denied = gateway.new_key(allowed_models=["only-this"])
    assert embed(gateway, "anything", denied, **allowed).status_code == 403


def test_what_stands_in_the_settings_file_or_contradicts_is_refused(gateway, admin, provider) -> None:
    assert admin.get("/v1/providers/recording").json()["source"] == "config"
    assert admin.patch("/v1/providers/recording", json={"retries": 1}).status_code == 409
    assert admin.delete("/v1/providers/recording").status_code == 409
    again = {"name": "added", "base_url": "http://127.0.0.1:1/v1"}
    assert admin.post("/v1/providers", json=again).status_code == 409
    taken = {"name": "third", "base_url": "http://127.0.0.1:1", "models": [{"id": "x", "aliases": ["operayde/alias"]}]}
    reply = admin.post("/v1/providers", json=taken)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "models")
    assert embed(gateway, "operayde/alias").status_code == 200
    assert admin.post("/v1/providers", json={"name": "local", "base_url": "http://127.0.0.1:1"}).status_code == 400
    for change in ({"name": "renamed"}, {"retries": -1}, {"colour": "red"}):
        assert admin.patch("/v1/providers/added", json=change).status_code == 400, change
    with gateway.service.client(gateway.key) as client:
        assert client.get("/v1/providers").status_code == 403


SPLITTING = [
    ({"api_key": "sk-x\r\nX-Evil: 1"}, "api_key"),
    ({"api_key": "sk-x\n"}, "api_key"),
    ({"headers": {"X-Team": "blue\r\n\r\nGET / HTTP/1.1"}}, "headers.X-Team"),
    ({"headers": {"X-Team\r\nX-Evil": "blue"}}, "headers.X-Team\r\nX-Evil"),
    ({"headers": {"X Team": "blue"}}, "headers.X Team"),
    ({"base_url": "http://127.0.0.1:1/v1\r\nX-Evil: 1"}, "base_url"),
    ({"base_url": "http://127.0.0.1:1/a b"}, "base_url"),
]


@pytest.mark.parametrize(("change", "param"), SPLITTING, ids=[repr(change)[:40] for change, _ in SPLITTING])
def test_nothing_of_a_provider_can_split_a_request(gateway, admin, provider, change, param) -> None:
    for reply in (
        admin.patch("/v1/providers/added", json=change),
        admin.post("/v1/providers", json={"name": "split", "base_url": "http://127.0.0.1:1/v1", **change}),
    ):
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert embed(gateway, "added-model").status_code == 200
    assert "x-evil" not in gateway.upstream.last.headers
    assert admin.get("/v1/providers/split").status_code == 404


def test_a_line_feed_at_the_end_of_a_name_or_key_is_refused(admin, provider) -> None:
    named = {"name": "split\n", "base_url": "http://127.0.0.1:1/v1"}
    assert admin.post("/v1/providers", json=named).status_code == 400
    for body in ({"api_key": "sk-x\n"}, {"api_key": "sk-x", "tenant": "gateway\n"}):
        assert admin.put("/v1/providers/added/key", json=body).status_code == 400


def test_a_provider_can_be_tried_and_its_failures_show(gateway, admin, provider) -> None:
    tried = admin.post("/v1/providers/added/test").json()
    assert (tried["ok"], tried["models"], tried["error"]) == (True, ["a", "b"], None)
    assert tried["latency_ms"] > 0
    admin.patch("/v1/providers/added", json={"base_url": "http://127.0.0.1:1/v1"})
    tried = admin.post("/v1/providers/added/test").json()
    assert tried["ok"] is False
    assert "cannot be reached" in tried["error"]
    assert embed(gateway, "added-model").status_code == 503
    assert embed(gateway, "added-model").json()["error"]["code"] == "model_unavailable"
    shown = admin.get("/v1/providers/added").json()
    assert (shown["circuit"], shown["circuits"]) == ("open", {"embeddings": "open"})
    assert admin.get("/v1/models/added-model").json()["available"] is False
    assert 'ragsvc_provider_available{provider="added"} 0.0' in admin.get("/metrics").text
    assert 'ragsvc_provider_available{provider="recording"} 1.0' in admin.get("/metrics").text


def test_another_provider_stands_in_for_json_and_for_forms_of_which_nothing_was_sent(gateway, admin) -> None:
    body = {
        "name": "down",
        "base_url": "http://127.0.0.1:1/v1",
        "models": ["stands-in"],
        "fallback": ["recording"],
        "retries": 0,
        "breaker_failures": 100,
    }
    assert admin.post("/v1/providers", json={**body, "models": [{"id": "stands-in"}]}).status_code == 201
    try:
        key = gateway.new_key(token_balance=1000)
        assert embed(gateway, "stands-in", key).status_code == 200
        assert gateway.tokens_left(key) == 1000 - 8
        form = {"file": ("a.mp3", b"x" * 200_000), "model": (None, "stands-in")}
        with gateway.service.client(key) as client:
            reply = client.post("/v1/audio/transcriptions", files=form)
            assert reply.json()["text"] == "Hallo Welt"
            assert b"x" * 200_000 in gateway.upstream.last.body
            mine = client.post(
                "/v1/embeddings", json={"model": "stands-in", "input": "x"}, headers={"X-Provider-Key": "k"}
            )
        assert mine.status_code == 503, "a caller's key goes to no other provider"
        assert gateway.upstream.last.path == "/v1/audio/transcriptions"
    finally:
        admin.delete("/v1/providers/down")


def test_a_rego_file_decides_with_key_model_and_family(gateway, admin) -> None:
    denied = embed(gateway, "rego-denied-1")
    assert denied.status_code == 403
    error = denied.json()["error"]
    assert (error["code"], error["type"]) == ("policy_denied", "policy")
    assert error["message"] == "Key 'quickstart' lacks scope for model 'rego-denied-1'."
    assert embed(gateway, "rego-denied-1", gateway.new_key(tenant="free")).status_code == 200
    with gateway.service.client(gateway.key) as client:
        assert client.post("/v1/completions", json={"model": "rego-denied-1", "prompt": "x"}).status_code == 200


def test_an_opa_server_decides_and_fails_closed(gateway) -> None:
    seen = gateway.upstream.policy_inputs
    assert embed(gateway, "opa-denied-1").status_code == 403
    given = seen[-1]
    assert (given["key"]["label"], given["key"]["tenant"], given["model"]) == ("quickstart", "gateway", "opa-denied-1")
    assert embed(gateway, "opa-undefined").status_code == 403
    requests = len(gateway.upstream.requests)
    broken = embed(gateway, "opa-broken")
    assert (broken.status_code, broken.json()["error"]["code"]) == (503, "model_unavailable")
    assert len(gateway.upstream.requests) == requests
    with gateway.service.client(gateway.key) as client:
        chat = {"model": "opa-denied-chat", "messages": [{"role": "user", "content": "x"}]}
        assert client.post("/v1/chat/completions", json=chat).status_code == 403


def test_a_repeated_request_to_add_a_provider_adds_it_once(gateway, admin) -> None:
    body = {"name": "repeated", "base_url": f"{gateway.upstream.url}/v1", "models": [{"id": "repeated-model"}]}
    repeated = {"headers": {"idempotency-key": "provider-1"}}
    try:
        replies = [admin.post("/v1/providers", json=body, **repeated) for _ in range(2)]
        assert [reply.status_code for reply in replies] == [201, 201]
        assert replies[0].json() == replies[1].json()
        assert admin.post("/v1/providers", json=body).status_code == 409
        other = admin.post("/v1/providers", json={**body, "name": "other"}, **repeated)
        assert (other.status_code, other.json()["error"]["param"]) == (400, "Idempotency-Key")
    finally:
        admin.delete("/v1/providers/repeated")
