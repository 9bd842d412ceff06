"""``/v1/responses`` with the official SDK: a real service, its built-in model, and a provider of chat completions."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import tarfile
import time

import httpx
import jsonschema
import openai
import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter
from sqlalchemy import select, update

from ragsvc.client import EncryptedTransport, HpkeStream
from ragsvc.store.response_rows import ResponseRow
from ragsvc.store.tables import CollectionRow, table_of
from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import RunningService, create_key
from tests.support.engines import let_writes_fail, stored_rows
from tests.support.file_places import stored_bytes
from tests.support.upstream_server import serving_upstream

pytestmark = pytest.mark.model

LOCAL = "local/chat-model"
REPORT = text_pdf([["The lighthouse lamp consumed 4,711 litres of oil in 1903."], ["The keeper was paid 12 pounds."]])
RESULTS = ["file_search_call.results"]
QUESTION = "How much oil did the lighthouse lamp consume in 1903?"
EVENTS = TypeAdapter(ResponseStreamEvent)
PROVIDER = """
[[providers]]
name = "up"
base_url = "{url}"
api_key = "sk-upstream-secret"
retries = 0
breaker_failures = 1000
models = [{{ id = "short", max_prompt_characters = 1000 }}, "*"]
"""
_serial = itertools.count(1)


@pytest.fixture(scope="module")
def upstream():
    with serving_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def bridge(upstream, tmp_path_factory):
    folder = tmp_path_factory.mktemp("responses")
    (folder / "ragsvc.toml").write_text(PROVIDER.format(url=upstream.url))
    admin_key = create_key(folder / "data", tenant="operator", extra=("--scope", "admin"))
    running = RunningService(folder / "data", env={"RAGSVC_CONFIG": str(folder / "ragsvc.toml")})
    running.admin_key = admin_key
    yield running
    assert running.stop() == 0


class Caller:
    """A key of a tenant, with the official client."""

    def __init__(self, service: RunningService, tenant: str, key: str) -> None:
        self.service = service
        self.tenant = tenant
        self.key = key
        self.http = service.client(key)
        self.openai = openai.OpenAI(base_url=f"{service.url}/v1", api_key=key, max_retries=0)
        self.responses = self.openai.responses
        self._others: list[Caller] = []

    def another(self, **options) -> Caller:
        self._others.append(new_caller(self.service, tenant=self.tenant, **options))
        return self._others[-1]

    def close(self) -> None:
        for other in self._others:
            other.close()
        self.http.close()
        self.openai.close()

    def upload(self, content: bytes = REPORT, *, filename="lighthouse.pdf", collection="default", **metadata) -> str:
        """Store a document, and return the id of its collection as a vector store."""
        parameters = {"filename": filename, "collection": collection, "metadata": json.dumps(metadata)}
        kind = {"content-type": "application/pdf" if filename.endswith("pdf") else "text/plain"}
        reply = self.http.post("/v1/rag/documents", params=parameters, content=content, headers=kind)
        assert reply.json()["status"] == "ready", reply.text
        return self.store(collection)

    def store(self, collection: str) -> str:
        rows = table_of(CollectionRow).c
        found = select(rows.public_id).where(rows.tenant == self.tenant, rows.name == collection)
        with stored_rows(self.service.data_dir) as connection:
            return connection.scalars(found).one()

    def file_search(self, *stores: str, **options) -> dict:
        return {"type": "file_search", "vector_store_ids": list(stores) or [self.upload()], **options}


def new_caller(service: RunningService, *, tenant: str | None = None, **options) -> Caller:
    tenant = tenant or f"tenant-{next(_serial)}"
    body = {"tenant": tenant, "label": "quickstart", "requests_per_minute": None, "requests_per_hour": None, **options}
    with service.client(service.admin_key) as admin:
        reply = admin.post("/v1/keys", json=body)
    assert reply.status_code == 201, reply.text
    return Caller(service, tenant, reply.json()["key"])


@pytest.fixture
def caller(bridge):
    made = new_caller(bridge)
    yield made
    made.close()


@pytest.fixture
def stranger(bridge):
    made = new_caller(bridge)
    yield made
    made.close()


def events_of(caller: Caller, **body) -> list[dict]:
    """The events of a stream as JSON; checks the frame of each event."""
    return stream_events(caller, "POST", "/v1/responses", json={"stream": True, **body})


def stream_events(caller: Caller, method: str, path: str, **options) -> list[dict]:
    found = []
    with caller.http.stream(method, path, **options) as reply:
        assert reply.status_code == 200, reply.read()
        assert reply.headers["content-type"].startswith("text/event-stream")
        for block in reply.read().decode().split("\n\n"):
            if block and not block.startswith(":"):
                name, data = block.split("\n")
                found.append(json.loads(data.removeprefix("data: ")))
                assert name == f"event: {found[-1]['type']}"
    return found


def check_stream(events: list[dict]) -> None:
    """Every event has the SDK's type, and numbers without gaps; items are opened, filled and closed in order."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        EVENTS.validate_python(event)
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    last = events[-1]
    assert last["type"] in ("response.completed", "response.incomplete", "response.failed")
    opened: dict[int, dict] = {}
    texts: dict[int, str] = {}
    for event in events[2:-1]:
        place = event["output_index"]
        if event["type"] == "response.output_item.added":
            assert place == len(opened)
            assert event["item"]["status"] == "in_progress"
            opened[place], texts[place] = event["item"], ""
        elif event["type"].endswith(".delta"):
            texts[place] += event["delta"]
        elif event["type"] == "response.output_text.done":
            assert event["text"] == texts[place]
        elif event["type"] == "response.function_call_arguments.done":
            assert event["arguments"] == texts[place]
        elif event["type"] == "response.output_item.done":
            assert event["item"] == last["response"]["output"][place]
        if "item_id" in event:
            assert event["item_id"] == opened[place]["id"]


