"""Admin API ``/v1/providers``: who serves models, how they do, and tenants' own keys for them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol, cast

import msgspec
from litestar import Request, Response, delete, get, patch, post, put
from litestar.params import FromPath, FromQuery
from msgspec import Meta

from ragsvc.core.access.principal import Scope
from ragsvc.core.errors import InvalidRequest
from ragsvc.core.gateway.circuit_breaker import Circuit
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.provider_settings import ModelSettings, ProviderSettings
from ragsvc.core.ids import TenantId
from ragsvc.services.provider_administration import ProviderAdministration, ProviderTest, ProviderView, TenantKey
from ragsvc.web.bodies import read_json
from ragsvc.web.context import principal_of

AnyRequest = Request[Any, Any, Any]


class ProviderServices(Protocol):
    """The part of the composed services that these routes use."""

    @property
    def providers(self) -> ProviderAdministration: ...


class ProviderBody(msgspec.Struct, frozen=True, kw_only=True):
    """A provider as shown: no key, and of its headers the names only; ``open``: it is left alone for now."""

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


class ProviderList(msgspec.Struct, frozen=True, kw_only=True):
    """All providers, those of the settings file first."""

    object: Literal["list"] = "list"
    data: list[ProviderBody]


class DeletedProvider(msgspec.Struct, frozen=True, kw_only=True):
    """The provider, or the key, is gone."""

    id: str
    object: Literal["provider.deleted", "provider_key.deleted"] = "provider.deleted"
    deleted: bool = True


class SetProviderKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tenant's own key for a provider; the caller's tenant unless another is named."""

    api_key: Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"^[!-~]+$")]
    tenant: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = None


class ProviderKeyList(msgspec.Struct, frozen=True, kw_only=True):
    """Which tenants have a key of their own."""

    object: Literal["list"] = "list"
    data: list[TenantKey]


_create = msgspec.json.Decoder(ProviderSettings)
_update = msgspec.json.Decoder(dict[str, Any])
_set_key = msgspec.json.Decoder(SetProviderKey)
_OPT: dict[str, Any] = {"scope": Scope.ADMIN, "tag": "providers"}
_FIELDS: dict[str, Any] = {"application/json": {"type": "object", "description": "Fields of a provider to change"}}


def _service(request: AnyRequest) -> ProviderAdministration:
    return cast("ProviderServices", request.app.state["services"]).providers


@post("/v1/providers", opt={**_OPT, "body": ProviderSettings, "errors": (409,)}, summary="Add a provider")
async def create_provider(request: AnyRequest) -> Response[ProviderBody]:
    """Add a provider; its key is stored encrypted and shown nowhere."""
    view = await _service(request).create(_checked(await read_json(request, _create)))
    return Response(_show(view), status_code=201, headers={"location": f"/v1/providers/{view.settings.name}"})


@get("/v1/providers", opt=_OPT, summary="List providers")
async def list_providers(request: AnyRequest) -> ProviderList:
    """All providers with their state."""
    return ProviderList(data=[_show(view) for view in _service(request).views()])


@get("/v1/providers/{name:str}", opt=_OPT, summary="Show a provider")
async def get_provider(request: AnyRequest, name: FromPath[str]) -> ProviderBody:
    """One provider with its state."""
    return _show(_service(request).view(name))


@patch("/v1/providers/{name:str}", opt={**_OPT, "body": _FIELDS, "errors": (409,)}, summary="Change a provider")
async def update_provider(request: AnyRequest, name: FromPath[str]) -> ProviderBody:
    """Change fields of a provider that was added here; it holds from the next request on."""
    change = await read_json(request, _update)
    return _show(await _service(request).update(name, change))


@delete("/v1/providers/{name:str}", opt={**_OPT, "errors": (409,)}, status_code=200, summary="Remove a provider")
async def delete_provider(request: AnyRequest, name: FromPath[str]) -> DeletedProvider:
    """Remove a provider that was added here, with all keys for it."""
    await _service(request).delete(name)
    return DeletedProvider(id=name)


@post("/v1/providers/{name:str}/test", opt=_OPT, status_code=200, summary="Try a provider")
async def check_provider(request: AnyRequest, name: FromPath[str]) -> ProviderTest:
    """Ask the provider for its models with the stored key."""
    return await _service(request).test(name)


@put("/v1/providers/{name:str}/key", opt={**_OPT, "body": SetProviderKey}, summary="Store a tenant's key")
async def set_provider_key(request: AnyRequest, name: FromPath[str]) -> TenantKey:
    """Store a tenant's own key for the provider, encrypted, in place of the operator's."""
    wish = await read_json(request, _set_key)
    tenant = TenantId(wish.tenant or principal_of(request).tenant)
    return await _service(request).set_key(tenant, name, wish.api_key)


@get("/v1/providers/{name:str}/keys", opt=_OPT, summary="List tenants with a key of their own")
async def list_provider_keys(request: AnyRequest, name: FromPath[str]) -> ProviderKeyList:
    """Which tenants have a key of their own for the provider."""
    return ProviderKeyList(data=_service(request).keys(name))


@delete("/v1/providers/{name:str}/key", opt=_OPT, status_code=200, summary="Remove a tenant's key")
async def delete_provider_key(
    request: AnyRequest, name: FromPath[str], tenant: FromQuery[str | None] = None
) -> DeletedProvider:
    """Remove a tenant's own key; the operator's is used again."""
    await _service(request).drop_key(TenantId(tenant or principal_of(request).tenant), name)
    return DeletedProvider(id=name, object="provider_key.deleted")


def _checked(settings: ProviderSettings) -> ProviderSettings:
    if any(not value.isprintable() or not value.isascii() for value in (settings.api_key, *settings.headers.values())):
        raise InvalidRequest("A key or header has characters that cannot be sent.", param="api_key")
    return settings


def _show(view: ProviderView) -> ProviderBody:
    one = view.settings
    return ProviderBody(
        name=one.name,
        source=view.source,
        base_url=one.base_url,
        has_api_key=bool(one.api_key),
        header_names=sorted(one.headers),
        models=list(one.models),
        families=list(one.families),
        fallback=list(one.fallback),
        connect_timeout_s=one.connect_timeout_s,
        read_timeout_s=one.read_timeout_s,
        total_timeout_s=one.total_timeout_s,
        retries=one.retries,
        max_concurrency=one.max_concurrency,
        max_waiting=one.max_waiting,
        circuit=view.circuit,
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
]
"""All routes of this module."""
