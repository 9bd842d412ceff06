"""Admin API ``/v1/providers``: providers of models, their state, and keys of tenants for them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol, cast

import msgspec
from litestar import Request, Response, delete, get, patch, post, put
from litestar.params import FromPath, FromQuery
from msgspec import Meta

from ragsvc.core.access.principal import Scope
from ragsvc.core.gateway.circuit_breaker import Circuit, worst_circuit
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.provider_settings import ModelSettings, ProviderSettings, with_model_objects
from ragsvc.core.ids import END_OF_TEXT, TenantId
from ragsvc.core.validation import check_nesting, invalid_field, invalid_value
from ragsvc.services.key_administration import Actor
from ragsvc.services.provider_administration import (
    DisabledProvider,
    ProviderAdministration,
    ProviderKeyState,
    ProviderTest,
    ProviderView,
    TenantKey,
)
from ragsvc.web.bodies import read_json
from ragsvc.web.context import context_of, principal_of
from ragsvc.web.idempotent_requests import idempotent_request
from ragsvc.web.tenant_reach import own_tenant, require_tenant

AnyRequest = Request[Any, Any, Any]


class ProviderServices(Protocol):
    """The services that these routes use."""

    @property
    def providers(self) -> ProviderAdministration: ...


class ProviderBody(msgspec.Struct, frozen=True, kw_only=True):
    """A provider, without its key and its header values.

    It gets no requests of an endpoint family whose circuit breaker in ``circuits`` is ``open``; ``circuit`` is the
    worst state.
    """

    name: str
    object: Literal["provider"] = "provider"
    source: Literal["config", "api"]
    base_url: str
    has_api_key: bool
    header_names: list[str]
    models: list[ModelSettings]
    families: list[Family]
    fallback: list[str]
    connect_timeout_s: float
    read_timeout_s: float
    total_timeout_s: float
    retries: int
    max_concurrency: int
    max_waiting: int
    circuit: Circuit
    circuits: dict[Family, Circuit]


class ProviderList(msgspec.Struct, frozen=True, kw_only=True):
    """All providers, those of the settings file first; ``disabled`` are stored ones that cannot be used."""

    object: Literal["list"] = "list"
    data: list[ProviderBody]
    disabled: list[DisabledProvider]


class DeletedProvider(msgspec.Struct, frozen=True, kw_only=True):
    """The provider, or the key for it, was deleted."""

    id: str
    object: Literal["provider.deleted", "provider_key.deleted"] = "provider.deleted"
    deleted: bool = True


class SetProviderKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The key of a tenant for a provider; without ``tenant`` for the tenant of the caller."""

    api_key: Annotated[str, Meta(min_length=1, max_length=4096, pattern=rf"^[!-~]+{END_OF_TEXT}")]
    tenant: Annotated[str, Meta(pattern=rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,63}}{END_OF_TEXT}")] | None = None


class ProviderKeyList(msgspec.Struct, frozen=True, kw_only=True):
    """The tenants that have a key for the provider."""

    object: Literal["list"] = "list"
    data: list[TenantKey]


class ProviderKeyStates(msgspec.Struct, frozen=True, kw_only=True):
    """All providers, and whether the tenant has a key for them."""

    object: Literal["list"] = "list"
    data: list[ProviderKeyState]


_fields = msgspec.json.Decoder(dict[str, Any])
_set_key = msgspec.json.Decoder(SetProviderKey)
_OPT: dict[str, Any] = {"scope": Scope.ADMIN, "tag": "providers"}
_KEYS: dict[str, Any] = {"scope": Scope.TENANT_ADMIN, "tag": "providers"}
_FIELDS: dict[str, Any] = {"application/json": {"type": "object", "description": "Fields of a provider to change"}}


def _service(request: AnyRequest) -> ProviderAdministration:
    return cast("ProviderServices", request.app.state["services"]).providers


@post(
    "/v1/providers",
    opt={**_OPT, "body": ProviderSettings, "idempotent": True, "errors": (409,)},
    summary="Add a provider",
)
async def create_provider(request: AnyRequest) -> Response[ProviderBody]:
    """Add a provider; its key is stored encrypted and never shown. A model may be given as a plain name."""
    fields = await read_json(request, _fields)
    check_nesting("body", fields)
    if "api_key_env" in fields:
        raise invalid_value("api_key_env", "Only the settings file names a variable; send the key as `api_key`")
    try:
        settings = msgspec.convert(with_model_objects(fields), ProviderSettings)
    except msgspec.ValidationError as error:
        raise invalid_field(error) from error
    repeated = idempotent_request(request, await request.body())
    view = await _service(request).create(settings, request=repeated)
    return Response(_show(view), status_code=201, headers={"location": f"/v1/providers/{view.settings.name}"})


