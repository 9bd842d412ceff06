"""Endpoint families that pass through to a provider: their names, and what of a request and an answer concerns us.

Of a request that is the model and how much it may cost; of an answer its usage. Everything else stays unread.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw

from ragsvc.core.defaults import BYTES_PER_TOKEN, DEFAULT_REPLY_TOKENS, MAX_MODEL_NAME_LENGTH
from ragsvc.core.gateway.chat import TokenUsage
from ragsvc.core.validation import decode_json


class Family(StrEnum):
    """A group of endpoints that a provider offers or does not."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    IMAGES = "images"
    AUDIO = "audio"
    MODERATIONS = "moderations"
    RERANK = "rerank"
    OCR = "ocr"
    VIDEOS = "videos"


TEXT_FAMILIES: Final = frozenset(
    {Family.COMPLETIONS, Family.EMBEDDINGS, Family.RESPONSES, Family.MODERATIONS, Family.RERANK}
)
"""Their tokens are estimated where a provider reports none; the others cost nothing then."""

_WRITES_TEXT: Final = frozenset({Family.COMPLETIONS, Family.RESPONSES})
_MOST_PROMPT_TOKENS: Final = 131_072
_HEAD_BYTES: Final = 4096
_TAIL_BYTES: Final = 64 << 10
_USAGE: Final = re.compile(rb'"usage"\s*:\s*(?=\{)')


class ProxiedFields(msgspec.Struct, frozen=True):
    """The fields of a JSON request that concern us; all others are legal and travel in the bytes."""

    model: Annotated[str, Meta(min_length=1, max_length=MAX_MODEL_NAME_LENGTH)]
    stream: bool | None = None
    max_tokens: int | None = None
    max_output_tokens: int | None = None


_FIELDS: Final = msgspec.json.Decoder(ProxiedFields)


def read_fields(raw: bytes) -> ProxiedFields:
    """Read what concerns us of a JSON request.

    Raises:
        InvalidRequest: not JSON, no ``model``, or one of the fields has a wrong type; ``param`` names it.
    """
    return decode_json(raw, _FIELDS)


def estimate_prompt(family: Family, size_bytes: int) -> int:
    """About the tokens of a request of so many bytes; media in it make no more than a long context would."""
    return min(size_bytes // BYTES_PER_TOKEN + 1, _MOST_PROMPT_TOKENS) if family in TEXT_FAMILIES else 0


def estimate_reply(family: Family, fields: ProxiedFields) -> int:
    """The most tokens that a reply may have, as far as the request says."""
    if family not in _WRITES_TEXT:
        return 0
    return max(0, fields.max_output_tokens or fields.max_tokens or DEFAULT_REPLY_TOKENS)


def estimate_written(family: Family, passed: UsageScanner, *, has_events: bool) -> int:
    """About the tokens of a reply whose provider reports none."""
    if family not in _WRITES_TEXT:
        return 0
    return passed.events if has_events else passed.size_bytes // BYTES_PER_TOKEN


def with_model(raw: bytes, requested: str, model: str) -> bytes:
    """The request for a provider that knows the model as ``model``; the client's very bytes where nothing changes.

    A key ``model`` that stands there twice, or spelled with escapes, is made one: another parser may take another.
    """
    if model == requested and raw.count(b'"model"') == 1 and b"\\u00" not in raw:
        return raw
    members = msgspec.json.decode(raw, type=dict[str, Raw])
    members["model"] = Raw(msgspec.json.encode(model))
    return msgspec.json.encode(members)


class UsageScanner:
    """Finds the usage in an answer that passes by, JSON or events; keeps the first 4 KiB and the last 64 KiB of it."""

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""
        self.events = 0
        """``data`` lines that passed, about one token each."""
        self.size_bytes = 0

    def feed(self, piece: bytes) -> None:
        """Take what passes."""
        if len(self._head) < _HEAD_BYTES:
            self._head = (self._head + piece)[:_HEAD_BYTES]
        self.size_bytes += len(piece)
        self.events += piece.count(b"data:")
        self._tail = (self._tail + piece)[-_TAIL_BYTES:]

    def reported(self) -> TokenUsage | None:
        """The last usage of the answer, whatever names its counts have.

        >>> scanner = UsageScanner()
        >>> scanner.feed(b'{"data": [], "usage": {"prompt_tokens": 3, "total_tokens": 3}}')
        >>> scanner.reported()
        TokenUsage(prompt_tokens=3, completion_tokens=0, total_tokens=3)
        """
        for part in (self._tail, self._head):
            for found in reversed(list(_USAGE.finditer(part))):
                usage = _read_counts(part[found.end() :])
                if usage is not None:
                    return usage
        return None


def _read_counts(text: bytes) -> TokenUsage | None:
    try:
        counts, _ = json.JSONDecoder().raw_decode(text[:_HEAD_BYTES].decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    prompt = _count(counts, "prompt_tokens", "input_tokens")
    completion = _count(counts, "completion_tokens", "output_tokens")
    if prompt is None and completion is None:
        prompt = _count(counts, "total_tokens")
    if prompt is None and completion is None:
        return None
    return TokenUsage.of(prompt or 0, completion or 0)


def _count(counts: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = counts.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1 << 53:
            return int(value)
    return None
