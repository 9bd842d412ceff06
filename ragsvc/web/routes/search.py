"""``POST /v1/rag/search``: passages with scores, without a chat model."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
import msgspec
from litestar import Request, post
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope

from ragsvc.core.access.principal import Scope as KeyScope
from ragsvc.core.access.principal import require_collection
from ragsvc.core.ports.searcher import Searcher
from ragsvc.core.retrieval.explanations import words_to_find
from ragsvc.core.retrieval.filters import parse_filter
from ragsvc.core.retrieval.search_values import SearchQuery, SearchResult
from ragsvc.core.validation import decode_json
from ragsvc.services.access_control import Access
from ragsvc.web.bodies import read_body
from ragsvc.web.context import context_of
from ragsvc.web.disconnects import DisconnectWatcher
from ragsvc.web.openapi import DocumentedAnswer
from ragsvc.web.passthrough.raw_responses import ClientGone, JsonBytes
from ragsvc.web.routes.schemas import SearchRequest, SearchResponse, hit_out

USAGE_FAMILY = "search"
"""How searches are counted in the usage report; those for chats are part of the chat."""

_request = msgspec.json.Decoder(SearchRequest)


async def answer_search(scope: Scope, receive: Receive) -> ASGIResponse:
    """Answer an admitted search request."""
    context = context_of(scope)
    body = await read_body(receive, context.body_limit)
    if body is None:
        return ClientGone()
    data = decode_json(body, _request)
    require_collection(context.principal, data.collection)
    services = scope["litestar_app"].state["services"]
    searcher: Searcher = services.search
    access: Access = services.access
    access.count_request(context.principal, family=USAGE_FAMILY)
    with DisconnectWatcher(receive):
        result = await searcher.search(
            context.principal.tenant,
            SearchQuery(
                text=data.query,
                collection=data.collection,
                document_ids=data.document_ids,
                filters=None if data.filters is None else parse_filter(data.filters),
                top_k=data.top_k,
                mode=data.mode,
                min_score=data.min_score,
                rerank=data.rerank,
                explain=data.explain,
            ),
        )
        if data.explain:  # comparing a hundred passages with the words of the query takes tens of milliseconds
            return JsonBytes(await anyio.to_thread.run_sync(_encoded, result, data.query))
        return JsonBytes(_encoded(result, None))
    return ClientGone()


def _encoded(result: SearchResult, explained: str | None) -> bytes:
    """The response, with explanations if the query is given."""
    asked = None if explained is None else words_to_find(explained)
    response = SearchResponse(
        data=[hit_out(hit, explained=asked) for hit in result.hits],
        answerable=result.answerable,
        timings_ms=result.timings_ms,
    )
    return msgspec.json.encode(response)


@post(
    "/v1/rag/search",
    opt={
        "scope": KeyScope.SEARCH,
        "raw": answer_search,
        "tag": "search",
        "body": SearchRequest,
        "answers": {200: DocumentedAnswer("Passages, best first.", SearchResponse)},
        "errors": (404,),
    },
    status_code=200,
    summary="Search passages",
    operation_id="V1RagSearchSearchPassages",
)
async def search_documents(request: Request[Any, Any, Any]) -> ASGIResponse:
    """Find passages by meaning and by words, best first. Scores (0..1) are comparable within a response only."""
    return await answer_search(request.scope, request.receive)


route_handlers: list[Any] = [search_documents]
"""All routes of this module."""
