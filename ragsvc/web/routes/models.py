"""``GET /v1/models``: the models, their providers and their prices."""

from __future__ import annotations

from typing import Any, Literal, Protocol, cast

import msgspec
from litestar import Request, get
from litestar.params import FromPath

from ragsvc.services.model_registry import ModelCard, ModelRegistry
from ragsvc.web.auth import AccessRequirement
from ragsvc.web.context import context_of


class ModelServices(Protocol):
    """The services that these routes use."""

    @property
    def models(self) -> ModelRegistry: ...


class ModelList(msgspec.Struct, frozen=True):
    """The models that the key may use."""

    data: list[ModelCard]
    object: Literal["list"] = "list"


@get(
    ["/v1/models", "/api/models", "/models"],
    opt={"scope": AccessRequirement.ANY_KEY, "tag": "models"},
    summary="List models",
)
async def list_models(request: Request[Any, Any, Any]) -> ModelList:
    """List the models that the key may use, with prices for 1,000 tokens."""
    models = cast("ModelServices", request.app.state["services"]).models
    return ModelList(models.cards(context_of(request.scope).principal))


@get("/v1/models/{model_id:path}", opt={"scope": AccessRequirement.ANY_KEY, "tag": "models"}, summary="Show a model")
async def get_model(request: Request[Any, Any, Any], model_id: FromPath[str]) -> ModelCard:
    """Show a model; its name may contain slashes."""
    models = cast("ModelServices", request.app.state["services"]).models
    return models.card(context_of(request.scope).principal, model_id.removeprefix("/"))


route_handlers = [list_models, get_model]
