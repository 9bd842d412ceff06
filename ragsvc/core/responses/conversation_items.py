"""The items of stored conversations: checked and completed when they are added, reduced when they are shown.

OpenAI: ``/v1/conversations/{id}/items``. Ids of items are unique within their conversation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, cast

from ragsvc.core.errors import InvalidRequest
from ragsvc.core.responses.conversation import KNOWN_TYPES, item_type, own_items
from ragsvc.core.responses.request import Item
from ragsvc.core.validation import check_nesting, invalid_value, missing_value

MAX_ADDED_ITEMS: Final = 20
"""Items that one request adds."""

MAX_CONVERSATION_ITEMS: Final = 10_000
"""Items of a conversation."""

INCLUDABLE: Final = (
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
)
"""Fields that are shown on request only (OpenAI: ``include``)."""

_ROLES: Final = ("user", "assistant", "system", "developer")
_TEXT_FIELDS: Final = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
}
_OTHER_PARTS: Final = frozenset({"input_image", "input_file", "input_audio", "computer_screenshot"})
_REQUIRED: Final = {
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id",),
    "custom_tool_call": ("call_id", "name"),
    "custom_tool_call_output": ("call_id",),
}
_WITH_STATUS: Final = frozenset({"message", "function_call", "function_call_output"})
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


def new_items(given: Sequence[Item], make_id: Callable[[str, int], str], *, path: str = "items") -> list[Item]:
    """Items to add to a conversation, complete with ids and types; ``make_id`` gets a prefix and the item's place.

    Raises:
        InvalidRequest: an item is malformed; ``param`` is its place below ``path``.
    """
    seen = set[str]()
    for place, item in enumerate(given):
        where = f"{path}[{place}]"
        _check(item, item_type(item, where), where)
        item_id = item.get("id")
        if item_id is None:
            continue
        if not isinstance(item_id, str) or not _ID.fullmatch(item_id):
            raise invalid_value(f"{where}.id", "Expected 1 to 128 letters, digits, '_' or '-'")
        if item_id in seen:
            raise taken_id(f"{where}.id", item_id)
        seen.add(item_id)
    return [_completed(item) for item in own_items(given, make_id)]


def taken_id(path: str, item_id: str) -> InvalidRequest:
    """The error for an id that another item of the conversation has."""
    return InvalidRequest(f"'{path}': the conversation already has an item '{item_id}'.", param=path)


def _check(item: Item, kind: str, path: str) -> None:
    check_nesting(path, item)
    if kind == "item_reference":
        raise InvalidRequest(f"'{path}': references cannot be added; send the item itself.", param=path)
    if kind not in KNOWN_TYPES:
        raise invalid_value(f"{path}.type", f"The type '{kind[:64]}' is not known")
    for name in _REQUIRED.get(kind, ()):
        if not isinstance(item.get(name), str):
            raise missing_value(f"{path}.{name}")
    if kind == "message":
        if item.get("role") not in _ROLES:
            raise invalid_value(f"{path}.role", "Expected 'user', 'assistant', 'system' or 'developer'")
        _check_content(item.get("content"), f"{path}.content")


def _check_content(content: object, path: str) -> None:
    if content is None:
        raise missing_value(path)
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise invalid_value(path, "Expected `str | array`")
    for index, part in enumerate(cast("list[object]", content)):
        where = f"{path}[{index}]"
        if not isinstance(part, dict):
            raise invalid_value(where, "Expected `object`")
        fields = cast("Item", part)
        kind = fields.get("type")
        field = _TEXT_FIELDS.get(kind) if isinstance(kind, str) else None
        if field is not None and not isinstance(fields.get(field), str):
            raise missing_value(f"{where}.{field}")
        if field is None and not (isinstance(kind, str) and kind in _OTHER_PARTS):
            raise invalid_value(f"{where}.type", f"The type '{str(kind)[:64]}' is not known")


def _completed(item: Item) -> Item:
    """The item with the fields that clients expect."""
    made = {name: value for name, value in item.items() if value is not None}
    if item["type"] in _WITH_STATUS:
        made.setdefault("status", "completed")
    if item["type"] == "message":
        made["content"] = [_completed_part(part) for part in item["content"]]
    return made


def _completed_part(part: Item) -> Item:
    match part["type"]:
        case "output_text":
            return {"annotations": [], "logprobs": []} | {k: v for k, v in part.items() if v is not None}
        case "input_image":
            return {"detail": "auto"} | {k: v for k, v in part.items() if v is not None}
        case _:
            return {k: v for k, v in part.items() if v is not None}


def shown_item(item: Item, include: Collection[str]) -> Item:
    """The item without the fields of ``INCLUDABLE`` that ``include`` does not name."""

    def hidden(name: str) -> bool:
        return name not in include

    shown = dict(item)
    match item["type"]:
        case "message":
            shown["content"] = [_shown_part(part, include) for part in item["content"]]
        case "file_search_call" if hidden("file_search_call.results"):
            shown["results"] = None
        case "web_search_call":
            shown = _shown_search(shown, include)
        case "code_interpreter_call" if hidden("code_interpreter_call.outputs"):
            shown["outputs"] = None
        case "reasoning" if hidden("reasoning.encrypted_content"):
            shown.pop("encrypted_content", None)
        case "computer_call_output" if hidden("computer_call_output.output.image_url"):
            shown["output"] = _without(item.get("output"), "image_url")
        case _:
            pass
    return shown


def _shown_part(part: Item, include: Collection[str]) -> Item:
    if part["type"] == "output_text" and "message.output_text.logprobs" not in include:
        return part | {"logprobs": []}
    if part["type"] == "input_image" and "message.input_image.image_url" not in include:
        return {name: value for name, value in part.items() if name != "image_url"}
    return part


def _shown_search(item: Item, include: Collection[str]) -> Item:
    if "web_search_call.results" not in include:
        item.pop("results", None)
    if "web_search_call.action.sources" not in include:
        item["action"] = _without(item.get("action"), "sources")
    return item


def _without(value: Any, name: str) -> Any:  # noqa: ANN401 - JSON of a client
    if not isinstance(value, dict):
        return value
    return {key: inner for key, inner in cast("Item", value).items() if key != name}
