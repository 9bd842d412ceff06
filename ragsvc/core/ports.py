"""The ports: what services ask of slow, native or remote things. One contract suite tests each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from ragsvc.core.breaker import Circuit
from ragsvc.core.chat import ChatCall, Usage

Vectors = npt.NDArray[np.float32]
"""``(n, dim)`` float32, C-contiguous, rows of length 1."""

Ids = npt.NDArray[np.int64]
"""``(n,)`` int64 row ids."""

Scores = npt.NDArray[np.float32]
"""``(n,)`` float32, higher is better."""


class EmbeddingModel(msgspec.Struct, frozen=True):
    """Which model makes the vectors. Two processes with equal ``fingerprint`` make interchangeable vectors.

    ``fingerprint`` is a SHA-256 over the weights and all that changes a vector (tokenizer, pooling, prefix texts);
    the run time (sentence-transformers or the accelerated one) is *not* part of it. ``max_tokens`` includes special
    tokens.
    """

    name: str
    dimension: int
    max_tokens: int
    fingerprint: str


class Embedder(Protocol):
    """Turns text into unit vectors. Blocking and thread-safe; callers go through ``inference.batcher``."""

    @property
    def model(self) -> EmbeddingModel:
        """The model behind the vectors."""
        ...

    @property
    def runtime(self) -> str:
        """``onnxruntime-int8``, ``onnxruntime-fp32``, ``sentence-transformers`` … as shown to operators."""
        ...

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Embed passages, tuned for throughput; order kept. Raises ``EmbeddingFailed``."""
        ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Embed queries, tuned for latency, not delayed by ``embed_passages`` of another thread."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the model's tokens of each text, special tokens included, before truncation."""
        ...

    def knows(self, text: str) -> bool:
        """Whether the model's vocabulary has words of this text's script; if not, its vectors tell little."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


class Reranker(Protocol):
    """Scores (query, text) pairs together (a cross-encoder)."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    def score(self, query: str, texts: Sequence[str]) -> Scores:
        """One score per text in 0..1, higher is better."""
        ...


class Hits(msgspec.Struct, frozen=True):
    """Search results, best first: ``ids`` (k,) int64 and ``scores`` (k,) float32, higher is better."""

    ids: Ids
    scores: Scores


class VectorIndex(Protocol):
    """Nearest passages by cosine. One writer; readers never wait for it."""

    def __len__(self) -> int:
        """Number of vectors."""
        ...

    def ids(self) -> Ids:
        """All ids, ascending."""
        ...

    def add(self, ids: Ids, documents: Ids, vectors: Vectors) -> None:
        """Add vectors under new ids; ``documents`` holds each one's document id. An id that is present is replaced."""
        ...

    def remove(self, ids: Ids) -> int:
        """Remove ids for good; unknown ones are passed over. Returns how many were there."""
        ...

    def search(self, query: Vectors, *, k: int, documents: Ids | None = None) -> Hits:
        """The ``k`` nearest to one query ``(dim,)``; cosine in -1..1. ``documents`` restricts *before* ranking."""
        ...

    def documents_of(self, ids: Ids) -> Ids:
        """The document of each id, -1 where there is none."""
        ...

    def vectors(self, ids: Ids) -> Vectors:
        """The stored vectors of ids, in that order (missing ids raise ``KeyError``)."""
        ...

    def save(self, folder: Path) -> None:
        """Write a snapshot into an empty folder (the caller fsyncs and renames)."""
        ...


class LexicalDocument(msgspec.Struct, frozen=True):
    """What the lexical index knows of a passage; ``context`` is title, file name and headings."""

    id: int
    document_id: int
    text: str
    context: str


class LexicalIndex(Protocol):
    """BM25 over passages."""

    def __len__(self) -> int:
        """Number of passages."""
        ...

    def ids(self) -> Ids:
        """All ids, ascending."""
        ...

    def add(self, documents: Sequence[LexicalDocument]) -> None:
        """Add passages; visible to searches that start after ``commit``."""
        ...

    def remove(self, ids: Ids) -> None:
        """Remove passages; visible after ``commit``."""
        ...

    def commit(self, *, covered_seq: int) -> None:
        """Make changes durable and visible, and remember the log position they cover."""
        ...

    def covered_seq(self) -> int:
        """The log position of the last commit; 0 when new."""
        ...

    def search(self, query: str, *, k: int, documents: Ids | None = None) -> Hits:
        """The ``k`` best by BM25 (unbounded, > 0). Any text is a legal query, operators in it are plain words."""
        ...

    def close(self) -> None:
        """Release files."""
        ...


