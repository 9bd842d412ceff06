"""The port of retrieval."""

from __future__ import annotations

from typing import Protocol

from ragsvc.core.ids import TenantId
from ragsvc.core.retrieval.search import SearchQuery, SearchResult


class Searcher(Protocol):
    """Retrieval as the services of answers and the routes use it."""

    async def search(self, tenant: TenantId, query: SearchQuery) -> SearchResult:
        """Find passages in a collection of the tenant.

        Raises:
            CollectionNotFound: the tenant has no such collection.
            DocumentNotFound: the tenant has no document with one of the ``document_ids``.
            Overloaded: the embedding queue is full.
        """
        ...
