"""Base classes of the providers that run in this process: always available, and without API keys."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self
from uuid import uuid4

from ragsvc.core.errors import ModelNotFound
from ragsvc.core.gateway.chat import ChatCall
from ragsvc.core.gateway.circuit_breaker import Circuit
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.ports.model_provider import ForwardReply, ForwardRequest


class LocalProvider:
    """The methods of the port ``ModelProvider`` that all local providers share."""

    circuits: Mapping[Family, Circuit] = MappingProxyType({})

    def with_key(self, api_key: str, *, from_caller: bool = False) -> Self:
        """This provider: it needs no key."""
        del api_key, from_caller
        return self

    async def context_tokens(self, model: str) -> int | None:
        """``None``: the routes of local models have their context lengths."""
        del model
        return None

    async def aclose(self) -> None:
        """Do nothing: no resources are open."""


class LocalChat(LocalProvider):
    """A provider of one model that serves chat completions only."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def forward(self, request: ForwardRequest) -> ForwardReply:
        """Raise ``ModelNotFound``: the model serves chat completions only."""
        message = f"The model '{self._name}' serves chat completions only, not {request.path}."
        raise ModelNotFound(message, param="model")

    def _head(self, call: ChatCall, kind: str) -> dict[str, Any]:
        """The common fields of an answer, or of each of its chunks."""
        return {
            "id": f"chatcmpl-{uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": call.request.model,
        }
