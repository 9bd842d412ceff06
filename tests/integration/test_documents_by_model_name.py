"""Documents without a field of the body: a suffix of the model, headers; names of local models; default models."""

from __future__ import annotations

import json

import httpx
import openai
import pytest

from ragsvc.testing.service_runner import RunningService, create_key
from tests.conftest import NO_LIMITS
from tests.support.recording_provider import RecordingProvider
from tests.support.sealing import SealedInference, fetch_rvenc_key
from tests.support.upstream_server import serving

pytestmark = pytest.mark.model

CONFIG = """
list_document_models = true
default_images_model = "picture-model"
default_speech_model = "voice-model"
default_transcription_model = "ear-model"
default_rerank_model = "local/reranker"

[[providers]]
name = "up"
base_url = "{url}/v1"
retries = 0
models = [
  "gpt-x", "kept+docs", "reranker", "picture-model", "voice-model", {{ id = "ear-model", upstream = "whisper" }},
]
"""
QUESTION = [{"role": "user", "content": "How deep is Lake Morat?"}]
DEFAULT_TEXT = "Lake Morat is 45 metres deep."
OTHER_TEXT = "Lake Morat is 46 metres deep, says the handbook."


@pytest.fixture(scope="module")
def upstream():
    recording = RecordingProvider()
    with serving(recording) as (url, _):
        recording.url = url
        yield recording


@pytest.fixture(scope="module")
def running(upstream, tmp_path_factory):
    folder = tmp_path_factory.mktemp("by-name")
    config = folder / "ragsvc.toml"
    config.write_text(CONFIG.format(url=upstream.url))
    admin_key = create_key(folder / "data", tenant="operator", extra=("--scope", "admin"))
    service = RunningService(folder / "data", env={"RAGSVC_CONFIG": str(config)})
    service.admin_key = admin_key
    try:
        yield service
    finally:
        assert service.stop() == 0


@pytest.fixture(scope="module")
def new_key(running):
    def make(**options) -> str:
        with running.client(running.admin_key) as admin:
            reply = admin.post("/v1/keys", json={"tenant": "names", "label": "names", **NO_LIMITS, **options})
        assert reply.status_code == 201, reply.text
        return reply.json()["key"]

    return make


@pytest.fixture(scope="module")
def client(running, new_key):
    with running.client(new_key()) as opened:
        for collection, text in (("default", DEFAULT_TEXT), ("hand book", OTHER_TEXT)):
            query = {"filename": f"{collection}.txt", "collection": collection}
            reply = opened.post("/v1/rag/documents", params=query, content=text.encode())
            assert reply.status_code == 201, reply.text
        yield opened


@pytest.fixture
def sdk(running, client):
    key = client.headers["authorization"].removeprefix("Bearer ")
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=key) as opened:
        yield opened


def chat(client, model="gpt-x", *, headers=None, **fields) -> httpx.Response:
    return client.post(
        "/v1/chat/completions", json={"model": model, "messages": QUESTION, **fields}, headers=headers or {}
    )


def prompt_of(upstream) -> tuple[str, str]:
    """The model and the messages that the provider got; no field of the service reaches it."""
    body = json.loads(upstream.last.body)
    assert not {"use_rag", "rag"} & set(body)
    return body["model"], json.dumps(body["messages"])


def test_the_suffix_asks_for_documents_of_a_collection(client, upstream) -> None:
    assert chat(client, "gpt-x+docs").status_code == 200
    model, prompt = prompt_of(upstream)
    assert model == "gpt-x"
    assert DEFAULT_TEXT in prompt
    assert chat(client, "gpt-x+docs:hand book").status_code == 200
    model, prompt = prompt_of(upstream)
    assert model == "gpt-x"
    assert OTHER_TEXT in prompt
    assert chat(client, "gpt-x").status_code == 200
    assert DEFAULT_TEXT not in prompt_of(upstream)[1]


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"X-Ragsvc-Use-Rag": "true"}, DEFAULT_TEXT),
        ({"X-Ragsvc-Use-Rag": "1"}, DEFAULT_TEXT),
        ({"X-Ragsvc-Collection": "hand book"}, OTHER_TEXT),
        ({"X-Ragsvc-Collection": "hand%20book", "X-Ragsvc-Use-Rag": "TRUE"}, OTHER_TEXT),
        ({"X-Ragsvc-Use-Rag": "false"}, None),
    ],
)
def test_headers_ask_for_documents(client, upstream, headers, text) -> None:
    assert chat(client, headers=headers).status_code == 200
    prompt = prompt_of(upstream)[1]
    assert [known for known in (DEFAULT_TEXT, OTHER_TEXT) if known in prompt] == ([] if text is None else [text])


