"""Translates the items of a response's input into the messages of a chat.

Items that only another service could use (reasoning, calls of its own tools) are left out. Consecutive system and
developer messages at the beginning become one system message: many models accept one only.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, cast

import msgspec

from ragsvc.core.errors import InvalidRequest, UnsupportedParameter
from ragsvc.core.responses.request import Item
from ragsvc.core.validation import invalid_value, missing_value

Message = dict[str, Any]
"""A message of a chat as decoded JSON."""

_ROLES: Final = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_TEXTS: Final = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
_CALLS: Final = frozenset({"function_call", "custom_tool_call"})
_OUTPUTS: Final = frozenset({"function_call_output", "custom_tool_call_output"})
_LEFT_OUT: Final = frozenset(
    {
        "reasoning",
        "compaction",
        "compaction_trigger",
        "file_search_call",
        "web_search_call",
        "computer_call",
        "computer_call_output",
        "code_interpreter_call",
        "image_generation_call",
        "local_shell_call",
        "local_shell_call_output",
        "shell_call",
        "shell_call_output",
        "apply_patch_call",
        "apply_patch_call_output",
        "tool_search_call",
        "tool_search_output",
        "additional_tools",
        "mcp_list_tools",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "program",
        "program_output",
        "configuration_update",
    }
)

KNOWN_TYPES: Final = frozenset({"message", "item_reference"}) | _CALLS | _OUTPUTS | _LEFT_OUT
"""Types of items that are accepted."""


def own_items(given: str | Iterable[Item] | None, make_id: Callable[[str, int], str]) -> list[Item]:
    """The input of a request as items with types and ids, of which those of references alone can repeat.

    ``make_id`` gets a prefix and the place of the item.
    """
    if given is None:
        return []
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    items: list[Item] = []
    seen = set[str]()
    for place, item in enumerate(given):
        kind = item_type(item, f"input[{place}]")
        made: Item = {**item, "type": kind}
        if kind == "message":
            content = item.get("content")
            if isinstance(content, str):
                text = "output_text" if item.get("role") == "assistant" else "input_text"
                part: Item = {"type": text, "text": content}
                made["content"] = [part | {"annotations": []} if text == "output_text" else part]
            made.setdefault("status", "completed")
        given_id = made.get("id")
        if not isinstance(given_id, str) or not given_id or (given_id in seen and kind != "item_reference"):
            # some clients give all items the same id
            made["id"] = make_id(_PREFIXES.get(kind, "item"), place)
        seen.add(made["id"])
        items.append(made)
    return items


_PREFIXES: Final = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
    "file_search_call": "fs",
}


def item_type(item: Item, path: str) -> str:
    """The type of an item, which clients leave out in messages and references.

    Raises:
        InvalidRequest: it has none and no field that shows it.
    """
    kind = item.get("type")
    if isinstance(kind, str):
        return kind
    if "role" in item:
        return "message"
    if isinstance(item.get("id"), str):
        return "item_reference"
    raise missing_value(f"{path}.type")


def to_messages(items: Sequence[Item], *, instructions: str | None = None, own: int | None = None) -> list[Message]:
    """The messages of a chat for items of ``own_items`` without references.

    The last ``own`` items are those of the request, others are of earlier responses; ``None``: all are of the request.

    Raises:
        InvalidRequest: an item or part is malformed or of an unknown type; ``param`` names its place in ``input``.
        UnsupportedParameter: a part that cannot be read here.
    """
    messages: list[Message] = [] if not instructions else [{"role": "system", "content": instructions}]
    first = len(items) - (len(items) if own is None else own)
    for place, item in enumerate(items):
        path = f"input[{place - first}]"
        kind = item["type"]
        if kind == "message":
            _add_message(messages, item, path)
        elif kind in _CALLS:
            _add_call(messages, item, path)
        elif kind in _OUTPUTS:
            call_id = _text_of(item, "call_id", path)
            messages.append({"role": "tool", "tool_call_id": call_id, "content": _output(item.get("output"), path)})
        elif kind not in _LEFT_OUT:
            raise invalid_value(f"{path}.type", f"The type '{str(kind)[:64]}' is not known")
    if not messages:
        raise InvalidRequest("'input' has no message for the model.", param="input")
    return messages


def _add_message(messages: list[Message], item: Item, path: str) -> None:
    given = item.get("role")
    role = _ROLES.get(given) if isinstance(given, str) else None
    if role is None:
        raise invalid_value(f"{path}.role", "Expected 'user', 'assistant', 'system' or 'developer'")
    content = _content(item.get("content"), f"{path}.content", role)
    first = role == "system" and all(message["role"] == "system" for message in messages)
    before = messages[-1]["content"] if first and messages else None
    if isinstance(before, str) and isinstance(content, str):
        messages[-1]["content"] = f"{before}\n\n{content}"
    elif before is not None:
        messages[-1]["content"] = [*_as_parts(before), *_as_parts(content)]
    else:
        messages.append({"role": role, "content": content})


def _as_parts(content: str | list[Item]) -> list[Item]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _content(content: object, path: str, role: str) -> str | list[Item]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise missing_value(path) if content is None else invalid_value(path, "Expected `str | array`")
    parts: list[Item] = []
    for index, part in enumerate(cast("list[object]", content)):
        place = f"{path}[{index}]"
        if not isinstance(part, dict):
            raise invalid_value(place, "Expected `object`")
        parts.append(_part(cast("Item", part), place))
    if all(part["type"] == "text" for part in parts) and (role != "user" or len(parts) == 1):
        return "\n\n".join(part["text"] for part in parts)
    return parts


def _part(part: Item, path: str) -> Item:
    kind = part.get("type")
    if not isinstance(kind, str):
        raise missing_value(f"{path}.type") if kind is None else invalid_value(f"{path}.type", "Expected `str`")
    if kind in _TEXTS:
        return {"type": "text", "text": _text_of(part, "text", path)}
    if kind == "refusal":
        return {"type": "text", "text": _text_of(part, "refusal", path)}
    if kind in ("input_image", "image_url"):
        return _image(part, path)
    if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    if kind in ("input_file", "file"):
        return _file(part, path)
    raise invalid_value(f"{path}.type", f"The type '{kind[:64]}' is not known")


def _file(part: Item, path: str) -> Item:
    nested = part.get("file")
    given: Item = nested if isinstance(nested, dict) else part
    if given.get("file_url") is not None:
        raise UnsupportedParameter(
            f"'{path}.file_url': files are not fetched from URLs. Send 'file_data' or 'file_id'.",
            param=f"{path}.file_url",
        )
    file = {name: given[name] for name in ("file_id", "file_data", "filename") if given.get(name) is not None}
    if "file_id" not in file and "file_data" not in file:
        raise missing_value(f"{path}.file_data")
    return {"type": "file", "file": file}


def _image(part: Item, path: str) -> Item:
    given = part.get("image_url")
    url: Item = dict(given) if isinstance(given, dict) else {"url": given}
    if not isinstance(url.get("url"), str):
        if part.get("file_id") is not None:
            raise UnsupportedParameter(
                f"'{path}.file_id': images are sent as 'image_url', which may be a data URL.", param=f"{path}.file_id"
            )
        raise missing_value(f"{path}.image_url")
    if part.get("detail") is not None:
        url["detail"] = part["detail"]
    return {"type": "image_url", "image_url": url}


def _add_call(messages: list[Message], item: Item, path: str) -> None:
    """Add a call to the message of the assistant that it belongs to."""
    if item["type"] == "function_call":
        arguments = _text_of(item, "arguments", path)
    else:
        arguments = msgspec.json.encode({"input": item.get("input")}).decode()
    call = {
        "id": _text_of(item, "call_id", path),
        "type": "function",
        "function": {"name": _text_of(item, "name", path), "arguments": arguments},
    }
    last = messages[-1] if messages else None
    if last is not None and last["role"] == "assistant":
        last.setdefault("tool_calls", []).append(call)
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _output(output: object, path: str) -> str:
    """The output of a function as text; images and files in it are named only."""
    if isinstance(output, str):
        return output
    if output is None:
        raise missing_value(f"{path}.output")
    if isinstance(output, list):
        parts = [cast("Item", part) for part in cast("list[object]", output) if isinstance(part, dict)]
        texts = [part["text"] if isinstance(part.get("text"), str) else f"[{part.get('type')}]" for part in parts]
        return "\n".join(texts)
    return msgspec.json.encode(output).decode()


def _text_of(item: Item, name: str, path: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise missing_value(f"{path}.{name}") if value is None else invalid_value(f"{path}.{name}", "Expected `str`")
    return value


def without_oldest(messages: list[Message], fits: Callable[[list[Message]], bool]) -> list[Message]:
    """The messages without the oldest turns, as few as make the rest fit; system messages and the last turn stay.

    A turn begins with a message of the user, so that no output of a tool is left without its call.
    """
    if fits(messages):
        return messages
    system = [message for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    starts = [at for at, message in enumerate(others) if message["role"] == "user"]
    if not starts:
        return [*system, *others]
    # fewer messages fit better; trying each start in turn would take a minute for thousands of messages
    place = bisect.bisect_left(starts, True, key=lambda start: fits([*system, *others[start:]]))  # noqa: FBT003 - a key
    return [*system, *others[starts[min(place, len(starts) - 1)] :]]
