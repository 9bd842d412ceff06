"""What systemd passes to a service and hears from it: sockets (sd_listen_fds(3)) and states (sd_notify(3)).

Without systemd nothing is passed, and what is said is dropped.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping
from typing import Final, Self

import anyio

_FIRST_DESCRIPTOR: Final = 3
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


class ServiceManager:
    """The service manager that started this process, if any."""

    def __init__(self, *, descriptors: int = 0, notify_path: str = "", watchdog_s: float | None = None) -> None:
        self._descriptors = descriptors
        self._notify_path = notify_path
        self._watchdog_s = watchdog_s

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Self:
        """Read and remove the variables, so that child processes do not take them for theirs."""
        given = {name: environ.pop(name, "") for name in _VARIABLES}
        this_process = str(os.getpid())
        descriptors = int(given["LISTEN_FDS"] or 0) if given["LISTEN_PID"] == this_process else 0
        watched = given["WATCHDOG_USEC"].isdecimal() and given["WATCHDOG_PID"] in ("", this_process)
        return cls(
            descriptors=descriptors,
            notify_path=given["NOTIFY_SOCKET"],
            watchdog_s=int(given["WATCHDOG_USEC"]) / 1e6 if watched else None,
        )

    def sockets(self) -> list[socket.socket]:
        """The listening sockets that were passed."""
        numbers = range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + self._descriptors)
        passed = [socket.socket(fileno=number) for number in numbers]
        for listener in passed:
            listener.set_inheritable(False)
            listener.settimeout(0)
        return passed

    def ready(self) -> None:
        self._notify("READY=1\nSTATUS=ready")

    def status(self, text: str) -> None:
        """State what the service is doing, for ``systemctl status``."""
        self._notify(f"STATUS={text}")

    def stopping(self) -> None:
        self._notify("STOPPING=1\nSTATUS=shutting down")

    async def keep_watchdog(self) -> None:
        """Report twice in each watchdog interval that the event loop runs; returns at once without a watchdog."""
        while self._watchdog_s is not None:
            self._notify("WATCHDOG=1")
            await anyio.sleep(self._watchdog_s / 2)

    def _notify(self, message: str) -> None:
        if not self._notify_path:
            return
        address = "\0" + self._notify_path[1:] if self._notify_path.startswith("@") else self._notify_path
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto(message.encode(), address)
