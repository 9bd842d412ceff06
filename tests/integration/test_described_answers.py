"""The OpenAPI document describes the answers of a chat and the bounds of parameters; OPTIONS lists every method."""

from __future__ import annotations

import json

import jsonschema
import pytest

pytestmark = pytest.mark.model

CHAT = {"model": "local/chat-model", "messages": [{"role": "user", "content": "How deep is the lake?"}]}


@pytest.fixture
def document(tenant):
    return tenant.http.get("/schema").json()


def validator(document, name: str) -> jsonschema.Draft202012Validator:
    """Checks values against a component of the document."""
    return jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    )


def test_the_answer_of_a_chat_is_described(tenant, document) -> None:
    for path in ("/v1/chat/completions", "/chat/completions"):
        content = document["paths"][path]["post"]["responses"]["200"]["content"]
        assert {
            media_type: described["schema"]["$ref"].rpartition("/")[2] for media_type, described in content.items()
        } == {
            "application/json": "ChatCompletion",
            "text/event-stream": "ChatCompletionChunk",
        }
    tenant.add_text("The lake is 45 metres deep.")
    answer = tenant.http.post("/v1/chat/completions", json={**CHAT, "use_rag": True}).json()
    assert answer["choices"][0]["message"]["annotations"]
    completion = validator(document, "ChatCompletion")
    completion.validate(answer)
    for broken in ({"id": 1}, {"object": "chat"}, {"choices": None}, {"usage": {}}, {"created": "now"}):
        assert not completion.is_valid(answer | broken)


def test_the_chunks_of_a_stream_are_described(tenant, document) -> None:
    tenant.add_text("The lake is 45 metres deep.")
    body = {**CHAT, "use_rag": True, "stream": True, "stream_options": {"include_usage": True}}
    reply = tenant.http.post("/v1/chat/completions", json=body)
    *events, done = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    assert done == "[DONE]"
    chunks = [json.loads(event) for event in events]
    chunk_schema = validator(document, "ChatCompletionChunk")
    for chunk in chunks:
        chunk_schema.validate(chunk)
    assert any(choice["delta"].get("annotations") for chunk in chunks for choice in chunk["choices"])
    assert not chunk_schema.is_valid({name: value for name, value in chunks[0].items() if name != "choices"})


def test_bounds_are_described_and_enforced(tenant, document) -> None:
    parameters = document["paths"]["/v1/rag/documents"]["post"]["parameters"]
    (wait_s,) = [parameter["schema"] for parameter in parameters if parameter["name"] == "wait_s"]
    assert (wait_s["minimum"], wait_s["maximum"]) == (0, 600)
    dimensions = document["components"]["schemas"]["EmbeddingsRequest"]["properties"]["dimensions"]
    assert {"type": "integer", "minimum": 1} in dimensions["anyOf"]
    for value in ("-1", "601", "nan"):
        assert tenant.upload(b"x", wait_s=value).json()["error"]["param"] == "wait_s"
    body = {"model": "local/embedding-model", "input": "x", "dimensions": 0}
    error = tenant.http.post("/v1/embeddings", json=body).json()["error"]
    assert error["message"] == "'dimensions': expected `int` >= 1."


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/rag/documents", "GET, OPTIONS, POST"),
        ("/v1/rag/documents/doc_1", "DELETE, GET, OPTIONS, PATCH"),
        ("/v1/rag/documents/doc_1/content", "GET, HEAD, OPTIONS"),
        ("/v1/keys", "GET, OPTIONS, POST"),
        ("/v1/providers/x/key", "DELETE, OPTIONS, PUT"),
        ("/v1/chat/completions", "OPTIONS, POST"),
    ],
)
def test_options_lists_the_methods_of_the_path(anonymous, path, methods) -> None:
    reply = anonymous.options(path)
    assert (reply.status_code, reply.headers["allow"]) == (204, methods)
    refused = anonymous.request("TRACE", path)
    assert sorted(refused.headers["allow"].split(", ")) == methods.split(", ")
