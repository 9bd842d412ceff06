"""Adds citations to the answers of models: to complete answers and to streamed chunks.

Chat Completions know one type of annotation, ``url_citation``. Strict clients (LiteLLM, pydantic-ai, the AI SDK) refuse
an answer with another type, and ignore fields that they do not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from ragsvc.core.answers.citations import Citation, CitedAnswer
from ragsvc.core.files import FILE_ID_PREFIX
from ragsvc.core.gateway.event_stream import encode_event, event_data, split_events
from ragsvc.core.gateway.finish_reasons import finish_reason_of
from ragsvc.core.retrieval.search_values import SearchHit
from ragsvc.services.request_files import inline_address

_COMMON_FIELDS: Final = frozenset({"id", "object", "created", "model", "system_fingerprint", "service_tier"})


class UrlCitation(msgspec.Struct, frozen=True):
    """The part of an annotation that all clients read. ``content`` is the quote; pydantic-ai and OpenRouter read it."""

    url: str
    title: str
    content: str
    start_index: int
    end_index: int


class ChatAnnotation(msgspec.Struct, frozen=True, kw_only=True):
    """An annotation of a chat message (OpenAI: ``url_citation``), with the fields of the citation beside it."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation
    index: int
    file_id: str
    filename: str
    page: int
    page_label: str | None
    start_index: int
    end_index: int
    quote: str
    score: float
    chunk_id: str


def citation_url(service_url: str, citation: Citation) -> str:
    """The address of the cited page.

    For an inline file, which has no address, it names the file by its SHA-256 (RFC 6920).
    """
    inline = inline_address(citation.file_id)
    if inline is not None:
        return f"{inline}#page={citation.page}"
    if citation.file_id.startswith(FILE_ID_PREFIX):
        return f"{service_url}/v1/files/{citation.file_id}/content#page={citation.page}"
    return content_url(service_url, citation.file_id, citation.page)


def content_url(service_url: str, document_id: str, page: int | None) -> str:
    """The address of a document's file. The fragment ``page=14`` opens a PDF at its 14th page (RFC 8118 §3)."""
    fragment = "" if page is None else f"#page={page}"
    return f"{service_url}/v1/rag/documents/{document_id}/content{fragment}"


class CitationSource(msgspec.Struct, frozen=True):
    """The passages that an answer cites, in the order of their numbers.

    ``extractive``: the answer consists of sentences of these passages (see ``CitedAnswer``). ``service_url`` begins the
    URLs of the citations.
    """

    hits: tuple[SearchHit, ...]
    extractive: bool = False
    service_url: str = ""

    def begin(self) -> CitedAnswer:
        return CitedAnswer(self.hits, extractive=self.extractive)

    def annotations(self, answer: CitedAnswer) -> list[ChatAnnotation]:
        """The citations of a whole answer as annotations. Call once, after the last piece."""
        return [self._annotation(citation) for citation in answer.citations()]

    def _annotation(self, citation: Citation) -> ChatAnnotation:
        return ChatAnnotation(
            url_citation=UrlCitation(
                url=citation_url(self.service_url, citation),
                title=f"{citation.filename}, page {citation.page}",
                content=citation.quote,
                start_index=citation.start_index,
                end_index=citation.end_index,
            ),
            **msgspec.structs.asdict(citation),
        )


def cite_reply(body: bytes, source: CitationSource, on_unresolved: Callable[[int], None]) -> bytes:
    """Add ``annotations`` to each message of a chat completion, and all of them as top-level ``citations``."""
    reply: dict[str, Any] = msgspec.json.decode(body)
    all_citations: list[ChatAnnotation] = []
    for choice in reply["choices"]:
        message = choice.get("message")
        if not isinstance(message, dict):
            continue
        answer = source.begin()
        if isinstance(message.get("content"), str):
            answer.feed(message["content"])
        citations = source.annotations(answer)
        on_unresolved(answer.unresolved)
        message["annotations"] = [*(message.get("annotations") or ()), *citations]
        all_citations.extend(citations)
    reply["citations"] = all_citations
    return msgspec.json.encode(reply)


class StreamCiter:
    """Follows the chunks of an answer and adds citations once to each choice: where it ends, else at the stream's end.

    Only a finish reason that clients know ends a choice; some providers send ``""`` in every chunk.
    """

    def __init__(self, source: CitationSource, on_unresolved: Callable[[int], None]) -> None:
        self._source = source
        self._on_unresolved = on_unresolved
        self._open: dict[int, CitedAnswer] = {}
        self._ended: set[int] = set()
        self._head: dict[str, Any] = {}

    def edit(self, block: bytes) -> bytes:
        """Add ``delta.annotations`` and ``citations`` to events that end an answer; other events are unchanged."""
        return b"".join(self._edit_event(event) for event in split_events(block))

    def finish(self) -> bytes:
        """The event that ends the choices that the stream left open, with their citations; ``b""`` if none is open."""
        if not self._open:
            return b""
        choices: list[dict[str, Any]] = [
            {"index": index, "delta": {}, "finish_reason": "stop"} for index in sorted(self._open)
        ]
        citations = [citation for choice in choices for citation in self._follow(choice) or ()]
        return encode_event(self._head | {"choices": choices, "citations": citations})

    def _edit_event(self, event: bytes) -> bytes:
        data = event_data(event)
        if data is None:
            return event
        chunk: dict[str, Any] = msgspec.json.decode(data)
        choices = chunk.get("choices") or ()
        if not choices:
            return self.finish() + event if chunk.get("usage") else event  # the usage comes last
        self._head = {name: value for name, value in chunk.items() if name in _COMMON_FIELDS}
        if "usage" in chunk:
            self._head["usage"] = None
        ended: list[ChatAnnotation] | None = None
        for choice in choices:
            citations = self._follow(choice)
            if citations is not None:
                ended = [*(ended or ()), *citations]
        return event if ended is None else encode_event(chunk | {"citations": ended})

    def _follow(self, choice: dict[str, Any]) -> list[ChatAnnotation] | None:
        """Take the delta of a choice; at the end of the choice, add its citations and return them."""
        index = choice.get("index") or 0
        if index in self._ended:
            return None
        answer = self._open.get(index)
        if answer is None:
            answer = self._open[index] = self._source.begin()
        delta = choice.get("delta") or {}
        if isinstance(delta.get("content"), str):
            answer.feed(delta["content"])
        finish_reason = finish_reason_of(choice.get("finish_reason"))
        if finish_reason is None:
            return None
        choice["finish_reason"] = finish_reason
        citations = self._source.annotations(answer)
        self._on_unresolved(answer.unresolved)
        choice["delta"] = delta | {"annotations": [*(delta.get("annotations") or ()), *citations]}
        del self._open[index]
        self._ended.add(index)
        return citations