def test_the_body_takes_precedence_over_headers_and_these_over_the_suffix(client, upstream) -> None:
    assert chat(client, "gpt-x+docs", use_rag=False).status_code == 200
    assert prompt_of(upstream)[0] == "gpt-x"
    assert DEFAULT_TEXT not in prompt_of(upstream)[1]
    chat(client, "gpt-x+docs", headers={"X-Ragsvc-Use-Rag": "false"})
    assert DEFAULT_TEXT not in prompt_of(upstream)[1]
    chat(client, headers={"X-Ragsvc-Use-Rag": "false"}, use_rag=True)
    assert DEFAULT_TEXT in prompt_of(upstream)[1]
    chat(client, "gpt-x+docs:hand book", rag={"top_k": 1})
    assert OTHER_TEXT in prompt_of(upstream)[1]


@pytest.mark.parametrize(
    ("model", "headers", "fields", "param"),
    [
        ("gpt-x+docs:a", {"X-Ragsvc-Collection": "b"}, {}, "rag.collection"),
        ("gpt-x+docs:a", {}, {"rag": {"collection": "b"}}, "rag.collection"),
        ("gpt-x", {"X-Ragsvc-Use-Rag": "perhaps"}, {}, "X-Ragsvc-Use-Rag"),
        ("gpt-x", {"X-Ragsvc-Collection": ""}, {}, "X-Ragsvc-Collection"),
    ],
)
def test_contradictions_are_refused(client, model, headers, fields, param) -> None:
    reply = chat(client, model, headers=headers, **fields)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_unknown_models_and_collections_are_not_found(client) -> None:
    assert "'nope'" in chat(client, "nope+docs").json()["error"]["message"]
    reply = chat(client, "gpt-x+docs:nowhere")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "collection_not_found")


def test_a_model_whose_own_name_has_the_suffix_wins(client, upstream) -> None:
    assert chat(client, "kept+docs").status_code == 200
    assert prompt_of(upstream)[0] == "kept+docs"
    assert DEFAULT_TEXT not in prompt_of(upstream)[1]
    chat(client, "kept+docs+docs")
    assert prompt_of(upstream)[0] == "kept+docs"
    assert DEFAULT_TEXT in prompt_of(upstream)[1]


def test_rules_of_keys_judge_the_model_without_the_suffix(running, new_key, client) -> None:
    with running.client(new_key(allowed_models=["gpt-x"])) as limited:
        assert chat(limited, "gpt-x+docs").status_code == 200
        assert chat(limited, "local/chat-model+docs").status_code == 403
        assert chat(limited, "kept+docs").status_code == 403
    with running.client(new_key(scopes=["chat.plain"])) as plain:
        assert chat(plain, "gpt-x").status_code == 200
        assert chat(plain, "gpt-x+docs").json()["error"]["code"] == "policy_denied"
        assert chat(plain, headers={"X-Ragsvc-Use-Rag": "true"}).status_code == 403
    with running.client(new_key(allowed_collections=["hand book"])) as narrow:
        assert chat(narrow, "gpt-x+docs").status_code == 403
        assert chat(narrow, "gpt-x+docs:hand book").status_code == 200


def test_models_are_listed_with_the_suffix_if_the_operator_wants_it(running, new_key, client) -> None:
    listed = [model["id"] for model in client.get("/v1/models").json()["data"]]
    for name in ("gpt-x", "local/chat-model", "kept+docs"):
        at = listed.index(name)
        assert listed[at + 1 : at + 3] == [f"{name}+docs", f"{name}+docs:hand book"]
    assert "local/embedding-model+docs" not in listed
    card = client.get("/v1/models/gpt-x+docs:hand book").json()
    assert (card["id"], card["owned_by"]) == ("gpt-x+docs:hand book", "up")
    with running.client(new_key(allowed_collections=["hand book"])) as narrow:
        seen = [model["id"] for model in narrow.get("/v1/models").json()["data"]]
        assert "gpt-x+docs:hand book" in seen
        assert "gpt-x+docs" not in seen
    with running.client(new_key(scopes=["chat.plain"])) as plain:
        assert not [model for model in plain.get("/v1/models").json()["data"] if "+docs:" in model["id"]]


def test_models_are_not_listed_with_the_suffix_by_default(tenant) -> None:
    listed = [model["id"] for model in tenant.http.get("/v1/models").json()["data"]]
    assert "local/chat-model" in listed
    assert not [name for name in listed if "+docs" in name]


