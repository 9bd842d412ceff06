"""Embedding spaces: a model, its vectors' indexes, and which of them serves. Changing the model is a swap of spaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ragsvc.core.ids import CollectionId
from ragsvc.core.ports.embedding import EmbeddingModel, Vectors
from ragsvc.core.ports.indexes import Hits, Ids


class Batcher(Protocol):
    """What services ask of the embedding batcher."""

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, in order."""
        ...

    async def embed_query(self, text: str) -> Vectors:
        """The vector ``(dim,)`` of one query."""
        ...


class Indexes(Protocol):
    """What services ask of the index registry; blocking."""

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
        """The document of each passage, -1 for one that is gone."""
        ...

    def vectors(self, collection_id: int, ids: Ids) -> tuple[Ids, Vectors]:
        """Those of ``ids`` that are there, and their vectors."""
        ...

    def is_loaded(self, collection_id: int) -> bool:
        """Whether a search would find the collection's indexes in memory."""
        ...

    def get(self, collection_id: int) -> object:
        """The collection's indexes, loaded now if they are not in memory: seconds where they are large."""
        ...

    def catch_up(self, collection_id: int) -> None:
        """Make the collection's latest commits searchable."""
        ...


class EmbeddingSpace:
    """One model's vectors and indexes. ``model_id`` is the model's row.

    ``prepare`` makes of a passage's embedding text what the model gets; questions are embedded as they are. ``knows``
    tells whether the model knows the words of a text.
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
    """Knows the space that serves.

    A caller takes it once and uses it to the end, so that a query's vector never meets another model's index.
    """

    def __init__(self, serving: EmbeddingSpace) -> None:
        self.serving = serving

    def catch_up(self, collection_id: CollectionId) -> None:
        """Bring the serving indexes up to date; blocking."""
        self.serving.indexes.catch_up(collection_id)
