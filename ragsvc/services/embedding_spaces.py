"""Embedding spaces: a model with the indexes of its vectors. Changing the model replaces the serving space."""

from __future__ import annotations

from collections.abc import Callable

from ragsvc.core.ids import CollectionId
from ragsvc.core.ports.embedding import Batcher, EmbeddingModel
from ragsvc.core.ports.indexes import Indexes


class EmbeddingSpace:
    """A model, and the indexes of its vectors. ``model_id`` is the id of the model's row.

    ``prepare`` transforms the embedding text of a passage before the model embeds it; questions are embedded unchanged.
    ``knows`` returns whether the model's vocabulary contains the words of a text.
    """

    def __init__(
        self,
        *,
        model: EmbeddingModel,
        model_id: int,
        batcher: Batcher,
        indexes: Indexes,
        prepare: Callable[[str], str],
        knows: Callable[[str], bool],
    ) -> None:
        self.model = model
        self.model_id = model_id
        self.batcher = batcher
        self.indexes = indexes
        self.prepare = prepare
        self.knows = knows


class EmbeddingSpaces:
    """Holds the serving space.

    A caller reads ``serving`` once per request, so that a query's vector is never used with another model's index.
    """

    def __init__(self, serving: EmbeddingSpace) -> None:
        self.serving = serving

    def catch_up(self, collection_id: CollectionId) -> None:
        """Bring the serving indexes of a collection up to date. Blocking."""
        self.serving.indexes.catch_up(collection_id)