@pytest.mark.parametrize("stream", [False, True])
def test_an_openai_client_gets_citations_by_the_name_alone(sdk, stream) -> None:
    answer = sdk.chat.completions.create(model="chat-model+docs", messages=QUESTION, stream=stream)
    if stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    else:
        text = answer.choices[0].message.content
        assert answer.choices[0].message.annotations
    assert "45 metres" in text


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/moderations", "/v1/embeddings"])
def test_other_routes_refuse_the_suffix_and_the_headers(client, path) -> None:
    body = {"model": "gpt-x+docs", "input": "x", "prompt": "x"}
    error = client.post(path, json=body).json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", "model")
    headers = {"X-Ragsvc-Collection": "default"}
    error = client.post(path, json=body | {"model": "gpt-x"}, headers=headers).json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", "X-Ragsvc-Collection")
    headers = {"X-Ragsvc-Use-Rag": "false"}
    assert client.post(path, json=body | {"model": "gpt-x"}, headers=headers).status_code == 200


def test_rvenc_takes_the_suffix_and_refuses_headers_that_it_cannot_authenticate(client, upstream) -> None:
    body = {"model": "gpt-x+docs", "messages": QUESTION, "stream": True}
    sealed = SealedInference(fetch_rvenc_key(client), json.dumps(body).encode())
    assert client.post("/rvenc/chat/completions", json=sealed.body).status_code == 200
    assert DEFAULT_TEXT in prompt_of(upstream)[1]
    sealed = SealedInference(fetch_rvenc_key(client), json.dumps(body).encode())
    headers = {"X-Ragsvc-Use-Rag": "true"}
    error = client.post("/rvenc/chat/completions", json=sealed.body, headers=headers).json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", "X-Ragsvc-Use-Rag")


# -- names of local models, and default models -------------------------------------------------------------------------


def test_local_models_have_names_without_a_slash(running, new_key, client) -> None:
    assert chat(client, "chat-model", use_rag=True).json()["choices"][0]["message"]["annotations"]
    reply = client.post("/v1/embeddings", json={"model": "embedding-model", "input": "x"})
    assert reply.json()["model"] == "local/embedding-model"
    assert client.get("/v1/models/chat-model").json()["owned_by"] == "local"
    for allowed in (["local/*"], ["chat-model"]):
        with running.client(new_key(allowed_models=allowed)) as limited:
            assert chat(limited, "chat-model").status_code == 200
            assert chat(limited, "local/chat-model").status_code == 200
    with running.client(new_key(allowed_models=["gpt-x"])) as limited:
        assert chat(limited, "chat-model").status_code == 403


def test_a_providers_model_is_not_hidden_by_the_name_of_a_local_one(
    running, new_key, client, upstream, gateway
) -> None:
    before = len(upstream.requests)
    body = {"model": "reranker", "query": "x", "documents": ["x"]}
    assert client.post("/v1/rerank", json=body).status_code == 200
    assert len(upstream.requests) == before + 1
    with running.client(new_key(allowed_models=["reranker"])) as limited:
        assert limited.post("/v1/rerank", json=body).status_code == 200
        assert limited.post("/v1/rerank", json=body | {"model": "local/reranker"}).status_code == 403
    with gateway.service.client(gateway.key) as other:  # a provider with the pattern "*"
        assert other.post("/v1/embeddings", json={"model": "embedding-model", "input": "x"}).status_code == 200
    assert b'"embedding-model"' in gateway.upstream.last.body


@pytest.mark.parametrize(
    ("path", "fields", "model"),
    [
        ("/v1/images/generations", {"prompt": "x"}, "picture-model"),
        ("/v1/images/generations", {"prompt": "x", "model": None}, "picture-model"),
        ("/v1/audio/speech", {"input": "x", "voice": "alloy"}, "voice-model"),
    ],
)
def test_a_request_without_a_model_gets_the_default_of_its_kind(client, upstream, path, fields, model) -> None:
    assert client.post(path, json=fields).status_code == 200
    assert json.loads(upstream.last.body) == fields | {"model": model}


def test_a_local_model_can_be_the_default(client) -> None:
    reply = client.post("/v1/rerank", json={"query": "deep lake", "documents": ["a deep lake", "a shop"]})
    assert reply.json()["results"][0]["index"] == 0


def test_a_form_without_a_model_gets_the_default_as_its_first_field(client, upstream) -> None:
    files = {"file": ("a.wav", b"x" * 3000, "audio/wav")}
    assert client.post("/v1/audio/transcriptions", files=files, data={"language": "de"}).status_code == 200
    sent = upstream.last
    boundary = sent.headers["content-type"].partition("boundary=")[2].encode()
    assert int(sent.headers["content-length"]) == len(sent.body)
    parts = sent.body.split(b"--" + boundary)[1:-1]
    assert parts[0] == b'\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n'
    assert len(parts) == 3


def test_without_a_default_the_model_is_required(client, sdk) -> None:
    for path in ("/v1/completions", "/v1/ocr"):
        reply = client.post(path, json={"prompt": "x"})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "model")
    with pytest.raises(openai.NotFoundError, match="omni-moderation-latest"):  # no provider of this service has it
        sdk.moderations.create(input="x")