def test_a_text_from_a_provider_of_chat_completions(caller, upstream):
    response = caller.responses.create(model="any-model", input="Hello", instructions="Be brief.", max_output_tokens=50)
    assert response.output_text == "Hello from the provider."
    assert response.status == "completed"
    assert response.id.startswith("resp_")
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (11, 5, 16)
    assert response.usage.output_tokens_details.reasoning_tokens == 0
    assert upstream.requests[-1]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
    ]
    assert upstream.requests[-1]["max_completion_tokens"] == 50
    assert "store" not in upstream.requests[-1]


def test_the_events_of_a_text(caller):
    events = events_of(caller, model="any-model", input="Hello")
    check_stream(events)
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds == [
        "created", "in_progress", "output_item.added", "content_part.added", *["output_text.delta"] * 5,
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert events[-1]["response"]["usage"]["total_tokens"] == 16


@pytest.mark.parametrize("model", ["no-usage", "sparse"])
def test_the_usage_is_counted_if_the_provider_does_not_report_it(caller, model):
    whole = caller.responses.create(model=model, input="Hello")
    assert whole.usage.output_tokens > 0
    events = events_of(caller, model=model, input="Hello")
    check_stream(events)
    assert events[-1]["response"]["usage"]["output_tokens"] > 0


def test_responses_are_described(caller):
    document = caller.http.get("/schema").json()
    operation = document["paths"]["/v1/responses"]["post"]
    content = operation["responses"]["200"]["content"]
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/ResponseBody"}
    assert content["text/event-stream"]["schema"] == {"$ref": "#/components/schemas/ResponseEvent"}
    assert "input" in document["components"]["schemas"]["ResponseRequest"]["properties"]
    schema = {"$ref": "#/components/schemas/ResponseBody", "components": document["components"]}
    validator = jsonschema.Draft202012Validator(schema)
    tool = caller.file_search()
    answer = caller.http.post("/v1/responses", json={"model": LOCAL, "input": QUESTION, "tools": [tool]}).json()
    validator.validate(answer)
    assert not validator.is_valid(answer | {"status": "odd"})


def test_the_stream_helper_of_the_sdk(caller):
    with caller.responses.stream(model="any-model", input="Hello") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds.count("response.output_text.delta") == 5
    assert final.output_text == "Hello from the provider."
    assert caller.responses.retrieve(final.id).output_text == final.output_text


def test_answers_from_files_cite_page_and_quote(caller):
    tool = caller.file_search()
    chat = caller.http.post(
        "/v1/chat/completions",
        json={"model": LOCAL, "use_rag": True, "messages": [{"role": "user", "content": QUESTION}]},
    ).json()
    response = caller.responses.create(model=LOCAL, input=QUESTION, tools=[tool])
    search, message = response.output
    assert search.type == "file_search_call"
    assert (search.status, search.queries, search.results) == ("completed", [QUESTION], None)
    assert response.output_text == chat["choices"][0]["message"]["content"]
    part = message.content[0]
    assert part.annotations, "the answer is cited"
    annotation, expected = part.annotations[0].model_dump(), chat["citations"][0]
    assert annotation["type"] == "file_citation"
    assert annotation["file_id"].startswith("file-")
    assert annotation["filename"] == "lighthouse.pdf"
    for name in ("page", "quote", "score", "start_index", "end_index", "chunk_id"):
        assert annotation[name] == expected[name], name
    assert annotation["index"] == expected["start_index"]
    assert "4,711 litres" in annotation["quote"]


def test_the_events_of_a_search(caller):
    events = events_of(
        caller, model=LOCAL, input=QUESTION, tools=[caller.file_search()], include=["file_search_call.results"]
    )
    check_stream(events)
    kinds = [event["type"].removeprefix("response.") for event in events]
    deltas = kinds.count("output_text.delta")
    annotations = kinds.count("output_text.annotation.added")
    assert deltas
    assert annotations
    assert kinds == [
        "created", "in_progress", "output_item.added", "file_search_call.in_progress", "file_search_call.searching",
        "file_search_call.completed", "output_item.done", "output_item.added", "content_part.added",
        *["output_text.delta"] * deltas, *["output_text.annotation.added"] * annotations, "output_text.done",
        "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    results = events[6]["item"]["results"]
    assert "4,711 litres" in results[0]["text"]
    assert results[0]["file_id"].startswith("file-")


def test_options_of_the_search(caller):
    first = caller.upload(year=1903)
    harbour = b"The harbour lamp consumed 99 litres of oil in 1904."
    second = caller.upload(harbour, filename="harbour.txt", collection="b", year=1904)
    include = ["file_search_call.results"]

    def results(**options):
        tool = {"type": "file_search", **options}
        response = caller.responses.create(model=LOCAL, input=QUESTION, tools=[tool], include=include)
        return response.output[0].results

    both = results(vector_store_ids=[first, second])
    assert {result.filename for result in both} == {"lighthouse.pdf", "harbour.txt"}
    assert [result.score for result in both] == sorted((result.score for result in both), reverse=True)
    assert {result.attributes["year"] for result in both} == {1903, 1904}
    assert len(results(vector_store_ids=[first, second], max_num_results=1)) == 1
    only = {"type": "eq", "key": "year", "value": 1904}
    assert {result.filename for result in results(vector_store_ids=[first, second], filters=only)} == {"harbour.txt"}
    best = both[0].score
    threshold = {"ranker": "auto", "score_threshold": best}
    strict = results(vector_store_ids=[first, second], ranking_options=threshold)
    assert {result.score for result in strict} == {best}
    words = {"hybrid_search": {"embedding_weight": 0, "text_weight": 1}}
    assert results(vector_store_ids=[first], ranking_options=words)[0].filename == "lighthouse.pdf"

    nothing = caller.responses.create(
        model=LOCAL, input=QUESTION, tools=[caller.file_search(first)], tool_choice="none", include=include
    )
    assert [item.type for item in nothing.output] == ["message"]


def test_function_calls_round_trip(caller, upstream):
    tool = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}, "strict": False}
    asked = {"model": "tools", "input": "Weather in Paris?", "tools": [tool], "parallel_tool_calls": False}
    response = caller.responses.create(**asked)
    (call,) = response.output
    assert (call.type, call.name, call.call_id) == ("function_call", "get_weather", "call_1")
    assert json.loads(call.arguments) == {"city": "Paris"}
    events = events_of(caller, **asked)
    check_stream(events)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done", "completed",
    ]  # fmt: skip
    sent = upstream.requests[-1]
    assert sent["tools"] == [{"type": "function", "function": {name: tool[name] for name in tool if name != "type"}}]
    assert sent["parallel_tool_calls"] is False

    output = {"type": "function_call_output", "call_id": "call_1", "output": "Sunny"}
    items = [{"role": "user", "content": "Weather in Paris?"}, *[item.to_dict() for item in response.output], output]
    assert caller.responses.create(model="tools", input=items, store=False).output_text
    roles = [message["role"] for message in upstream.requests[-1]["messages"]]
    assert roles == ["user", "assistant", "tool"]
    followed = caller.responses.create(model="tools", previous_response_id=response.id, input=[output], tools=[tool])
    assert followed.output_text == "Hello from the provider."
    assert [message["role"] for message in upstream.requests[-1]["messages"]] == roles


