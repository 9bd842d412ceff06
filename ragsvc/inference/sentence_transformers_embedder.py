"""The reference runtime, sentence-transformers: correct for every model, slow, and slow to import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ragsvc.core.errors import EmbeddingFailed
from ragsvc.core.ports.embedding import EmbeddingModel, Vectors
from ragsvc.inference.model_files import ModelFiles, with_weights
from ragsvc.inference.reference_vectors import limit_tokens
from ragsvc.inference.shipped_model import require_sentence_transformers
from ragsvc.inference.tokens import Vocabulary, load_tokenizer


class SentenceTransformersEmbedder:
    """Port ``Embedder`` on sentence-transformers. torch is imported when an embedder is created, not before."""

    def __init__(self, files: ModelFiles, *, batch_texts: int = 32, runtime: str = "sentence-transformers") -> None:
        """Load the model (about 5 s, most of it importing torch).

        Raises:
            EmbeddingFailed: the model cannot be loaded.
        """
        require_sentence_transformers()
        files = with_weights(files)
        self._files = files
        self._batch_texts = batch_texts
        self._runtime = runtime
        self._tokenizer: Any = load_tokenizer(files.tokenizer_file)
        self._vocabulary = Vocabulary(self._tokenizer)
        try:
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - imports torch: seconds

            self._transformer: Any = SentenceTransformer(str(files.root), device="cpu", local_files_only=True)
            limit_tokens(self._transformer, files.model.max_tokens)
            # sets the tokenizer's truncation and padding once, because threads that set them concurrently fail
            self._transformer.encode(["warm", "up"], show_progress_bar=False)
        except Exception as error:  # torch, transformers and the model's own code raise errors of many types
            raise EmbeddingFailed(f"The model {files.root} cannot be loaded: {error}.") from error

    @property
    def model(self) -> EmbeddingModel:
        return self._files.model

    @property
    def runtime(self) -> str:
        """``sentence-transformers``, followed by the reason if this runtime is a fallback."""
        return self._runtime

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Embed passages in batches sorted by length."""
        return self._encode(texts, prompt=self._files.passage_prompt)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Embed queries. May run concurrently with ``embed_passages``; torch divides the cores between the calls."""
        return self._encode(texts, prompt=self._files.query_prompt)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text before truncation, special tokens included."""
        return [len(encoding) for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def knows(self, text: str) -> bool:
        """Whether the vocabulary has words in the script of this text."""
        return self._vocabulary.knows(text)

    def close(self) -> None:
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
        except Exception as error:  # torch and transformers raise errors of many types
            raise EmbeddingFailed(f"The runtime sentence-transformers failed: {error}.") from error
        return np.ascontiguousarray(vectors, np.float32)
