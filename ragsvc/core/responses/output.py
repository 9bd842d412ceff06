"""Builds a response from the chunks of a chat completion: its output items and the events of its stream.

OpenAI: POST /v1/responses with ``stream``. A message stays open until the chat ends if it can get citations, because
they come with the last chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from ragsvc.core.errors import UpstreamFailed
from ragsvc.core.gateway.finish_reasons import finish_reason_of
from ragsvc.core.responses.request import Item

Event = dict[str, Any]

_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
_CITATION_FIELDS: Final = ("page", "page_label", "quote", "score", "chunk_id", "start_index", "end_index")
_PART_EVENTS: Final = {"output_text": "output_text", "refusal": "refusal", "reasoning_text": "reasoning_text"}
_PART_TEXTS: Final = {"output_text": "text", "refusal": "refusal", "reasoning_text": "text"}


def item_id(prefix: str, response_id: str, place: int) -> str:
    """The id of an item, from which the response can be found.

    >>> item_id("msg", "resp_0123456789abcdef01234567", 2)
    'msg_0123456789abcdef012345670002'
    """
    return f"{prefix}_{response_id.removeprefix('resp_')}{place:04x}"


def response_of_item(public_id: str) -> str | None:
    """The id of the response to which an item of ``item_id`` belongs; ``None`` for other ids.

    >>> response_of_item("msg_0123456789abcdef012345670002")
    'resp_0123456789abcdef01234567'
    """
    _, _, rest = public_id.partition("_")
    return f"resp_{rest[:-4]}" if len(rest) == 28 and rest.isalnum() else None


def without_results(item: Item) -> Item:
    """The item, of a search without its results."""
    return {**item, "results": None} if item["type"] == "file_search_call" else dict(item)


class ResponseBuilder:
    """Builds one response. Each method returns the events that it causes, in their order.

    ``head`` has the fields of the response that repeat the request. ``cites``: annotations come at the end.
    ``shows_results``: events show the results of searches. ``file_ids`` are the ids to show for those in citations.
    """

    def __init__(
        self,
        head: Mapping[str, Any],
        *,
        cites: bool = False,
        shows_results: bool = True,
        file_ids: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._head = dict(head)
        self.file_ids = file_ids
        """The ids to show for those in citations."""
        self._shows_results = shows_results
        self._id: str = head["id"]
        self._cites = cites
        self._sequence = 0
        self._status = "in_progress"
        self._items: list[Item] = []
        self._open: dict[str, int] = {}
        """Places of open items: of the message, the reasoning, and each tool call by its index."""
        self._call_of: dict[int, str] = {}
        self._finish: str | None = None
        self._usage: Item | None = None
        self._error: Item | None = None
        self._completed_at: int | None = None
        self.begun = False

    @property
    def is_final(self) -> bool:
        return self._status not in ("queued", "in_progress")

    @property
    def status(self) -> str:
        return self._status

    def response(self, *, whole: bool = False) -> Item:
        """The response as it is now, ``whole``: with the results of searches. Its parts must not be changed."""
        reason = _INCOMPLETE.get(self._finish or "") if self._status == "incomplete" else None
        return {
            **self._head,
            "status": self._status,
            "error": self._error,
            "incomplete_details": None if reason is None else {"reason": reason},
            "output": [dict(item) if whole else self._shown(item) for item in self._items],
            "usage": self._usage,
            "completed_at": self._completed_at,
        }

    def queued(self) -> list[Event]:
        """The response exists and waits to be begun."""
        self._status = "queued"
        self.begun = True
        events = [self._about("response.created"), self._about("response.queued")]
        self._status = "in_progress"
        return events

    def begin(self) -> list[Event]:
        if self.begun:
            return [self._about("response.in_progress")]
        self.begun = True
        return [self._about("response.created"), self._about("response.in_progress")]

    def searched(self, queries: Sequence[str], results: Sequence[Item]) -> list[Event]:
        """A search of files was made. The answer can now get citations."""
        self._cites = True
        place = len(self._items)
        item: Item = {
            "type": "file_search_call",
            "id": item_id("fs", self._id, place),
            "status": "in_progress",
            "queries": [],
            "results": None,
        }
        self._items.append(item)
        events = [self._event("response.output_item.added", output_index=place, item=dict(item))]
        events.extend(
            self._event(f"response.file_search_call.{step}", output_index=place, item_id=item["id"])
            for step in ("in_progress", "searching", "completed")
        )
        item |= {"status": "completed", "queries": list(queries), "results": list(results)}
        events.append(self._event("response.output_item.done", output_index=place, item=self._shown(item)))
        return events

    def _shown(self, item: Item) -> Item:
        return without_results(item) if not self._shows_results else dict(item)

    def feed(self, chunk: Mapping[str, Any]) -> list[Event]:
        """Take a chunk of the chat. Raises ``UpstreamFailed`` if it is none."""
        try:
            return self._feed(chunk)
        except (AttributeError, KeyError, TypeError) as error:  # a value of another type than the API has
            raise UpstreamFailed("The provider sent an answer that is no chat completion.") from error

    def _feed(self, chunk: Mapping[str, Any]) -> list[Event]:
        events: list[Event] = []
        if isinstance(usage := chunk.get("usage"), Mapping):
            self._usage = usage_of(usage)
        for choice in chunk.get("choices") or ():
            if (choice.get("index") or 0) == 0:
                events += self._take(choice)
        return events

    def _take(self, choice: Mapping[str, Any]) -> list[Event]:
        delta: Mapping[str, Any] = choice.get("delta") or {}
        events: list[Event] = []
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(reasoning, str) and reasoning:
            events += self._write("reasoning_text", reasoning)
        if text := _text_of(delta.get("content")):
            events += self._write("output_text", text, logprobs=_logprobs(choice))
        if isinstance(delta.get("refusal"), str) and delta["refusal"]:
            events += self._write("refusal", delta["refusal"])
        for call in delta.get("tool_calls") or ():
            events += self._call(call)
        if annotations := delta.get("annotations"):
            events += self._annotate(annotations)
        finish = finish_reason_of(choice.get("finish_reason"))
        if finish is not None:
            self._finish = finish
        return events

    def complete(self, *, now: int) -> list[Event]:
        """The chat has ended."""
        events: list[Event] = []
        if not any(item["type"] in ("message", "function_call") for item in self._items):
            events += self._open_message("output_text")
        cut = self._finish in _INCOMPLETE
        events += self._close_all("incomplete" if cut else "completed")
        self._status = "incomplete" if cut else "completed"
        self._completed_at = None if cut else now
        return [*events, self._about(f"response.{self._status}")]

    def fail(self, code: str, message: str, **details: object) -> list[Event]:
        """The answer has failed, possibly after its end, which could not be stored; open items stay incomplete."""
        if self._status in ("failed", "cancelled"):
            return []
        events = [] if self.begun else self.begin()
        self._abandon()
        self._status = "failed"
        self._error = {"code": code, "message": message, **details}
        return [*events, self._about("response.failed")]

    def cancel(self) -> list[Event]:
        """The answer was cancelled. There is no event with this name; followers get the response as incomplete."""
        if self.is_final:
            return []
        self._abandon()
        self._status = "cancelled"
        return [self._about("response.incomplete")]

    # -- items -------------------------------------------------------------------------------------------------

    def _write(self, kind: str, text: str, *, logprobs: Sequence[Item] = ()) -> list[Event]:
        key = "reasoning" if kind == "reasoning_text" else "message"
        events: list[Event] = []
        if key == "message" and "reasoning" in self._open:
            events += self._close("reasoning", "completed")
        if key not in self._open:
            events += self._open_reasoning() if key == "reasoning" else self._open_message(kind)
        place = self._open[key]
        item = self._items[place]
        part = item["content"][-1]
        if part["type"] != kind:  # a refusal after text
            events += self._close_part(place)
            part = _new_part(kind)
            item["content"].append(part)
            events.append(self._part_event("response.content_part.added", place, part=dict(part)))
        part[_PART_TEXTS[kind]] += text
        more: Item = {}
        if kind == "output_text":
            part["logprobs"] = [*part["logprobs"], *logprobs] if logprobs else part["logprobs"]
            more["logprobs"] = list(logprobs)
        events.append(self._part_event(f"response.{_PART_EVENTS[kind]}.delta", place, delta=text, **more))
        return events

    def _open_message(self, kind: str) -> list[Event]:
        place = len(self._items)
        item: Item = {
            "type": "message",
            "id": item_id("msg", self._id, place),
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        return self._open_parts("message", item, kind)

    def _open_reasoning(self) -> list[Event]:
        place = len(self._items)
        item: Item = {
            "type": "reasoning",
            "id": item_id("rs", self._id, place),
            "status": "in_progress",
            "summary": [],
            "content": [],
        }
        return self._open_parts("reasoning", item, "reasoning_text")

    def _open_parts(self, key: str, item: Item, kind: str) -> list[Event]:
        place = self._open[key] = len(self._items)
        self._items.append(item)
        added = self._event("response.output_item.added", output_index=place, item={**item, "content": []})
        part = _new_part(kind)
        item["content"].append(part)
        return [added, self._part_event("response.content_part.added", place, part=dict(part))]

    def _call(self, call: Mapping[str, Any]) -> list[Event]:
        function: Mapping[str, Any] = call.get("function") or {}
        index: int = call.get("index") or 0
        key = f"call {index}"
        events: list[Event] = []
        if key in self._open and function.get("name"):
            known = self._items[self._open[key]]["call_id"]
            if call.get("id") and call["id"] != known:  # Gemini gives all calls of an answer the index 0
                events += self._close(key, "completed")
        if key not in self._open:
            for other in list(self._open):
                if other != "message" or not self._cites:
                    events += self._close(other, "completed")
            place = self._open[key] = len(self._items)
            identifier = item_id("fc", self._id, place)
            item: Item = {
                "type": "function_call",
                "id": identifier,
                "call_id": call.get("id") or identifier.replace("fc_", "call_"),
                "name": function.get("name") or "",
                "arguments": "",
                "status": "in_progress",
            }
            self._items.append(item)
            events.append(self._event("response.output_item.added", output_index=place, item=dict(item)))
        place = self._open[key]
        arguments = function.get("arguments")
        if isinstance(arguments, str) and arguments:
            self._items[place]["arguments"] += arguments
            events.append(
                self._event(
                    "response.function_call_arguments.delta",
                    output_index=place,
                    item_id=self._items[place]["id"],
                    delta=arguments,
                )
            )
        return events

    def _annotate(self, annotations: Iterable[Mapping[str, Any]]) -> list[Event]:
        events: list[Event] = [] if "message" in self._open else self._open_message("output_text")
        place = self._open["message"]
        part = self._items[place]["content"][-1]
        if part["type"] != "output_text":
            return events
        for annotation in annotations:
            made = file_citation(annotation, self.file_ids)
            part["annotations"] = [*part["annotations"], made]
            events.append(
                self._part_event(
                    "response.output_text.annotation.added",
                    place,
                    annotation_index=len(part["annotations"]) - 1,
                    annotation=made,
                )
            )
        return events

    def _close_all(self, status: str) -> list[Event]:
        return [event for key in list(self._open) for event in self._close(key, status)]

    def _close(self, key: str, status: str) -> list[Event]:
        place = self._open[key]
        item = self._items[place]
        events: list[Event] = []
        if item["type"] == "function_call":
            events.append(
                self._event(
                    "response.function_call_arguments.done",
                    output_index=place,
                    item_id=item["id"],
                    name=item["name"],
                    arguments=item["arguments"],
                )
            )
        else:
            events += self._close_part(place)
        del self._open[key]
        item["status"] = status
        events.append(self._event("response.output_item.done", output_index=place, item=dict(item)))
        return events

    def _close_part(self, place: int) -> list[Event]:
        part = self._items[place]["content"][-1]
        kind = part["type"]
        name = _PART_TEXTS[kind]
        more: Item = {"logprobs": part["logprobs"]} if kind == "output_text" else {}
        return [
            self._part_event(f"response.{_PART_EVENTS[kind]}.done", place, **{name: part[name]}, **more),
            self._part_event("response.content_part.done", place, part=dict(part)),
        ]

    def _abandon(self) -> None:
        for place in self._open.values():
            self._items[place]["status"] = "incomplete"
        self._open.clear()

    # -- events ------------------------------------------------------------------------------------------------

    def _event(self, kind: str, **fields: object) -> Event:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event

    def _part_event(self, kind: str, place: int, **fields: object) -> Event:
        item = self._items[place]
        return self._event(
            kind, item_id=item["id"], output_index=place, content_index=len(item["content"]) - 1, **fields
        )

    def _about(self, kind: str) -> Event:
        return self._event(kind, response=self.response())


def _new_part(kind: str) -> Item:
    if kind == "output_text":
        return {"type": kind, "text": "", "annotations": [], "logprobs": []}
    return {"type": kind, _PART_TEXTS[kind]: ""}


def _text_of(content: object) -> str:
    """The text of a content, which some providers send as parts (Mistral)."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    return content if isinstance(content, str) else ""


