"""``/v1/vector_stores``: collections as OpenAI's vector stores: create, list, show, change, delete and search them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Request, delete, get, post
from litestar.params import FromPath, FromQuery, QueryParameter

from ragsvc.core.access.principal import Scope
from ragsvc.core.errors import InvalidRequest, RagsvcError
from ragsvc.services.store_files import StoreFileDraft, StoreFileService
from ragsvc.services.vector_stores import StoreDraft, VectorStoreService
from ragsvc.web.app_state import services_of
from ragsvc.web.bodies import read_json
from ragsvc.web.context import principal_of
from ragsvc.web.routes.vector_store_bodies import (
    CreateVectorStore,
    SearchResultsPage,
    SearchVectorStore,
    UpdateVectorStore,
    VectorStoreDeleted,
    VectorStoreList,
    VectorStoreOut,
    search_result_out,
    store_out,
)

_TAG: Final = "vector stores"
_READ: Final = {"scope": Scope.DOCUMENTS_READ, "tag": _TAG}
_WRITE: Final = {"scope": Scope.DOCUMENTS_WRITE, "tag": _TAG}
USAGE_FAMILY = "search"
"""How searches of vector stores are counted in the usage report."""

Limit = Annotated[int, QueryParameter(ge=1, le=100, description="Maximum number of entries")]
_create = msgspec.json.Decoder(CreateVectorStore)
_update = msgspec.json.Decoder(UpdateVectorStore)
_search = msgspec.json.Decoder(SearchVectorStore)


@post(
    "/v1/vector_stores",
    opt={**_WRITE, "body": CreateVectorStore, "body_optional": True, "errors": (404,)},
    status_code=200,
    summary="Create a vector store",
)
async def create_vector_store(request: Request[Any, Any, Any]) -> VectorStoreOut:
    """Create a vector store, which is also a collection, with the files of ``file_ids``."""
    data = await read_json(request, _create) if await request.body() else CreateVectorStore()
    principal = principal_of(request)
    if data.chunking_strategy is not None:
        data.chunking_strategy.check("chunking_strategy")
    drafts = [StoreFileDraft(file_id=file_id) for file_id in data.file_ids or ()]
    stores, files = stores_of(request), store_files_of(request)
    await files.check(principal, drafts)
    store = await stores.create(
        principal,
        StoreDraft(
            name=data.name,
            description=data.description,
            metadata=data.metadata or {},
            expires_after_days=None if data.expires_after is None else data.expires_after.days,
        ),
    )
    if drafts:
        try:
            await files.attach(principal, store.public_id, drafts)
        except RagsvcError:
            await stores.delete(principal, store.public_id)
            raise
        store = await stores.get(principal, store.public_id)
    return store_out(store)


@get("/v1/vector_stores", opt={**_READ, "errors": (404,)}, summary="List vector stores")
async def list_vector_stores(
    request: Request[Any, Any, Any],
    limit: Limit = 20,
    after: FromQuery[str | None] = None,
    before: FromQuery[str | None] = None,
    order: FromQuery[Literal["asc", "desc"]] = "desc",
) -> VectorStoreList:
    """List vector stores, newest first. ``after`` and ``before`` take the id of a vector store."""
    refuse_two_cursors(after, before)
    stores, more = await stores_of(request).list_page(
        principal_of(request), limit=limit, after=after, before=before, descending=order == "desc"
    )
    data = [store_out(store) for store in stores]
    return VectorStoreList(
        data=data, first_id=data[0].id if data else None, last_id=data[-1].id if data else None, has_more=more
    )


@get("/v1/vector_stores/{vector_store_id:str}", opt={**_READ, "errors": (404,)}, summary="Show a vector store")
async def get_vector_store(request: Request[Any, Any, Any], vector_store_id: FromPath[str]) -> VectorStoreOut:
    """Show a vector store with the number of its files by status."""
    return store_out(await stores_of(request).get(principal_of(request), vector_store_id))


@post(
    "/v1/vector_stores/{vector_store_id:str}",
    opt={**_WRITE, "body": UpdateVectorStore, "body_optional": True, "errors": (404,)},
    status_code=200,
    summary="Change a vector store",
)
async def update_vector_store(request: Request[Any, Any, Any], vector_store_id: FromPath[str]) -> VectorStoreOut:
    """Change the name, the metadata or the expiry. The name of the collection in ``/v1/rag`` stays."""
    data = await read_json(request, _update) if await request.body() else UpdateVectorStore()
    values: dict[str, Any] = {"display_name": data.name, "description": data.description, "metadata": data.metadata}
    if data.expires_after is not None:
        values["expires_after_days"] = data.expires_after.days
    given = {name: value for name, value in values.items() if value is not None}
    return store_out(await stores_of(request).change(principal_of(request), vector_store_id, given))


@delete(
    "/v1/vector_stores/{vector_store_id:str}",
    opt={**_WRITE, "errors": (404,)},
    status_code=200,
    summary="Delete a vector store",
)
async def delete_vector_store(request: Request[Any, Any, Any], vector_store_id: FromPath[str]) -> VectorStoreDeleted:
    """Delete a vector store and its collection. Files that were uploaded by themselves stay."""
    await stores_of(request).delete(principal_of(request), vector_store_id)
    return VectorStoreDeleted(id=vector_store_id)


@post(
    "/v1/vector_stores/{vector_store_id:str}/search",
    opt={"scope": Scope.SEARCH, "tag": _TAG, "body": SearchVectorStore, "errors": (404,)},
    status_code=200,
    summary="Search a vector store",
)
async def search_vector_store(request: Request[Any, Any, Any], vector_store_id: FromPath[str]) -> SearchResultsPage:
    """Find passages by one or several queries, best first. A passage that several queries find is listed once."""
    data = await read_json(request, _search)
    principal = principal_of(request)
    queries = data.queries()
    services_of(request).access.count_request(principal, family=USAGE_FAMILY)
    found = await stores_of(request).search(principal, vector_store_id, queries)
    return SearchResultsPage(
        search_query=[query.text for query in queries], data=[search_result_out(passage) for passage in found]
    )


def stores_of(request: Request[Any, Any, Any]) -> VectorStoreService:
    """The vector stores of the application that handles this request."""
    found: VectorStoreService = request.app.state.services.vector_stores
    return found


def store_files_of(request: Request[Any, Any, Any]) -> StoreFileService:
    """The files of vector stores of the application that handles this request."""
    found: StoreFileService = request.app.state.services.store_files
    return found


def refuse_two_cursors(after: str | None, before: str | None) -> None:
    """Refuse a page that is to begin and to end somewhere. Raises ``InvalidRequest``."""
    if after is not None and before is not None:
        raise InvalidRequest("'after' and 'before' cannot be used together.", param="before")


route_handlers: list[Any] = [
    create_vector_store,
    list_vector_stores,
    get_vector_store,
    update_vector_store,
    delete_vector_store,
    search_vector_store,
]
"""All routes of this module."""
