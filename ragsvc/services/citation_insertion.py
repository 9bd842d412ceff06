"""Adds citations to the answers of models: to complete answers and to streamed chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ragsvc.core.answers.citations import Citation, CitedAnswer
from ragsvc.core.gateway.event_stream import encode_event, event_data, split_events
from ragsvc.core.retrieval.search import SearchHit


def cite_reply(body: bytes, hits: Sequence[SearchHit], on_unresolved: Callable[[int], None]) -> bytes:
    """Add ``annotations`` to each message of a chat completion, and all of them as top-level ``citations``."""
    reply: dict[str, Any] = msgspec.json.decode(body)
    all_citations: list[Citation] = []
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
        all_citations.extend(citations)
    reply["citations"] = all_citations
    return msgspec.json.encode(reply)


class StreamCiter:
    """Follows the chunks of an answer and adds citations to those with a finish reason."""

    def __init__(self, hits: Sequence[SearchHit], on_unresolved: Callable[[int], None]) -> None:
        self._hits = hits
        self._on_unresolved = on_unresolved
        self._answers: dict[int, CitedAnswer] = {}

    def edit(self, block: bytes) -> bytes:
        """Add ``delta.annotations`` and ``citations`` to events that end an answer; other events are unchanged."""
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
        """Take the delta of a choice; at the end of the choice, add its citations and return them."""
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
