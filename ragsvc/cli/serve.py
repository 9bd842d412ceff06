"""``ragsvc serve``: one process with one event loop, which drains on SIGTERM and SIGINT.

The port opens first; modules, data directory and models are loaded while ``/livez`` and ``/readyz`` answer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from ragsvc import __version__
from ragsvc.cli.listeners import Listener, bind, open_tls, warn_of_plaintext
from ragsvc.cli.logs import log_to_standard_error
from ragsvc.cli.output import Output
from ragsvc.cli.process_tuning import settle
from ragsvc.cli.service_manager import ServiceManager
from ragsvc.cli.target import Target, keep_private
from ragsvc.config import Settings
from ragsvc.core.log_events import log_event
from ragsvc.core.origins import AllowedOrigins
from ragsvc.store.data_keys import is_open_to_others
from ragsvc.web.server.connections import ConnectionLimits
from ragsvc.web.server.http_server import HttpServer
from ragsvc.web.server.startup import StartupApp

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from typing import Protocol

    from litestar import Litestar
    from litestar.types import ASGIApp

    from ragsvc.wiring.services import Services

    CreateService = Callable[[Services], Litestar]

    class OpenServices(Protocol):
        def __call__(
            self, settings: Settings, *, report: Callable[[str], None]
        ) -> AbstractAsyncContextManager[Services]: ...


_log = logging.getLogger("ragsvc.service")

_OPEN_FILES = 65_536
_RESERVED_FILES = 256
"""Descriptors that connections of clients never take: database, indexes, parsers, uploads."""


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the command that take precedence over the settings of the same names; ``None``: not given."""

    host: str | None = None
    port: int | None = None
    unix_socket: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None

    def apply(self, settings: Settings) -> Settings:
        given = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(settings, **given)


async def serve(target: Target, options: ServeOptions, *, output: Output) -> None:
    """Serve until a signal; returns after everything is closed.

    Raises:
        DataDirectoryLocked: another process serves the data directory.
        ConfigurationError: a certificate cannot be used, or as for ``open_services``.
        CommandFailed: the service cannot listen on the address.
    """
    started = time.monotonic()
    keep_private()
    open_files = _allow_connections()
    settings = options.apply(target.settings())
    log_to_standard_error(settings.log_level, log_format=settings.log_format)
    if is_open_to_others(settings.master_key_file):
        _log.warning("other users can read the file of the master key, %s", settings.master_key_file)
    announce = _Announcer(output, started)
    manager = ServiceManager.from_environment(os.environ)
    tls = open_tls(settings)
    listeners = bind(settings, manager)
    with contextlib.ExitStack() as closing:
        for listener in listeners:
            closing.enter_context(contextlib.closing(listener))
        warn_of_plaintext(settings, listeners)
        stop = _Stop(manager)
        gate = StartupApp(AllowedOrigins.parse(settings.cors_origins))
        server = HttpServer(
            cast("ASGIApp", gate),
            _limits(settings, open_files),
            shutdown_grace_s=settings.shutdown_grace_s,
            tls=tls,
            trusted_proxies=settings.trusted_proxies,
            on_listening=lambda: announce.listening(listeners, settings),
        )
        async with anyio.create_task_group() as tasks:
            await tasks.start(stop.on_signals)
            tasks.start_soon(manager.keep_watchdog)
            with stop.startup:
                async with anyio.create_task_group() as serving:
                    serving.start_soon(_run_server, server, [listener.socket for listener in listeners], stop)
                    await _serve(settings, gate, server, stop, announce)
            tasks.cancel_scope.cancel()
    log_event(_log, logging.INFO, "stopped", "ragsvc stopped", signal=stop.reason)
    announce.event("stopped", "ragsvc stopped", signal=stop.reason)


async def _run_server(server: HttpServer, sockets: list[socket.socket], stop: _Stop) -> None:
    await server.serve(sockets)
    stop.drained.set()


async def _serve(settings: Settings, gate: StartupApp, server: HttpServer, stop: _Stop, announce: _Announcer) -> None:
    """Load and open everything, then serve until the server has drained."""

    def report(step: str) -> None:
        gate.report(step)
        stop.manager.status(step)

    report("loading modules")
    create_service, open_services = await anyio.to_thread.run_sync(_import_service)
    async with open_services(settings, report=report) as services:
        app = create_service(services)
        async with app.lifespan():
            settle()
            gate.open(app)
            stop.drain_with(server, services)
            announce.ready(services)
            stop.manager.ready()
            await stop.drained.wait()


