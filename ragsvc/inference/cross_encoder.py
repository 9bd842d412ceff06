"""Reranking with a sentence-transformers ``CrossEncoder`` that the operator supplies; ragsvc includes none.

torch is imported when a reranker is created.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragsvc.core.errors import ConfigurationError, EmbeddingFailed
from ragsvc.core.ports.embedding import Scores
from ragsvc.inference.shipped_model import require_sentence_transformers


class CrossEncoderReranker:
    """Port ``Reranker``. The model reads query and text together, which takes tens of ms per text on a CPU."""

    def __init__(self, folder: Path, *, name: str | None = None, max_tokens: int = 512, batch_texts: int = 16) -> None:
        """Load the model; its name is that of the folder if none is given.

        Raises:
            ConfigurationError: the model returns several labels instead of one score.
            EmbeddingFailed: the model cannot be loaded, or sentence-transformers is not installed.
        """
        require_sentence_transformers()
        self._name = name or folder.name
        self._batch_texts = batch_texts
        self._lock = threading.Lock()
        try:
            from sentence_transformers import CrossEncoder  # noqa: PLC0415 - imports torch: seconds
            from torch.nn import Sigmoid  # noqa: PLC0415 - same

            self._model: Any = CrossEncoder(str(folder), device="cpu", max_length=max_tokens, local_files_only=True)
            self._sigmoid: Any = Sigmoid()
        except Exception as error:  # torch, transformers and the model's own code raise errors of many types
            raise EmbeddingFailed(f"The cross-encoder {folder} cannot be loaded: {error}.") from error
        if (labels := int(self._model.num_labels)) != 1:
            raise ConfigurationError([f"cross-encoder {folder} returns {labels} labels; a reranker returns one score"])

    @property
    def name(self) -> str:
        """The name of the model, by default that of its folder."""
        return self._name

    def score(self, query: str, texts: Sequence[str]) -> Scores:
        """One score per text, from 0 to 1 (the logistic function of the model's output); higher is better.

        Raises:
            EmbeddingFailed: the model failed.
        """
        if not texts:
            return np.empty(0, np.float32)
        pairs = [(query, text) for text in texts]
        try:
            with self._lock:  # the tokenizers of transformers are not thread-safe
                scores = self._model.predict(
                    pairs, batch_size=self._batch_texts, activation_fn=self._sigmoid, show_progress_bar=False
                )
        except Exception as error:  # torch and transformers raise errors of many types
            raise EmbeddingFailed(f"The cross-encoder failed: {error}.") from error
        return np.ascontiguousarray(scores, np.float32)