def _logprobs(choice: Mapping[str, Any]) -> Sequence[Item]:
    found = choice.get("logprobs")
    content = found.get("content") if isinstance(found, Mapping) else None
    if not isinstance(content, list):
        return ()
    return [{"bytes": [], "top_logprobs": [], **entry} for entry in content if isinstance(entry, dict)]


def file_citation(annotation: Mapping[str, Any], file_ids: Mapping[str, str]) -> Item:
    """The annotation of a response for one of a chat; that of a provider without a file stays a ``url_citation``."""
    if any(name not in annotation for name in ("file_id", "filename", "start_index")):
        nested = annotation.get("url_citation")
        return {"type": "url_citation", **nested} if isinstance(nested, Mapping) else dict(annotation)
    return {
        "type": "file_citation",
        "index": annotation["start_index"],
        "file_id": file_ids.get(annotation["file_id"], annotation["file_id"]),
        "filename": annotation["filename"],
        **({"document_id": annotation["file_id"]} if annotation["file_id"] in file_ids else {}),
        **{name: annotation[name] for name in _CITATION_FIELDS if name in annotation},
    }


def usage_of(usage: Mapping[str, Any]) -> Item:
    """The usage of a response for that of a chat."""
    prompt: int = usage.get("prompt_tokens") or 0
    completion: int = usage.get("completion_tokens") or 0
    prompt_details: Mapping[str, Any] = usage.get("prompt_tokens_details") or {}
    completion_details: Mapping[str, Any] = usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": prompt_details.get("cached_tokens") or 0,
            "cache_write_tokens": prompt_details.get("cache_write_tokens") or 0,
        },
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": completion_details.get("reasoning_tokens") or 0},
        "total_tokens": usage.get("total_tokens") or prompt + completion,
    }


def chunk_of_completion(completion: Mapping[str, Any]) -> Item:
    """A complete chat as the only chunk of a stream."""
    choices: list[Item] = []
    for choice in completion.get("choices") or ():
        message = dict(choice.get("message") or {})
        calls = message.get("tool_calls") or ()
        message["tool_calls"] = [{**call, "index": index} for index, call in enumerate(calls)]
        choices.append({**choice, "delta": message})
    return {"choices": choices, "usage": completion.get("usage")}
