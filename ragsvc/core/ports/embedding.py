"""The ports of embedding models and rerankers, and the array types of their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
"""``(n, dim)`` float32, C-contiguous, rows of length 1."""


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
