"""Deterministic fakes of ports. They pass the contract tests of the real implementations."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Sequence

import numpy as np

from ragsvc.core.errors import EmbeddingFailed
from ragsvc.core.ports.embedding import EmbeddingModel, Vectors

_WORD = re.compile(r"\w+|[^\w\s]")


class FakeTokenSpans:
    """Port ``TokenSpans``: a token is a word or a punctuation mark."""

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(_WORD.findall(text)) for text in texts]

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in _WORD.finditer(text)]


class FakeEmbedder:
    """Port ``Embedder``: unit vectors of hashed bags of words, so that texts with common words have near vectors."""

    def __init__(self, *, dimension: int = 64, max_tokens: int = 256) -> None:
        fingerprint = hashlib.sha256(f"fake bag of words {dimension} {max_tokens}".encode()).hexdigest()
        self._model = EmbeddingModel(
            name=f"fake-{dimension}", dimension=dimension, max_tokens=max_tokens, fingerprint=fingerprint
        )
        self._closed = threading.Event()

    @property
    def model(self) -> EmbeddingModel:
        return self._model

    @property
    def runtime(self) -> str:
        return "fake"

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Embed passages, truncated to ``max_tokens``."""
        if self._closed.is_set():
            raise EmbeddingFailed("The embedding model is closed.")
        vectors = np.zeros((len(texts), self._model.dimension), np.float32)
        for row, text in enumerate(texts):
            words = _WORD.findall(text.lower())[: self._model.max_tokens - 2]
            for word in words or [""]:
                digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
                column = int.from_bytes(digest[:4], "big") % self._model.dimension
                vectors[row, column] += 1.0 if digest[4] % 2 else -1.0
            if not vectors[row].any():  # the words cancel out
                vectors[row, 0] = 1.0
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self.embed_passages(texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Words and punctuation marks, plus two special tokens."""
        return [count + 2 for count in FakeTokenSpans().count(texts)]

    def knows(self, text: str) -> bool:
        del text
        return True

    def close(self) -> None:
        self._closed.set()