class ChatReply(msgspec.Struct, frozen=True):
    """A whole answer: ``body`` is the JSON a client gets (OpenAI: the chat completion object)."""

    body: bytes
    usage: Usage


class ChatStream(Protocol):
    """An answer that arrives in blocks of whole server-sent events, the final ``[DONE]`` excepted.

    Iteration raises ``UpstreamFailed`` or ``UpstreamTimeout`` when the answer breaks off.
    """

    @property
    def finished(self) -> bool:
        """Whether the last block has been handed out."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The stream itself."""
        ...

    async def __anext__(self) -> bytes:
        """The next block, as soon as it is there."""
        ...

    async def usage(self) -> Usage:
        """Tokens so far: the model's own figure where it gave one, else a count of what was handed out."""
        ...

    async def aclose(self) -> None:
        """Stop the model if it still works, and free what the stream holds; may be called twice."""
        ...


class ChatBackend(Protocol):
    """A model that answers chats. Everything raised by the two methods is raised before the first byte."""

    async def complete(self, call: ChatCall) -> ChatReply:
        """Answer in one piece.

        Raises:
            InvalidRequest: the model refuses the request; ``UnsupportedParameter`` when it lacks an ability.
            ModelUnavailable: refused, broken, overloaded or switched off for now.
            UpstreamFailed: the answer is not one. ``UpstreamTimeout``: it did not come in time.
            Overloaded: too many requests wait for this backend.
        """
        ...

    async def stream(self, call: ChatCall) -> ChatStream:
        """Begin to answer; returns when the first block is there. Raises as ``complete`` does."""
        ...


class ForwardRequest(msgspec.Struct, frozen=True):
    """A request of any endpoint family; ``path`` follows the base URL. Only a ``bytes`` body can be sent again."""

    method: str
    path: str
    body: bytes | AsyncIterator[bytes]
    headers: Mapping[str, str]


class ForwardReply(Protocol):
    """A provider's answer (status below 400), its body still to come."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that concern the client, names in lower case."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        ...

    async def __anext__(self) -> bytes:
        """The next bytes."""
        ...

    async def aclose(self) -> None:
        """Break off, or free the connection when the end was reached."""
        ...


class ModelProvider(ChatBackend, Protocol):
    """A backend that may also serve the other endpoint families."""

    @property
    def circuit(self) -> Circuit:
        """Whether it is being asked at all."""
        ...

    async def forward(self, request: ForwardRequest) -> ForwardReply:
        """Pass a request on as it is. Raises as ``complete`` does."""
        ...

    def with_key(self, api_key: str, *, callers: bool = False) -> ModelProvider:
        """The same provider asked with another key; ``callers``: the request brought it, so its refusal is theirs."""
        ...

    async def aclose(self) -> None:
        """End what is open."""


class IndexChange(msgspec.Struct, frozen=True):
    """One entry of a collection's change log, written in the transaction that made the change.

    ``seq`` grows and is never reused; ``passage_ids`` is packed little-endian int64.
    """

    seq: int
    op: Literal["add", "delete"]
    document_id: int
    passage_ids: bytes

    def ids(self) -> Ids:
        """The passages that came or went."""
        return np.frombuffer(self.passage_ids, dtype="<i8").astype(np.int64)


class IndexSource(Protocol):
    """The rows that the derived indexes follow. Blocking; reads from several threads at once are fine."""

    def head_seq(self, collection_id: int) -> int:
        """The last log position, 0 if the log is empty."""
        ...

    def changes(self, collection_id: int, after_seq: int, limit: int) -> list[IndexChange]:
        """At most ``limit`` changes with ``seq > after_seq``, in order."""
        ...

    def vectors(self, collection_id: int, passage_ids: Ids) -> tuple[Ids, Ids, Vectors]:
        """Ids, document ids and vectors of those passages that (still) exist."""
        ...

    def lexical(self, collection_id: int, passage_ids: Ids) -> list[LexicalDocument]:
        """Texts of those passages that (still) exist."""
        ...

    def all_passage_ids(self, collection_id: int) -> Ids:
        """Ids of the passages of all ready documents."""
        ...