def test_structured_output(caller, upstream):
    class Answer(BaseModel):
        text: str

    with contextlib.suppress(ValueError):  # this provider answers in prose, which the SDK cannot parse
        caller.responses.parse(model="any-model", input="Hello", text_format=Answer)
    form = upstream.requests[-1]["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["name"] == "Answer"
    assert form["json_schema"]["schema"]["properties"] == {"text": {"title": "Text", "type": "string"}}
    response = caller.responses.create(model="any-model", input="Hello", text={"format": {"type": "json_object"}})
    assert response.text.format.type == "json_object"
    assert upstream.requests[-1]["response_format"] == {"type": "json_object"}


def test_requests_as_clients_send_them(caller, upstream):
    nulls = dict.fromkeys(
        ["include", "instructions", "max_output_tokens", "metadata", "previous_response_id", "user", "tools", "text",
         "tool_choice", "reasoning", "temperature", "top_p", "parallel_tool_calls", "conversation", "prompt"]
    )  # fmt: skip
    hello = [{"role": "user", "content": "Hello"}]
    body = {"model": "any-model", "input": hello, "truncation": "disabled", "store": False}
    assert caller.http.post("/v1/responses", json={**nulls, **body}).status_code == 200
    codex = {
        "model": "any-model", "stream": True, "store": False, "tool_choice": "auto", "parallel_tool_calls": True,
        "reasoning": {}, "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k", "client_metadata": {},
        "input": [
            {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}
            for role, text in (("developer", "a"), ("developer", "b"), ("user", "c"), ("user", "d"))
        ],
        "tools": [{"type": "function", "name": "f", "parameters": {}}, {"type": "namespace", "name": "n", "tools": []},
                  {"type": "web_search"}],
    }  # fmt: skip
    events = events_of(caller, **codex)
    assert events[-1]["type"] == "response.completed"
    sent = upstream.requests[-1]
    assert [(message["role"], message["content"]) for message in sent["messages"]] == [
        ("system", "a\n\nb"), ("user", "c"), ("user", "d"),
    ]  # fmt: skip
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["f"]
    refused = caller.http.post("/v1/responses", json={**codex, "stream": False, "tool_choice": {"type": "web_search"}})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "tool_choice"
    unknown = caller.http.post("/v1/responses", json={"model": "any-model", "input": [{"type": "telepathy"}]})
    assert unknown.json()["error"]["param"] == "input[0].type"


def test_a_cut_answer_is_incomplete(caller):
    response = caller.responses.create(model=LOCAL, input=QUESTION, tools=[caller.file_search()], max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    events = events_of(caller, model=LOCAL, input=QUESTION, tools=[caller.file_search()], max_output_tokens=3)
    check_stream(events)
    assert events[-1]["type"] == "response.incomplete"


def test_a_failure_in_a_stream_is_an_event(caller):
    events = events_of(caller, model="error-midway", input="Hello")
    check_stream(events)
    failed = events[-1]
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"]["code"] == "server_error"
    stored = caller.responses.retrieve(failed["response"]["id"])
    assert stored.status == "failed"
    refused = caller.http.post("/v1/responses", json={"model": "bad-request", "input": "Hello", "stream": True})
    assert refused.status_code == 400  # nothing was sent yet


def test_a_conversation_continues(caller, upstream):
    first = caller.responses.create(model="any-model", input="One", instructions="Only for this response.")
    second = caller.responses.create(model="any-model", input="Two", previous_response_id=first.id)
    caller.responses.create(model="any-model", input="Three", previous_response_id=second.id)
    assert [(message["role"], message["content"]) for message in upstream.requests[-1]["messages"]] == [
        ("user", "One"), ("assistant", "Hello from the provider."),
        ("user", "Two"), ("assistant", "Hello from the provider."), ("user", "Three"),
    ]  # fmt: skip
    assert "previous_response_id" not in upstream.requests[-1]
    message = second.output[0].id
    referring = [{"type": "item_reference", "id": message}, {"role": "user", "content": "?"}]
    caller.responses.create(model="any-model", input=referring)
    assert upstream.requests[-1]["messages"][0] == {"role": "assistant", "content": "Hello from the provider."}
    unstored = caller.responses.create(model="any-model", input="One", store=False)
    with pytest.raises(openai.NotFoundError):
        caller.responses.create(model="any-model", input="Two", previous_response_id=unstored.id)


def test_a_conversation_goes_on_after_the_deletion_of_its_beginning(caller, upstream):
    first = caller.responses.create(model="any-model", input="My name is Ada.")
    second = caller.responses.create(model="any-model", input="I keep bees.", previous_response_id=first.id)
    third = caller.responses.create(model="any-model", input="I live here.", previous_response_id=second.id)
    caller.responses.delete(first.id)
    caller.responses.create(model="any-model", input="Who am I?", previous_response_id=third.id)
    asked = upstream.requests[-1]["messages"]
    assert [message["content"] for message in asked if message["role"] == "user"] == [
        "I keep bees.",
        "I live here.",
        "Who am I?",
    ]
    assert caller.responses.retrieve(second.id).previous_response_id == first.id
    with pytest.raises(openai.NotFoundError, match=first.id):
        caller.responses.create(model="any-model", input="Who am I?", previous_response_id=first.id)


def test_a_key_for_providers_alone_gets_responses_that_are_not_stored(caller, upstream):
    stored = caller.responses.create(model="any-model", input="Hello")
    talk = caller.openai.conversations.create()
    proxy = caller.another(scopes=["proxy"])
    for options in ({}, {"store": False}):
        made = proxy.responses.create(model="any-model", input="Hello", **options)
        assert made.output_text == stored.output_text
        assert made.store is False
        assert caller.http.get(f"/v1/responses/{made.id}").status_code == 404
        assert "store" not in upstream.requests[-1]
    with proxy.responses.stream(model="any-model", input="Hello") as stream:
        assert stream.get_final_response().output_text == stored.output_text
    for options in (
        {"store": True},
        {"background": True},
        {"previous_response_id": stored.id},
        {"conversation": talk.id},
        {"input": [{"type": "item_reference", "id": stored.output[-1].id}]},
        {"tools": [caller.file_search()]},
        {"extra_body": {"use_rag": True}},
    ):
        with pytest.raises(openai.PermissionDeniedError, match="'chat'"):
            proxy.responses.create(**{"model": "any-model", "input": "Hello", **options})
    for path in (f"/v1/responses/{stored.id}", f"/v1/conversations/{talk.id}"):
        assert proxy.http.get(path).status_code == 403
    neither = caller.another(scopes=["embeddings"])
    with pytest.raises(openai.PermissionDeniedError, match="'chat'"):
        neither.responses.create(model="any-model", input="Hello")


def test_stored_responses(caller):
    tool = caller.file_search()
    made = caller.responses.create(model=LOCAL, input=QUESTION, tools=[tool], metadata={"run": "7"})
    found = caller.responses.retrieve(made.id)
    assert found.to_dict() == made.to_dict()
    assert found.metadata == {"run": "7"}
    with_results = caller.responses.retrieve(made.id, include=["file_search_call.results"])
    assert "4,711 litres" in with_results.output[0].results[0].text
    replayed = stream_events(caller, "GET", f"/v1/responses/{made.id}", params={"stream": "true"})
    check_stream(replayed)
    assert replayed[-1]["response"] == json.loads(json.dumps(made.to_dict()))
    assert caller.responses.delete(made.id) is None
    with pytest.raises(openai.NotFoundError):
        caller.responses.retrieve(made.id)


def test_pages_of_input_items(caller):
    items = [{"role": "user", "content": f"message {number}"} for number in range(5)]
    made = caller.responses.create(model="any-model", input=items)
    page = caller.responses.input_items.list(made.id, limit=2)
    assert [item.content[0].text for item in page.data] == ["message 4", "message 3"]
    assert page.has_more
    everything = list(caller.responses.input_items.list(made.id, limit=2, order="asc"))
    assert [item.content[0].text for item in everything] == [f"message {number}" for number in range(5)]
    assert len({item.id for item in everything}) == 5


def test_no_object_is_visible_to_another_tenant(caller, stranger):
    store = caller.upload()
    made = caller.responses.create(model=LOCAL, input=QUESTION, tools=[caller.file_search(store)])
    running = caller.responses.create(model="slow", input="Hello", background=True)
    item = made.output[-1].id
    unknown = "resp_" + "0" * 24
    for identifier in (made.id, running.id):
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
            replies = [stranger.http.request(method, f"/v1/responses/{name}{path}") for name in (identifier, unknown)]
            assert [reply.status_code for reply in replies] == [404, 404]
            errors = [{**reply.json()["error"], "request_id": None} for reply in replies]
            assert errors[0]["message"].replace(identifier, unknown) == errors[1]["message"]
        with pytest.raises(openai.NotFoundError):
            stranger.responses.create(model="any-model", input="Hello", previous_response_id=identifier)
    with pytest.raises(openai.NotFoundError):
        stranger.responses.create(model="any-model", input=[{"type": "item_reference", "id": item}])
    with pytest.raises(openai.NotFoundError):
        stranger.responses.create(model=LOCAL, input=QUESTION, tools=[stranger.file_search(store)])
    assert caller.responses.cancel(running.id).status == "cancelled"


def test_a_key_sees_what_it_may_use(caller):
    store = caller.upload(collection="secret")
    made = caller.responses.create(model=LOCAL, input=QUESTION, tools=[caller.file_search(store)])
    plain = caller.responses.create(model="any-model", input="Hello")
    limited = caller.another(allowed_collections=["public"])
    with pytest.raises(openai.NotFoundError):
        limited.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        limited.responses.create(model="any-model", input="What did it say?", previous_response_id=made.id)
    with pytest.raises(openai.NotFoundError):
        limited.responses.create(model=LOCAL, input=QUESTION, tools=[caller.file_search(store)])
    assert limited.responses.retrieve(plain.id).id == plain.id
    local_only = caller.another(allowed_models=["local/*"])
    with pytest.raises(openai.NotFoundError):
        local_only.responses.retrieve(plain.id)
    without_documents = caller.another(scopes=["chat.plain"])
    assert without_documents.responses.retrieve(plain.id).id == plain.id
    with pytest.raises(openai.NotFoundError):
        without_documents.responses.retrieve(made.id)
    with pytest.raises(openai.PermissionDeniedError):
        without_documents.responses.create(model=LOCAL, input=QUESTION, tools=[caller.file_search(store)])


def test_a_key_sees_no_response_with_an_item_or_file_that_it_may_not_use(caller):
    store = caller.upload(collection="secret")
    made = caller.responses.create(model=LOCAL, input=QUESTION, tools=[caller.file_search(store)])
    reference = [{"type": "item_reference", "id": made.output[-1].id}, {"role": "user", "content": "Repeat it."}]
    referring = caller.responses.create(model="any-model", input=reference)
    talk = caller.openai.conversations.create()
    caller.responses.create(model="any-model", input=reference, conversation=talk.id)
    (stored,) = caller.http.get(f"/v1/vector_stores/{store}/files").json()["data"]
    content = [{"type": "input_file", "file_id": stored["id"]}, {"type": "input_text", "text": QUESTION}]
    reading = caller.responses.create(model=LOCAL, input=[{"role": "user", "content": content}])
    assert "4,711 litres" in reading.output_text
    limited = caller.another(allowed_collections=["public"])
    for identifier in (referring.id, reading.id):
        for path in ("", "/input_items"):
            assert limited.http.get(f"/v1/responses/{identifier}{path}").status_code == 404
    assert limited.http.get(f"/v1/conversations/{talk.id}/items").status_code == 404


def test_a_search_of_stores_is_none_of_the_default_collection(caller):
    caller.upload()
    other = caller.upload(b"The harbour has two cranes.", filename="harbour.txt", collection="other")
    tool = caller.file_search(other)
    limited = caller.another(allowed_collections=["other"])
    include = ["file_search_call.results"]
    for use_rag in (None, False):
        body = {"model": LOCAL, "input": QUESTION, "tools": [tool], "include": include, "use_rag": use_rag}
        answer = limited.http.post("/v1/responses", json=body)
        assert answer.status_code == 200, answer.text
        results = answer.json()["output"][0]["results"]
        assert {result["filename"] for result in results} == {"harbour.txt"}


def search_of(caller: Caller, store: str) -> httpx.Response:
    body = {"model": LOCAL, "input": QUESTION, "tools": [caller.file_search(store)], "include": RESULTS}
    return caller.http.post("/v1/responses", json={**body, "store": False})


def test_a_deleted_store_is_forgotten(caller, stranger):
    store, kept = caller.upload(collection="a"), caller.upload(collection="b")
    for _ in range(2):  # the second request finds the name of the collection in memory
        assert search_of(caller, store).json()["output"][0]["results"]
        assert search_of(stranger, store).status_code == 404
    assert search_of(caller.another(allowed_collections=["b"]), store).status_code == 404

    renamed = caller.http.post(f"/v1/vector_stores/{store}", json={"name": "another name"})
    assert renamed.status_code == 200, renamed.text
    assert search_of(caller, store).json()["output"][0]["results"]

    assert caller.http.delete(f"/v1/vector_stores/{store}").status_code == 200
    assert search_of(caller, store).status_code == 404
    assert caller.upload(collection="a") != store
    assert search_of(caller, store).status_code == 404, "the new collection with its name is another store"
    assert search_of(caller, kept).json()["output"][0]["results"]


def test_the_stores_of_a_deleted_tenant_are_forgotten(bridge, caller):
    store = caller.upload()
    assert search_of(caller, store).status_code == 200
    with bridge.client(bridge.admin_key) as admin:
        assert admin.delete(f"/v1/tenants/{caller.tenant}").status_code == 200
    reborn = new_caller(bridge, tenant=caller.tenant)
    assert search_of(reborn, store).status_code == 404
    reborn.close()


def test_results_show_files_and_attributes_as_they_are_now(caller):
    store = caller.upload(year=1903)
    before = search_of(caller, store).json()["output"][0]["results"][0]
    assert before["attributes"] == {"year": 1903}
    path = f"/v1/vector_stores/{store}/files/{before['file_id']}"
    assert caller.http.post(path, json={"attributes": {"year": 1904}}).status_code == 200
    assert search_of(caller, store).json()["output"][0]["results"][0]["attributes"] == {"year": 1904}


def test_many_items_of_one_response_are_referred_to(caller):
    items = [{"role": "user", "content": f"{number} " + "x" * 2000} for number in range(1000)]
    made = caller.responses.create(model="any-model", input=items)
    listed = list(caller.responses.input_items.list(made.id, limit=100))
    assert len(listed) == 1000
    references = [{"type": "item_reference", "id": item.id} for item in listed]
    assert caller.responses.create(model="any-model", input=references, store=False).status == "completed"


def test_items_with_the_same_id_are_kept(caller):
    talk = caller.openai.conversations.create()
    items = [{"role": "user", "content": text, "id": "__fake_id__"} for text in ("One", "Two")]
    made = caller.http.post("/v1/responses", json={"model": "any-model", "input": items, "conversation": talk.id})
    assert made.status_code == 200, made.text
    texts = [item.content[0].text for item in caller.openai.conversations.items.list(talk.id, order="asc")]
    assert texts == ["One", "Two", "Hello from the provider."]
    pages = list(caller.responses.input_items.list(made.json()["id"], limit=1, order="asc"))
    assert [item.content[0].text for item in pages] == ["One", "Two"]
    reference = {"type": "item_reference", "id": made.json()["output"][0]["id"]}
    body = {
        "model": "any-model",
        "input": [reference, reference, items[0]],
        "conversation": caller.openai.conversations.create().id,
    }
    assert caller.http.post("/v1/responses", json=body).status_code == 200


def test_credentials_of_tools_are_not_stored(caller):
    tool = {
        "type": "mcp",
        "server_label": "x",
        "server_url": "https://x",
        "authorization": "sk-1",
        "headers": {"a": "sk-2"},
    }
    made = caller.http.post("/v1/responses", json={"model": "any-model", "input": "Hello", "tools": [tool]})
    found = caller.http.get(f"/v1/responses/{made.json()['id']}")
    for reply in (made, found):
        assert reply.json()["tools"] == [{"type": "mcp", "server_label": "x", "server_url": "https://x"}]


def wait_for(caller: Caller, identifier: str, *statuses: str):
    for _ in range(200):
        found = caller.responses.retrieve(identifier)
        if found.status in statuses:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{identifier} is {found.status}")


def test_background_responses(caller, upstream):
    queued = caller.responses.create(model="any-model", input="Hello", background=True)
    assert queued.status == "queued"
    assert queued.output == []
    done = wait_for(caller, queued.id, "completed")
    assert done.output_text == "Hello from the provider."
    assert caller.responses.cancel(queued.id).status == "completed"

    before = upstream.cancelled
    running = caller.responses.create(model="stall", input="Hello", background=True)
    wait_for(caller, running.id, "in_progress")
    with pytest.raises(openai.BadRequestError):
        caller.responses.create(model="any-model", input="More", previous_response_id=running.id)
    for _ in range(200):
        if upstream.running:
            break
        time.sleep(0.02)
    cancelled = caller.responses.cancel(running.id)
    assert cancelled.status == "cancelled"
    assert upstream.cancelled > before
    failed = caller.responses.create(model="reset-midway", input="Hello", background=True)
    assert wait_for(caller, failed.id, "failed").error.code == "server_error"
    with pytest.raises(openai.BadRequestError):
        caller.responses.create(model="any-model", input="Hello", background=True, store=False)
    with pytest.raises(openai.BadRequestError):
        caller.responses.cancel(caller.responses.create(model="any-model", input="Hello").id)


def test_a_background_stream_is_resumed(caller):
    events = events_of(caller, model="any-model", input="Hello", background=True)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert events[-1]["type"] == "response.completed"
    identifier = events[0]["response"]["id"]
    resumed = stream_events(
        caller, "GET", f"/v1/responses/{identifier}", params={"stream": "true", "starting_after": 5}
    )
    assert resumed[0]["sequence_number"] == 6
    assert resumed[-1]["response"] == events[-1]["response"]


@pytest.mark.timeout(120)
def test_a_background_stream_is_resumed_after_its_end(own_service):
    service = own_service()
    made = new_caller(service)
    events = events_of(made, model="any-model", input="Hello", background=True)
    path = f"/v1/responses/{events[0]['response']['id']}"
    for after in (0, 5, 7, len(events) - 2):
        resumed = stream_events(made, "GET", path, params={"stream": "true", "starting_after": after})
        assert resumed == events[after + 1 :]
    assert service.stop() == 0
    made.close()
    again = Caller(own_service(), made.tenant, made.key)
    for after in (5, len(events) - 2):
        (end,) = stream_events(again, "GET", path, params={"stream": "true", "starting_after": after})
        assert end == events[-1] | {"sequence_number": after + 1}
    again.close()


def test_a_client_that_leaves_stops_the_model_and_pays(caller, upstream):
    limited = caller.another(token_balance=100_000)
    before = upstream.cancelled
    with limited.responses.create(model="stall", input="Hello", stream=True) as stream:
        first = next(iter(stream))
        for event in stream:
            if event.type == "response.output_text.delta":
                break
    for _ in range(200):
        if upstream.cancelled > before:
            break
        time.sleep(0.02)
    assert upstream.cancelled > before
    assert wait_for(limited, first.response.id, "cancelled").output[0].status == "incomplete"
    left = limited.http.get("/v1/tokens").json()["tokens_remaining"]
    assert 99_000 < left < 100_000


def test_documents_without_a_tool(caller):
    caller.upload()
    for options in ({"use_rag": True}, {"headers": {"X-Ragsvc-Use-Rag": "true"}}, {"model": f"{LOCAL}+docs"}):
        headers = options.pop("headers", {})
        reply = caller.http.post("/v1/responses", json={"model": LOCAL, "input": QUESTION, **options}, headers=headers)
        assert [item["type"] for item in reply.json()["output"]] == ["file_search_call", "message"], reply.text
    misspelt = caller.http.post("/v1/responses", json={"model": LOCAL, "input": QUESTION, "useRag": True})
    assert misspelt.status_code == 400


def bytes_of_directory(service: RunningService) -> bytes:
    return b"".join(content for _, content in stored_bytes(service.data_dir))


def test_a_deleted_tenant_leaves_no_response(bridge, caller):
    secret = "The password of the lighthouse is heliotrope."
    made = caller.responses.create(model="any-model", input=secret, metadata={"note": "heliotrope"})
    running = caller.responses.create(model="stall", input=secret, background=True)
    wait_for(caller, running.id, "in_progress")
    assert b"heliotrope" in bytes_of_directory(bridge)
    with bridge.client(bridge.admin_key) as admin:
        archive = admin.get(f"/v1/tenants/{caller.tenant}/export")
        assert archive.status_code == 200
        with tarfile.open(fileobj=io.BytesIO(archive.content)) as members:
            exported = members.extractfile(f"responses/{made.id}.json")
            assert exported is not None
            content = json.load(exported)
        assert content["response"]["metadata"] == {"note": "heliotrope"}
        assert content["input"][0]["content"][0]["text"] == secret
        deleted = admin.delete(f"/v1/tenants/{caller.tenant}")
        assert deleted.status_code == 200, deleted.text
        assert deleted.json()["removed"]["responses"] == 2
        assert admin.get(f"/v1/tenants/{caller.tenant}").status_code == 404
    assert b"heliotrope" not in bytes_of_directory(bridge)


@pytest.fixture
def own_service(upstream, tmp_path):
    """Starts services on one data directory, one after the other."""
    (tmp_path / "ragsvc.toml").write_text(PROVIDER.format(url=upstream.url))
    admin_key = create_key(tmp_path / "data", tenant="operator", extra=("--scope", "admin"))
    started: list[RunningService] = []

    def start(**env: str) -> RunningService:
        running = RunningService(tmp_path / "data", env={"RAGSVC_CONFIG": str(tmp_path / "ragsvc.toml"), **env})
        running.admin_key = admin_key
        started.append(running)
        return running

    yield start
    if started[-1].process.poll() is None:
        assert started[-1].stop() == 0


@pytest.mark.timeout(120)
def test_responses_survive_a_kill(own_service):
    service = own_service()
    before = new_caller(service)
    done = before.responses.create(model="any-model", input="Remember the heliotrope.")
    background = before.responses.create(model="stall", input="Hello", background=True)
    wait_for(before, background.id, "in_progress")
    with before.http.stream("POST", "/v1/responses", json={"model": "stall", "input": "Hi", "stream": True}) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: "):
                streamed = json.loads(line.removeprefix("data: "))["response"]["id"]
                break
        service.kill()
    before.close()
    after = Caller(own_service(), before.tenant, before.key)
    assert after.responses.retrieve(done.id).to_dict() == done.to_dict()
    for identifier in (background.id, streamed):
        found = after.responses.retrieve(identifier)
        assert found.status == "failed"
        assert found.error.code == "server_error"
        check_stream(stream_events(after, "GET", f"/v1/responses/{identifier}", params={"stream": "true"}))
    continued = after.responses.create(model="any-model", input="And?", previous_response_id=done.id)
    assert continued.previous_response_id == done.id
    after.close()


@pytest.mark.timeout(120)
def test_old_responses_are_removed(own_service):
    service = own_service()
    before = new_caller(service)
    old = before.responses.create(model="any-model", input="Hello")
    new = before.responses.create(model="any-model", input="Hello")
    before.close()
    assert service.stop() == 0
    rows, past = table_of(ResponseRow), int(time.time()) - 8 * 86_400
    with stored_rows(service.data_dir) as connection:
        connection.execute(update(rows).where(rows.c.public_id == old.id).values(created_at=past))
    after = Caller(own_service(RAGSVC_RESPONSE_RETENTION_DAYS="7"), before.tenant, before.key)
    for _ in range(100):
        if after.http.get(f"/v1/responses/{old.id}").status_code == 404:
            break
        time.sleep(0.05)
    assert after.http.get(f"/v1/responses/{old.id}").status_code == 404
    assert after.responses.retrieve(new.id).id == new.id
    after.close()


def test_truncation(caller, upstream):
    long = [{"role": "user" if place % 2 == 0 else "assistant", "content": "word " * 60} for place in range(6)]
    items = [{"role": "system", "content": "Be brief."}, *long, {"role": "user", "content": "The question"}]
    refused = caller.http.post("/v1/responses", json={"model": "short", "input": items})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "string_above_max_length"
    response = caller.responses.create(model="short", input=items, truncation="auto")
    assert response.truncation == "auto"
    messages = upstream.requests[-1]["messages"]
    assert messages[0]["content"] == "Be brief."
    assert messages[-1]["content"] == "The question"
    assert 2 < len(messages) < len(items)


@pytest.mark.parametrize("stream", [False, True])
def test_encrypted_responses(bridge, stream):
    made = new_caller(bridge)
    transport = EncryptedTransport(bridge.url, HpkeStream())
    with (
        httpx.Client(transport=transport, timeout=30) as http,
        openai.OpenAI(base_url=f"{bridge.url}/v1", api_key=made.key, max_retries=0, http_client=http) as client,
    ):
        if stream:
            with client.responses.stream(model="any-model", input="Hello") as events:
                response = events.get_final_response()
        else:
            response = client.responses.create(model="any-model", input="Hello")
        assert response.output_text == "Hello from the provider."
        assert client.responses.retrieve(response.id).output_text == response.output_text
    made.close()


def test_a_provider_that_offers_responses_answers_stateless_requests(gateway):
    made = Caller(gateway.service, "gateway", gateway.key)
    passed = made.responses.create(model="m", input="x", store=False)
    assert (passed.id, passed.output_text) == ("resp_1", "Once upon a time")
    assert gateway.upstream.last.path == "/v1/responses"
    for stateful in (
        {},
        {"store": True},
        {"store": False, "previous_response_id": made.responses.create(model="m", input="x").id},
        {"store": False, "extra_body": {"use_rag": True}},
    ):
        before = len(gateway.upstream.requests)
        answer = made.responses.create(model="m", input="x", **stateful)
        assert answer.output_text == "Hello é"
        assert answer.id.startswith("resp_")
        asked = [request.path for request in gateway.upstream.requests[before:]]
        assert [path for path in asked if path != "/v1/models"] == ["/v1/chat/completions"]
        assert b"resp_" not in gateway.upstream.last.body
        assert b"store" not in gateway.upstream.last.body
    with pytest.raises(openai.NotFoundError):
        made.responses.retrieve("resp_1")
    made.close()


def test_a_conversation_collects_items(caller, stranger, upstream):
    talk = caller.openai.conversations.create(items=[{"role": "user", "content": "One"}])
    first = caller.responses.create(model="any-model", input="Two", conversation=talk.id)
    assert first.conversation.id == talk.id
    with caller.responses.stream(model="any-model", input="Three", conversation=talk.id, store=False) as stream:
        stream.get_final_response()
    done = caller.responses.create(model="any-model", input="Four", conversation=talk.id, background=True)
    wait_for(caller, done.id, "completed")
    texts = [message["content"] for message in upstream.requests[-1]["messages"]]
    reply = "Hello from the provider."
    assert texts == ["One", "Two", reply, "Three", reply, "Four"]
    items = list(caller.openai.conversations.items.list(talk.id, order="asc"))
    assert [item.content[0].text for item in items] == [*texts, reply]
    caller.responses.create(model=LOCAL, input=QUESTION, tools=[caller.file_search()], conversation=talk.id)
    with pytest.raises(openai.NotFoundError):
        stranger.responses.create(model="any-model", input="Two", conversation=talk.id)
    limited = caller.another(allowed_collections=["public"])
    with pytest.raises(openai.NotFoundError):
        limited.responses.create(model="any-model", input="Two", conversation=talk.id)
    with pytest.raises(openai.BadRequestError):
        caller.responses.create(model="any-model", input="Two", conversation=talk.id, previous_response_id=first.id)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", [{}, {"stream": True}])
def test_a_conversation_and_its_response_are_stored_together(own_service, mode):
    service = own_service()
    made = new_caller(service)
    talk = made.openai.conversations.create()
    with stored_rows(service.data_dir) as connection:
        let_writes_fail(connection, "responses", event="UPDATE" if mode else "INSERT")
    reply = made.http.post("/v1/responses", json={"model": "any-model", "input": "Hi", "conversation": talk.id, **mode})
    assert "response.completed" not in reply.text
    assert reply.status_code == 200 if mode else reply.status_code >= 500
    assert made.http.get(f"/v1/conversations/{talk.id}/items").json()["data"] == []
    made.close()


def test_one_tenant_leaves_room_for_background_responses_of_others(caller, stranger):
    body = {"model": "stall", "input": "Hello", "background": True}
    replies = [caller.http.post("/v1/responses", json=body) for _ in range(33)]
    assert [reply.status_code for reply in replies] == [200] * 32 + [503]
    other = stranger.http.post("/v1/responses", json=body)
    assert other.status_code == 200
    for reply in replies[:32]:
        assert caller.http.delete(f"/v1/responses/{reply.json()['id']}").status_code == 200
    assert stranger.http.delete(f"/v1/responses/{other.json()['id']}").status_code == 200


@pytest.mark.parametrize("by_id", [False, True])
def test_a_file_of_the_input_is_cited_and_not_stored_as_a_document(caller, by_id):
    data = f"data:application/pdf;base64,{base64.b64encode(REPORT).decode()}"
    part = {"type": "input_file", "filename": "lamp.pdf", "file_data": data}
    if by_id:
        stored = caller.openai.files.create(file=("lamp.pdf", REPORT), purpose="user_data")
        part = {"type": "input_file", "file_id": stored.id}
    content = [part, {"type": "input_text", "text": QUESTION}]
    response = caller.responses.create(model=LOCAL, input=[{"role": "user", "content": content}], store=False)
    annotation = response.output[0].content[0].annotations[0]
    assert (annotation.filename, annotation.page) == ("lamp.pdf", 1)
    assert "4,711 litres" in annotation.quote
    if by_id:
        assert annotation.file_id == stored.id
    assert caller.http.get("/v1/rag/documents").json()["data"] == []
    broken = [{"type": "input_file", "filename": "a.zip", "file_data": "UEsDBA=="}]
    reply = caller.http.post("/v1/responses", json={"model": LOCAL, "input": [{"role": "user", "content": broken}]})
    assert reply.json()["error"]["param"] == "input[0].content[0]", reply.text
