"""The registry of models: names, the provider of each, and fallbacks."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from fnmatch import fnmatchcase, translate
from typing import Final, Literal, TypeVar, cast

import msgspec

from ragsvc.core.access.principal import Principal, allows_model, require_model
from ragsvc.core.defaults import LOCAL_MODEL
from ragsvc.core.errors import (
    ConfigurationError,
    EndpointNotOffered,
    ModelNotFound,
    ModelUnavailable,
    Overloaded,
    RagsvcError,
    RateLimited,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamTimeout,
)
from ragsvc.core.gateway.circuit_breaker import Circuit, worst_circuit
from ragsvc.core.gateway.document_suffix import DOCUMENTS_SUFFIX, RequestedModel, split_suffix, with_suffix
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.provider_settings import ModelSettings, Pricing, ProviderSettings
from ragsvc.core.ports.model_provider import ModelProvider

T = TypeVar("T")
LOCAL_PROVIDER: Final = "local"
_PASSED_ON: Final = (
    EndpointNotOffered,
    ModelUnavailable,
    Overloaded,
    RateLimited,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamTimeout,
)


class ModelRoute(msgspec.Struct, frozen=True):
    """A provider of a model, with the provider's name of the model and the size of its context.

    ``context_tokens`` is ``None`` if it is not configured. ``takes_passages``: the backend reads the retrieved passages
    itself, needs no prompt, and answers with their sentences.
    """

    provider_name: str
    provider: ModelProvider
    upstream_model: str
    context_tokens: int | None
    pricing: Pricing = Pricing()
    families: frozenset[Family] | None = None
    """Endpoint families that the route serves; ``None`` means all."""

    takes_passages: bool = False
    max_prompt_characters: int | None = None
    """``None``: the limit of the service."""

    def serves(self, family: Family) -> bool:
        """Whether the route serves requests of a family."""
        return self.families is None or family in self.families

    @property
    def accepts_requests(self) -> bool:
        """Whether a circuit breaker lets requests through: that of chats if chats were requested, else any."""
        circuits = self.provider.circuits
        states = [circuits[Family.CHAT]] if self.serves(Family.CHAT) and Family.CHAT in circuits else circuits.values()
        return not states or any(state is not Circuit.OPEN for state in states)


class LocalModel(msgspec.Struct, frozen=True):
    """A model in this process, other than the built-in chat model."""

    name: str
    provider: ModelProvider
    families: frozenset[Family]
    context_tokens: int | None = None
    """Context of a chat model; ``None`` if it takes the retrieved passages itself, or is not a chat model."""


class ModelCard(msgspec.Struct, frozen=True):
    """A model in ``GET /v1/models``; prices are for 1,000 tokens. ``available``: a provider of it accepts requests."""

    id: str
    created: int
    owned_by: str
    pricing: Pricing
    available: bool = True
    object: Literal["model"] = "model"


class ModelRegistry:
    """Resolves a name as exact name, then alias, then ``provider/model``, then by patterns in the settings' order."""

    def __init__(
        self,
        settings: Sequence[ProviderSettings],
        providers: Mapping[str, ModelProvider],
        *,
        local: ModelProvider | None = None,
        local_models: Sequence[LocalModel] = (),
        created: int,
        lists_documents: bool = False,
    ) -> None:
        """``lists_documents``: the list of models has each chat model also with the suffix for documents."""
        self.lists_documents = lists_documents
        self._local = local
        self._local_models = tuple(local_models)
        self._created = created
        self.change(settings, providers)

    def check(self, settings: Sequence[ProviderSettings]) -> None:
        """Check settings for duplicate and reserved names. Raises ``ConfigurationError``."""
        unused = {provider.name: cast("ModelProvider", None) for provider in settings}  # no request is made
        ModelRegistry(settings, unused, local=self._local, local_models=self._local_models, created=0)

    def change(self, settings: Sequence[ProviderSettings], providers: Mapping[str, ModelProvider]) -> None:
        """Replace the providers. Raises ``ConfigurationError`` and is then inconsistent: call ``check`` before."""
        local = self._local
        self._settings = {provider.name: provider for provider in settings}
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
        for model in self._local_models:
            self._routes[model.name] = [_local_route(model)]
        self._local_by_name = {model.name: model for model in self._local_models}
        local_names = [name for name in self._routes if name.startswith(f"{LOCAL_PROVIDER}/")]
        self._local_aliases = {name.removeprefix(f"{LOCAL_PROVIDER}/"): name for name in local_names}
        self._register(settings)

    def _register(self, settings: Sequence[ProviderSettings]) -> None:
        problems: list[str] = []
        names = [provider.name for provider in settings]
        problems.extend(f"two providers have the name '{name}'" for name in set(names) if names.count(name) > 1)
        problems.extend(f"the name '{name}' of a provider is reserved" for name in names if name == LOCAL_PROVIDER)
        for provider in settings:
            for model in provider.models:
                if model.is_pattern:
                    self._patterns.append((re.compile(translate(model.id)), provider.name, model))
                else:
                    self._exact.setdefault(model.id, (provider.name, model))
                for alias in model.aliases:
                    if alias in self._aliases:
                        problems.append(f"two models have the alias '{alias}'")
                    self._aliases[alias] = (provider.name, model)
        if problems:
            raise ConfigurationError(sorted(problems))
        for name in (*self._exact, *self._aliases):
            self._routes.setdefault(name, self._resolve(name))

    def routes(self, model: str, family: Family = Family.CHAT) -> Sequence[ModelRoute]:
        """The routes to a model for requests of a family, best first. Raises ``ModelNotFound``."""
        routes = [route for route in self._all_routes(model) if route.serves(family)]
        if not routes:
            raise ModelNotFound(f"The model '{model}' is not offered for {family.value}.", param="model")
        return routes

    def requested(self, name: str) -> RequestedModel:
        """What a client means by the name of a model: without the suffix for documents, and without a local alias.

        A provider's model is never hidden: a name that it has, or a pattern with the suffix, is not split; and the name
        of a local model without ``local/`` means the local model only if no provider serves it.
        """
        if DOCUMENTS_SUFFIX not in name and name not in self._local_aliases:
            return RequestedModel(name)
        found = self._find(name)
        is_whole = found is not None and (not found[1].is_pattern or DOCUMENTS_SUFFIX in found[1].id)
        asked = RequestedModel(name) if is_whole or name in self._routes else split_suffix(name)
        local = self._local_aliases.get(asked.name)
        if local is None or self._find(asked.name) is not None:
            return asked
        return msgspec.structs.replace(asked, name=local)

    def permits(self, principal: Principal, model: str) -> bool:
        """Whether the key may use a model, by its name or by the alias of a local model."""
        if allows_model(principal, model):
            return True
        alias = model.removeprefix(f"{LOCAL_PROVIDER}/")
        return alias != model and self.requested(alias).name == model and allows_model(principal, alias)

    def require(self, principal: Principal, model: str) -> None:
        """Refuse a model that the key may not use. Raises ``PolicyDenied``."""
        if not self.permits(principal, model):
            require_model(principal, model)

    def label(self, model: str) -> str:
        """The name of a model in metrics: a configured name, the pattern that matches it, or ``other``.

        Names that clients can invent would make as many time series.
        """
        if model in self._routes:
            return model
        found = self._find(model)
        return "other" if found is None else found[1].id

    def max_prompt_characters(self, model: str) -> int | None:
        """The limit in the settings of a model; ``None`` if they have none, or if the model does not exist."""
        found = self._find(self.requested(model).name)
        return None if found is None else found[1].max_prompt_characters

    def _all_routes(self, model: str) -> Sequence[ModelRoute]:
        known = self._routes.get(model)
        return known if known is not None else self._resolve(model)

    def cards(self, principal: Principal, collections: Sequence[str | None] = ()) -> list[ModelCard]:
        """The models that the key may use, without those that only a pattern matches.

        Chat models are listed also with the suffix for each of ``collections``; ``None`` is the default collection.
        """
        cards: list[ModelCard] = []
        for name, routes in self._routes.items():
            if self.permits(principal, name):
                first = routes[0]
                available = any(route.accepts_requests for route in routes)
                card = ModelCard(name, self._created, first.provider_name, first.pricing, available)
                cards.append(card)
                if collections and any(route.serves(Family.CHAT) for route in routes):
                    suffixed = [with_suffix(name, collection) for collection in collections]
                    cards += [msgspec.structs.replace(card, id=id_) for id_ in suffixed if id_ not in self._routes]
        return cards

    def card(self, principal: Principal, model: str) -> ModelCard:
        """A model, also one that only a pattern matches. Raises ``ModelNotFound``, ``PolicyDenied``."""
        name = self.requested(model).name
        routes = self._all_routes(name)
        self.require(principal, name)
        available = any(route.accepts_requests for route in routes)
        return ModelCard(model, self._created, routes[0].provider_name, routes[0].pricing, available)

    def circuits(self) -> dict[str, Circuit]:
        """The worst state of the circuit breakers of each provider."""
        return {name: worst_circuit(provider.circuits.values()) for name, provider in self._providers.items()}

    async def aclose(self) -> None:
        for provider in self._providers.values():
            await provider.aclose()

    def _resolve(self, model: str) -> list[ModelRoute]:
        found = self._find(model)
        if found is None:
            raise ModelNotFound(f"The model '{model}' does not exist.", param="model")
        routes = [self._route(*found, model)]
        name, settings = found
        for fallback in (*settings.fallback, *self._settings[name].fallback):
            if fallback == LOCAL_MODEL:
                routes.extend(self._local_routes)
                continue
            if fallback in self._local_by_name:
                routes.append(_local_route(self._local_by_name[fallback]))
                continue
            if fallback in self._settings:
                same_model = routes[0].upstream_model if settings.is_pattern else settings.id
                routes.extend(self._on_provider(fallback, same_model))
                continue
            other = self._find(fallback)
            if other is not None:
                routes.append(self._route(*other, fallback))
        return list({(route.provider_name, route.upstream_model): route for route in routes}.values())

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
        """The route to the same model at another provider; empty if it does not offer the model."""
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
            max_prompt_characters=settings.max_prompt_characters,
        )


