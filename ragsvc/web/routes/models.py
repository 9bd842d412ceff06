"""``GET /v1/models``: the models, their providers and their prices."""

from __future__ import annotations

from typing import Any, Final, Literal, Protocol, cast

import msgspec
from litestar import Request, get
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope

from ragsvc.core.access.principal import Principal, allows_collection
from ragsvc.core.access.principal import Scope as KeyScope
from ragsvc.core.defaults import DEFAULT_COLLECTION
from ragsvc.services.model_registry import ModelCard, ModelRegistry
from ragsvc.services.tenant_administration import TenantAdministration
from ragsvc.web.auth import AccessRequirement
from ragsvc.web.context import context_of
from ragsvc.web.openapi import DocumentedAnswer
from ragsvc.web.passthrough.raw_responses import JsonBytes

MAX_LISTED_COLLECTIONS: Final = 20
"""Collections with which each model is listed: a list of thousands of models is of no use in a menu."""


class ModelServices(Protocol):
    """The services that these routes use."""

    @property
    def models(self) -> ModelRegistry: ...

    @property
    def tenants(self) -> TenantAdministration: ...


class ModelList(msgspec.Struct, frozen=True):
    """The models that the key may use."""

    data: list[ModelCard]
    object: Literal["list"] = "list"


async def answer_models(scope: Scope, _receive: Receive) -> ASGIResponse:
    """Answer an admitted request for the list of models."""
    services = cast("ModelServices", scope["litestar_app"].state["services"])
    principal = context_of(scope).principal
    collections = await _listed_collections(services, principal) if services.models.lists_documents else []
    return JsonBytes(msgspec.json.encode(ModelList(services.models.cards(principal, collections))))


@get(
    ["/v1/models", "/api/models", "/models"],
    opt={
        "scope": AccessRequirement.ANY_KEY,
        "raw": answer_models,
        "tag": "models",
        "answers": {200: DocumentedAnswer("Request fulfilled, document follows", ModelList)},
    },
    summary="List models",
)
async def list_models(request: Request[Any, Any, Any]) -> ASGIResponse:
    """List the models that the key may use, with prices for 1,000 tokens."""
    return await answer_models(request.scope, request.receive)


async def _listed_collections(services: ModelServices, principal: Principal) -> list[str | None]:
    """The collections to list with each model, if the key may chat with documents: the default one (``None``) first."""
    if KeyScope.CHAT not in principal.scopes:
        return []
    names = [collection.name for collection in await services.tenants.collections(principal.tenant)]
    others = [name for name in names if name != DEFAULT_COLLECTION and allows_collection(principal, name)]
    default = [None] if allows_collection(principal, DEFAULT_COLLECTION) else []
    return [*default, *others[:MAX_LISTED_COLLECTIONS]]


@get("/v1/models/{model_id:path}", opt={"scope": AccessRequirement.ANY_KEY, "tag": "models"}, summary="Show a model")
async def get_model(request: Request[Any, Any, Any], model_id: FromPath[str]) -> ModelCard:
    """Show a model; its name may contain slashes."""
    models = cast("ModelServices", request.app.state["services"]).models
    return models.card(context_of(request.scope).principal, model_id.removeprefix("/"))


route_handlers = [list_models, get_model]
