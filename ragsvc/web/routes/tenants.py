"""Admin API ``/v1/tenants``: list, show, limit, delete and export tenants."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, delete, get, patch
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream
from msgspec import UNSET, Meta, UnsetType

from ragsvc.core.access.principal import Scope
from ragsvc.core.errors import Conflict, PolicyDenied
from ragsvc.core.ids import TenantId
from ragsvc.services.tenant_administration import DeletionReport
from ragsvc.services.tenant_export import TenantExport
from ragsvc.store.tenant_rows import TenantHoldings, TenantLimits
from ragsvc.web.bodies import read_json
from ragsvc.web.context import principal_of
from ragsvc.web.openapi import BINARY, DocumentedAnswer
from ragsvc.web.routes.collections import administration_of
from ragsvc.web.tenant_reach import require_tenant

_ADMIN = {"scope": Scope.ADMIN, "tag": "tenants"}
_OWN = {"scope": Scope.TENANT_ADMIN, "tag": "tenants"}
_Number = Annotated[int, Meta(ge=0, le=1 << 53)]
_RemoveCopies = Annotated[
    bool,
    QueryParameter(
        description="Also remove the copies of the database from before upgrades, which hold data of all tenants"
    ),
]


class LimitsBody(msgspec.Struct, frozen=True, kw_only=True):
    """The limits that apply: those set for the tenant, else those of the settings; ``null`` means unlimited."""

    max_collections: int | None
    max_documents: int | None
    max_bytes: int | None


class TenantBody(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant has; ``files`` did not come with a document, ``bytes`` is the size of all its files."""

    object: Literal["tenant"] = "tenant"
    name: str
    keys: int
    collections: int
    documents: int
    files: int
    bytes: int
    limits: LimitsBody


class TenantList(msgspec.Struct, frozen=True, kw_only=True):
    """All tenants in alphabetical order."""

    object: Literal["list"] = "list"
    data: list[TenantBody]


class UpdateTenant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Limits to change; ``null`` returns to the limit of the settings."""

    max_collections: _Number | UnsetType | None = UNSET
    max_documents: _Number | UnsetType | None = UNSET
    max_bytes: _Number | UnsetType | None = UNSET


class TenantDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """The tenant was deleted; ``removed`` counts what belonged to it."""

    object: Literal["tenant.deleted"] = "tenant.deleted"
    name: str
    deleted: bool = True
    removed: DeletionReport


_update = msgspec.json.Decoder(UpdateTenant)


@get("/v1/tenants", opt=_ADMIN, summary="List tenants")
async def list_tenants(request: Request[Any, Any, Any]) -> TenantList:
    """List all tenants with what they have."""
    return TenantList(data=[await _body(request, tenant) for tenant in await administration_of(request).tenants()])


@get("/v1/tenants/{tenant:str}", opt={**_OWN, "errors": (404,)}, summary="Show a tenant")
async def get_tenant(request: Request[Any, Any, Any], tenant: FromPath[str]) -> TenantBody:
    """Show what a tenant has and may have; a tenant administrator sees its own tenant."""
    require_tenant(request, tenant)
    return await _body(request, await administration_of(request).tenant(TenantId(tenant)))


@patch(
    "/v1/tenants/{tenant:str}",
    opt={**_ADMIN, "body": UpdateTenant, "errors": (404,)},
    summary="Change a tenant's limits",
)
async def update_tenant(request: Request[Any, Any, Any], tenant: FromPath[str]) -> TenantBody:
    """Change what a tenant may store. What it has already stays, also beyond a lower limit."""
    body = await read_json(request, _update)
    found = await administration_of(request).tenant(TenantId(tenant))
    changes = {name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not UNSET}
    limits: TenantLimits = msgspec.structs.replace(found.limits, **changes)
    return await _body(request, await administration_of(request).set_limits(TenantId(tenant), limits))


@delete("/v1/tenants/{tenant:str}", opt={**_ADMIN, "errors": (404, 409)}, status_code=200, summary="Delete a tenant")
async def delete_tenant(
    request: Request[Any, Any, Any], tenant: FromPath[str], *, remove_copies: _RemoveCopies = False
) -> TenantDeleted:
    """Delete a tenant: keys, usage, documents, files, vectors and words; the answer says what was removed."""
    if principal_of(request).tenant == tenant and Scope.ADMIN in principal_of(request).scopes:
        _refuse_own(request, tenant)
    removed = await administration_of(request).delete_tenant(TenantId(tenant), remove_copies=remove_copies)
    return TenantDeleted(name=tenant, removed=removed)


@get(
    "/v1/tenants/{tenant:str}/export",
    opt={
        **_OWN,
        "errors": (404,),
        "answers": {
            200: DocumentedAnswer("A tar archive of files, metadata, keys and usage.", {"application/x-tar": BINARY})
        },
    },
    summary="Export a tenant",
)
async def export_tenant(request: Request[Any, Any, Any], tenant: FromPath[str]) -> Stream:
    """Download everything of a tenant as a tar archive; keys without their secrets."""
    require_tenant(request, tenant)
    if principal_of(request).allowed_collections:
        raise PolicyDenied("A key that is limited to collections cannot export a tenant.")
    name = TenantId(tenant)
    export: TenantExport = request.app.state.services.export
    await administration_of(request).tenant(name)
    headers = {"content-disposition": f'attachment; filename="{tenant}.tar"', "cache-control": "no-store"}
    return Stream(export.chunks(name), media_type="application/x-tar", headers=headers)


def _refuse_own(request: Request[Any, Any, Any], tenant: str) -> None:
    """Refuse to delete the tenant of the key in use. A command on the data directory has no stored key."""
    if principal_of(request).key_id != "key_local":
        raise Conflict(f"The key in use belongs to the tenant '{tenant}'. Use a key of another tenant.")


async def _body(request: Request[Any, Any, Any], tenant: TenantHoldings) -> TenantBody:
    limits = await administration_of(request).limits(TenantId(tenant.name))
    return TenantBody(
        name=tenant.name,
        keys=tenant.keys,
        collections=tenant.collections,
        documents=tenant.documents,
        files=tenant.files,
        bytes=tenant.size_bytes,
        limits=LimitsBody(**msgspec.structs.asdict(limits)),
    )


route_handlers: list[Any] = [list_tenants, get_tenant, update_tenant, delete_tenant, export_tenant]
"""All routes of this module."""
