"""The paths of OpenAI's API at which older clients of Llama Stack expect it."""

from __future__ import annotations

import json

import pytest

BODY = {"model": "local-name", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def http(gateway):
    with gateway.service.client(gateway.key) as client:
        yield client


def test_the_paths_of_openai_are_served_below_another_prefix(http):
    for path in ("models", "files", "vector_stores"):
        assert http.get(f"/v1/openai/v1/{path}").json() == http.get(f"/v1/{path}").json()
    answer = http.post("/v1/openai/v1/chat/completions", json=BODY).json()
    assert answer["choices"] == http.post("/v1/chat/completions", json=BODY).json()["choices"]
    assert http.get("/v1/openai/v1/files/file-0").json()["error"]["code"] == "file_not_found"


def test_every_event_of_a_stream_is_json(http):
    sent = http.post("/v1/openai/v1/chat/completions", json={**BODY, "stream": True}).text
    events = [block.removeprefix("data: ") for block in sent.split("\n\n") if block.startswith("data: ")]
    assert [json.loads(event)["object"] for event in events] == ["chat.completion.chunk"] * len(events)
    usual = http.post("/v1/chat/completions", json={**BODY, "stream": True}).text
    assert len(events) == usual.count("data: ") - 1
    assert usual.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("path", ["keys", "tokens", "rag/documents", "filesystem", "openai/v1/files"])
def test_no_other_path_is_served_below_it(http, path):
    """A proxy in front of the service may have rules for these paths."""
    reply = http.get(f"/v1/openai/v1/{path}")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_url")
