"""``/mcp``: the streamable HTTP transport of the official SDK, behind the keys of the service.

Requests are independent of each other: no session is kept, so any process can answer any of them, and a key that is
revoked has no open session left. The SDK is imported at the first request, because its import takes most of a second.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio
import anyio.abc
import anyio.to_thread
from litestar import Litestar, asgi
from litestar.types import Receive, Scope, Send

from ragsvc.core.errors import ShuttingDown
from ragsvc.web.auth import SMALL_BODY_BYTES, AccessRequirement, check_length
from ragsvc.web.context import context_of
from ragsvc.web.mcp.tools import ToolServices

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

PATH: Final = "/mcp"
_STATE_KEY: Final = "mcp_endpoint"


class McpEndpoint:
    """Starts the MCP server at the first request, and ends it with the application."""

    def __init__(self, services: ToolServices) -> None:
        """``services`` are those of the application, which the tools use."""
        self._services = services
        self._tasks: anyio.abc.TaskGroup | None = None
        self._manager: StreamableHTTPSessionManager | None = None
        self._starting = anyio.Lock()

    @asynccontextmanager
    async def running(self, app: Litestar) -> AsyncGenerator[None]:
        """The lifespan in which requests can be answered."""
        app.state[_STATE_KEY] = self
        async with anyio.create_task_group() as self._tasks:
            yield
            self._tasks.cancel_scope.cancel()
        self._tasks = self._manager = None

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an admitted request."""
        manager = self._manager or await self._start()
        await manager.handle_request(scope, receive, send)  # type: ignore[arg-type]  # ASGI, as other types

    async def _start(self) -> StreamableHTTPSessionManager:
        async with self._starting:
            if self._manager is None:
                if self._tasks is None:
                    raise ShuttingDown("The service is shutting down.")
                manager = await anyio.to_thread.run_sync(self._create)
                self._manager = await self._tasks.start(_run, manager)
            assert self._manager is not None  # noqa: S101 - set above
            return self._manager

    def _create(self) -> StreamableHTTPSessionManager:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager  # noqa: PLC0415 - slow import

        from ragsvc.web.mcp.server import create_server  # noqa: PLC0415 - imports the SDK

        return StreamableHTTPSessionManager(
            create_server(self._services), stateless=True, max_request_body_size=SMALL_BODY_BYTES
        )


async def _run(
    manager: StreamableHTTPSessionManager,
    *,
    task_status: anyio.abc.TaskStatus[StreamableHTTPSessionManager] = anyio.TASK_STATUS_IGNORED,
) -> None:
    async with manager.run():
        task_status.started(manager)
        await anyio.sleep_forever()


@asgi(PATH, copy_scope=True, opt={"scope": AccessRequirement.ANY_KEY})
async def answer_mcp(scope: Scope, receive: Receive, send: Send) -> None:
    """The Model Context Protocol, streamable HTTP: tools and resources that the scopes of the key allow."""
    if (length := context_of(scope).headers.get(b"content-length")) is not None:
        check_length(length, SMALL_BODY_BYTES)
    endpoint: McpEndpoint = scope["litestar_app"].state[_STATE_KEY]
    await endpoint.answer(scope, receive, send)


route_handlers = [answer_mcp]
