"""Citations put into answers that models gave: the whole answer, or its chunks as they pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ragsvc.core.answers.citations import Citation, CitedAnswer
from ragsvc.core.gateway.event_stream import encode_event, event_data, split_events
from ragsvc.core.retrieval.search import SearchHit


def cite_reply(body: bytes, hits: Sequence[SearchHit], on_unresolved: Callable[[int], None]) -> bytes:
    """A chat completion with ``annotations`` on each message and all of them as top-level ``citations``."""
    reply: dict[str, Any] = msgspec.json.decode(body)
    everything: list[Citation] = []
    for choice in reply["choices"]:
        message = choice.get("message")
        if not isinstance(message, dict):
            continue
        answer = CitedAnswer(hits)
        if isinstance(message.get("content"), str):
            answer.feed(message["content"])
        citations = answer.citations()
        on_unresolved(answer.unresolved)
        message["annotations"] = [*(message.get("annotations") or ()), *citations]
        everything.extend(citations)
    reply["citations"] = everything
    return msgspec.json.encode(reply)


class StreamCiter:
    """Reads the chunks of an answer and completes those that carry a finish reason."""

    def __init__(self, hits: Sequence[SearchHit], on_unresolved: Callable[[int], None]) -> None:
        self._hits = hits
        self._on_unresolved = on_unresolved
        self._answers: dict[int, CitedAnswer] = {}

    def edit(self, block: bytes) -> bytes:
        """The block with ``delta.annotations`` and ``citations`` where an answer ends; other events untouched."""
        return b"".join(self._edit_event(event) for event in split_events(block))

    def _edit_event(self, event: bytes) -> bytes:
        data = event_data(event)
        if data is None:
            return event
        chunk: dict[str, Any] = msgspec.json.decode(data)
        ended: list[Citation] | None = None
        for choice in chunk.get("choices") or ():
            citations = self._follow(choice)
            if citations is not None:
                ended = [*(ended or ()), *citations]
        return event if ended is None else encode_event(chunk | {"citations": ended})

    def _follow(self, choice: dict[str, Any]) -> list[Citation] | None:
        """Note what a choice says now; at its end, add and return its citations."""
        index = choice.get("index", 0)
        answer = self._answers.get(index)
        if answer is None:
            answer = self._answers[index] = CitedAnswer(self._hits)
        delta = choice.get("delta") or {}
        if isinstance(delta.get("content"), str):
            answer.feed(delta["content"])
        if choice.get("finish_reason") is None:
            return None
        citations = answer.citations()
        self._on_unresolved(answer.unresolved)
        choice["delta"] = delta | {"annotations": [*(delta.get("annotations") or ()), *citations]}
        return citations
