"""A request for an answer from documents is honoured or refused, on every route and in every place; never ignored."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.model

JSON_ROUTES = {
    "/v1/completions": {"prompt": "x"},
    "/v1/embeddings": {"input": "x"},
    "/v1/images/generations": {"prompt": "x"},
    "/v1/audio/speech": {"input": "x", "voice": "alloy"},
    "/v1/moderations": {"input": "x"},
    "/v1/rerank": {"query": "x", "documents": ["x"]},
    "/v1/ocr": {"document": {}},
    "/v1/videos/generations": {"prompt": "x"},
}
FORM_ROUTES = ["/v1/images/edits", "/v1/images/variations", "/v1/audio/transcriptions", "/v1/audio/translations"]
CHAT = {"model": "local/chat-model", "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture
def client(gateway):
    with gateway.service.client(gateway.key) as opened:
        yield opened


def refusal(reply, code="unsupported_parameter") -> tuple[str, str]:
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (400, code), reply.text
    return error["param"], error["message"]


@pytest.mark.parametrize("path", JSON_ROUTES)
@pytest.mark.parametrize("field", [{"use_rag": True}, {"rag": {}}, {"useRag": True}, {"use-rga": "yes"}])
def test_a_json_route_that_has_no_documents_refuses_the_fields(client, gateway, path, field) -> None:
    before = len(gateway.upstream.requests)
    (name,) = field
    param, message = refusal(client.post(path, json={"model": "any", **JSON_ROUTES[path], **field}))
    assert param == name
    refused = f"'{name}' cannot be honoured by {path}: "
    assert message == refused + "only POST /v1/chat/completions and /v1/responses answer from documents."
    assert len(gateway.upstream.requests) == before


@pytest.mark.parametrize("value", [False, None])
def test_a_field_that_asks_for_nothing_is_accepted_and_kept_from_the_provider(client, gateway, value) -> None:
    reply = client.post(
        "/v1/responses", json={"model": "any", "input": "x", "store": False, "use_rag": value, "rag": None}
    )
    assert reply.status_code == 200
    assert gateway.upstream.last.body == b'{"model":"any","input":"x","store":false}'


def test_fields_of_a_large_body_are_seen(client) -> None:
    long = {"model": "any", "input": ["x" * 50_000] * 20, "use_rag": True, "more": ["x" * 50_000] * 20}
    assert refusal(client.post("/v1/embeddings", json=long))[0] == "use_rag"


@pytest.mark.parametrize("field", ["user", "user_id", "storage", "range", "use_cache"])
def test_other_fields_pass(client, field) -> None:
    assert client.post("/v1/responses", json={"model": "any", "input": "x", field: "x"}).status_code == 200


@pytest.mark.parametrize("path", FORM_ROUTES)
@pytest.mark.parametrize("first", ["model", "use_rag"])
def test_a_form_refuses_the_field_before_and_after_its_model(client, path, first) -> None:
    fields = {"model": (None, "any"), "use_rag": (None, "true"), "file": ("a.bin", b"x" * 100)}
    ordered = {first: fields.pop(first), **fields}
    assert refusal(client.post(path, files=ordered))[0] == "use_rag"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/v1/responses"])
@pytest.mark.parametrize("name", ["use_rag", "useRag", "rag"])
def test_a_query_parameter_is_refused_with_the_place_of_the_field(client, path, name) -> None:
    body = {**CHAT, "input": "x"}
    param, message = refusal(client.post(f"{path}?api-version=1&{name}=true", json=body), "invalid_request")
    assert param == name
    assert message.endswith("is a field of the body of a chat, not a query parameter.")


def test_a_field_inside_extra_body_is_refused(client) -> None:
    reply = client.post("/v1/chat/completions", json={**CHAT, "extra_body": {"use_rag": True}})
    assert refusal(reply, "invalid_request") == (
        "extra_body.use_rag",
        "'extra_body.use_rag' has no effect: 'use_rag' is a field of the body itself.",
    )
    assert client.post("/v1/chat/completions", json={**CHAT, "extra_body": {"top_k": 3}}).status_code == 200
