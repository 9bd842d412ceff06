"""Malformed requests: the same fault reads the same in every layer, and ``param`` names what is wrong."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

pytestmark = pytest.mark.model

CHAT = {"model": "local/chat-model", "messages": [{"role": "user", "content": "x"}]}
SEARCH = {"query": "x"}
EMBED = {"model": "local/embedding-model"}
OPEN = {"type": "and", "filters": [{"type": "eq", "key": "a"}]}
BLANK = ": expected text that is not empty or white space"
NO_TEXTS = ": expected a text, an array of texts, or arrays of tokens"
TOO_LONG = "m" * 257
WRONG_SCOPE = (
    ": expected 'admin', 'chat', 'chat.plain', 'documents.read', 'documents.write', 'embeddings', 'proxy', 'search' or "
    "'tenant.admin', not 'root'"
)
WRONG_MODE = ": expected 'dense', 'hybrid' or 'lexical', not 'fuzzy'"
NO_NAME = ": expected 1 to 64 letters, digits, '.', '_' or '-', first a letter or digit"
NO_URL = ": expected a URL that begins with http:// or https://"
TOO_LONG_MESSAGE = ": expected `str` of length <= 256"
TOO_DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
JSON_ROUTES = (
    ("POST", "/v1/chat/completions", "model", "metadata"),
    ("POST", "/v1/completions", "model", "metadata"),
    ("POST", "/v1/embeddings", "model", "metadata"),
    ("POST", "/v1/rerank", "model", "metadata"),
    ("POST", "/v1/rag/search", "query", "filters"),
    ("POST", "/v1/keys", "label", None),
    ("POST", "/v1/providers", "name", None),
    ("PATCH", "/v1/providers/nobody", "name", "metadata"),
    ("PUT", "/v1/providers/nobody/key", "tenant", None),
)
"""Method, path, a field with text, and a field (or an unknown one) with an object of any depth."""


@pytest.fixture(scope="module")
def client(service):
    with service.client(service.admin_key) as admin:
        scopes = ["chat", "embeddings", "documents.read", "documents.write", "search", "proxy", "admin"]
        limits = {"requests_per_minute": None, "requests_per_hour": None}
        reply = admin.post("/v1/keys", json={"tenant": "faults", "label": "faults", "scopes": scopes, **limits})
    with service.client(reply.json()["key"]) as everything:
        yield everything


def fault(reply) -> tuple[str | None, str]:
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["type"]) == (400, "invalid_request", "invalid_request_error"), error
    assert re.fullmatch(r"(?:[A-Z]|'[^']+')(?:.*[^.])?\.", error["message"]), error
    return error["param"], error["message"]


@pytest.mark.parametrize(("method", "path", "field", "nested"), JSON_ROUTES, ids=[route[1] for route in JSON_ROUTES])
def test_a_body_that_is_not_a_json_object(client, method: str, path: str, field: str, nested: str | None) -> None:
    bodies = {
        b"": "The request needs a JSON body.",
        b"[]": "The body: expected `object`, got `array`.",
        b'{"%b": ' % field.encode(): "The body is not valid JSON: input data was truncated.",
        b'{"%b": "\xff"}' % field.encode(): "The body is not valid JSON: it is not UTF-8.",
        b'{"%b":}' % field.encode(): f"The body is not valid JSON: invalid character (byte {len(field) + 4}).",
        b"nope": "The body is not valid JSON: invalid character (byte 4).",
        b"01": "The body is not valid JSON: invalid number (byte 1).",
    }
    if nested is not None:
        bodies[b'{"%b": %b}' % (nested.encode(), TOO_DEEP)] = "The body is not valid JSON: it is nested too deeply."
    for body, message in bodies.items():
        reply = client.request(method, path, content=body, headers={"content-type": "application/json"})
        assert fault(reply) == (None, message)


@pytest.mark.parametrize(
    ("path", "body", "param", "problem"),
    [
        ("/v1/chat/completions", {"model": "m"}, "messages", " is required"),
        ("/v1/chat/completions", CHAT | {"messages": [{"content": "x"}]}, "messages[0].role", " is required"),
        ("/v1/chat/completions", CHAT | {"model": 1}, "model", ": expected `str`, got `int`"),
        ("/v1/chat/completions", CHAT | {"model": TOO_LONG}, "model", ": expected `str` of length <= 256"),
        ("/v1/chat/completions", CHAT | {"rag": {"top_k": 101}}, "rag.top_k", ": expected `int` <= 100"),
        ("/v1/chat/completions", CHAT | {"rag": {"colour": 1}}, "rag.colour", " is not a known field"),
        ("/v1/completions", {"prompt": "x"}, "model", " is required"),
        ("/v1/completions", {"model": TOO_LONG}, "model", ": expected `str` of length <= 256"),
        ("/v1/embeddings", {"model": "local/embedding-model"}, "input", " is required"),
        ("/v1/embeddings", {"model": 1, "input": "x"}, "model", ": expected `str | null`, got `int`"),
        ("/v1/rerank", {"model": "local/reranker", "query": "x"}, "documents", " is required"),
        ("/v1/rag/search", {"query": "x", "top_k": 101}, "top_k", ": expected `int` <= 100"),
        ("/v1/rag/search", {"query": "x", "colour": 1}, "colour", " is not a known field"),
        ("/v1/rag/search", {}, "query", " is required"),
        ("/v1/rag/search", {"query": " \n"}, "query", BLANK),
        ("/v1/embeddings", EMBED | {"input": []}, "input", ": expected `array` of length 1 to 2048"),
        ("/v1/embeddings", EMBED | {"input": ["a", " "]}, "input[1]", BLANK),
        ("/v1/embeddings", EMBED | {"input": [1, "a"]}, "input", NO_TEXTS),
        ("/v1/keys", {}, "label", " is required"),
        ("/v1/keys", {"label": "a", "colour": 1}, "colour", " is not a known field"),
        ("/v1/keys", {"label": "a", "scopes": ["root"]}, "scopes[0]", WRONG_SCOPE),
        ("/v1/keys", {"label": "a", "tenant": "a b/c"}, "tenant", NO_NAME),
        ("/v1/rag/search", {"query": "x", "mode": "fuzzy"}, "mode", WRONG_MODE),
        ("/v1/chat/completions", CHAT | {"rag": {"mode": "fuzzy"}}, "rag.mode", WRONG_MODE),
        ("/v1/providers", {"name": "p", "base_url": "host/v1"}, "base_url", NO_URL),
        ("/v1/keys", {"label": "a", "allowed_models": [TOO_LONG]}, "allowed_models[0]", TOO_LONG_MESSAGE),
        ("/v1/providers", {"name": "p"}, "base_url", " is required"),
        ("/v1/providers", {"name": "p", "base_url": "http://p", "retries": 11}, "retries", ": expected `int` <= 10"),
    ],
)  # fmt: skip
def test_a_field_at_fault(client, path: str, body: dict[str, Any], param: str, problem: str) -> None:
    assert fault(client.post(path, json=body)) == (param, f"'{param}'{problem}.")


@pytest.mark.parametrize(
    ("path", "body", "param", "place"),
    [
        ("/v1/rag/search", SEARCH | {"filters": OPEN}, "filters", "filters.filters[0].value"),
        ("/v1/chat/completions", CHAT | {"rag": {"filters": OPEN}}, "rag.filters", "rag.filters.filters[0].value"),
    ],
)
def test_a_filter_at_fault(client, path: str, body: dict[str, Any], param: str, place: str) -> None:
    assert fault(client.post(path, json=body)) == (param, f"'{place}' is required.")


def test_a_filter_without_its_type_is_answered_with_an_example(client) -> None:
    param, message = fault(client.post("/v1/rag/search", json=SEARCH | {"filters": {}}))
    assert param == "filters"
    assert message.startswith('\'filters\': `type` is missing; expected a filter such as {"type": "eq", ')


def test_a_change_to_a_provider_at_fault(client) -> None:
    provider = {"name": "to-change", "base_url": "http://127.0.0.1:9/v1"}
    assert client.post("/v1/providers", json=provider).status_code == 201
    for change, param, problem in (
        ({"retries": 11}, "retries", ": expected `int` <= 10"),
        ({"colour": 1}, "colour", " is not a known field"),
    ):
        assert fault(client.patch("/v1/providers/to-change", json=change)) == (param, f"'{param}'{problem}.")


@pytest.mark.parametrize(
    ("path", "query", "param", "problem"),
    [
        ("/v1/keys", "limit=101", "limit", ": expected `int` <= 100"),
        ("/v1/keys", "limit=many", "limit", ": expected `int`, got `str`"),
        ("/v1/rag/documents", "limit=0", "limit", ": expected `int` >= 1"),
        ("/v1/attestation/report", "secret=in-the-url", "nonce", " is required"),
        ("/v1/attestation/report", "nonce=x", "nonce", ": expected `str` matching regex '^[0-9a-fA-F]{64}$'"),
        ("/v1/rag/documents", "status=lost", "status", ": expected 'queued', 'processing', 'ready' or 'failed'"),
        ("/v1/rag/documents", "filters=x", "filters", ": not valid JSON: invalid character (byte 0)"),
        ("/v1/rag/documents", "filters=[]", "filters", ": expected `object`, got `array`"),
        ("/v1/rag/documents", 'filters={"a":' + "[" * 5000, "filters", ": not valid JSON: it is nested too deeply"),
    ],
)
def test_a_query_parameter_at_fault(client, path: str, query: str, param: str, problem: str) -> None:
    assert fault(client.get(f"{path}?{query}")) == (param, f"'{param}'{problem}.")


@pytest.mark.parametrize(
    ("metadata", "param", "problem"),
    [
        ("[]", "metadata", "expected `object`, got `array`"),
        ("x", "metadata", "not valid JSON: invalid character (byte 0)"),
        ('{"a":' * 5000, "metadata", "not valid JSON: it is nested too deeply"),
        ('{"a":[1]}', "metadata", "expected `str`, `int`, `float` or `bool` for the key 'a'"),
        (json.dumps({str(key): 1 for key in range(65)}), "metadata", "expected `object` of length <= 64"),
        (json.dumps({"a": "x" * 16_384}), "metadata", "expected at most 16384 bytes of JSON"),
    ],
)
def test_metadata_at_fault(client, metadata: str, param: str, problem: str) -> None:
    raw = client.post("/v1/rag/documents", params={"filename": "a.txt", "metadata": metadata}, content=b"x")
    form = client.post("/v1/rag/documents", data={"metadata": metadata}, files={"file": ("a.txt", b"x")})
    for reply in (raw, form):
        assert fault(reply) == (param, f"'{param}': {problem}.")


@pytest.mark.parametrize(
    ("fields", "param", "problem"),
    [
        ({"colour": "x"}, "colour", " is not a known field"),
        ({"collection": "x" * 513}, "collection", ": expected `str` of length <= 512"),
        ({"filename": b"\xff"}, "filename", ": expected UTF-8"),
        ({"password": "x" * 70_000}, "password", ": expected at most 65536 bytes"),
        (None, "file", " is required"),
    ],
)
def test_an_upload_form_at_fault(client, fields: dict[str, Any] | None, param: str, problem: str) -> None:
    parts = [(name, (None, value)) for name, value in (fields or {"collection": "x"}).items()]
    files = [] if fields is None else [("file", ("a.txt", b"x", "text/plain"))]
    assert fault(client.post("/v1/rag/documents", files=[*parts, *files])) == (param, f"'{param}'{problem}.")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"", ": expected `str` of length >= 1"),
        (b"m" * 257, ": expected `str` of length <= 256"),
        ("é".encode() * 257, ": expected `str` of length <= 256"),
        (b"\xff", ": expected UTF-8"),
        (None, " is required"),
    ],
)
def test_a_forms_model_at_fault(client, value: bytes | None, problem: str) -> None:
    name = b"model" if value is not None else b"other"
    part = b'--b\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n' + (value or b"") + b"\r\n--b--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b"}
    reply = client.post("/v1/audio/transcriptions", content=part, headers=headers)
    assert fault(reply) == ("model", f"'model'{problem}.")


def test_the_longest_model_name_is_the_same_in_forms_and_json(client) -> None:
    name = "é" * 256
    refused = client.post("/v1/completions", json={"model": name})
    part = f'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n{name}\r\n--b--\r\n'.encode()
    headers = {"content-type": "multipart/form-data; boundary=b"}
    for reply in (refused, client.post("/v1/audio/transcriptions", content=part, headers=headers)):
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert client.post("/v1/keys", json={"label": "a", "allowed_models": [name]}).status_code == 201
