"""The ports of embedding models and rerankers, and the array types of their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Vectors = npt.NDArray[np.float32]
"""``(n, dim)`` float32, C-contiguous, rows of length 1."""


Scores = npt.NDArray[np.float32]
"""``(n,)`` float32, higher is better."""


class EmbeddingModel(msgspec.Struct, frozen=True):
    """Identity of an embedding model. Vectors of two processes with equal ``fingerprint`` are interchangeable.

    ``fingerprint`` is a SHA-256 over the weights and everything else that affects vectors (tokenizer, pooling, prefix
    texts), but not over the runtime (sentence-transformers or the accelerated one). ``max_tokens`` includes special
    tokens.
    """

    name: str
    dimension: int
    max_tokens: int
    fingerprint: str


class Embedder(Protocol):
    """Turns text into unit vectors. Blocking and thread-safe; services use it through ``inference.batcher``."""

    @property
    def model(self) -> EmbeddingModel:
        """Identity of the model that computes the vectors."""
        ...

    @property
    def runtime(self) -> str:
        """``onnxruntime-int8``, ``onnxruntime-fp32``, ``sentence-transformers`` … as shown to operators."""
        ...

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Embed passages in the given order, optimised for throughput. Raises ``EmbeddingFailed``."""
        ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Embed queries, optimised for latency; not delayed by ``embed_passages`` in another thread."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, with special tokens and before truncation."""
        ...

    def knows(self, text: str) -> bool:
        """Whether the vocabulary of the model covers the script of this text; if not, its vectors mean little."""
        ...

    def close(self) -> None: ...


class Reranker(Protocol):
    """A cross-encoder: scores pairs of query and text."""

    @property
    def name(self) -> str: ...

    def score(self, query: str, texts: Sequence[str]) -> Scores:
        """A score for each text in 0..1, higher is better."""
        ...


class Batcher(Protocol):
    """Groups concurrent calls of an embedding model into batches."""

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, in order."""
        ...

    async def embed_query(self, text: str) -> Vectors:
        """The vector ``(dim,)`` of one query."""
        ...

    async def with_queries(self, texts: Sequence[str], work: Callable[[Sequence[Vectors]], T]) -> T:
        """The result of ``work``, which runs with the vectors of ``texts`` on the thread that embedded them.

        Two steps on one thread cost one change of threads, which takes half as long as a search. Raises what ``work``
        raises.
        """
        ...
