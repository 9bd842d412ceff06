"""Endpoint families that are passed through to a provider: their names, and the fields that the gateway reads.

Of a request it reads the model and the token limits, of an answer the usage. All other fields are passed on unread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from ragsvc.core.defaults import BYTES_PER_TOKEN, DEFAULT_REPLY_TOKENS, MAX_MODEL_NAME_LENGTH
from ragsvc.core.gateway.chat import MOST_TOKENS, TokenUsage, prompt_too_long
from ragsvc.core.gateway.retrieval_fields import (
    RETRIEVAL_FIELDS,
    asks_for_documents,
    refuse_retrieval_fields,
    unsupported_retrieval,
)
from ragsvc.core.json_outline import JsonOutline
from ragsvc.core.validation import decode_json, missing_value


class Family(StrEnum):
    """A group of endpoints; a provider offers all of a group or none."""

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
"""Families whose tokens are estimated if a provider reports no usage; requests of the others then use none."""

_WRITES_TEXT: Final = frozenset({Family.COMPLETIONS, Family.RESPONSES})
_MOST_PROMPT_TOKENS: Final = 131_072
_HEAD_BYTES: Final = 4096
_TAIL_BYTES: Final = 64 << 10
_USAGE: Final = re.compile(rb'"usage"\s*:\s*(?=\{)')


def default_model_kind(family: Family, path: str) -> str:
    """The kind of requests that share a default model: a family, of which audio has two kinds of models.

    >>> [default_model_kind(Family.AUDIO, path) for path in ("/audio/speech", "/audio/translations")]
    ['speech', 'transcription']
    """
    if family is not Family.AUDIO:
        return family.value
    return "speech" if path == "/audio/speech" else "transcription"


class ProxiedFields(msgspec.Struct, frozen=True):
    """The fields of a JSON request that the gateway reads; all others are legal and kept in the bytes."""

    named_model: Annotated[str, Meta(min_length=1, max_length=MAX_MODEL_NAME_LENGTH)] | None = msgspec.field(
        name="model", default=None
    )
    stream: bool | None = None
    max_tokens: int | None = None
    max_output_tokens: int | None = None
    use_rag: Raw | UnsetType = UNSET
    rag: Raw | UnsetType = UNSET

    def model_or(self, default: str | None) -> str:
        """The model, or the default of the operator. Raises ``InvalidRequest`` if there is none."""
        model = self.named_model or default
        if model is None:
            raise missing_value("model")
        return model

    @property
    def has_retrieval(self) -> bool:
        """Whether the request has the fields that ask for documents, also with a value that asks for nothing."""
        return self.use_rag is not UNSET or self.rag is not UNSET

    def refuse_retrieval(self, raw: bytes, where: str) -> None:
        """Refuse a request ``raw`` that asks for documents, also by almost the right name.

        Raises:
            UnsupportedParameter: names the field and the route ``where`` it has no effect.
        """
        for name, value in (("use_rag", self.use_rag), ("rag", self.rag)):
            if isinstance(value, Raw) and asks_for_documents(value):
                raise unsupported_retrieval(name, where)
        refuse_retrieval_fields(raw, where)


_FIELDS: Final = msgspec.json.Decoder(ProxiedFields)


def read_fields(raw: bytes, *, default_model: str | None = None) -> ProxiedFields:
    """Decode the fields of a JSON request that the gateway reads.

    Raises:
        InvalidRequest: not JSON, no ``model`` and no default, or a field has the wrong type; ``param`` names the field.
    """
    fields = decode_json(raw, _FIELDS)
    fields.model_or(default_model)
    return fields


def read_large_fields(
    raw: bytes, family: Family, *, max_prompt_characters: Callable[[str], int], default_model: str | None = None
) -> ProxiedFields:
    """Decode the fields of a large JSON request, without holding the interpreter lock for long (see ``JsonOutline``).

    ``max_prompt_characters`` is called with the name of the model; it limits the long texts of text families.

    Raises:
        PromptTooLong: the texts are longer than the model accepts.
        InvalidRequest: as ``read_fields``, or the body has too many parts.
    """
    outline = JsonOutline(raw)
    fields = decode_json(outline.skeleton, _FIELDS)
    model = fields.model_or(default_model)
    if family in TEXT_FAMILIES:
        limit = max_prompt_characters(model)
        if outline.fewest_characters > limit or sum(map(len, outline.long_texts())) > limit:
            raise prompt_too_long(model, limit, param="input")
    return fields


def estimate_prompt(family: Family, size_bytes: int) -> int:
    """Estimate the tokens of a request body; bounded, because bodies may hold media as base64."""
    return min(size_bytes // BYTES_PER_TOKEN + 1, _MOST_PROMPT_TOKENS) if family in TEXT_FAMILIES else 0


def estimate_reply(family: Family, fields: ProxiedFields) -> int:
    """Maximum tokens of a reply: the limit in the request, else the default."""
    if family not in _WRITES_TEXT:
        return 0
    return max(0, fields.max_output_tokens or fields.max_tokens or DEFAULT_REPLY_TOKENS)


def estimate_written(family: Family, passed: UsageScanner, *, has_events: bool) -> int:
    """Estimate the tokens of a reply whose provider reports no usage."""
    if family not in _WRITES_TEXT:
        return 0
    return passed.events if has_events else passed.size_bytes // BYTES_PER_TOKEN


def with_model(raw: bytes, requested: str | None, model: str, *, drops_retrieval: bool = False) -> bytes:
    """The request with the provider's name of the model; the bytes of the client if nothing has to change.

    ``drops_retrieval`` leaves out ``use_rag`` and ``rag``: a provider may refuse unknown fields.
    A key ``model`` that occurs twice or is written with escapes is replaced by a single one: another JSON parser could
    read another value.
    """
    if model == requested and raw.count(b'"model"') == 1 and b"\\u00" not in raw and not drops_retrieval:
        return raw
    members = msgspec.json.decode(raw, type=dict[str, Raw])
    for name in RETRIEVAL_FIELDS:
        members.pop(name, None)
    members["model"] = Raw(msgspec.json.encode(model))
    return msgspec.json.encode(members)


class UsageScanner:
    """Finds the usage in an answer (JSON or events) while it is passed on; holds its first 4 KiB and last 64 KiB.

    It also counts the occurrences of ``marks``.
    """

    def __init__(self, marks: tuple[bytes, ...] = ()) -> None:
        self._head = b""
        self._tail = b""
        self._counts = dict.fromkeys(marks, 0)
        self.events = 0
        """Number of ``data`` lines seen, with about one token each."""
        self.size_bytes = 0

    def feed(self, piece: bytes) -> None:
        if len(self._head) < _HEAD_BYTES:
            self._head = (self._head + piece)[:_HEAD_BYTES]
        self.size_bytes += len(piece)
        self.events += piece.count(b"data:")
        for mark in self._counts:  # an occurrence that begins in the last piece ends in this one
            overlap = self._tail[len(self._tail) - min(len(self._tail), len(mark) - 1) :]
            self._counts[mark] += (overlap + piece[: len(mark) - 1]).count(mark) + piece.count(mark)
        self._tail = (self._tail + piece)[-_TAIL_BYTES:]

    def count_of(self, mark: bytes) -> int:
        """How often one of ``marks`` occurred."""
        return self._counts[mark]

    @property
    def ends(self) -> tuple[bytes, bytes]:
        """The beginning and the end of the answer so far."""
        return self._head, self._tail

    def reported(self) -> TokenUsage | None:
        """The last usage in the answer, with the field names of any endpoint family; ``None`` if there is no usage.

        >>> scanner = UsageScanner()
        >>> scanner.feed(b'{"data": [], "usage": {"prompt_tokens": 3, "total_tokens": 3}}')
        >>> scanner.reported()
        TokenUsage(prompt_tokens=3, completion_tokens=0, total_tokens=3, cached_tokens=0)
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
    details = counts.get("prompt_tokens_details") or counts.get("input_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else None
    return TokenUsage.of(prompt or 0, completion or 0, cached_tokens=cached or 0)


def _count(counts: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = counts.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS:
            return int(value)
    return None
