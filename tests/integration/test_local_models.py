"""Embeddings and reranking by the service itself, with the official client, and token budgets around them."""

from __future__ import annotations

import base64

import httpx
import numpy as np
import openai
import pytest

from ragsvc.testing.service_runner import RunningService, create_key

pytestmark = pytest.mark.model

MODEL = "local/embedding-model"


@pytest.fixture
def client(gateway):
    with openai.OpenAI(api_key=gateway.key, base_url=f"{gateway.url}/v1", max_retries=0) as made:
        yield made


def unit(vectors) -> np.ndarray:
    matrix = np.array(vectors, np.float32)
    assert np.allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-3)
    return matrix


def test_texts_become_vectors_that_know_meaning_and_usage_is_exact(client) -> None:
    texts = ["A whale is a mammal.", "Whales are mammals.", "The budget was cut."]
    answer = client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    vectors = unit([one.embedding for one in answer.data])
    assert vectors.shape == (3, 384)
    assert [one.index for one in answer.data] == [0, 1, 2]
    assert vectors[0] @ vectors[1] > 0.8
    assert vectors[0] @ vectors[2] < 0.5
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 8 + 6 + 7
    assert answer.model == MODEL


def test_base64_is_the_same_as_float_and_one_text_the_same_as_in_a_list(client) -> None:
    floats = client.embeddings.create(model=MODEL, input="Größe zählt", encoding_format="float").data[0].embedding
    default = client.embeddings.create(model=MODEL, input=["Größe zählt"]).data[0].embedding
    assert np.allclose(floats, default, atol=2e-3)
    raw = client.post("/embeddings", body={"model": MODEL, "input": "Größe zählt", "encoding_format": "base64"},
                      cast_to=httpx.Response).json()  # fmt: skip
    decoded = np.frombuffer(base64.b64decode(raw["data"][0]["embedding"]), "<f4")
    assert np.allclose(decoded, floats, atol=2e-3)


def test_token_arrays_are_those_of_the_models_tokenizer(client) -> None:
    whale = [1037, 13156, 2003, 1037, 25476, 1012]  # "a whale is a mammal ."
    text = client.embeddings.create(model=MODEL, input="a whale is a mammal.").data[0].embedding
    one = client.embeddings.create(model=MODEL, input=whale).data
    several = client.embeddings.create(model=MODEL, input=[whale, [13156]]).data
    assert (len(one), len(several)) == (1, 2)
    assert np.dot(text, one[0].embedding) > 0.999
    assert np.dot(text, several[0].embedding) > 0.999


@pytest.mark.parametrize(
    "tokens",
    [
        pytest.param([83, 1609, 5963, 374, 2294, 0], id="cl100k_base of 'tiktoken is great!'"),
        pytest.param([[791, 4062, 14198, 39935, 35308, 927, 279, 16053, 5679, 13]], id="cl100k_base of a pangram"),
        pytest.param([[1037, 13156], [976, 4853, 19705, 68347, 65613, 1072, 290, 29082, 6446, 13]], id="o200k_base"),
    ],
)
def test_token_arrays_of_another_tokenizer_are_refused(client, tokens) -> None:
    with pytest.raises(openai.BadRequestError, match=r"Send texts \(LangChain: check_embedding_ctx_length=False\)"):
        client.embeddings.create(model=MODEL, input=tokens)


