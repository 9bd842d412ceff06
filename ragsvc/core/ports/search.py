"""The port of retrieval, as answering uses it."""

from __future__ import annotations

from typing import Protocol

from ragsvc.core.ids import TenantId
from ragsvc.core.retrieval.search import SearchQuery, SearchResult


class Searcher(Protocol):
    """What answering asks of retrieval."""

    async def search(self, tenant: TenantId, query: SearchQuery) -> SearchResult:
        """Find passages of this tenant's collection.

        Raises:
            CollectionNotFound: the tenant has no such collection.
            DocumentNotFound: one of ``document_ids`` is not the tenant's.
            Overloaded: the embedding queue is full.
        """
        ...