def _local_route(model: LocalModel) -> ModelRoute:
    return ModelRoute(
        LOCAL_PROVIDER,
        model.provider,
        model.name,
        model.context_tokens,
        families=model.families,
        takes_passages=model.context_tokens is None,
    )


async def first_able(
    routes: Sequence[ModelRoute],
    ask: Callable[[ModelRoute], Awaitable[T]],
    *,
    may_go_on: Callable[[], bool] = lambda: True,
) -> T:
    """Try the routes in order until a provider answers; all before the first byte is sent to the client.

    ``may_go_on`` decides after a failure whether the next route can be tried (a streamed body cannot be sent again).

    Raises:
        RagsvcError: the failure of the only route that offers the endpoint; ``ModelUnavailable`` if several routes
            failed and a repetition may succeed.
    """
    failures: list[RagsvcError] = []
    for route in routes:
        try:
            return await ask(route)
        except _PASSED_ON as error:
            failures.append(error)
            if not may_go_on():
                raise
    offering = [failure for failure in failures if not isinstance(failure, EndpointNotOffered)]
    failures = offering or failures
    if len(failures) == 1 or not any(failure.retryable for failure in failures):
        raise failures[0]
    waits = [failure.retry_after_s for failure in failures if failure.retry_after_s is not None]
    raise ModelUnavailable(
        f"None of the {len(failures)} providers of the model can answer now.",
        retry_after_s=min(waits, default=None),
    ) from failures[-1]
