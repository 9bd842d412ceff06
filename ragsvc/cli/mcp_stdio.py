"""``ragsvc mcp``: the Model Context Protocol over standard input and output, for clients that start their servers.

Each line is a JSON-RPC message. It is sent to ``/mcp`` of a running service, or of a service in this process, with the
headers of the streamable HTTP transport (https://modelcontextprotocol.io/specification, "Transports"). Standard output
has messages of the protocol only.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import anyio
import msgspec

from ragsvc.cli.failures import CommandFailed
from ragsvc.cli.service_client import Json, ServiceClient
from ragsvc.cli.target import Target, connect

_VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
_NAMED: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Requests whose name of a tool, prompt or resource is also a header."""
_PARSE_ERROR: Final = -32700
_INTERNAL_ERROR: Final = -32603
_LONGEST_SILENCE_S: Final = 600.0

Write = Callable[[bytes], Awaitable[None]]


async def serve_stdio(target: Target) -> None:
    """Serve until standard input ends."""
    output = anyio.wrap_file(sys.stdout.buffer)

    async def write(message: bytes) -> None:
        await output.write(message + b"\n")
        await output.flush()

    async with connect(target) as client, anyio.create_task_group() as tasks:
        bridge = Bridge(client, write)
        async for line in anyio.wrap_file(sys.stdin.buffer):
            if line.strip():
                tasks.start_soon(bridge.forward, line)


class Bridge:
    """Forwards messages of one client to a service, and the service's messages to ``write``."""

    def __init__(self, service: ServiceClient, write: Write) -> None:
        self._service = service
        self._write = write
        self._writing = anyio.Lock()
        self._version: str | None = None
        self._open: dict[Any, anyio.CancelScope] = {}

    async def forward(self, line: bytes) -> None:
        """Send a message; every request gets a response, whatever happens."""
        try:
            message = msgspec.json.decode(line, type=Json)
        except msgspec.DecodeError as error:
            await self._fail(None, _PARSE_ERROR, f"Not a JSON-RPC message: {error}")
            return
        identifier = message.get("id")
        if message.get("method") == "notifications/cancelled" and self._cancel(message):
            return
        with anyio.CancelScope() as scope:
            if identifier is not None:
                self._open[identifier] = scope
            try:
                await self._exchange(message)
            except CommandFailed as error:
                if identifier is not None:
                    await self._fail(identifier, _INTERNAL_ERROR, error.message)
            finally:
                self._open.pop(identifier, None)

    def _cancel(self, message: Json) -> bool:
        """End the request that a notification cancels; ``False`` if it is not open."""
        scope = self._open.get((message.get("params") or {}).get("requestId"))
        if scope is not None:
            scope.cancel()
        return scope is not None

    async def _exchange(self, message: Json) -> None:
        async with self._service.messages(
            "/mcp", message, headers=self._headers(message), silence_s=_LONGEST_SILENCE_S
        ) as answers:
            async for answer in answers:
                if message.get("method") == "initialize" and "result" in answer:
                    self._version = answer["result"].get("protocolVersion")
                await self._send(answer)

    def _headers(self, message: Json) -> dict[str, str]:
        headers = {"accept": "application/json, text/event-stream"}
        params: Mapping[str, Any] = message.get("params") or {}
        stated = (params.get("_meta") or {}).get(_VERSION_KEY)
        if isinstance(stated, str):
            method = str(message.get("method"))
            headers |= {"mcp-protocol-version": stated, "mcp-method": method}
            if isinstance(name := params.get(_NAMED.get(method, "")), str) and name.isascii() and name.isprintable():
                headers["mcp-name"] = name
        elif self._version is not None:
            headers["mcp-protocol-version"] = self._version
        return headers

    async def _fail(self, identifier: object, code: int, message: str) -> None:
        await self._send({"jsonrpc": "2.0", "id": identifier, "error": {"code": code, "message": message}})

    async def _send(self, message: Json) -> None:
        async with self._writing:
            await self._write(msgspec.json.encode(message))
