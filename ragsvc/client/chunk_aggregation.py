"""Builds a chat completion from its chunks, for callers that did not ask for a stream."""

from __future__ import annotations

from typing import Any, Final

JsonObject = dict[str, Any]

MOST_TOOL_CALLS: Final = 1024
"""A call with a higher index is ignored: a chunk could otherwise ask for a list of any length."""


def aggregate_chunks(chunks: list[JsonObject]) -> JsonObject:
    """Join chunks into one ``chat.completion``. A single ``chat.completion`` is returned unchanged.

    Texts and lists are concatenated, tool calls by their index. Of other fields the last chunk's value is taken
    (OpenAI: the chat completion chunk object).
    """
    if len(chunks) == 1 and chunks[0].get("object") == "chat.completion":
        return chunks[0]
    whole: JsonObject = {}
    choices: dict[int, JsonObject] = {}
    for chunk in chunks:
        for name, value in chunk.items():
            if name != "choices" and value is not None:
                whole[name] = [*whole.get(name, ()), *value] if isinstance(value, list) else value
        for choice in chunk.get("choices") or []:
            index = int(choice.get("index", 0))
            _add_choice(choices.setdefault(index, {"index": index, "message": {"role": "assistant"}}), choice)
    for choice in choices.values():
        choice["message"].setdefault("content", None)
        choice.setdefault("finish_reason", None)
    ordered = [choices[index] for index in sorted(choices)]
    return {**whole, "object": "chat.completion", "choices": ordered}


def _add_choice(whole: JsonObject, part: JsonObject) -> None:
    for name, value in part.items():
        if name == "delta":
            _add_delta(whole["message"], value or {})
        elif name == "logprobs" and value is not None:
            _add_logprobs(whole, value)
        elif name != "index" and value is not None:
            whole[name] = value


def _add_delta(message: JsonObject, delta: JsonObject) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            for call in value or []:
                _add_tool_call(message.setdefault("tool_calls", []), call)
        elif name == "role":
            message["role"] = value or message["role"]
        elif isinstance(value, str):
            message[name] = (message.get(name) or "") + value
        elif isinstance(value, list):
            message.setdefault(name, []).extend(value)
        elif value is not None:
            message[name] = value


def _add_tool_call(calls: list[JsonObject], part: JsonObject) -> None:
    given = part.get("index")
    index = given if isinstance(given, int) else len(calls)
    if not 0 <= index < MOST_TOOL_CALLS:
        return
    while len(calls) <= index:
        calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    call = calls[index]
    call["id"] = part.get("id") or call["id"]
    function = part.get("function") or {}
    for name in ("name", "arguments"):
        call["function"][name] += function.get(name) or ""


def _add_logprobs(whole: JsonObject, part: JsonObject) -> None:
    kept = whole.get("logprobs") or {}
    whole["logprobs"] = {name: [*(kept.get(name) or []), *(value or [])] for name, value in part.items()}
