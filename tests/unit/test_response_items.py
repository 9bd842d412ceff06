"""Requests of the Responses API become chats, and chunks of chats become items and events."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from ragsvc.core.errors import InvalidRequest, UnsupportedParameter, UpstreamFailed
from ragsvc.core.responses.conversation import own_items, to_messages, without_oldest
from ragsvc.core.responses.output import ResponseBuilder, chunk_of_completion, item_id
from ragsvc.core.responses.replay import replay_events
from ragsvc.core.responses.request import choose_tools, decode_response_request

ID = "resp_" + "a" * 24
EVENTS = TypeAdapter(ResponseStreamEvent)
HEAD = {
    "id": ID, "object": "response", "created_at": 1, "model": "m", "parallel_tool_calls": True, "tool_choice": "auto",
    "tools": [], "background": False,
}  # fmt: skip


def request(**fields):
    return decode_response_request(msgspec.json.encode({"model": "m", "input": "x", **fields}))


def messages(*items, **options):
    return to_messages(own_items(items, lambda prefix, place: item_id(prefix, ID, place)), **options)


def builder(**options) -> ResponseBuilder:
    return ResponseBuilder(HEAD, **options)


def chunk(finish_reason=None, **delta):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def kinds(events):
    return [event["type"].removeprefix("response.") for event in events]


def test_calls_belong_to_the_message_before_them() -> None:
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    made = messages(
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "Wait."},
        call,
        {**call, "call_id": "2"},
        {"type": "function_call_output", "call_id": "1", "output": "a"},
        {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "b"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "…"},
        call,
    )
    assert [message["role"] for message in made] == ["user", "assistant", "tool", "tool", "assistant"]
    assert [call["id"] for call in made[1]["tool_calls"]] == ["1", "2"]
    assert (made[1]["content"], made[2]["content"], made[3]["content"]) == ("Wait.", "a", "b")
    assert made[4]["content"] is None


def test_parts_keep_their_kind() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}
    text = {"type": "input_text", "text": "What is it?"}
    (made,) = messages({"role": "user", "content": [text, image]})
    assert made["content"][1] == {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"},
    }
    assert messages({"role": "user", "content": [text]})[0]["content"] == "What is it?"
    refusal = {"type": "refusal", "refusal": "No."}
    assert messages({"role": "assistant", "content": [refusal]})[0]["content"] == "No."


def test_instructions_with_parts_keep_them() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
    (made,) = messages(
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "input_text", "text": "The logo:"}, image]},
        {"role": "developer", "content": "Never describe it."},
    )
    assert made == {
        "role": "system",
        "content": [
            {"type": "text", "text": "Be brief."},
            {"type": "text", "text": "The logo:"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            {"type": "text", "text": "Never describe it."},
        ],
    }


@pytest.mark.parametrize(
    "item",
    [
        {"type": None, "id": "msg_1"},
        {"id": "msg_1", "role": None},
        {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_file", "file_id": "file-1"}]},
        {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_image", "file_id": "file-1"}]},
        {"type": "computer_call_output", "call_id": "1", "output": {"type": "computer_screenshot", "file_id": "f"}},
    ],
)
def test_an_id_of_this_service_is_for_no_provider(item) -> None:
    output = {"type": "function_call_output", "call_id": "1", "output": "4"}
    assert request(store=False, input=[{"role": "user", "content": "x"}, output]).is_stateless
    assert not request(store=False, input=[{"role": "user", "content": "x"}, item]).is_stateless


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"role": "robot", "content": "x"}, "input[0].role"),
        ({"role": "user"}, "input[0].content"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0].text"),
        ({"role": "user", "content": [{"type": "smell"}]}, "input[0].content[0].type"),
        (
            {"role": "user", "content": [{"type": "input_file", "file_url": "https://x"}]},
            "input[0].content[0].file_url",
        ),
        ({"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}, "input[0].content[0].file_id"),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "input[0].call_id"),
        ({"type": "function_call_output", "call_id": "1"}, "input[0].output"),
        ({"content": "x"}, "input[0].type"),
        ({"role": "user", "content": [{"type": []}]}, "input[0].content[0].type"),
        ({"role": "user", "content": [{"text": "x"}]}, "input[0].content[0].type"),
    ],
)
def test_an_error_names_the_place_in_the_input(item, param) -> None:
    with pytest.raises(InvalidRequest) as caught:
        messages(item)
    assert caught.value.param == param


def test_the_choice_of_tools() -> None:
    function = {"type": "function", "name": "f", "parameters": {}}
    search = {"type": "file_search", "vector_store_ids": ["vs_1"]}
    other = {"type": "web_search"}
    both = choose_tools(request(tools=[function, search, other]))
    assert ([tool["function"]["name"] for tool in both.functions], len(both.searches), both.choice) == (["f"], 1, None)
    assert choose_tools(request(tools=[search], tool_choice="none")).searches == []
    assert choose_tools(request(tools=[function], tool_choice="required")).choice == "required"
    assert choose_tools(request(tools=[function, search], tool_choice={"type": "file_search"})).functions == []
    named = choose_tools(request(tools=[function], tool_choice={"type": "function", "name": "f"}))
    assert named.choice == {"type": "function", "function": {"name": "f"}}
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "file_search"}]}
    only = choose_tools(request(tools=[function, search], tool_choice=allowed))
    assert (only.functions, len(only.searches)) == ([], 1)
    for refused in ("required", {"type": "web_search"}, {"type": "mcp", "server_label": "x"}):
        with pytest.raises(UnsupportedParameter):
            choose_tools(request(tools=[other], tool_choice=refused))
    with pytest.raises(InvalidRequest):
        choose_tools(request(tools=[function], tool_choice={"type": "function", "name": "g"}))
    odd = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": []}]}
    assert choose_tools(request(tools=[function], tool_choice=odd)).functions == []


def test_the_oldest_turns_are_left_out_first() -> None:
    def message(role, text):
        return {"role": role, "content": text}

    talk = [message("system", "s"), *(message(role, str(at)) for at in range(3) for role in ("user", "assistant"))]
    kept = without_oldest(talk, lambda found: len(found) <= 4)
    assert [each["content"] for each in kept] == ["s", "2", "2"]
    assert without_oldest(talk, lambda _: True) == talk
    assert [each["content"] for each in without_oldest(talk, lambda _: False)] == ["s", "2", "2"]
    for most in range(2, 8):
        fitting = [talk[:1] + talk[start:] for start in (1, 3, 5) if len(talk) - start < most]
        assert (
            without_oldest(talk, lambda found, most=most: len(found) <= most) == (fitting or [talk[:1] + talk[5:]])[0]
        )


def test_thousands_of_turns_are_left_out_with_few_looks_at_them() -> None:
    looks = []
    talk = [{"role": "user", "content": str(at)} for at in range(10_000)]
    kept = without_oldest(talk, lambda found: looks.append(found) or len(found) <= 7)
    assert kept == talk[-7:]
    assert len(looks) < 20


def test_reasoning_text_refusal_and_calls_are_items() -> None:
    made = builder()
    events = made.begin()
    for each in (
        chunk(reasoning_content="Hm"),
        chunk(reasoning_content="m."),
        chunk(content="Text"),
        chunk(tool_calls=[{"index": 0, "id": "1", "function": {"name": "f", "arguments": ""}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
        chunk(tool_calls=[{"index": 1, "id": "2", "function": {"name": "g", "arguments": "{}"}}]),
        chunk("tool_calls"),
    ):
        events += [json.loads(msgspec.json.encode(event)) for event in made.feed(each)]
    events += made.complete(now=2)
    for event in events:
        EVENTS.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    output = made.response()["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call", "function_call"]
    assert output[0]["content"] == [{"type": "reasoning_text", "text": "Hmm."}]
    assert [item["status"] for item in output] == ["completed"] * 4
    refused = builder()
    refused.feed(chunk(refusal="No."))
    refused.complete(now=2)
    assert refused.response()["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]


@pytest.mark.parametrize("together", [False, True])
def test_calls_with_the_same_index_are_told_apart_by_their_ids(together) -> None:
    calls = [
        {"index": 0, "id": f"call_{at}", "type": "function", "function": {"name": "f", "arguments": f'{{"at":{at}}}'}}
        for at in range(2)
    ]
    more = {"index": 0, "id": "call_1", "function": {"arguments": " "}}
    made = builder()
    made.begin()
    chunks = [chunk(tool_calls=calls)] if together else [chunk(tool_calls=[call]) for call in calls]
    events = [event for each in [*chunks, chunk(tool_calls=[more]), chunk("tool_calls")] for event in made.feed(each)]
    events += made.complete(now=2)
    for event in events:
        EVENTS.validate_python(event)
    found = [(item["call_id"], item["arguments"], item["status"]) for item in made.response()["output"]]
    assert found == [("call_0", '{"at":0}', "completed"), ("call_1", '{"at":1} ', "completed")]
    added = [event for event in events if event["type"] == "response.output_item.added"]
    assert [event["output_index"] for event in added] == [0, 1]


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": [None]},
        {"choices": {"a": 1}},
        {"choices": [{"delta": "x"}]},
        {"choices": [{"delta": {"tool_calls": [None]}}]},
        {"choices": [{"delta": {"annotations": [None]}}]},
        {"choices": [], "usage": {"prompt_tokens": "1", "completion_tokens": 2}},
        {"choices": [], "usage": {"prompt_tokens_details": "x"}},
    ],
)
def test_an_answer_of_another_shape_is_a_fault_of_the_provider(odd) -> None:
    with pytest.raises(UpstreamFailed):
        builder().feed(odd)


def test_contents_in_parts_and_citations_without_places_are_read() -> None:
    made = builder()
    made.begin()
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    made.feed(chunk(content=[thought, {"type": "text", "text": "It is "}, {"type": "text", "text": "7."}]))
    made.feed(chunk("stop", annotations=[{"type": "file_citation", "file_id": "f"}]))
    made.complete(now=2)
    (part,) = made.response()["output"][0]["content"]
    assert (part["text"], part["annotations"]) == ("It is 7.", [{"type": "file_citation", "file_id": "f"}])


def test_an_empty_answer_has_an_empty_message() -> None:
    made = builder()
    events = [*made.begin(), *made.feed(chunk("stop")), *made.complete(now=2)]
    assert kinds(events)[-2:] == ["output_item.done", "completed"]
    assert made.response()["output"][0]["content"][0]["text"] == ""


def test_a_failure_keeps_what_was_written() -> None:
    made = builder()
    made.begin()
    made.feed(chunk(content="Half"))
    (failed,) = made.fail("server_error", "It broke.")
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["output"][0]["status"] == "incomplete"
    assert made.fail("server_error", "Again.") == []
    assert made.cancel() == []
    assert kinds(builder().fail("server_error", "Early.")) == ["created", "in_progress", "failed"]


WORDS = st.lists(st.text(min_size=1, max_size=5), max_size=6)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    words=WORDS,
    reasoning=WORDS,
    calls=st.lists(WORDS, max_size=3),
    searched=st.booleans(),
    finish=st.sampled_from(["stop", "length", None]),
)
def test_a_stream_a_completion_and_a_replay_give_the_same_items(words, reasoning, calls, searched, finish) -> None:
    chunks = [*(chunk(reasoning=word) for word in reasoning), *(chunk(content=word) for word in words)]
    for index, arguments in enumerate(calls):
        chunks.append(chunk(tool_calls=[{"index": index, "id": f"c{index}", "function": {"name": "f"}}]))
        chunks += [chunk(tool_calls=[{"index": index, "function": {"arguments": part}}]) for part in arguments]
    chunks.append(chunk(finish))
    streamed = builder()
    events = streamed.begin()
    if searched:
        events += streamed.searched(["q"], [{"file_id": "f", "text": "t"}])
    for each in chunks:
        events += [msgspec.json.decode(msgspec.json.encode(event)) for event in streamed.feed(each)]
    events += streamed.complete(now=2)
    final = streamed.response()
    replayed = replay_events(final)
    for found in (events, replayed):
        assert [event["sequence_number"] for event in found] == list(range(len(found)))
        assert found[-1]["response"]["output"] == final["output"]
        done = {event["output_index"]: event["item"] for event in found if event["type"].endswith("output_item.done")}
        assert [done[place] for place in range(len(final["output"]))] == final["output"]

    tool_calls = [
        {"id": f"c{index}", "function": {"name": "f", "arguments": "".join(parts)}} for index, parts in enumerate(calls)
    ]
    message = {"content": "".join(words), "reasoning": "".join(reasoning), "tool_calls": tool_calls}
    whole = builder()
    if searched:
        whole.searched(["q"], [{"file_id": "f", "text": "t"}])
    whole.feed(chunk_of_completion({"choices": [{"index": 0, "message": message, "finish_reason": finish}]}))
    whole.complete(now=2)
    assert whole.response()["output"] == final["output"]
