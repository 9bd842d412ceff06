"""Requests with misspelt parameters are refused: an ignored filter or an ignored ``use_rag`` misleads."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.model

CHAT = {"model": "local/chat-model", "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture(scope="module")
def client(service):
    with service.client(service.admin_key) as admin:
        reply = admin.post("/v1/keys", json={"tenant": "spelling", "label": "x", "requests_per_minute": None})
    with service.client(reply.json()["key"]) as everything:
        yield everything


def refused(reply) -> str:
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (400, "invalid_request"), error
    return f"{error['param']}: {error['message']}"


@pytest.mark.parametrize(
    ("method", "path", "query", "message"),
    [
        ("GET", "/v1/rag/documents", "colection=a", "'collection' was probably meant."),
        ("GET", "/v1/rag/documents", "limit=2&Status=ready", "'status' was probably meant."),
        ("GET", "/v1/rag/documents", "zzz", "it takes after, before, collection, "),
        ("POST", "/v1/rag/documents", "file_name=a.txt", "'filename' was probably meant."),
        ("POST", "/v1/rag/documents", "waits=1", "'wait_s' was probably meant."),
        ("GET", "/v1/rag/documents/doc_1", "page=3", "it takes none."),
        ("POST", "/v1/rag/search", "collection=a", "it takes none."),
    ],
)
def test_an_unknown_query_parameter_is_refused(client, method, path, query, message) -> None:
    name = query.split("&")[-1].split("=")[0]
    told = refused(client.request(method, f"{path}?{query}", content=b"x"))
    assert told.startswith(f"{name}: '{name}' is not a query parameter of this route; {message}")


def test_known_query_parameters_and_those_of_providers_and_probes_pass(client) -> None:
    assert client.get("/v1/rag/documents?limit=1&order=asc&collection=default").status_code in {200, 404}
    assert client.post(
        "/v1/embeddings?api-version=2024", json={"model": "local/embedding-model", "input": "x"}
    ).is_success
    assert client.post("/v1/chat/completions?api-version=2024", json=CHAT).is_success
    assert client.get("/livez?_=1").is_success


@pytest.mark.parametrize("field", ["use_rga", "useRag", "use-rag", "userag", "use_rags", "Rag", "use_RAG"])
def test_a_field_that_is_almost_use_rag_is_refused(client, field) -> None:
    meant = "rag" if field == "Rag" else "use_rag"
    told = refused(client.post("/v1/chat/completions", json=CHAT | {field: True}))
    assert told == f"{field}: '{field}' is not a known field; '{meant}' was probably meant."


def test_a_field_after_a_long_conversation_is_seen_and_words_inside_it_are_not(client) -> None:
    messages = [{"role": "user", "content": '{"use_rga": true} ' * 2000}]
    assert client.post("/v1/chat/completions", json=CHAT | {"messages": messages}).is_success
    refused(client.post("/v1/chat/completions", json=CHAT | {"messages": messages, "use_rga": True}))
    assert client.post("/v1/chat/completions", json=CHAT | {"metadata": {"use_rga": "x"}}).is_success


@pytest.mark.parametrize("field", ["storage", "average", "safety_identifier", "use_cache", "prediction", "top_k"])
def test_other_unknown_fields_go_to_the_backend(client, field) -> None:
    assert client.post("/v1/chat/completions", json=CHAT | {field: None}).is_success


def test_filters_by_file_name_and_time(client) -> None:
    for name in ("Report A.txt", "report b.txt", "notes.txt"):
        reply = client.post("/v1/rag/documents", params={"filename": name}, content=f"The lake of {name}.".encode())
        assert reply.status_code == 201, reply.text
    condition = {"type": "prefix", "key": "filename", "value": "report"}
    hits = client.post("/v1/rag/search", json={"query": "lake", "filters": condition}).json()["data"]
    assert {hit["filename"] for hit in hits} == {"Report A.txt", "report b.txt"}
    later = {"type": "gt", "key": "created_at", "value": "2999-01-01"}
    assert client.post("/v1/rag/search", json={"query": "lake", "filters": later}).json()["data"] == []
    earlier = {"type": "lt", "key": "created_at", "value": "2999-01-01"}
    assert len(client.post("/v1/rag/search", json={"query": "lake", "filters": earlier}).json()["data"]) == 3
    told = refused(client.post("/v1/rag/search", json={"query": "lake", "filters": {"year": 2024}}))
    assert '{"type": "eq", "key": "year", "value": 2024}' in told


@pytest.mark.parametrize("stream", [False, True])
def test_a_parameter_that_is_one_edit_from_a_known_one_is_reported(client, service, stream) -> None:
    known = CHAT | {"stream": stream, "temperature": 1, "top_k": 3, "guided_json": {}, "min_p": 0.1, "n": 1}
    quiet = client.post("/v1/chat/completions", json=known)
    assert (quiet.status_code, quiet.headers.get("x-ragsvc-misspelt-parameters")) == (200, None)
    told = client.post("/v1/chat/completions", json=known | {"temprature": 0, "maxTokens": 5})
    assert told.status_code == 200
    expected = "temprature (temperature?), maxTokens (max_tokens?)"
    assert told.headers["x-ragsvc-misspelt-parameters"] == expected
    deadline = time.monotonic() + 20
    while not any("probably misspelt" in line for line in list(service.log)):  # a thread reads the log
        assert time.monotonic() < deadline
        time.sleep(0.05)
