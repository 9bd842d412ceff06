"""A chat service on a free port: the real application, keys and metering over a small corpus."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, closing, contextmanager
from typing import NamedTuple

import httpx

from ragsvc.core.access.api_keys import KeyLimits
from ragsvc.core.gateway.provider_settings import ModelSettings, Pricing, ProviderSettings
from ragsvc.core.ids import TenantId
from ragsvc.providers.local_extractive import LocalExtractive
from ragsvc.providers.openai_upstream import OpenAIUpstream
from ragsvc.providers.upstream_requests import open_session
from ragsvc.services.answers import AnswerService
from ragsvc.services.key_administration import Actor, KeyDraft, create_key
from ragsvc.services.model_registry import ModelRegistry
from ragsvc.services.request_encryption import open_encryption
from ragsvc.web.app import create_app
from ragsvc.web.routes import chat, encrypted_chat, encryption_keys, models
from tests.support.keys_database import SmallDatabase, compose
from tests.support.small_corpus import SmallSearch, count_tokens, extract
from tests.support.upstream_server import serving


class Services:
    """The services in the application's state. Services that need the event loop are added when it starts."""

    def __init__(self, foundation, encryption) -> None:
        self.encryption = encryption
        self.access, self.keys, self.readiness, self.registry = foundation
        self.searcher = SmallSearch()
        self.unresolved = 0
        self.providers: dict[str, OpenAIUpstream] = {}

    def note_unresolved(self, count: int) -> None:
        self.unresolved += count


def app_over(services: Services, settings: list[ProviderSettings], **options):
    @asynccontextmanager
    async def running(_app):
        async with open_session() as session:
            services.providers = {
                provider.name: OpenAIUpstream(provider, session, count_tokens=count_tokens) for provider in settings
            }
            services.models = ModelRegistry(
                settings,
                services.providers,
                local=LocalExtractive(extract, count_tokens=count_tokens),
                created=1_700_000_000,
            )
            services.answer = AnswerService(
                models=services.models,
                searcher=services.searcher,
                meter=services.access,
                count_tokens=count_tokens,
                on_unresolved=services.note_unresolved,
            )
            yield

    modules = (chat, models, encryption_keys, encrypted_chat)
    handlers = [handler for module in modules for handler in module.route_handlers]
    return create_app(services, route_handlers=handlers, lifespan=[running], encryption=services.encryption, **options)


def provider(url: str, name: str = "up", **options) -> ProviderSettings:
    """Settings of a provider that accepts any model name, with short timeouts."""
    quick = {"connect_timeout_s": 1.0, "read_timeout_s": 1.0, "total_timeout_s": 20.0, "breaker_failures": 50}
    known = (
        ModelSettings("real-model", aliases=("nice-name",), pricing=Pricing(0.005, 0.015)),
        ModelSettings("*"),
    )
    return ProviderSettings(
        name=name, base_url=url, api_key="sk-upstream-secret", **{"models": known} | quick | options
    )


class ChatService(NamedTuple):
    url: str
    key: str
    key_id: str
    services: Services
    database: SmallDatabase

    def tokens_left(self) -> int:
        """The token balance of the key, as the API reports it."""
        answer = httpx.get(f"{self.url}/v1/tokens", headers=self.headers())
        return answer.json()["tokens_remaining"]

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def new_key(self, **options) -> str:
        """Create another key, and wait until the service reads the rows of keys again."""
        key = issue(self.database, **options).key
        time.sleep(0.06)
        return key


BALANCE = 1_000_000


def issue(database: SmallDatabase, *, balance: int | None = BALANCE, requests_per_minute: int | None = None, **options):
    limits = KeyLimits(requests_per_minute=requests_per_minute, requests_per_hour=None, token_balance=balance)
    draft = KeyDraft(tenant=TenantId("acme"), label="quickstart", limits=limits, **options)
    issued = database.write_sync(lambda connection: create_key(connection, draft, actor=Actor(), now=1_700_000_000))
    return IssuedText(issued.text, issued.key.id)


class IssuedText(NamedTuple):
    key: str
    key_id: str


@contextmanager
def serving_chat(tmp_path, settings, **options):
    database = SmallDatabase(tmp_path / "keys.sqlite")
    try:
        issued = issue(database)
        with closing(open_encryption(tmp_path, source="memory", key_file=None)) as encryption:
            services = Services(compose(database), encryption)
            with serving(app_over(services, settings, **options), lifespan="on") as (url, _server):
                yield ChatService(url, issued.key, issued.key_id, services, database)
    finally:
        database.close()
