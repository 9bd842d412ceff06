"""Embedding spaces: a model with the indexes of its vectors. Changing the model replaces the serving space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ragsvc.core.ids import CollectionId
from ragsvc.core.ports.embedding import EmbeddingModel, Vectors
from ragsvc.core.ports.indexes import Hits, Ids


class Batcher(Protocol):
    """The embedding batcher, as services use it."""

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, in order."""
        ...

    async def embed_query(self, text: str) -> Vectors:
        """The vector ``(dim,)`` of one query."""
        ...


class Indexes(Protocol):
    """The index registry, as services use it. Blocking."""

    def search(
        self,
        collection_id: int,
        query_vector: Vectors | None,
        query_text: str | None,
        *,
        k: int,
        documents: Ids | None = None,
    ) -> tuple[Hits, Hits]:
        """Dense and lexical hits."""
        ...

    def documents_of(self, collection_id: int, ids: Ids) -> Ids:
        """The document of each passage, -1 for an unknown id."""
        ...

    def vectors(self, collection_id: int, ids: Ids) -> tuple[Ids, Vectors]:
        """Those of ``ids`` that are in the index, and their vectors."""
        ...

    def is_loaded(self, collection_id: int) -> bool:
        """Whether the collection's indexes are in memory."""
        ...

    def get(self, collection_id: int) -> object:
        """The collection's indexes; loads them if they are not in memory, which takes seconds for large ones."""
        ...

    def catch_up(self, collection_id: int) -> None:
        """Make the collection's latest commits searchable."""
        ...


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
