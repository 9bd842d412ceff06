"""Administration of providers: those of the settings file are shown; others can be added, changed, tested and removed.

Settings and keys are encrypted in the rows and plain in memory. A change is durable before it takes effect.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import anyio
import msgspec
from sqlalchemy import Connection

from ragsvc.core.errors import (
    ConfigurationError,
    Conflict,
    CryptoFailure,
    InvalidRequest,
    ModelUnavailable,
    NotFound,
    RagsvcError,
)
from ragsvc.core.gateway.circuit_breaker import Circuit
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.provider_settings import ProviderSettings, header_problems, with_model_objects
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.core.ports.model_provider import ForwardRequest, ModelProvider
from ragsvc.core.validation import invalid_field, invalid_value
from ragsvc.crypto.value_sealing import ValueSealer
from ragsvc.services.access_control import write_to_the_end
from ragsvc.services.idempotency import IdempotentRequest, once, recall
from ragsvc.services.key_administration import LOCAL, LOCAL_ACTOR, Actor
from ragsvc.services.model_registry import ModelRegistry
from ragsvc.store import key_rows
from ragsvc.store import provider_rows as rows
from ragsvc.store.database import Database

logger = logging.getLogger(__name__)

_TEST_TIMEOUT_S = 20.0
_LISTED_MODELS = 1000


class ProviderView(msgspec.Struct, frozen=True):
    """A provider and its state. ``source``: ``config`` (the settings file, which the API cannot change) or ``api``."""

    settings: ProviderSettings
    source: Literal["config", "api"]
    circuits: dict[Family, Circuit]


class DisabledProvider(msgspec.Struct, frozen=True):
    """A stored provider that was disabled at the start, because it cannot be opened or contradicts others."""

    name: str
    reason: str


class ProviderTest(msgspec.Struct, frozen=True):
    """The result of a request for the models of a provider."""

    ok: bool
    latency_ms: float
    models: list[str]
    error: str | None = None


class TenantKey(msgspec.Struct, frozen=True):
    """A key of a tenant for a provider; the key itself is never shown."""

    tenant: str
    provider: str
    updated_at: int


class ProviderKeyState(msgspec.Struct, frozen=True):
    """Whether a tenant has a key for a provider; ``updated_at`` is ``null`` if it has none, or one that is unusable.

    ``usable`` is false if a key is stored that cannot be opened: the tenant's requests to the provider then fail.
    """

    provider: str
    tenant: str
    updated_at: int | None
    usable: bool


class ProviderAdministration:
    """Shows and changes providers. Call ``load`` before use."""

    def __init__(
        self,
        database: Database,
        *,
        sealer: ValueSealer,
        models: ModelRegistry,
        configured: Sequence[ProviderSettings],
        open_provider: Callable[[ProviderSettings], ModelProvider],
        require_key: Callable[[Connection, KeyId], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``require_key`` raises if the key was deleted."""
        self._database = database
        self._require_key = require_key
        self._sealer = sealer
        self._models = models
        self._configured = {settings.name: settings for settings in configured}
        self._added: dict[str, ProviderSettings] = {}
        self._running: dict[str, tuple[ProviderSettings, ModelProvider]] = {}
        self._keys: dict[tuple[str, str], tuple[str, int]] = {}
        self._disabled: dict[str, str] = {}
        self._unopened_keys: set[tuple[str, str]] = set()
        self._open_provider = open_provider
        self._clock = clock
        self._lock = anyio.Lock()

    async def load(self) -> None:
        """Load the stored providers and keys.

        What no sealing key opens, and providers that contradict others, are disabled with a warning: the service must
        start without them, so that they can be repaired.
        """
        for row in await self._database.read(rows.stored_providers):
            if row.name in self._configured:  # a provider of the settings file has the same name and replaces it
                continue
            try:
                plain = self._sealer.open(row.sealed, place=_place(row.name))
                settings = msgspec.json.decode(plain, type=ProviderSettings)
                self._models.check([*self._configured.values(), *self._added.values(), settings])
            except CryptoFailure:
                self._disable(row.name, _NOT_OPENED)
            except msgspec.MsgspecError:
                self._disable(row.name, "it was stored by a release with other settings")
            except ConfigurationError as error:
                self._disable(row.name, error.message)
            else:
                self._added[row.name] = settings
        for key in await self._database.read(rows.stored_keys):
            try:
                plain = self._sealer.open(key.sealed, place=_key_place(key.tenant, key.provider))
            except CryptoFailure:
                self._unopened_keys.add((key.tenant, key.provider))
                logger.warning(
                    "the key of tenant %s for provider %s is disabled: %s", key.tenant, key.provider, _NOT_OPENED
                )
            else:
                self._keys[key.tenant, key.provider] = (plain.decode(), key.updated_at)
        self._apply(self._added)

    def _disable(self, name: str, reason: str) -> None:
        self._disabled[name] = reason
        logger.warning("provider %s is disabled: %s", name, reason)

    def key_of(self, tenant: TenantId, provider: str) -> str | None:
        """The key of the tenant for a provider, if it has one.

        Raises:
            ModelUnavailable: the stored key cannot be opened. The operator's key does not take its place: the operator
                would pay.
        """
        if (tenant, provider) in self._unopened_keys:
            raise ModelUnavailable(f"The stored key for provider '{provider}' cannot be opened. Store it again.")
        stored = self._keys.get((tenant, provider))
        return None if stored is None else stored[0]

    def disabled(self) -> list[DisabledProvider]:
        """The stored providers that the start disabled; adding one again or deleting it ends this state."""
        return [DisabledProvider(name, reason) for name, reason in sorted(self._disabled.items())]

    def views(self) -> list[ProviderView]:
        """All providers, those of the settings file first."""
        return [self.view(name) for name in (*self._configured, *self._added)]

    def view(self, name: str) -> ProviderView:
        """Show a provider. Raises ``NotFound``."""
        if name in self._disabled:
            raise NotFound(f"Provider '{name}' is disabled: {self._disabled[name]}. Add it again, or delete it.")
        if name not in self._running:
            raise NotFound(f"There is no provider '{name}'.")
        settings, provider = self._running[name]
        return ProviderView(settings, "config" if name in self._configured else "api", dict(provider.circuits))

    async def create(self, settings: ProviderSettings, *, request: IdempotentRequest | None = None) -> ProviderView:
        """Add a provider; it serves requests at once. A repeated request returns the provider and changes nothing.

        Raises:
            Conflict: a provider has this name. InvalidRequest: its models contradict those of other providers, or a
                part of a header is no text of a header.
        """
        async with self._lock:
            now = int(self._clock())
            known = await self._database.read(lambda connection: recall(connection, request, now=now, kind=str))
            if known is not None:
                return self.view(known)
            if settings.name in self._running:
                raise Conflict(f"A provider '{settings.name}' already exists.", param="name")
            await self._store(settings, request=request)
        return self.view(settings.name)

    async def update(self, name: str, change: Mapping[str, Any]) -> ProviderView:
        """Change the given fields of a provider.

        Raises:
            NotFound, Conflict (a provider of the settings file), InvalidRequest.
        """
        async with self._lock:
            current = self._changeable(name)
            if change.get("name", name) != name:
                raise InvalidRequest("The name of a provider cannot be changed.", param="name")
            fields = msgspec.to_builtins(current) | {"api_key": current.api_key} | with_model_objects(change)
            try:
                settings = msgspec.convert(fields, ProviderSettings)
            except msgspec.ValidationError as error:
                raise invalid_field(error) from error
            await self._store(settings)
        return self.view(name)

    async def delete(self, name: str) -> None:
        """Remove a provider and all keys for it; running requests are completed. Raises as ``update`` does."""
        async with self._lock:
            if name not in self._disabled:
                self._changeable(name)
            await write_to_the_end(self._database, lambda connection: rows.drop_provider(connection, name))
            self._disabled.pop(name, None)
            self._unopened_keys = {place for place in self._unopened_keys if place[1] != name}
            self._keys = {place: key for place, key in self._keys.items() if place[1] != name}
            self._apply({other: settings for other, settings in self._added.items() if other != name})

    async def test(self, name: str) -> ProviderTest:
        """Request the models of a provider with its stored key. Raises ``NotFound``."""
        self.view(name)
        _, provider = self._running[name]
        begin = time.perf_counter()
        try:
            with anyio.fail_after(_TEST_TIMEOUT_S):
                models = await _models_of(provider)
        except TimeoutError:
            return ProviderTest(
                ok=False, latency_ms=_since(begin), models=[], error="The provider did not answer in time."
            )
        except RagsvcError as error:
            return ProviderTest(ok=False, latency_ms=_since(begin), models=[], error=error.message)
        return ProviderTest(ok=True, latency_ms=_since(begin), models=models)

    async def set_key(self, tenant: TenantId, name: str, key: str, *, actor: Actor = LOCAL) -> TenantKey:
        """Store the key of a tenant for a provider; used from the next request on.

        Raises:
            NotFound: no provider has this name.
            Conflict: the key of the actor was deleted, with which its tenant may have been.
        """
        self.view(name)
        now = int(self._clock())
        sealed = self._sealer.seal(key.encode(), place=_key_place(tenant, name))

        def put(connection: Connection) -> None:
            if actor.name != LOCAL_ACTOR:
                self._require_key(connection, KeyId(actor.name))
            rows.put_key(connection, tenant, name, sealed, now=now)
            self._audit(connection, tenant, name, actor, "provider_key.set")

        await write_to_the_end(self._database, put)
        self._keys[tenant, name] = (key, now)
        self._unopened_keys.discard((tenant, name))
        return TenantKey(tenant, name, now)

    async def drop_key(self, tenant: TenantId, name: str, *, actor: Actor = LOCAL) -> None:
        """Remove the key of a tenant. Raises ``NotFound``."""

        def drop(connection: Connection) -> bool:
            removed = rows.drop_key(connection, tenant, name)
            if removed:
                self._audit(connection, tenant, name, actor, "provider_key.delete")
            return removed

        if not await write_to_the_end(self._database, drop):
            raise NotFound(f"Tenant '{tenant}' has no key for provider '{name}'.")
        self._keys.pop((tenant, name), None)
        self._unopened_keys.discard((tenant, name))

    def forget_keys(self, tenant: TenantId) -> None:
        """Forget the keys of a tenant whose rows were removed with it."""
        self._keys = {place: key for place, key in self._keys.items() if place[0] != tenant}
        self._unopened_keys = {place for place in self._unopened_keys if place[0] != tenant}

    def keys(self, name: str) -> list[TenantKey]:
        """The tenants that have a key for a provider. Raises ``NotFound``."""
        self.view(name)
        return [
            TenantKey(tenant, provider, at)
            for (tenant, provider), (_, at) in sorted(self._keys.items())
            if provider == name
        ]

    def keys_of(self, tenant: TenantId) -> list[ProviderKeyState]:
        """All providers, with the time at which the tenant stored a key for them."""
        stored = {provider: at for (owner, provider), (_, at) in self._keys.items() if owner == tenant}
        return [
            ProviderKeyState(name, tenant, stored.get(name), (tenant, name) not in self._unopened_keys)
            for name in (*self._configured, *self._added)
        ]

    def _audit(self, connection: Connection, tenant: TenantId, name: str, actor: Actor, action: str) -> None:
        key_rows.add_audit(
            connection,
            at=int(self._clock()),
            tenant=tenant,
            key_id="",
            actor=actor.name,
            action=action,
            changes={"provider": name},
            request_id=actor.request_id,
        )

    def _changeable(self, name: str) -> ProviderSettings:
        self.view(name)
        if name in self._configured:
            raise Conflict(f"Provider '{name}' is defined in the settings file and can only be changed there.")
        return self._added[name]

    async def _store(self, settings: ProviderSettings, *, request: IdempotentRequest | None = None) -> None:
        for field, problem in header_problems(settings):
            raise invalid_value(field, problem)
        added = {**self._added, settings.name: settings}
        try:
            self._models.check([*self._configured.values(), *added.values()])
        except ConfigurationError as error:
            raise invalid_value("models", error.message) from error
        sealed = self._sealer.seal(msgspec.json.encode(settings), place=_place(settings.name))
        now = int(self._clock())

        def put(connection: Connection) -> str:
            rows.put_provider(connection, settings.name, sealed, now=now)
            return settings.name

        await write_to_the_end(
            self._database,
            lambda connection: once(connection, request, now=now, kind=str, change=lambda: put(connection)),
        )
        self._disabled.pop(settings.name, None)
        self._apply(added)

    def _apply(self, added: Mapping[str, ProviderSettings]) -> None:
        """Update the registry; providers with unchanged settings keep their circuit breakers and slots."""
        wanted = {**self._configured, **added}
        running: dict[str, tuple[ProviderSettings, ModelProvider]] = {}
        for name, settings in wanted.items():
            known = self._running.get(name)
            running[name] = (
                known if known is not None and known[0] == settings else (settings, self._open_provider(settings))
            )
        self._models.change(list(wanted.values()), {name: provider for name, (_, provider) in running.items()})
        self._added = dict(added)
        self._running = running


class _ListedModel(msgspec.Struct):
    id: str


class _ListedModels(msgspec.Struct):
    data: list[_ListedModel]


async def _models_of(provider: ModelProvider) -> list[str]:
    reply = await provider.forward(
        ForwardRequest(method="GET", path="/models", body=b"", headers={"Accept": "application/json"})
    )
    try:
        body = b"".join([piece async for piece in reply])
    finally:
        await reply.aclose()
    try:
        listed = msgspec.json.decode(body, type=_ListedModels)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest("The provider did not answer with a list of models.") from error
    return [model.id for model in listed.data[:_LISTED_MODELS]]


def _since(begin: float) -> float:
    return round((time.perf_counter() - begin) * 1000, 1)


_NOT_OPENED = (
    "no key of the data directory opens it; restore the file sealing.key (master.key in directories of earlier "
    "releases) that belongs to this database"
)


def _place(name: str) -> str:
    return f"provider {name}"


def _key_place(tenant: str, provider: str) -> str:
    return f"key {provider} of {tenant}"
