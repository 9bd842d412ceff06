"""The local models for embeddings and reranking, behind the same interface as remote providers.

Requests and replies are JSON bytes, and replies include the usage, so that metering and fallback treat local and remote
models alike.
"""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Protocol, TypeVar
from uuid import uuid4

import anyio.to_thread
import msgspec
import numpy as np
from msgspec import Meta

from ragsvc.core.defaults import MAX_MODEL_NAME_LENGTH, MAX_QUERY_LENGTH
from ragsvc.core.errors import InvalidRequest, ModelNotFound, UnsupportedParameter
from ragsvc.core.gateway.chat import ChatCall
from ragsvc.core.ports.chat_backend import ChatReply, ChatStream
from ragsvc.core.ports.embedding import EmbeddingModel, Scores, Vectors
from ragsvc.core.ports.model_provider import ForwardReply, ForwardRequest
from ragsvc.core.retrieval.ranking import DENSE_WEIGHT
from ragsvc.core.retrieval.word_scores import word_scores
from ragsvc.core.validation import check_not_blank, decode_json, invalid_value
from ragsvc.providers.local_provider import LocalProvider

MAX_INPUTS: Final = 2048
_MAX_DOCUMENTS: Final = 1000
_TOKENISED_CHARACTERS: Final = 200_000
TRUNCATED_INPUTS_HEADER: Final = "X-Ragsvc-Truncated-Inputs"
"""The number of texts of an embeddings request that were truncated; only present if there are any."""

T = TypeVar("T")
Embed = Callable[[Sequence[str]], Awaitable[Vectors]]
"""Vectors of texts, ``(n, dim)``."""

ScoreTexts = Callable[[str, Sequence[str]], Awaitable[Scores]]
"""Scores ``(n,)`` in 0..1 of texts for a query."""


class Truncation(StrEnum):
    """Which end of a text loses what exceeds the limit of a model; with ``NONE`` the text is refused."""

    NONE = "none"
    START = "start"
    END = "end"


class TokenCounts(Protocol):
    """The tokenizer of the embedding model."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, without special tokens."""
        ...

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Character spans ``[start, end)`` of the tokens of a text, in order, without special tokens."""
        ...

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The texts of token arrays. Raises ``ValueError`` for an id outside the vocabulary."""
        ...


class EmbeddingsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Texts to embed. OpenAI: POST /v1/embeddings. Token arrays have ids of this model's tokenizer."""

    model: Annotated[str, Meta(min_length=1, max_length=MAX_MODEL_NAME_LENGTH, examples=["local/embedding-model"])]
    input: Annotated[
        str | list[str | int | list[int]],
        Meta(description="A text, up to 2048 texts, or token arrays", examples=["Memory snippet to embed"]),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    truncate: Annotated[
        str | bool | None,
        Meta(
            description="Which end of a text loses what exceeds the model's limit: `START`, `END` (also `true`), or "
            "`NONE` (also `false`), which refuses the text. The default is a setting of the service.",
            examples=["END"],
        ),
    ] = None
    user: str | None = None


class RerankDocument(msgspec.Struct, frozen=True):
    """A document as an object; other fields are ignored."""

    text: str


class RerankRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Documents to order by relevance. Compatible with ``/v1/rerank`` of Cohere and Jina."""

    model: Annotated[str, Meta(min_length=1, max_length=MAX_MODEL_NAME_LENGTH, examples=["local/reranker"])]
    query: Annotated[str, Meta(min_length=1, max_length=MAX_QUERY_LENGTH, examples=["What was the revenue?"])]
    documents: Annotated[
        list[str | RerankDocument],
        Meta(min_length=1, max_length=_MAX_DOCUMENTS, examples=[["Revenue rose by 12 percent.", "It rained."]]),
    ]
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool | None = None


_EMBEDDINGS: Final = msgspec.json.Decoder(EmbeddingsRequest)
_RERANK: Final = msgspec.json.Decoder(RerankRequest)


class _ReadyReply:
    """A reply whose JSON body is already complete."""

    status = 200
    headers: Mapping[str, str] = {"Content-Type": "application/json"}

    def __init__(self, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """``headers`` are added to the media type."""
        self._body: bytes | None = body
        if headers:
            self.headers = {**self.headers, **headers}

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._body is None:
            raise StopAsyncIteration
        body, self._body = self._body, None
        return body

    async def aclose(self) -> None:
        self._body = None


class _WithoutChat(LocalProvider):
    """A local model without chat completions."""

    async def complete(self, call: ChatCall) -> ChatReply:
        raise _no_chat(call)

    async def stream(self, call: ChatCall) -> ChatStream:
        raise _no_chat(call)


def _no_chat(call: ChatCall) -> ModelNotFound:
    return ModelNotFound(
        f"The model '{call.request.model}' does not support chat completions. Choose another model.", param="model"
    )


class LocalEmbeddings(_WithoutChat):
    """``POST /v1/embeddings`` with the model that embeds the documents."""

    def __init__(
        self, model: EmbeddingModel, embed: Embed, tokens: TokenCounts, *, truncate: Truncation = Truncation.NONE
    ) -> None:
        """``truncate`` applies to requests that do not say how to treat long texts."""
        self._model = model
        self._truncate = truncate
        self._embed = embed
        self._tokens = tokens

    async def forward(self, request: ForwardRequest) -> ForwardReply:
        """Embed texts. A text that exceeds the model's limit is refused, or truncated as the request asks.

        The answer then has the indexes of the truncated texts in ``truncated_inputs``, and their number in a header.
        """
        asked = _decoded(request, _EMBEDDINGS)
        if asked.dimensions not in (None, self._model.dimension):
            raise UnsupportedParameter(
                f"This model supports {self._model.dimension} dimensions only.",
                param="dimensions",
            )
        truncation = _read_truncation(asked, self._truncate)
        texts, counts, truncated = await anyio.to_thread.run_sync(self._read_input, asked.input, truncation)
        vectors = await self._embed(texts)
        wants_base64 = asked.encoding_format == "base64"
        body = await anyio.to_thread.run_sync(
            lambda: _embeddings_body(asked.model, vectors, counts, truncated, wants_base64=wants_base64)
        )
        return _ReadyReply(body, {TRUNCATED_INPUTS_HEADER: str(len(truncated))} if truncated else None)

    def _read_input(self, given: str | list[Any], truncation: Truncation) -> tuple[list[str], int, list[int]]:
        """The texts to embed, the number of their tokens, and the indexes of those that were truncated."""
        texts = list(self._texts(given))
        limit = self._model.max_tokens - 2  # of the two special tokens that the model adds
        total = 0
        truncated: list[int] = []
        for index, (text, count) in enumerate(zip(texts, self._tokens.count(texts), strict=True)):
            param = "input" if isinstance(given, str) else f"input[{index}]"
            check_not_blank(param, text)
            used = count
            if count > limit:
                if truncation is Truncation.NONE:
                    problem = f"Expected at most {limit} tokens, got {count}; 'truncate' cuts longer texts"
                    raise invalid_value(param, problem)
                texts[index], used = self._cut(text, limit, truncation)
                truncated.append(index)
            total += used + 2
        return texts, total, truncated

    def _cut(self, text: str, limit: int, truncation: Truncation) -> tuple[str, int]:
        """The start or the end of a text with at most ``limit`` tokens, and their number."""
        at_end = truncation is Truncation.END
        part = text
        if len(text) > _TOKENISED_CHARACTERS:  # a tokenizer takes two hundred times the memory of its text
            part = text[:_TOKENISED_CHARACTERS] if at_end else text[-_TOKENISED_CHARACTERS:]
        kept = limit
        while True:
            spans = self._tokens.spans(part)
            if len(spans) > kept:
                part = part[: spans[kept - 1][1]] if at_end else part[spans[-kept][0] :]
            (count,) = self._tokens.count([part])
            if count <= limit or kept == 1:
                return part, count
            kept = max(1, kept - (count - limit))  # a word that was cut can have more tokens than before

    def _texts(self, given: str | list[Any]) -> list[str]:
        if isinstance(given, str):
            return [given]
        items: list[Any] = [given] if given and all(isinstance(item, int) for item in given) else given
        if not 1 <= len(items) <= MAX_INPUTS:
            raise invalid_value("input", f"Expected `array` of length 1 to {MAX_INPUTS}")
        if all(isinstance(item, str) for item in items):
            return items
        try:
            arrays = msgspec.convert(items, list[Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=1)]])
            return self._tokens.decode(arrays)
        except msgspec.ValidationError as error:
            raise invalid_value("input", "Expected a text, an array of texts, or arrays of tokens") from error
        except ValueError as error:
            raise invalid_value("input", str(error)) from error


def _read_truncation(asked: EmbeddingsRequest, default: Truncation) -> Truncation:
    """The option ``truncate``: a name as Cohere and NVIDIA NIM have it, or a boolean as Ollama has it."""
    if asked.truncate is None:
        return default
    if isinstance(asked.truncate, bool):
        return Truncation.END if asked.truncate else Truncation.NONE
    try:
        return Truncation(asked.truncate.lower())
    except ValueError as error:
        raise invalid_value("truncate", "Expected 'NONE', 'START', 'END', true or false") from error


def _embeddings_body(
    model: str, vectors: Vectors, tokens: int, truncated: Sequence[int], *, wants_base64: bool
) -> bytes:
    """The reply in OpenAI's format; base64 encodes little-endian float32."""
    rows: list[Any]
    if wants_base64:
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    else:
        rows = vectors.tolist()
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    body: dict[str, Any] = {"object": "list", "data": data, "model": model, "usage": usage}
    if truncated:
        body["truncated_inputs"] = truncated
    return msgspec.json.encode(body)


class LocalReranker(_WithoutChat):
    """``POST /v1/rerank``. ``score`` returns a score in 0..1 per text; ``name`` identifies the scoring method."""

    def __init__(self, name: str, score: ScoreTexts, tokens: TokenCounts) -> None:
        self._name = name
        self._score = score
        self._tokens = tokens

    async def forward(self, request: ForwardRequest) -> ForwardReply:
        """Order documents by relevance, best first."""
        asked = _decoded(request, _RERANK)
        texts = [document if isinstance(document, str) else document.text for document in asked.documents]
        scores = await self._score(asked.query, texts)
        tokens = sum(await anyio.to_thread.run_sync(self._tokens.count, [asked.query, *texts]))
        best = np.argsort(-scores, kind="stable")[: asked.top_n]
        results: list[dict[str, Any]] = []
        for index in best.tolist():
            result: dict[str, Any] = {"index": index, "relevance_score": round(float(scores[index]), 6)}
            if asked.return_documents:
                result["document"] = {"text": texts[index]}
            results.append(result)
        body = {
            "id": f"rerank-{uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": self._name,
            "results": results,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "meta": {"api_version": {"version": "2"}, "scored_by": self._name},
        }
        return _ReadyReply(msgspec.json.encode(body))


HYBRID_SCORE: Final = "local/hybrid-score"
"""Name of the scoring method without a cross-encoder, so that its scores are not mistaken for those of a reranker."""


def hybrid_scores(embed_query: Callable[[str], Awaitable[Vectors]], embed: Embed) -> ScoreTexts:
    """Scores from 0.6 of the cosine and 0.4 of BM25 over the given texts, without a cross-encoder."""

    async def score(query: str, texts: Sequence[str]) -> Scores:
        words = await anyio.to_thread.run_sync(word_scores, query, texts)
        vectors = await embed(texts)
        cosines = np.clip(vectors @ await embed_query(query), 0.0, 1.0)
        return np.asarray(DENSE_WEIGHT * cosines + (1 - DENSE_WEIGHT) * np.asarray(words), np.float32)

    return score


def in_thread(score: Callable[[str, Sequence[str]], Scores]) -> ScoreTexts:
    """Run a cross-encoder's score function in a worker thread."""

    async def score_in_thread(query: str, texts: Sequence[str]) -> Scores:
        return await anyio.to_thread.run_sync(score, query, texts)

    return score_in_thread


def _decoded(request: ForwardRequest, decoder: msgspec.json.Decoder[T]) -> T:
    if not isinstance(request.body, bytes):
        raise InvalidRequest("This model requires a JSON body and accepts no forms.")
    return decode_json(request.body, decoder)
