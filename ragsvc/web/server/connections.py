"""Bounds on connections, and the table of open connections that enforces them.

Where a bound on connections is reached, a connection that waits for its client makes room: the one that has waited
longest. Running requests are never ended for a newcomer; only if all connections are busy is the newcomer refused.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from ragsvc.core.defaults import (
    DEFAULT_BODY_TIMEOUT_S,
    DEFAULT_HEADER_TIMEOUT_S,
    DEFAULT_IDLE_TIMEOUT_S,
    DEFAULT_MAX_CONNECTIONS,
    DEFAULT_MAX_CONNECTIONS_PER_ADDRESS,
    DEFAULT_MAX_HEADER_BYTES,
    DEFAULT_MAX_HEADERS,
    DEFAULT_SEND_TIMEOUT_S,
)

_STALLED_S: Final = 2.0
"""A request body without a byte for this long makes room for a new connection."""
_SEARCH_PAUSE_S: Final = 0.5
"""Stalled bodies are searched for at most this often: the search visits all connections."""


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the HTTP server; the settings of the same names describe them."""

    max_header_bytes: int = DEFAULT_MAX_HEADER_BYTES
    max_headers: int = DEFAULT_MAX_HEADERS
    header_timeout_s: float = DEFAULT_HEADER_TIMEOUT_S
    body_timeout_s: float = DEFAULT_BODY_TIMEOUT_S
    idle_timeout_s: float = DEFAULT_IDLE_TIMEOUT_S
    send_timeout_s: float = DEFAULT_SEND_TIMEOUT_S
    max_connections: int = DEFAULT_MAX_CONNECTIONS
    max_connections_per_address: int = DEFAULT_MAX_CONNECTIONS_PER_ADDRESS


class TrackedConnection(Protocol):
    """A connection in the table."""

    @property
    def address(self) -> str | None:
        """The network of the client that is counted together; ``None`` is not limited by address."""
        ...

    def make_room(self) -> None:
        """Close at once."""
        ...

    def body_stalled_s(self, now: float) -> float:
        """Seconds without a byte of a request body that the application waits for; 0 if it waits for none."""
        ...

    def check(self, now: float) -> None:
        """Close if a timeout has passed."""
        ...


class ConnectionTable:
    """Open connections: counted in total and by address, and ordered by the time since which they wait."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.refused = 0
        """Connections refused because all others were busy."""
        self.evicted = 0
        """Connections closed to make room."""
        self._open: set[TrackedConnection] = set()
        self._count: dict[str, int] = {}
        self._waiting: dict[TrackedConnection, None] = {}
        self._waiting_at: dict[str, dict[TrackedConnection, None]] = {}
        self._searched_at = float("-inf")

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: TrackedConnection, now: float) -> bool:
        """Count a new connection, making room if necessary; ``False`` if there is none."""
        address = connection.address
        if address is not None and self._count.get(address, 0) >= self.limits.max_connections_per_address:
            self._evict(self._waiting_at.get(address, {}), now, address=address)
            if self._count.get(address, 0) >= self.limits.max_connections_per_address:
                self.refused += 1
                return False
        if len(self._open) >= self.limits.max_connections:
            self._evict(self._waiting, now)
            if len(self._open) >= self.limits.max_connections:
                self.refused += 1
                return False
        self._open.add(connection)
        if address is not None:
            self._count[address] = self._count.get(address, 0) + 1
        return True

    def remove(self, connection: TrackedConnection) -> None:
        """Forget a connection; does nothing if it is not in the table."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        self.ends_waiting(connection)
        address = connection.address
        if address is None:
            return
        left = self._count[address] - 1
        if left:
            self._count[address] = left
        else:
            del self._count[address]
            self._waiting_at.pop(address, None)

    def waits(self, connection: TrackedConnection) -> None:
        """The connection has no request in progress from now on."""
        if connection not in self._open:
            return
        self._waiting[connection] = None
        if (address := connection.address) is not None:
            self._waiting_at.setdefault(address, {})[connection] = None

    def ends_waiting(self, connection: TrackedConnection) -> None:
        """The connection has a request in progress from now on."""
        self._waiting.pop(connection, None)
        if (address := connection.address) is not None and (waiting := self._waiting_at.get(address)) is not None:
            waiting.pop(connection, None)

    def open_connections(self) -> list[TrackedConnection]:
        return list(self._open)

    def _evict(self, waiting: dict[TrackedConnection, None], now: float, *, address: str | None = None) -> None:
        oldest = next(iter(waiting), None)
        if oldest is not None:
            self._close(oldest)
            return
        if now - self._searched_at < _SEARCH_PAUSE_S:
            return
        self._searched_at = now
        for connection in self.open_connections():
            if address in (None, connection.address) and connection.body_stalled_s(now) >= _STALLED_S:
                self._close(connection)

    def _close(self, connection: TrackedConnection) -> None:
        self.evicted += 1
        self.remove(connection)
        connection.make_room()