@get("/v1/providers", opt=_OPT, summary="List providers")
async def list_providers(request: AnyRequest) -> ProviderList:
    """List all providers with their state."""
    service = _service(request)
    return ProviderList(data=[_show(view) for view in service.views()], disabled=service.disabled())


@get("/v1/providers/{name:str}", opt=_OPT, summary="Show a provider")
async def get_provider(request: AnyRequest, name: FromPath[str]) -> ProviderBody:
    """Show a provider with its state."""
    return _show(_service(request).view(name))


@patch("/v1/providers/{name:str}", opt={**_OPT, "body": _FIELDS, "errors": (409,)}, summary="Change a provider")
async def update_provider(request: AnyRequest, name: FromPath[str]) -> ProviderBody:
    """Change fields of a provider that was added by this API; the change applies from the next request on."""
    change = await read_json(request, _fields)
    check_nesting("body", change)
    return _show(await _service(request).update(name, change))


@delete("/v1/providers/{name:str}", opt={**_OPT, "errors": (409,)}, status_code=200, summary="Remove a provider")
async def delete_provider(request: AnyRequest, name: FromPath[str]) -> DeletedProvider:
    """Remove a provider that was added by this API, with all keys for it."""
    await _service(request).delete(name)
    return DeletedProvider(id=name)


@post("/v1/providers/{name:str}/test", opt=_OPT, status_code=200, summary="Test a provider")
async def check_provider(request: AnyRequest, name: FromPath[str]) -> ProviderTest:
    """Request the models of the provider with the stored key."""
    return await _service(request).test(name)


@put(
    "/v1/providers/{name:str}/key",
    opt={**_KEYS, "body": SetProviderKey, "errors": (409,)},
    summary="Store the key of a tenant",
)
async def set_provider_key(request: AnyRequest, name: FromPath[str]) -> TenantKey:
    """Store a key for the provider that requests of the tenant use instead of the operator's key.

    A tenant administrator stores keys of its own tenant.
    """
    body = await read_json(request, _set_key)
    tenant = _reached(request, body.tenant)
    return await _service(request).set_key(tenant, name, body.api_key, actor=_actor(request))


@get("/v1/providers/{name:str}/keys", opt=_KEYS, summary="List tenants with a key for a provider")
async def list_provider_keys(request: AnyRequest, name: FromPath[str]) -> ProviderKeyList:
    """List the tenants that have a key for the provider; a tenant administrator sees its own tenant."""
    own = own_tenant(request)
    return ProviderKeyList(data=[key for key in _service(request).keys(name) if own is None or key.tenant == own])


@delete("/v1/providers/{name:str}/key", opt=_KEYS, status_code=200, summary="Remove the key of a tenant")
async def delete_provider_key(
    request: AnyRequest, name: FromPath[str], tenant: FromQuery[str | None] = None
) -> DeletedProvider:
    """Remove the key of a tenant; its requests use the operator's key again."""
    await _service(request).drop_key(_reached(request, tenant), name, actor=_actor(request))
    return DeletedProvider(id=name, object="provider_key.deleted")


@get("/v1/provider_keys", opt=_KEYS, summary="List the providers' keys of a tenant")
async def list_keys_of_tenant(request: AnyRequest, tenant: FromQuery[str | None] = None) -> ProviderKeyStates:
    """List all providers, and whether the tenant has a key for them; without ``tenant`` for that of the caller."""
    return ProviderKeyStates(data=_service(request).keys_of(_reached(request, tenant)))


def _reached(request: AnyRequest, tenant: str | None) -> TenantId:
    """The named tenant, or the caller's. Raises ``PolicyDenied`` if the caller does not reach it."""
    wanted = TenantId(tenant or principal_of(request).tenant)
    require_tenant(request, wanted)
    return wanted


def _actor(request: AnyRequest) -> Actor:
    return Actor(principal_of(request).key_id, context_of(request.scope).request_id)


def _show(view: ProviderView) -> ProviderBody:
    settings = view.settings
    return ProviderBody(
        name=settings.name,
        source=view.source,
        base_url=settings.base_url,
        has_api_key=bool(settings.api_key),
        header_names=sorted(settings.headers),
        models=list(settings.models),
        families=list(settings.families),
        fallback=list(settings.fallback),
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        total_timeout_s=settings.total_timeout_s,
        retries=settings.retries,
        max_concurrency=settings.max_concurrency,
        max_waiting=settings.max_waiting,
        circuit=worst_circuit(view.circuits.values()),
        circuits=view.circuits,
    )


route_handlers = [
    create_provider,
    list_providers,
    get_provider,
    update_provider,
    delete_provider,
    check_provider,
    set_provider_key,
    list_provider_keys,
    delete_provider_key,
    list_keys_of_tenant,
]
"""All routes of this module."""
