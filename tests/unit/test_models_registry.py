import asyncio

import pytest

from ragsvc.core.access.principal import DEFAULT_SCOPES, Principal
from ragsvc.core.errors import (
    ConfigurationError,
    EndpointNotOffered,
    InvalidRequest,
    ModelNotFound,
    ModelUnavailable,
    RateLimited,
    UpstreamRejected,
)
from ragsvc.core.gateway.circuit_breaker import Circuit
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.provider_settings import ModelSettings, ProviderSettings
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.services.model_registry import LocalModel, ModelRegistry, first_able


class Backend:
    def __init__(self, name):
        self.name = name
        self.circuits = {}


def registry(*settings):
    return ModelRegistry(settings, {one.name: Backend(one.name) for one in settings}, local=Backend("local"), created=1)


OPENAI = ProviderSettings(
    name="openai",
    base_url="http://o",
    api_key="sk-hidden",
    models=(
        ModelSettings("gpt-4o", aliases=("smart",), upstream="gpt-4o-2024"),
        ModelSettings("gpt-*"),
        ModelSettings("shared", fallback=("local/chat-model",)),
    ),
    fallback=("backup", "claude"),
)
OTHER = ProviderSettings(
    name="other", base_url="http://a", models=(ModelSettings("claude"), ModelSettings("shared"), ModelSettings("a/b"))
)
BACKUP = ProviderSettings(name="backup", base_url="http://b", models=(ModelSettings("*"),))


@pytest.mark.parametrize(
    ("asked", "provider", "upstream"),
    [
        ("gpt-4o", "openai", "gpt-4o-2024"),
        ("smart", "openai", "gpt-4o-2024"),
        ("openai/gpt-4o", "openai", "gpt-4o-2024"),
        ("gpt-9", "openai", "gpt-9"),
        ("openai/gpt-9", "openai", "gpt-9"),
        ("shared", "openai", "shared"),
        ("other/shared", "other", "shared"),
        ("a/b", "other", "a/b"),
        ("other/a/b", "other", "a/b"),
        ("local/chat-model", "local", "local/chat-model"),
    ],
)
def test_a_name_finds_its_provider(asked, provider, upstream):
    first = registry(OPENAI, OTHER).routes(asked)[0]
    assert (first.provider_name, first.upstream_model) == (provider, upstream)


def test_unknown_names_are_not_found():
    for name in ("mistral", "openai/mistral", "nobody/gpt-4o", ""):
        with pytest.raises(ModelNotFound):
            registry(OPENAI, OTHER).routes(name)


def test_stand_ins_come_in_order_and_once():
    routes = registry(OPENAI, OTHER, BACKUP).routes("shared")
    assert [(one.provider_name, one.upstream_model) for one in routes] == [
        ("openai", "shared"),
        ("local", "local/chat-model"),
        ("backup", "shared"),
        ("other", "claude"),
    ]


def test_contradicting_settings_are_all_reported():
    with pytest.raises(ConfigurationError) as wrong:
        registry(OPENAI, OPENAI, ProviderSettings(name="local", base_url="http://x"))
    assert len(wrong.value.problems) >= 2


def test_a_key_sees_only_its_models():
    principal = Principal(KeyId("k"), TenantId("t"), "l", DEFAULT_SCOPES, allowed_models=("local/*", "smart"))
    assert [card.id for card in registry(OPENAI, OTHER).cards(principal)] == ["local/chat-model", "smart"]


def test_a_provider_keeps_its_secret():
    assert "sk-hidden" not in repr(OPENAI)


def test_the_next_provider_is_asked_only_after_failures_that_another_may_not_have():
    routes = registry(OPENAI, OTHER, BACKUP).routes("shared")
    asked = []

    async def ask(route):
        asked.append(route.provider_name)
        if route.provider_name == "openai":
            raise ModelUnavailable("no", retry_after_s=9)
        if route.provider_name == "local":
            raise InvalidRequest("bad", param="n")
        return route.provider_name

    with pytest.raises(InvalidRequest):
        asyncio.run(first_able(routes, ask))
    assert asked == ["openai", "local"]

    async def refuse(route):
        raise ModelUnavailable("no", retry_after_s=len(route.provider_name))

    with pytest.raises(ModelUnavailable) as none_left:
        asyncio.run(first_able(routes, refuse))
    assert none_left.value.retry_after_s == 5


def test_a_model_is_available_while_its_chats_are_whatever_its_other_families_do():
    principal = Principal(KeyId("k"), TenantId("t"), "l", DEFAULT_SCOPES)
    provider = Backend("other")
    models = ModelRegistry((OTHER,), {"other": provider}, created=1)
    for circuits, available in (
        ({}, True),
        ({Family.IMAGES: Circuit.OPEN, Family.CHAT: Circuit.CLOSED}, True),
        ({Family.IMAGES: Circuit.CLOSED, Family.CHAT: Circuit.OPEN}, False),
        ({Family.CHAT: Circuit.HALF_OPEN}, True),
        ({Family.EMBEDDINGS: Circuit.OPEN}, False),
        ({Family.EMBEDDINGS: Circuit.OPEN, Family.RERANK: Circuit.CLOSED}, True),
    ):
        provider.circuits = circuits
        assert models.card(principal, "claude").available == available
        worst = {Circuit.OPEN: 2, Circuit.HALF_OPEN: 1, Circuit.CLOSED: 0}
        assert worst[models.circuits()["other"]] == max((worst[state] for state in circuits.values()), default=0)


def test_failures_that_no_repetition_can_mend_are_told_as_they_are():
    routes = registry(OPENAI, BACKUP, OTHER).routes("shared")

    def failing(*errors):
        left = list(errors)

        async def ask(_route):
            raise left.pop(0)

        return first_able(routes[: len(errors)], ask)

    not_offered = EndpointNotOffered("not here")
    with pytest.raises(UpstreamRejected):
        asyncio.run(failing(not_offered, UpstreamRejected("no")))
    with pytest.raises(EndpointNotOffered):
        asyncio.run(failing(not_offered, EndpointNotOffered("nor here")))
    with pytest.raises(RateLimited):
        asyncio.run(failing(RateLimited("later", retry_after_s=7), not_offered))
    with pytest.raises(ModelUnavailable) as mixed:
        asyncio.run(failing(RateLimited("later", retry_after_s=7), UpstreamRejected("no")))
    assert mixed.value.retry_after_s == 7


def test_a_local_chat_model_gets_prompts_that_fit_it_and_can_stand_in():
    one = ProviderSettings(name="p", base_url="http://p", models=(ModelSettings("m", fallback=("local/small",)),))
    small = LocalModel("local/small", Backend("small"), frozenset({Family.CHAT}), 1536)
    models = ModelRegistry((one,), {"p": Backend("p")}, local=Backend("local"), local_models=(small,), created=1)
    (route,) = models.routes("local/small")
    assert (route.provider.name, route.context_tokens) == ("small", 1536)
    assert [way.provider.name for way in models.routes("m")] == ["p", "small"]
    with pytest.raises(ModelNotFound):
        models.routes("local/small", Family.EMBEDDINGS)
