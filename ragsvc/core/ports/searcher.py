"""The port ``Searcher``: retrieval for services and routes."""

from __future__ import annotations

from typing import Protocol

from ragsvc.core.ids import TenantId
from ragsvc.core.retrieval.search_values import SearchQuery, SearchResult


class Searcher(Protocol):
    """Searches the documents of a tenant."""

    async def search(self, tenant: TenantId, query: SearchQuery) -> SearchResult:
        """Find passages in a collection of the tenant.

        Raises:
            CollectionNotFound: the tenant has no such collection.
            DocumentNotFound: the tenant has no document with one of the ``document_ids``.
            Overloaded: the embedding queue is full.
        """
        ...

    async def check(self, tenant: TenantId, query: SearchQuery) -> None:
        """Raise ``CollectionNotFound`` or ``DocumentNotFound`` as a search would."""
        ...
