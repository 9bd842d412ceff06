"""The reference runtime: sentence-transformers itself. Correct for every model, slow, and heavy to import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ragsvc.core.errors import EmbeddingFailed
from ragsvc.core.ports.embedding import EmbeddingModel, Vectors
from ragsvc.inference.model_files import ModelFiles
from ragsvc.inference.tokens import Vocabulary, load_tokenizer


class SentenceTransformersEmbedder:
    """Port ``Embedder`` on sentence-transformers; torch is imported when one is made, not before."""

    def __init__(self, files: ModelFiles, *, batch_texts: int = 32, runtime: str = "sentence-transformers") -> None:
        """Load the model (about 5 s, most of it importing torch).

        Raises:
            EmbeddingFailed: it cannot be loaded.
        """
        self._files = files
        self._batch_texts = batch_texts
        self._runtime = runtime
        self._tokenizer: Any = load_tokenizer(files.tokenizer_file)
        self._vocabulary = Vocabulary(self._tokenizer)
        try:
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - imports torch: seconds

            self._transformer: Any = SentenceTransformer(str(files.root), device="cpu", local_files_only=True)
            # sets the tokenizer's truncation and padding once: threads that set them at the same time would fail
            self._transformer.encode(["warm", "up"], show_progress_bar=False)
        except Exception as error:  # whatever torch, transformers and the model's files raise
            raise EmbeddingFailed(f"The model {files.root} cannot be loaded: {error}.") from error

    @property
    def model(self) -> EmbeddingModel:
        """The model behind the vectors."""
        return self._files.model

    @property
    def runtime(self) -> str:
        """``sentence-transformers``, with the reason behind it when it is a fallback."""
        return self._runtime

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Embed passages in batches sorted by length."""
        return self._encode(texts, prompt=self._files.passage_prompt)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Embed queries; runs beside ``embed_passages``, torch shares the cores between them."""
        return self._encode(texts, prompt=self._files.query_prompt)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the model's tokens of each text, special tokens included, before truncation."""
        return [len(encoding) for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def knows(self, text: str) -> bool:
        """Whether the vocabulary has words of this text's script."""
        return self._vocabulary.knows(text)

    def close(self) -> None:
        """Free the model."""
        self._transformer = None

    def _encode(self, texts: Sequence[str], *, prompt: str) -> Vectors:
        if not texts:
            return np.empty((0, self.model.dimension), np.float32)
        transformer = self._transformer
        if transformer is None:
            raise EmbeddingFailed("The embedding model is closed.")
        try:
            vectors = transformer.encode(
                list(texts),
                prompt=prompt,
                batch_size=self._batch_texts,
                normalize_embeddings=True,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        except Exception as error:  # torch and transformers raise many kinds
            raise EmbeddingFailed(f"The runtime sentence-transformers failed: {error}.") from error
        return np.ascontiguousarray(vectors, np.float32)
