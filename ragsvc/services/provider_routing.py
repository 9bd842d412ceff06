"""From a caller and a model's name to the providers to ask, with the credentials to ask them with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from ragsvc.core.access.principal import Principal, require_model
from ragsvc.core.errors import InvalidRequest, PolicyDenied
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.upstream_access import NO_ACCESS, UpstreamAccess
from ragsvc.core.ids import TenantId
from ragsvc.core.ports.model_provider import ModelProvider
from ragsvc.services.model_registry import LOCAL_PROVIDER, ModelRegistry, ModelRoute

_UNKNOWN_CONTEXT_TOKENS = 8192


class Policy(Protocol):
    """A rule beyond those of the key itself."""

    async def allows(self, principal: Principal, model: str, family: Family) -> bool:
        """Whether the key may use the model for requests of the family. Raises ``ModelUnavailable`` if unknown."""
        ...


class DirectProviders(Protocol):
    """Providers that a request names by their address."""

    def provider(self, base_url: str) -> ModelProvider:
        """The provider at an address. Raises ``PolicyDenied`` for one that is not allowed."""
        ...


class Router:
    """Decides who answers. ``key_of`` gives a tenant's own key for a provider, if it stored one."""

    def __init__(
        self,
        models: ModelRegistry,
        *,
        policies: Sequence[Policy] = (),
        key_of: Callable[[TenantId, str], str | None] = lambda _tenant, _provider: None,
        direct: DirectProviders | None = None,
    ) -> None:
        self._models = models
        self._policies = policies
        self._key_of = key_of
        self._direct = direct

    async def routes(
        self, principal: Principal, model: str, family: Family, access: UpstreamAccess = NO_ACCESS
    ) -> Sequence[ModelRoute]:
        """The ways to a model for this caller, best first; a caller's own credentials go to one provider only.

        Raises:
            PolicyDenied: the key's rules or a policy say no, or the address may not be called.
            ModelNotFound: nobody offers the model for this family.
            InvalidRequest: credentials for a model that needs none.
        """
        require_model(principal, model)
        for policy in self._policies:
            if not await policy.allows(principal, model, family):
                raise PolicyDenied(f"Key '{principal.label}' lacks scope for model '{model}'.", param="model")
        if access.base_url is not None:
            return [self._direct_route(model, access.base_url, access.api_key)]
        routes = self._models.routes(model, family)
        if access.api_key is not None:
            return _with_callers_key(routes, access.api_key)
        return [self._with_tenants_key(principal.tenant, route) for route in routes]

    def _direct_route(self, model: str, base_url: str, api_key: str | None) -> ModelRoute:
        if self._direct is None:
            raise PolicyDenied("Requests may not name a provider's address here.", param="X-Provider-Base-URL")
        provider = self._direct.provider(base_url)
        if api_key is not None:
            provider = provider.with_key(api_key, callers=True)
        return ModelRoute(base_url, provider, model, _UNKNOWN_CONTEXT_TOKENS)

    def _with_tenants_key(self, tenant: TenantId, route: ModelRoute) -> ModelRoute:
        key = self._key_of(tenant, route.provider_name)
        return route if key is None else msgspec.structs.replace(route, provider=route.provider.with_key(key))


def _with_callers_key(routes: Sequence[ModelRoute], key: str) -> list[ModelRoute]:
    name = routes[0].provider_name
    if name == LOCAL_PROVIDER:
        raise InvalidRequest("This model is served here and needs no provider's key.", param="X-Provider-Key")
    return [
        msgspec.structs.replace(route, provider=route.provider.with_key(key, callers=True))
        for route in routes
        if route.provider_name == name
    ]
