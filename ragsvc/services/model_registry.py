"""Which model names there are, who serves each, and who stands in when that one cannot."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from fnmatch import fnmatchcase, translate
from typing import Final, Literal, TypeVar, cast

import msgspec

from ragsvc.core.access.principal import Principal, allows_model, require_model
from ragsvc.core.errors import (
    ConfigurationError,
    ModelNotFound,
    ModelUnavailable,
    Overloaded,
    RagsvcError,
    UpstreamFailed,
    UpstreamTimeout,
)
from ragsvc.core.gateway.circuit_breaker import Circuit
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.provider_settings import LOCAL_MODEL, ModelSettings, Pricing, ProviderSettings
from ragsvc.core.ports.model_provider import ModelProvider

T = TypeVar("T")
LOCAL_PROVIDER: Final = "local"
_PASSED_ON: Final = (ModelUnavailable, UpstreamFailed, UpstreamTimeout, Overloaded)


class ModelRoute(msgspec.Struct, frozen=True):
    """One way to a model: the provider, its own name for the model, and how much it reads at once.

    ``context_tokens`` is ``None`` for a backend that takes the evidence itself and needs no prompt.
    """

    provider_name: str
    provider: ModelProvider
    upstream_model: str
    context_tokens: int | None
    pricing: Pricing = Pricing()
    families: frozenset[Family] | None = None
    """What can be asked of it; ``None``: anything."""

    def serves(self, family: Family) -> bool:
        """Whether the model answers requests of a family there."""
        return self.families is None or family in self.families


class LocalModel(msgspec.Struct, frozen=True):
    """A model that this process serves itself, besides the chat model."""

    name: str
    provider: ModelProvider
    families: frozenset[Family]
    context_tokens: int | None = None
    """How much a chat model reads; ``None``: it takes the evidence itself, or does not chat."""


class ModelCard(msgspec.Struct, frozen=True):
    """A model in ``GET /v1/models``; prices are for 1,000 tokens, ``available`` tells whether its provider is asked."""

    id: str
    created: int
    owned_by: str
    pricing: Pricing
    available: bool = True
    object: Literal["model"] = "model"


class ModelRegistry:
    """The registry: exact name, then alias, then ``provider/model``, then patterns in the order of the settings."""

    def __init__(
        self,
        settings: Sequence[ProviderSettings],
        providers: Mapping[str, ModelProvider],
        *,
        local: ModelProvider | None = None,
        local_models: Sequence[LocalModel] = (),
        created: int,
    ) -> None:
        self._local = local
        self._local_models = tuple(local_models)
        self._created = created
        self.change(settings, providers)

    def check(self, settings: Sequence[ProviderSettings]) -> None:
        """Find contradictions. Raises ``ConfigurationError``."""
        unasked = {one.name: cast("ModelProvider", None) for one in settings}  # nobody is asked
        ModelRegistry(settings, unasked, local=self._local, local_models=self._local_models, created=0)

    def change(self, settings: Sequence[ProviderSettings], providers: Mapping[str, ModelProvider]) -> None:
        """Know other providers from now on. Raises ``ConfigurationError``; ``check`` before, to keep what is known."""
        local = self._local
        self._settings = {one.name: one for one in settings}
        self._providers = dict(providers)
        self._exact: dict[str, tuple[str, ModelSettings]] = {}
        self._aliases: dict[str, tuple[str, ModelSettings]] = {}
        self._patterns: list[tuple[re.Pattern[str], str, ModelSettings]] = []
        self._routes: dict[str, list[ModelRoute]] = {}
        self._local_routes: list[ModelRoute] = []
        if local is not None:
            self._providers[LOCAL_PROVIDER] = local
            self._local_routes = [_local_route(LocalModel(LOCAL_MODEL, local, frozenset({Family.CHAT})))]
            self._routes[LOCAL_MODEL] = self._local_routes
        for one in self._local_models:
            self._routes[one.name] = [_local_route(one)]
        self._local_by_name = {one.name: one for one in self._local_models}
        self._register(settings)

    def _register(self, settings: Sequence[ProviderSettings]) -> None:
        problems: list[str] = []
        names = [one.name for one in settings]
        problems.extend(f"two providers are called '{name}'" for name in set(names) if names.count(name) > 1)
        problems.extend(f"provider '{name}' has a reserved name" for name in names if name == LOCAL_PROVIDER)
        for provider in settings:
            for model in provider.models:
                if model.is_pattern:
                    self._patterns.append((re.compile(translate(model.id)), provider.name, model))
                else:
                    self._exact.setdefault(model.id, (provider.name, model))
                for alias in model.aliases:
                    if alias in self._aliases:
                        problems.append(f"alias '{alias}' is given twice")
                    self._aliases[alias] = (provider.name, model)
        if problems:
            raise ConfigurationError(sorted(problems))
        for name in (*self._exact, *self._aliases):
            self._routes.setdefault(name, self._resolve(name))

    def routes(self, model: str, family: Family = Family.CHAT) -> Sequence[ModelRoute]:
        """The ways to a model for requests of a family, best first. Raises ``ModelNotFound``."""
        known = self._ways(model)
        able = [route for route in known if route.serves(family)]
        if not able:
            raise ModelNotFound(f"The model '{model}' is not offered for {family.value}.", param="model")
        return able

    def _ways(self, model: str) -> Sequence[ModelRoute]:
        known = self._routes.get(model)
        return known if known is not None else self._resolve(model)

    def cards(self, principal: Principal) -> list[ModelCard]:
        """The models that this key may use; patterns cannot be listed."""
        cards: list[ModelCard] = []
        for name, routes in self._routes.items():
            if allows_model(principal, name):
                first = routes[0]
                available = any(route.provider.circuit is not Circuit.OPEN for route in routes)
                cards.append(ModelCard(name, self._created, first.provider_name, first.pricing, available))
        return cards

    def card(self, principal: Principal, model: str) -> ModelCard:
        """One model, also one that only a pattern knows. Raises ``ModelNotFound``, ``PolicyDenied``."""
        routes = self._ways(model)
        require_model(principal, model)
        available = any(route.provider.circuit is not Circuit.OPEN for route in routes)
        return ModelCard(model, self._created, routes[0].provider_name, routes[0].pricing, available)

    def circuits(self) -> dict[str, Circuit]:
        """Where each provider's breaker stands."""
        return {name: provider.circuit for name, provider in self._providers.items()}

    async def aclose(self) -> None:
        """Close the providers."""
        for provider in self._providers.values():
            await provider.aclose()

    def _resolve(self, model: str) -> list[ModelRoute]:
        found = self._find(model)
        if found is None:
            raise ModelNotFound(f"The model '{model}' does not exist.", param="model")
        routes = [self._route(*found, model)]
        name, settings = found
        for stand_in in (*settings.fallback, *self._settings[name].fallback):
            if stand_in == LOCAL_MODEL:
                routes.extend(self._local_routes)
                continue
            if stand_in in self._local_by_name:
                routes.append(_local_route(self._local_by_name[stand_in]))
                continue
            if stand_in in self._settings:
                own_name = routes[0].upstream_model if settings.is_pattern else settings.id
                routes.extend(self._on_provider(stand_in, own_name))
                continue
            other = self._find(stand_in)
            if other is not None:
                routes.append(self._route(*other, stand_in))
        return list({(one.provider_name, one.upstream_model): one for one in routes}.values())

    def _find(self, model: str) -> tuple[str, ModelSettings] | None:
        found = self._exact.get(model) or self._aliases.get(model)
        if found is not None:
            return found
        prefix, _, rest = model.partition("/")
        if rest and prefix in self._settings:
            qualified = self._model_of(prefix, rest)
            if qualified is not None:
                return prefix, qualified
        for pattern, provider, settings in self._patterns:
            if pattern.match(model):
                return provider, settings
        return None

    def _model_of(self, provider: str, model: str) -> ModelSettings | None:
        for settings in self._settings[provider].models:
            if (
                model == settings.id
                or model in settings.aliases
                or (settings.is_pattern and fnmatchcase(model, settings.id))
            ):
                return settings
        return None

    def _on_provider(self, provider: str, model: str) -> list[ModelRoute]:
        """The same model at another provider, if that has it."""
        settings = self._model_of(provider, model)
        return [] if settings is None else [self._route(provider, settings, model)]

    def _route(self, provider: str, settings: ModelSettings, model: str) -> ModelRoute:
        if settings.is_pattern:
            model = model if fnmatchcase(model, settings.id) else model.removeprefix(f"{provider}/")
            upstream = settings.upstream or model
        else:
            upstream = settings.upstream or settings.id
        return ModelRoute(
            provider,
            self._providers[provider],
            upstream,
            settings.context_tokens,
            settings.pricing,
            frozenset(self._settings[provider].families) or None,
        )


def _local_route(model: LocalModel) -> ModelRoute:
    return ModelRoute(LOCAL_PROVIDER, model.provider, model.name, model.context_tokens, Pricing(), model.families)


async def first_able(
    routes: Sequence[ModelRoute],
    ask: Callable[[ModelRoute], Awaitable[T]],
    *,
    may_go_on: Callable[[], bool] = lambda: True,
) -> T:
    """Ask one provider after another until one answers; all before the client has seen a byte.

    ``may_go_on`` tells after a failure whether the next one can be asked (a body that was streamed is gone).

    Raises:
        RagsvcError: what the only one said; ``ModelUnavailable`` when none of several could answer.
    """
    failures: list[RagsvcError] = []
    for route in routes:
        try:
            return await ask(route)
        except _PASSED_ON as error:
            failures.append(error)
            if not may_go_on():
                raise
    if len(failures) == 1:
        raise failures[0]
    waits = [failure.retry_after_s for failure in failures if failure.retry_after_s is not None]
    raise ModelUnavailable(
        f"none of the {len(failures)} providers of the model can answer now",
        retry_after_s=min(waits, default=None),
    ) from failures[-1]
