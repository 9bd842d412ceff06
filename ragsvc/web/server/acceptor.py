"""Accepts connections in groups: uvloop accepts one in each turn of its loop, so a queue waits for as many turns."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

_log = logging.getLogger(__name__)

_BACKLOG: Final = 2048
_ACCEPTED_AT_ONCE: Final = 16
"""About 2 ms of work."""
_HANDSHAKE_TIMEOUT_S: Final = 10.0
_PAUSE_S: Final = 0.5


class Acceptor:
    """Listens on a bound socket and makes a protocol for each connection."""

    def __init__(
        self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], *, tls: ssl.SSLContext | None
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        self._closed = False
        listener.listen(_BACKLOG)
        listener.settimeout(0)
        self._listen()

    def close(self) -> None:
        """Accept no further connections."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._listener)

    def _listen(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors or memory: the queue waits until others have closed
                _log.warning("No connection can be accepted: %s.", error.strerror)
                self._loop.remove_reader(self._listener)
                self._loop.call_later(_PAUSE_S, self._listen)
                return
            connection.settimeout(0)
            if connection.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):  # a connection that is closed already
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._open(connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        handshake_s = None if self._tls is None else _HANDSHAKE_TIMEOUT_S
        try:
            await self._loop.connect_accepted_socket(
                self._protocol, connection, ssl=self._tls, ssl_handshake_timeout=handshake_s
            )
        except OSError:  # the client left, or failed in the TLS handshake
            connection.close()
