"""``/v1/rag/collections``: create, list, show and delete the collections of a tenant."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote_to_bytes

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.params import FromPath, QueryParameter

from ragsvc.core.access.principal import Scope, allows_collection, require_collection
from ragsvc.core.defaults import MAX_COLLECTION_NAME_LENGTH
from ragsvc.core.errors import CollectionNotFound
from ragsvc.core.validation import check_collection_name, check_not_blank
from ragsvc.services.tenant_administration import DeletionReport, TenantAdministration
from ragsvc.store.tenant_rows import CollectionHoldings
from ragsvc.web.app_state import services_of
from ragsvc.web.bodies import read_json
from ragsvc.web.context import principal_of
from ragsvc.web.openapi import DocumentedAnswer

_OnlyIfEmpty = Annotated[bool, QueryParameter(description="Refuse a collection that has documents (409)")]


class CollectionBody(msgspec.Struct, frozen=True, kw_only=True):
    """A collection: its documents, those of them that are ready, their passages, and the bytes of their files."""

    object: Literal["collection"] = "collection"
    name: str
    documents: int
    ready: int
    passages: int
    bytes: int
    created_at: int


class CollectionList(msgspec.Struct, frozen=True, kw_only=True):
    """All collections that the key may use, in alphabetical order."""

    object: Literal["list"] = "list"
    data: list[CollectionBody]


class CollectionDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """The collection was deleted; ``removed`` counts what belonged to it."""

    object: Literal["collection.deleted"] = "collection.deleted"
    name: str
    deleted: bool = True
    removed: DeletionReport


class NewCollection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A collection to create."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_COLLECTION_NAME_LENGTH, examples=["reports"])]


_new = msgspec.json.Decoder(NewCollection)
_PATH: Final = b"/v1/rag/collections/"


@post(
    "/v1/rag/collections",
    opt={
        "scope": Scope.DOCUMENTS_WRITE,
        "tag": "collections",
        "body": NewCollection,
        "answers": {
            200: DocumentedAnswer("The tenant has a collection of this name already.", CollectionBody),
            201: DocumentedAnswer("Created, without documents.", CollectionBody),
        },
    },
    status_code=201,
    summary="Create a collection",
)
async def create_collection(request: Request[Any, Any, Any]) -> Response[CollectionBody]:
    """Create an empty collection. An upload that names a collection creates it too."""
    principal = principal_of(request)
    name = (await read_json(request, _new)).name
    check_not_blank("name", name)
    check_collection_name("name", name)
    require_collection(principal, name)
    access = services_of(request).access
    holdings, created = await administration_of(request).create_collection(
        principal.tenant, name, require_caller=lambda connection: access.require_key(connection, principal.key_id)
    )
    return Response(_body(holdings), status_code=201 if created else 200)


@get("/v1/rag/collections", opt={"scope": Scope.DOCUMENTS_READ, "tag": "collections"}, summary="List collections")
async def list_collections(request: Request[Any, Any, Any]) -> CollectionList:
    """List the collections of the tenant with the number of their documents."""
    principal = principal_of(request)
    found = await administration_of(request).collections(principal.tenant)
    return CollectionList(data=[_body(entry) for entry in found if allows_collection(principal, entry.name)])


@get(
    "/v1/rag/collections/{name:path}",
    opt={"scope": Scope.DOCUMENTS_READ, "tag": "collections", "errors": (404,)},
    summary="Show a collection",
)
async def get_collection(request: Request[Any, Any, Any], name: FromPath[str]) -> CollectionBody:
    """Show a collection with the number of its documents."""
    principal = principal_of(request)
    return _body(await administration_of(request).collection(principal.tenant, _allowed(request)))


@delete(
    "/v1/rag/collections/{name:path}",
    opt={"scope": Scope.DOCUMENTS_WRITE, "tag": "collections", "errors": (404, 409)},
    status_code=200,
    summary="Delete a collection",
)
async def delete_collection(
    request: Request[Any, Any, Any],
    name: FromPath[str],
    *,
    only_if_empty: _OnlyIfEmpty = False,
) -> CollectionDeleted:
    """Delete a collection with its documents, files, vectors and word index; the answer says what was removed."""
    principal = principal_of(request)
    wanted = _allowed(request)
    removed = await administration_of(request).delete_collection(principal.tenant, wanted, only_if_empty=only_if_empty)
    return CollectionDeleted(name=wanted, removed=removed)


def administration_of(request: Request[Any, Any, Any]) -> TenantAdministration:
    """The administration of tenants and collections of the application that handles this request."""
    found: TenantAdministration = request.app.state.services.tenants
    return found


def _allowed(request: Request[Any, Any, Any]) -> str:
    """The name in the path, if the key may use the collection.

    A name may contain slashes anywhere. The router's parameter lacks those at its ends and doubled ones: it would be
    the name of another collection.
    """
    name = unquote_to_bytes(request.scope["raw_path"].partition(_PATH)[2]).decode(errors="replace")
    if not allows_collection(principal_of(request), name):
        raise CollectionNotFound(f"There is no collection '{name}'.", param="collection")
    return name


def _body(entry: CollectionHoldings) -> CollectionBody:
    return CollectionBody(
        name=entry.name,
        documents=entry.documents,
        ready=entry.ready,
        passages=entry.passages,
        bytes=entry.size_bytes,
        created_at=entry.created_at,
    )


route_handlers: list[Any] = [create_collection, list_collections, get_collection, delete_collection]
"""All routes of this module."""
