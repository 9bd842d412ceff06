"""Streams of text completions and of responses: the text of an event, and the end of a stream that is cut.

OpenAI: POST /v1/completions and POST /v1/responses with ``stream``.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ragsvc.core.errors import UpstreamFailed
from ragsvc.core.gateway.chat import TokenUsage
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.event_stream import DONE, encode_event, event_data, write_event

CUT_FAMILIES: Final = frozenset({Family.COMPLETIONS, Family.RESPONSES})
_FIELDS: Final = ("id", "object", "created", "model")


class _TextChoice(msgspec.Struct):
    text: str | None = None


class _TextEvent(msgspec.Struct):
    choices: list[_TextChoice] = []
    type: str | None = None
    delta: str | None = None
    sequence_number: int | None = None


_EVENTS: Final = msgspec.json.Decoder(_TextEvent)
_OBJECTS: Final = msgspec.json.Decoder(dict[str, Any])


class TextStreamEnd:
    """Reads the events of a stream, and ends it with ``length`` (completions) or ``max_output_tokens`` (responses)."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._head: dict[str, Any] = {}
        self._response: dict[str, Any] = {}
        self._sequence = 0

    def read_text(self, event: bytes) -> str:
        """The text that an event adds."""
        try:
            data = event_data(event.replace(b"\r\n", b"\n"))
            if data is None or data == b"[DONE]":
                return ""
            found = _EVENTS.decode(data)
            if not self._head:
                self._remember(_OBJECTS.decode(data))
        except (msgspec.DecodeError, UnicodeDecodeError, UpstreamFailed):
            return ""
        self._sequence = max(self._sequence, found.sequence_number or 0)
        if found.type is not None:
            return found.delta or "" if found.type.endswith(".delta") else ""
        return "".join(choice.text or "" for choice in found.choices)

    def _remember(self, members: dict[str, Any]) -> None:
        response = members.get("response")
        if isinstance(response, dict):
            self._response = response
        self._head = {name: members[name] for name in _FIELDS if name in members} or {"id": None}

    def last_events(self, usage: TokenUsage) -> bytes:
        """The end of the stream."""
        if self._family is Family.RESPONSES:
            return self._incomplete(usage)
        choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}
        return encode_event({**self._head, "choices": [choice]}) + DONE

    def _incomplete(self, usage: TokenUsage) -> bytes:
        response = {
            **self._response,
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "usage": {
                "input_tokens": usage.prompt_tokens,
                "output_tokens": usage.completion_tokens,
                "total_tokens": usage.total_tokens,
            },
        }
        event = {"type": "response.incomplete", "sequence_number": self._sequence + 1, "response": response}
        return write_event(msgspec.json.encode(event), name="response.incomplete")
