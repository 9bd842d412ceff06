"""``local/chat-model``: answers with sentences quoted from the documents, each with a citation marker.

It generates no text. Nothing is sampled, so ``temperature``, ``top_p``, ``seed`` and penalties have no effect and ``n``
answers are equal. ``stop`` and token limits apply. Parameters that it cannot support are rejected by name. Tools that
it may call, but need not, are passed over: many clients send tools with every chat.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal, Protocol

import anyio.lowlevel
import msgspec

from ragsvc.core.cancellation import Cancellation, count_in_parts, run_in_thread
from ragsvc.core.defaults import LOCAL_MODEL
from ragsvc.core.errors import UnsupportedParameter
from ragsvc.core.gateway.chat import FILE_PART, ChatCall, ChatRequest, CountTokens, ResponseFormat, TokenUsage
from ragsvc.core.gateway.event_stream import encode_event
from ragsvc.core.gateway.stop_sequences import StopScanner
from ragsvc.core.ports.chat_backend import ChatReply
from ragsvc.core.retrieval.document_questions import document_question
from ragsvc.core.retrieval.search_values import SearchHit
from ragsvc.providers.local_provider import LocalChat

NO_ANSWER: Final = "The documents do not hold an answer to this question."
NEAREST: Final = "I am not sure that the documents answer this question. The nearest passages:"
"""Precedes sentences that have the subject of the question and may not answer it."""

SELF_DESCRIPTION: Final = (
    "I am the built-in extractive model: I answer questions from your documents, in their own words and with the page "
    "of every statement, and I do not write text of my own. Ask me about your documents; a request to the API "
    'needs "use_rag": true for that. For free conversation, choose one of the other models.'
)


class QuotedSentence(Protocol):
    """A sentence quoted from ``hits[passage_index]``."""

    @property
    def text(self) -> str: ...

    @property
    def passage_index(self) -> int: ...


class Extracted(Protocol):
    """The result of an extraction.

    ``abstained``: the documents contain no answer. ``doubtful``: the sentences do not state what is asked. ``unsure``:
    the sentences are the nearest ones and may not answer the question.
    """

    @property
    def sentences(self) -> Sequence[QuotedSentence]:
        """The sentences in the order of the answer."""
        ...

    @property
    def abstained(self) -> bool: ...

    @property
    def doubtful(self) -> bool: ...

    @property
    def unsure(self) -> bool: ...


class Extract(Protocol):
    """Picks the sentences that answer a question; may block, because it runs in a worker thread.

    ``answerable`` is the evidence in 0..1 that the documents contain an answer, as the search computed it.
    """

    def __call__(self, question: str, hits: Sequence[SearchHit], /, *, answerable: float) -> Extracted: ...


_QUICK_CHARACTERS: Final = 1000
_QUICK_MESSAGES: Final = 50
"""A tokenizer takes 0.3 ms for so many characters, and 3 µs for a message."""

FinishReason = Literal["stop", "length"]


class Composed(msgspec.Struct, frozen=True):
    """A complete answer, in the pieces in which it is streamed."""

    pieces: list[str]
    finish_reason: FinishReason
    usage: TokenUsage

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class LocalExtractive(LocalChat):
    """The backend of ``local/chat-model``. ``threads`` limits the number of concurrent answers."""

    def __init__(
        self,
        extract: Extract,
        *,
        count_tokens: CountTokens,
        threads: int = 4,
    ) -> None:
        super().__init__(LOCAL_MODEL)
        self._extract = extract
        self._count_tokens = count_tokens
        self._tokens_of_description: int | None = None
        """Counted with the first answer, before which the tokenizer may not be loaded."""
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="local-answer")

    async def aclose(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def complete(self, call: ChatCall) -> ChatReply:
        """The complete answer. Raises ``UnsupportedParameter``."""
        answer = await self._composed(call)
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": None,
                "finish_reason": answer.finish_reason,
            }
            for index in range(call.request.choices)
        ]
        body = self._head(call, "chat.completion") | {"choices": choices, "usage": answer.usage}
        return ChatReply(body=msgspec.json.encode(body), usage=answer.usage)

    async def stream(self, call: ChatCall) -> LocalStream:
        """The answer as a stream of sentences. Raises ``UnsupportedParameter``."""
        answer = await self._composed(call)
        head = self._head(call, "chat.completion.chunk")
        return LocalStream(_blocks(head, answer, call.request), answer.usage)

    async def _composed(self, call: ChatCall) -> Composed:
        refuse_unsupported(call.request)
        if self._is_quick(call):
            return self._compose(call, Cancellation())
        return await run_in_thread(lambda cancellation: self._compose(call, cancellation), threads=self._threads)

    def _is_quick(self, call: ChatCall) -> bool:
        """Whether composing takes a fraction of a millisecond: less than a thread takes to begin."""
        return (
            call.evidence is None
            and self._tokens_of_description is not None
            and call.request.reply_limit is None
            and len(call.request.messages) <= _QUICK_MESSAGES
            and call.request.prompt_characters <= _QUICK_CHARACTERS
        )

    def _compose(self, call: ChatCall, cancellation: Cancellation) -> Composed:
        request = call.request
        prompt_tokens = request.estimated_prompt_tokens(count_in_parts(self._count_tokens, cancellation))
        prompt_tokens += sum(self._count_tokens(hit.passage.text) for hit in call.evidence.hits) if call.evidence else 0
        stops = StopScanner(request.stops)
        pieces, left = list[str](), request.reply_limit
        finish_reason: FinishReason = "stop"
        for piece in (*self._sentences(call), None):
            shown = stops.finish() if piece is None else stops.feed(piece)
            tokens = self._count_tokens(shown) if shown and left is not None else 0
            if left is not None and tokens > left:
                pieces.append(self._cut(shown, left))
                finish_reason = "length"
                break
            left = None if left is None else left - tokens
            pieces.append(shown)
            if stops.stopped:
                break
        pieces = [piece for piece in pieces if piece]
        completion_tokens = self._count_answer("".join(pieces)) * request.choices if pieces else 0
        return Composed(pieces, finish_reason, TokenUsage.of(prompt_tokens, completion_tokens))

    def _count_answer(self, text: str) -> int:
        if self._tokens_of_description is None:
            self._tokens_of_description = self._count_tokens(SELF_DESCRIPTION)
        return self._tokens_of_description if text == SELF_DESCRIPTION else self._count_tokens(text)

    def _sentences(self, call: ChatCall) -> Iterator[str]:
        if call.evidence is None:
            yield SELF_DESCRIPTION
            return
        evidence = call.evidence
        asked = document_question(evidence.query)
        if asked is not None and asked.count and evidence.hits:
            yield from _page_counts(evidence.hits)
            return
        found = self._extract(evidence.query, evidence.hits, answerable=evidence.answerable)
        if found.abstained or found.doubtful or not found.sentences:
            yield NO_ANSWER
            return
        if found.unsure:
            yield NEAREST
        for position, sentence in enumerate(found.sentences):
            words = " ".join(sentence.text.split())
            space = " " if position else "\n\n" if found.unsure else ""
            yield f"{space}{words} [{sentence.passage_index + 1}]"

    def _cut(self, text: str, limit: int) -> str:
        """The longest prefix of whole words with at most ``limit`` tokens."""
        borders = [0, *(at for at, character in enumerate(text) if character.isspace() and at), len(text)]
        low, high = 0, len(borders) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._count_tokens(text[: borders[middle]]) <= limit:
                low = middle
            else:
                high = middle - 1
        return text[: borders[low]]


def _page_counts(hits: Sequence[SearchHit]) -> Iterator[str]:
    """The number of pages of each document, once a document."""
    counted = set[int]()
    for position, hit in enumerate(hits, 1):
        passage = hit.passage
        if passage.document_id not in counted:
            unit = "page" if passage.pages_total == 1 else "pages"
            yield f"{' ' if counted else ''}{passage.filename} has {passage.pages_total} {unit}. [{position}]"
            counted.add(passage.document_id)


class LocalStream:
    """A stream of blocks that are computed in advance."""

    def __init__(self, blocks: Sequence[bytes], usage: TokenUsage) -> None:
        self._blocks = list(reversed(blocks))
        self._usage = usage

    @property
    def finished(self) -> bool:
        """Whether the last block has been returned."""
        return not self._blocks

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._blocks:
            raise StopAsyncIteration
        await anyio.lowlevel.checkpoint()
        return self._blocks.pop()

    async def usage(self) -> TokenUsage:
        """The tokens of the whole answer, which was complete before the first block was sent."""
        return self._usage

    async def prompt_tokens(self) -> int:
        """The tokens of the prompt."""
        return self._usage.prompt_tokens

    async def aclose(self) -> None:
        """Discard the remaining blocks."""
        self._blocks.clear()


def _blocks(head: dict[str, Any], answer: Composed, request: ChatRequest) -> list[bytes]:
    tail: dict[str, Any] = {"usage": None} if request.wants_usage else {}

    def block(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"delta": delta, "logprobs": None, "finish_reason": finish_reason}
        events = (
            encode_event(head | {"choices": [{"index": index} | choice]} | tail) for index in range(request.choices)
        )
        return b"".join(events)

    blocks = [block({"role": "assistant", "content": "", "refusal": None})]
    blocks.extend(block({"content": piece}) for piece in answer.pieces)
    blocks.append(block({}, answer.finish_reason))
    if request.wants_usage:
        blocks.append(encode_event(head | {"choices": [], "usage": answer.usage}))
    return blocks


def refuse_unsupported(request: ChatRequest, *, model: str = LOCAL_MODEL, able: AbstractSet[str] = frozenset()) -> None:
    """Raise ``UnsupportedParameter`` for the first parameter that the model does not support.

    ``able`` names parameters that it does support.
    """
    wants = {
        "tool_choice": (request.tools and request.forces_tool, "call tools"),
        "function_call": (request.functions and request.forces_function, "call functions"),
        "logprobs": (request.logprobs, "return log probabilities"),
        "top_logprobs": (request.top_logprobs, "return log probabilities"),
        "logit_bias": (request.logit_bias, "apply a logit bias"),
        "response_format": (request.response_format not in (None, ResponseFormat("text")), "write JSON"),
        "modalities": (set(request.modalities or ()) - {"text"}, "produce output other than text"),
    }
    for param, (wanted, ability) in wants.items():
        if wanted and param not in able:
            _refuse(model, param, ability)
    for at, message in enumerate(request.messages):
        if isinstance(message.content, list):
            for position, part in enumerate(message.content):
                is_read = part.type == FILE_PART and (part.file is None or not part.file.file_data)
                if not is_read and part.type not in ("text", "refusal"):
                    _refuse(model, f"messages[{at}].content[{position}]", f"read content parts of type '{part.type}'")


def _refuse(model: str, param: str, ability: str) -> None:
    raise UnsupportedParameter(
        f"The model '{model}' cannot {ability}. Remove '{param}' or choose another model.", param=param
    )
