"""``POST /v1/rag/search``: passages with scores, without asking a model."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, post

from ragsvc.core.access import Scope
from ragsvc.core.filters import parse_filter
from ragsvc.core.retrieval import Searcher, SearchQuery
from ragsvc.web.bodies import read_json
from ragsvc.web.context import principal_of
from ragsvc.web.wire import SearchRequest, SearchResponse, hit_out

_request = msgspec.json.Decoder(SearchRequest)


@post(
    "/v1/rag/search",
    opt={"scope": Scope.SEARCH, "tag": "search", "body": SearchRequest, "errors": (404,)},
    status_code=200,
    summary="Search passages",
)
async def search_passages(request: Request[Any, Any, Any]) -> SearchResponse:
    """Find passages by meaning and by words. Scores are 0..1: comparable within one answer, best first."""
    data = await read_json(request, _request)
    searcher: Searcher = request.app.state.services.search
    result = await searcher.search(
        principal_of(request).tenant,
        SearchQuery(
            text=data.query,
            collection=data.collection,
            document_ids=data.document_ids,
            filters=None if data.filters is None else parse_filter(data.filters),
            top_k=data.top_k,
            mode=data.mode,
            min_score=data.min_score,
            rerank=data.rerank,
        ),
    )
    return SearchResponse(
        data=[hit_out(hit) for hit in result.hits], answerable=result.answerable, timings_ms=result.timings_ms
    )


route_handlers: list[Any] = [search_passages]
"""All routes of this module."""
