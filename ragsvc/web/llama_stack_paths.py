"""Paths of OpenAI's API below ``/v1/openai``, where older clients of Llama Stack (up to 0.2) send their requests.

These clients read every event of a stream as JSON, so that ``[DONE]`` is left out.
"""

from __future__ import annotations

import re
from typing import Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from ragsvc.core.gateway.event_stream import DONE

_PREFIX: Final = "/v1/openai/v1/"
_SERVED: Final = re.compile(
    r"/v1/openai/v1/(?:chat/completions|completions|embeddings|models|moderations|files|responses|vector_stores)(?:/|\Z)"
)
"""These alone: with all paths below the prefix, a proxy's rules for paths such as ``/v1/keys`` could be passed by."""


class LlamaStackPaths:
    """ASGI layer outside of the routes: serves ``/v1/openai/v1/files`` as ``/v1/files``, and others of that kind."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or not _SERVED.match(scope["path"]):
            await self._app(scope, receive, send)
            return
        scope["path"] = "/v1/" + scope["path"].removeprefix(_PREFIX)
        raw = scope.get("raw_path") or b""
        if raw.startswith(_PREFIX.encode()):
            scope["raw_path"] = b"/v1/" + raw.removeprefix(_PREFIX.encode())
        is_stream = False

        async def send_without_end(message: Message) -> None:
            nonlocal is_stream
            if message["type"] == "http.response.start":
                is_stream = any(value.startswith(b"text/event-stream") for _, value in message.get("headers", ()))
            elif is_stream and message["type"] == "http.response.body" and message.get("body", b"").endswith(DONE):
                message["body"] = message["body"].removesuffix(DONE)
            await send(message)

        await self._app(scope, receive, send_without_end)