def test_special_tokens_of_a_token_array_are_left_out(client) -> None:
    whale = [1037, 13156, 2003, 1037, 25476, 1012]
    plain = client.embeddings.create(model=MODEL, input=whale).data[0].embedding
    framed = client.embeddings.create(model=MODEL, input=[101, *whale, 102]).data[0].embedding
    assert np.dot(plain, framed) > 0.999


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_the_paths_of_other_clients_rerank(tenant, path: str) -> None:
    body = {"model": "local/reranker", "query": "What was painted green?", "top_n": 1}
    documents = ["It rained.", "The crane was painted green."]
    reply = tenant.http.post(path, json={**body, "documents": documents})
    assert reply.status_code == 200, reply.text
    assert [result["index"] for result in reply.json()["results"]] == [1]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", "word " * 300]}, "input[1]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": [[999_999]]}, "input"),
        ({"input": ["a", [1]]}, "input"),
        ({"input": "a", "dimensions": 64}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({}, "input"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_name(client, body, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/embeddings", body={"model": MODEL, **body}, cast_to=httpx.Response)
    assert refused.value.param == param


LONG = "whale " * 200 + "budget " * 200
"""More tokens than the 256 of the model: the start is about whales, the end about budgets."""


def embed_raw(client, **fields) -> httpx.Response:
    raw = client.embeddings.with_raw_response.create(model=MODEL, encoding_format="float", **fields)
    return raw.http_response


@pytest.mark.parametrize(
    ("truncate", "kept"),
    [
        ("END", "whale " * 200 + "budget " * 54),
        ("end", "whale " * 200 + "budget " * 54),
        (True, "whale " * 200 + "budget " * 54),
        ("START", "whale " * 54 + "budget " * 200),
    ],
)
def test_a_long_text_is_truncated_where_the_request_asks_for_it(client, truncate, kept: str) -> None:
    reply = embed_raw(client, input=["short", LONG, LONG], extra_body={"truncate": truncate})
    body = reply.json()
    assert reply.headers["x-ragsvc-truncated-inputs"] == "2"
    assert body["truncated_inputs"] == [1, 2]
    assert body["usage"]["prompt_tokens"] == 3 + 256 + 256
    whole = embed_raw(client, input=kept)
    assert "x-ragsvc-truncated-inputs" not in whole.headers
    assert "truncated_inputs" not in whole.json()
    assert np.dot(body["data"][1]["embedding"], whole.json()["data"][0]["embedding"]) > 0.999


@pytest.mark.parametrize("side", ["START", "END"])
@pytest.mark.parametrize("text", ["antidisestablishmentarianism" * 500, "中文字符测试" * 500, "a1b2-" * 100_000])
def test_truncation_leaves_at_most_the_models_limit(client, side, text: str) -> None:
    body = embed_raw(client, input=text, extra_body={"truncate": side}).json()
    assert body["usage"]["prompt_tokens"] <= 256
    unit([body["data"][0]["embedding"]])


@pytest.mark.parametrize("truncate", ["NONE", "none", False, None])
def test_a_long_text_is_refused_unless_it_may_be_truncated(client, truncate) -> None:
    with pytest.raises(openai.BadRequestError, match="at most 254 tokens, got 400; 'truncate'") as refused:
        embed_raw(client, input=["a", LONG], extra_body={"truncate": truncate})
    assert refused.value.param == "input[1]"


def test_an_unknown_side_of_truncation_is_refused_by_name(client) -> None:
    with pytest.raises(openai.BadRequestError, match="'NONE', 'START', 'END'") as refused:
        embed_raw(client, input="a", extra_body={"truncate": "MIDDLE"})
    assert refused.value.param == "truncate"


def test_the_setting_truncates_for_requests_that_say_nothing(tmp_path) -> None:
    data_dir = tmp_path / "data"
    key = create_key(data_dir, tenant="acme")
    running = RunningService(data_dir, env={"RAGSVC_EMBEDDINGS_TRUNCATE": "start"})
    try:
        with openai.OpenAI(api_key=key, base_url=f"{running.url}/v1", max_retries=0) as client:
            assert embed_raw(client, input=LONG).headers["x-ragsvc-truncated-inputs"] == "1"
            with pytest.raises(openai.BadRequestError):
                embed_raw(client, input=LONG, extra_body={"truncate": "NONE"})
    finally:
        assert running.stop() == 0


def test_the_models_own_dimension_may_be_asked_for(client) -> None:
    assert len(client.embeddings.create(model=MODEL, input="x", dimensions=384).data[0].embedding) == 384


def test_many_inputs_are_one_request(client) -> None:
    answer = client.embeddings.create(model=MODEL, input=[f"text {number}" for number in range(300)])
    assert len(answer.data) == 300


def test_rerank_orders_by_relevance_and_names_its_score(client) -> None:
    body = {
        "model": "local/reranker",
        "query": "How many containers did the harbour handle?",
        "documents": ["It rained.", {"text": "The harbour handled 4,711 containers."}, "Harbours are wet."],
        "top_n": 2,
        "return_documents": True,
    }
    answer = client.post("/rerank", body=body, cast_to=httpx.Response).json()
    assert [one["index"] for one in answer["results"]] == [1, 2]
    assert answer["results"][0]["document"] == {"text": "The harbour handled 4,711 containers."}
    scores = [one["relevance_score"] for one in answer["results"]]
    assert 1 >= scores[0] > scores[1] >= 0
    assert answer["model"] == answer["meta"]["scored_by"] == "local/hybrid-score"
    assert answer["usage"]["total_tokens"] > 10
    with pytest.raises(openai.BadRequestError):
        client.post("/rerank", body={**body, "documents": []}, cast_to=httpx.Response)


def test_local_models_are_listed_and_do_what_they_can_only(client) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {MODEL, "local/all-MiniLM-L6-v2", "local/reranker", "local/hybrid-score", "local/chat-model"} <= set(listed)
    assert listed[MODEL].owned_by == "local"
    with pytest.raises(openai.NotFoundError, match="not offered for chat"):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(openai.NotFoundError, match="not offered for embeddings"):
        client.embeddings.create(model="local/chat-model", input="hi")


def test_embedding_here_costs_the_tokens_it_reports(gateway) -> None:
    key = gateway.new_key(token_balance=30)
    with openai.OpenAI(api_key=key, base_url=f"{gateway.url}/v1", max_retries=0) as client:
        used = client.embeddings.create(model=MODEL, input="one two").usage.total_tokens
        assert gateway.tokens_left(key) == 30 - used
        with pytest.raises(openai.APIStatusError) as exhausted:
            client.embeddings.create(model=MODEL, input="one two " * 40)
        assert exhausted.value.status_code == 402
        assert gateway.tokens_left(key) == 30 - used
