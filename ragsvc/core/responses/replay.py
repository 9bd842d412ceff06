"""The events of the stream of a response that has ended, made from its items; each text is one delta."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ragsvc.core.responses.output import Event
from ragsvc.core.responses.request import Item

_CHANGING: Final = {"error": None, "incomplete_details": None, "usage": None, "completed_at": None}
_FINAL: Final = {"completed": "response.completed", "failed": "response.failed"}


def replay_events(response: Item) -> list[Event]:
    """The events, numbered from 0."""
    return [{**event, "sequence_number": number} for number, event in enumerate(_events(response))]


def _events(response: Item) -> Iterator[Event]:
    begun = {**response, **_CHANGING, "status": "in_progress", "output": []}
    yield {"type": "response.created", "sequence_number": 0, "response": begun}
    yield {"type": "response.in_progress", "sequence_number": 0, "response": begun}
    for place, item in enumerate(response["output"]):
        yield from _item_events(item, {"output_index": place})
    end = _FINAL.get(response["status"], "response.incomplete")
    yield {"type": end, "sequence_number": 0, "response": response}


def _item_events(item: Item, where: Item) -> Iterator[Event]:
    begun = {**item, "status": "in_progress"}
    about = {"sequence_number": 0, "item_id": item["id"], **where}
    done = {"type": "response.output_item.done", "sequence_number": 0, **where, "item": item}
    added = {"type": "response.output_item.added", "sequence_number": 0, **where}
    if item["type"] == "file_search_call":
        yield {**added, "item": {**begun, "queries": [], "results": None}}
        for step in ("in_progress", "searching", "completed"):
            yield {"type": f"response.file_search_call.{step}", **about}
    elif item["type"] == "function_call":
        yield {**added, "item": {**begun, "arguments": ""}}
        arguments = item["arguments"]
        yield {"type": "response.function_call_arguments.delta", **about, "delta": arguments}
        yield {
            "type": "response.function_call_arguments.done",
            **about,
            "name": item["name"],
            "arguments": arguments,
        }
    else:
        yield {**added, "item": {**begun, "content": []}}
        for index, part in enumerate(item.get("content") or ()):
            yield from _part_events(part, {**about, "content_index": index})
    yield done


def _part_events(part: Item, about: Item) -> Iterator[Event]:
    kind = part["type"]
    name = "refusal" if kind == "refusal" else "text"
    more: Item = {"logprobs": part.get("logprobs") or []} if kind == "output_text" else {}
    empty = {**part, name: ""} | ({"annotations": [], "logprobs": []} if more else {})
    yield {"type": "response.content_part.added", **about, "part": empty}
    yield {"type": f"response.{kind}.delta", **about, "delta": part[name], **more}
    for index, annotation in enumerate(part.get("annotations") or ()):
        yield {
            "type": "response.output_text.annotation.added",
            **about,
            "annotation_index": index,
            "annotation": annotation,
        }
    yield {"type": f"response.{kind}.done", **about, name: part[name], **more}
    yield {"type": "response.content_part.done", **about, "part": part}
