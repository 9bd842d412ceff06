"""Routing: the providers for a request, in order, and the keys to use with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from ragsvc.core.access.principal import Principal
from ragsvc.core.errors import InvalidRequest, ModelUnavailable, PolicyDenied
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.prices import FREE
from ragsvc.core.gateway.upstream_access import NO_ACCESS, UpstreamAccess
from ragsvc.core.ids import TenantId
from ragsvc.core.ports.model_provider import ModelProvider, ProvidersByUrl
from ragsvc.core.ports.policy import Policy
from ragsvc.services.model_registry import LOCAL_PROVIDER, ModelRegistry, ModelRoute


class Router:
    """Selects the providers for a request. ``key_of`` returns the key of a tenant for a provider, if it has one."""

    def __init__(
        self,
        models: ModelRegistry,
        *,
        policies: Sequence[Policy] = (),
        key_of: Callable[[TenantId, str], str | None] = lambda _tenant, _provider: None,
        providers_by_url: ProvidersByUrl | None = None,
    ) -> None:
        self._models = models
        self._policies = policies
        self._key_of = key_of
        self._providers_by_url = providers_by_url

    async def routes(
        self, principal: Principal, model: str, family: Family, access: UpstreamAccess = NO_ACCESS
    ) -> Sequence[ModelRoute]:
        """The routes to a model for this caller, best first; a key from the request is sent to one provider only.

        Raises:
            PolicyDenied: the rules of the key or a policy deny the request, or the base URL is not allowed.
            ModelNotFound: no provider offers the model for this family.
            InvalidRequest: a provider key for a model that needs none.
            ModelUnavailable: the tenant's own keys for all of the routes cannot be opened.
        """
        self._models.require(principal, model)
        for policy in self._policies:
            if not await policy.allows(principal, model, family):
                raise PolicyDenied(f"Key '{principal.label}' lacks scope for model '{model}'.", param="model")
        if access.base_url is not None:
            return [self._route_by_url(model, access.base_url, access.api_key)]
        routes = self._models.routes(model, family)
        if access.api_key is not None:
            return _with_callers_key(routes, access.api_key)
        usable: list[ModelRoute] = []
        failure: ModelUnavailable | None = None
        for route in routes:
            try:
                usable.append(self._with_tenants_key(principal.tenant, route))
            except ModelUnavailable as error:  # another route may serve the model
                failure = error
        if failure is not None and not usable:
            raise failure
        return usable

    def _route_by_url(self, model: str, base_url: str, api_key: str | None) -> ModelRoute:
        if self._providers_by_url is None:
            raise PolicyDenied("This server accepts no base URLs of providers.", param="X-Provider-Base-URL")
        provider = self._providers_by_url.provider(base_url)
        if api_key is not None:
            provider = provider.with_key(api_key, from_caller=True)
        return ModelRoute(base_url, provider, model, None)

    def _with_tenants_key(self, tenant: TenantId, route: ModelRoute) -> ModelRoute:
        key = self._key_of(tenant, route.provider_name)
        return route if key is None else _without_price(route, route.provider.with_key(key))


def _with_callers_key(routes: Sequence[ModelRoute], key: str) -> list[ModelRoute]:
    name = routes[0].provider_name
    if name == LOCAL_PROVIDER:
        raise InvalidRequest("This model runs on this server and takes no provider key.", param="X-Provider-Key")
    return [
        _without_price(route, route.provider.with_key(key, from_caller=True))
        for route in routes
        if route.provider_name == name
    ]


def _without_price(route: ModelRoute, provider: ModelProvider) -> ModelRoute:
    """The route with a key of the caller or its tenant: the provider bills their account, not the operator's."""
    return msgspec.structs.replace(route, provider=provider, pricing=FREE)