def _import_service() -> tuple[CreateService, OpenServices]:
    """Import the modules of models and indexes, which takes seconds; the event loop answers meanwhile."""
    from ragsvc.web.service_app import create_service  # noqa: PLC0415 - heavy
    from ragsvc.wiring.services import open_services  # noqa: PLC0415 - heavy

    return create_service, open_services


def _limits(settings: Settings, open_files: int | None) -> ConnectionLimits:
    limits = ConnectionLimits(**{name: getattr(settings, name) for name in ConnectionLimits.__struct_fields__})
    if open_files is None:
        return limits
    # a streamed answer takes a second connection, to the provider
    possible = max(16, (open_files - _RESERVED_FILES) // 2)
    return msgspec.structs.replace(limits, max_connections=min(limits.max_connections, possible))


def _allow_connections() -> int | None:
    """Raise the soft limit of open files (often 1,024), and return it; ``None`` if it is unlimited or unknown."""
    try:
        import resource  # noqa: PLC0415 - Unix only
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return None if soft == resource.RLIM_INFINITY else soft


class _Stop:
    """Handles signals: during the start the first cancels it, later the first drains and the second exits at once."""

    def __init__(self, manager: ServiceManager) -> None:
        self.startup = anyio.CancelScope()
        self.drained = anyio.Event()
        self.reason: str | None = None
        self.manager = manager
        self._server: HttpServer | None = None
        self._services: Services | None = None

    def drain_with(self, server: HttpServer, services: Services) -> None:
        self._server = server
        self._services = services

    async def on_signals(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for received in signals:
                self._stop(received)

    def _stop(self, received: signal.Signals) -> None:
        again, self.reason = self.reason is not None, received.name
        self.manager.stopping()
        if self._server is None or self._services is None:
            self.startup.cancel()
        elif again:
            self._server.force_exit = True
        else:
            self._services.readiness.block("service", "shutting down")
            self._services.ingest.drain()
            self._services.documents.stop_waiting()
            self._server.should_exit = True


class _Announcer:
    """Prints start and stop events to standard output."""

    def __init__(self, output: Output, started: float) -> None:
        self._output = output
        self._started = started
        self._pages: str | None = None

    def event(self, name: str, words: str, **fields: object) -> None:
        """Print an event: ``words`` as text, or name and fields as a JSON object."""
        line = msgspec.json.encode({"event": name, **fields}).decode() if self._output.as_json else words
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def listening(self, listeners: Sequence[Listener], settings: Settings) -> None:
        """Print the addresses. ``/livez`` answers from now on, but the start may still be refused."""
        urls = [listener.url for listener in listeners]
        data_dir = str(settings.data_dir)
        address = settings.public_url or urls[0]
        if settings.pages and address.startswith("http"):
            self._pages = address.rstrip("/") + "/"
        log_event(
            _log,
            logging.INFO,
            "listening",
            f"ragsvc {__version__} starts",
            url=urls[0],
            pid=os.getpid(),
            data_dir=data_dir,
        )
        self.event("listening", f"ragsvc starts on {', '.join(urls)}", url=urls[0], pid=os.getpid(), data_dir=data_dir)

    def ready(self, services: Services) -> None:
        """Print that the service is ready."""
        log_event(
            _log,
            logging.INFO,
            "ready",
            f"ragsvc {__version__} is ready",
            pid=os.getpid(),
            data_dir=str(services.settings.data_dir),
            pages=self._pages,
            seconds=round(time.monotonic() - self._started, 2),
        )
        seconds = round(time.monotonic() - self._started, 2)
        model, runtime = services.embedder.model.name, services.embedder.runtime
        self.event(
            "ready",
            f"ready after {seconds} s: data in {services.settings.data_dir}, {model} on {runtime}"
            + ("" if self._pages is None else f"; pages: {self._pages} ('ragsvc open' prints a link that signs in)"),
            seconds=seconds,
            pages=self._pages,
            embedding_model=model,
            embedding_runtime=runtime,
        )
