"""uvicorn's server with the bounds of ``http_protocol`` and without its signal handling."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Final, cast

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from ragsvc.core.network import Networks
from ragsvc.web.grace_period import GRACE_KEY, GracePeriod
from ragsvc.web.public_address import ForwardedAddresses
from ragsvc.web.server.acceptor import Acceptor
from ragsvc.web.server.connections import ConnectionLimits, ConnectionTable
from ragsvc.web.server.http_protocol import BoundedHttpProtocol

if TYPE_CHECKING:
    from litestar.types import ASGIApp

_SWEEP_S: Final = 0.5
_SWEPT_AT_ONCE: Final = 500
_FAREWELL_S: Final = 2.0
"""Time for the last events of streams that the end of the grace period cancels."""

_log = logging.getLogger(__name__)


class HttpServer(uvicorn.Server):
    """Serves ``app`` on given sockets until ``should_exit``; ``on_listening`` is called when it accepts connections."""

    def __init__(
        self,
        app: ASGIApp,
        limits: ConnectionLimits,
        *,
        shutdown_grace_s: float,
        tls: ssl.SSLContext | None = None,
        trusted_proxies: str = "",
        on_listening: Callable[[], None] = lambda: None,
    ) -> None:
        served = app
        self._trusted = Networks.parse(trusted_proxies)
        if trusted_proxies:
            named = ProxyHeadersMiddleware(app, trusted_proxies)  # type: ignore[arg-type]  # the same ASGI in other types
            served = ForwardedAddresses(cast("ASGIApp", named), self._trusted.__contains__)
        super().__init__(
            uvicorn.Config(
                served,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
            )
        )
        self.table = ConnectionTable(limits)
        self._grace = GracePeriod()
        self._shutdown_grace_s = shutdown_grace_s
        self._tls = tls
        self._on_listening = on_listening
        self._acceptors: list[Acceptor] = []
        self._sweeper: asyncio.Task[None] | None = None

    async def startup(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Listen, with our own acceptors and protocol."""
        self._acceptors = [Acceptor(listener, self._protocol, tls=self._tls) for listener in sockets or ()]
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep_forever())
        self.started = True
        self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, wait for running requests, and end those that outlast the grace period.

        As in uvicorn, but requests that are cancelled get time to tell their clients (see ``GracePeriod``).
        """
        for acceptor in self._acceptors:
            acceptor.close()
        for listener in sockets or ():
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._wait_until_idle(self._shutdown_grace_s)
        if not self.force_exit and self.server_state.tasks:
            _log.warning(
                "%d requests did not end within the grace period of %g seconds and are ended.",
                len(self.server_state.tasks),
                self._shutdown_grace_s,
            )
            self._grace.is_over = True
            for task in self.server_state.tasks:
                task.cancel()
            await self._wait_until_idle(_FAREWELL_S)
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def _wait_until_idle(self, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while (self.server_state.connections or self.server_state.tasks) and not self.force_exit:
            if loop.time() >= deadline:
                return
            await asyncio.sleep(0.05)

    def _protocol(self) -> BoundedHttpProtocol:
        return BoundedHttpProtocol(
            self.config,
            self.server_state,
            table=self.table,
            state={GRACE_KEY: self._grace},
            trusted=self._trusted,
            loop=asyncio.get_running_loop(),
        )

    async def _sweep_forever(self) -> None:
        """Check the timeouts of all connections, with pauses, because there can be thousands."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_S)
            connections = self.table.open_connections()
            for begin in range(0, len(connections), _SWEPT_AT_ONCE):
                now = loop.time()
                for connection in connections[begin : begin + _SWEPT_AT_ONCE]:
                    connection.check(now)
                await asyncio.sleep(0)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield
