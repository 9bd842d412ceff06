"""Answers of chat models with their citations, whole or streamed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ragsvc.client.event_decoding import Json
from ragsvc.client.service_errors import AnswerInterrupted, interruption


class CitedAddress(msgspec.Struct, frozen=True, kw_only=True):
    """The address and title of a cited document."""

    url: str = ""
    title: str = ""


class AnswerCitation(msgspec.Struct, frozen=True, kw_only=True):
    """A citation: ``quote`` is on page ``page`` of the document, and supports the answer up to ``end_index``.

    ``index`` is the number of the passage in the answer (``[1]``). ``start_index`` and ``end_index`` are the characters
    of the marker in the answer.
    """

    index: int = 0
    file_id: str = ""
    filename: str = ""
    page: int = 0
    page_label: str | None = None
    quote: str = ""
    start_index: int = 0
    end_index: int = 0
    score: float = 0.0
    chunk_id: str = ""
    url_citation: CitedAddress = CitedAddress()

    @property
    def url(self) -> str:
        """The address of the document, at the cited page."""
        return self.url_citation.url


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer. ``raw`` is the chat completion as the service sent it; ``None`` for a stream."""

    text: str
    citations: list[AnswerCitation] = []
    model: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    raw: dict[str, Any] | None = None


class AnswerReader:
    """Collects an answer from the chunks of a stream."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._citations: list[AnswerCitation] = []
        self._model = ""
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] | None = None

    def take(self, chunk: Json) -> str:
        """Take a chunk; return its text. Raises ``AnswerInterrupted`` for an error event."""
        error = interruption(chunk)
        if error is not None:
            raise error
        self._model = chunk.get("model") or self._model
        self._usage = chunk.get("usage") or self._usage
        text = ""
        for choice in chunk.get("choices") or ():
            delta: Json = choice.get("delta") or {}
            self._citations += _citations(delta)
            text += delta.get("content") or ""
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
        self._text.append(text)
        return text

    def finish(self) -> None:
        """Check at the end of the stream that the answer is complete. Raises ``AnswerInterrupted``."""
        if self._finish_reason is None:
            raise AnswerInterrupted("The stream ended before the answer did.", code="upstream_error")

    @property
    def answer(self) -> Answer:
        """The answer as far as it has arrived."""
        return Answer(
            text="".join(self._text),
            citations=list(self._citations),
            model=self._model,
            finish_reason=self._finish_reason,
            usage=self._usage,
        )


class _WholeMessage(msgspec.Struct):
    content: str | None = None
    annotations: list[AnswerCitation] | None = None


class _WholeChoice(msgspec.Struct):
    message: _WholeMessage
    finish_reason: str | None = None


class _WholeCompletion(msgspec.Struct):
    choices: list[_WholeChoice]
    model: str = ""
    usage: dict[str, Any] | None = None


def read_answer(content: bytes) -> Answer:
    """The first answer of a chat completion.

    Raises:
        msgspec.ValidationError: the JSON is not a chat completion.
    """
    raw = msgspec.json.decode(content, type=Json)
    completion = msgspec.convert(raw, _WholeCompletion)
    if not completion.choices:
        raise msgspec.ValidationError("A chat completion without choices.")
    choice = completion.choices[0]
    return Answer(
        text=choice.message.content or "",
        citations=choice.message.annotations or [],
        model=completion.model,
        finish_reason=choice.finish_reason,
        usage=completion.usage,
        raw=raw,
    )


def _citations(message: Mapping[str, Any]) -> list[AnswerCitation]:
    return msgspec.convert(message.get("annotations") or [], list[AnswerCitation])
