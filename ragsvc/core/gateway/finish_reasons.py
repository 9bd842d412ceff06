"""Finish reasons of chat completions: providers also send null, empty, or their own.

OpenAI: POST /v1/chat/completions, ``finish_reason``. Ollama, SGLang and one-api have sent ``""`` in every chunk.
"""

from __future__ import annotations

import re
from typing import Final

FINISH_REASONS: Final = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_OTHER_NAMES: Final = {
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "max_length": "length",
    "model_length": "length",
    "tool_use": "tool_calls",
    "safety": "content_filter",
}
_KNOWN_FINISH: Final = re.compile(rb'"finish_reason"\s*:\s*"(?:stop|length|tool_calls|content_filter|function_call)"')
_UNKNOWN_FINISH: Final = re.compile(
    rb'"finish_reason"\s*:\s*"(?!(?:stop|length|tool_calls|content_filter|function_call)")'
)


def is_finish_reason(value: object) -> bool:
    return isinstance(value, str) and value in FINISH_REASONS


def finish_reason_of(value: object) -> str | None:
    """The finish reason that clients know; ``None`` for a value that ends no answer.

    >>> finish_reason_of("stop"), finish_reason_of("EOS"), finish_reason_of(""), finish_reason_of("null")
    ('stop', 'stop', None, None)
    """
    if not isinstance(value, str):
        return None
    return value if value in FINISH_REASONS else _OTHER_NAMES.get(value.lower())


def find_unknown_finish(block: bytes) -> int:
    """The position of the first finish reason in JSON that is a string and unknown to clients, or -1."""
    found = _UNKNOWN_FINISH.search(block)
    return -1 if found is None else found.start()


def has_known_finish(block: bytes) -> bool:
    """Whether JSON has a finish reason that clients know."""
    return _KNOWN_FINISH.search(block) is not None
