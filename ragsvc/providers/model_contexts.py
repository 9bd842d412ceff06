"""The context lengths of a provider's models, where its list of models has them.

vLLM and SGLang list ``max_model_len``, llama.cpp ``meta.n_ctx``, OpenRouter and Together ``context_length``, Groq
``context_window``, Mistral and LM Studio ``max_context_length``, LiteLLM ``max_input_tokens``. Ollama and OpenAI list
none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from ragsvc.core.errors import RagsvcError
from ragsvc.providers.upstream_requests import HTTP_FAILURES, RetriableFailure, UpstreamClient, UpstreamEndpoint

_NAMES: Final = frozenset(
    {
        "max_model_len",
        "n_ctx",
        "n_ctx_train",
        "context_length",
        "context_window",
        "max_context_length",
        "loaded_context_length",
        "max_context_window_tokens",
        "max_input_tokens",
    }
)
_MODELS: Final = UpstreamEndpoint("/models")
_NESTED: Final = ("meta", "top_provider", "limits", "capabilities")
_SMALLEST: Final = 256
_TIMEOUT_S: Final = 3.0
_KEEP_S: Final = 600.0
_KEEP_FAILURE_S: Final = 60.0


class _ModelList(msgspec.Struct):
    data: list[dict[str, Any]] = []


_LISTS: Final = msgspec.json.Decoder(_ModelList)


class ModelContexts:
    """Asks a provider for its models and keeps the answer for ten minutes, a failure for one."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = asyncio.Lock()
        self._known: Mapping[str, int] = {}
        self._expires = float("-inf")

    async def tokens(self, model: str, client: UpstreamClient) -> int | None:
        """The context length of a model in tokens, or ``None`` if the provider does not list it."""
        if self._clock() >= self._expires:
            async with self._lock:
                if self._clock() >= self._expires:
                    await self._refresh(client)
        return self._known.get(model)

    async def _refresh(self, client: UpstreamClient) -> None:
        keep_s = _KEEP_S
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                response = await client.open("GET", _MODELS, b"", {"Accept": "application/json"})
                listed = _LISTS.decode(await client.read(response))
            self._known = {
                entry["id"]: min(lengths)
                for entry in listed.data
                if isinstance(entry.get("id"), str) and (lengths := _context_lengths(entry))
            }
        except (RetriableFailure, RagsvcError, msgspec.DecodeError, UnicodeDecodeError, *HTTP_FAILURES):
            keep_s = _KEEP_FAILURE_S  # what was known before stays
        self._expires = self._clock() + keep_s


def _context_lengths(entry: Mapping[str, Any]) -> list[int]:
    """All context lengths in an entry: that of the running model may stand beside that of its training."""
    parts = [entry, *(part for name in _NESTED if isinstance(part := entry.get(name), dict))]
    values = [value for part in parts for name, value in part.items() if name in _NAMES]
    return [value for value in values if type(value) is int and value >= _SMALLEST]
