"""What the providers inside this process have in common: always there, nobody to ask with another key."""

from __future__ import annotations

import time
from typing import Any, Self
from uuid import uuid4

from ragsvc.core.errors import ModelNotFound
from ragsvc.core.gateway.chat import ChatCall
from ragsvc.core.gateway.circuit_breaker import Circuit
from ragsvc.core.ports.model_provider import ForwardReply, ForwardRequest


class LocalProvider:
    """The part of the port ``ModelProvider`` that is the same for all of them."""

    circuit = Circuit.CLOSED

    def with_key(self, api_key: str, *, from_caller: bool = False) -> Self:
        """Itself: nobody is asked."""
        del api_key, from_caller
        return self

    async def aclose(self) -> None:
        """Nothing is open."""


class LocalChat(LocalProvider):
    """A provider of one model that only chats."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def forward(self, request: ForwardRequest) -> ForwardReply:
        """Refuse: this model only chats."""
        raise ModelNotFound(f"'{self._name}' serves chat completions only, not {request.path}", param="model")

    def _head(self, call: ChatCall, kind: str) -> dict[str, Any]:
        """What an answer, or each of its chunks, begins with."""
        return {
            "id": f"chatcmpl-{uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": call.request.model,
        }
