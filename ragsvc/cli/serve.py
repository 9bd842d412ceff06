"""``ragsvc serve``: one process with one event loop, which drains on SIGTERM and SIGINT."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator

import anyio
import anyio.abc
import msgspec
import uvicorn

from ragsvc import __version__
from ragsvc.cli.failures import CommandFailed
from ragsvc.cli.logs import log_to_standard_error
from ragsvc.cli.output import Output
from ragsvc.cli.target import Target, keep_private
from ragsvc.config import Settings
from ragsvc.core.log_events import log_event
from ragsvc.store.directory_lock import DataDirectoryLock
from ragsvc.web.service_app import create_service
from ragsvc.wiring.services import Services, open_services

_log = logging.getLogger("ragsvc.service")

_BACKLOG = 2048
_OPEN_FILES = 65_536


async def serve(target: Target, *, host: str | None, port: int | None, output: Output) -> None:
    """Serve until a signal; returns after everything is closed.

    Raises:
        DataDirectoryLocked: another process serves the data directory.
        CommandFailed: the service cannot listen on the address.
    """
    started = time.monotonic()
    keep_private()
    _allow_connections()
    settings = target.settings()
    settings = msgspec.structs.replace(
        settings,
        host=settings.host if host is None else host,
        port=settings.port if port is None else port,
    )
    log_to_standard_error(settings.log_level, log_format=settings.log_format)
    announce = _Announcer(output, started)
    with contextlib.closing(_bind(settings)) as listener:
        stop = _Stop()
        async with anyio.create_task_group() as tasks:
            await tasks.start(stop.on_signals)
            with stop.startup:
                async with open_services(settings) as services:
                    await _serve(services, listener, stop, announce)
            tasks.cancel_scope.cancel()
    log_event(_log, logging.INFO, "stopped", "ragsvc stopped", signal=stop.reason)
    announce.event("stopped", "ragsvc stopped", signal=stop.reason)


def _allow_connections() -> None:
    """Raise the soft limit of open files (often 1,024): a streamed answer needs two connections."""
    try:
        import resource  # noqa: PLC0415 - Unix only
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(services: Services, listener: socket.socket, stop: _Stop, announce: _Announcer) -> None:
    config = uvicorn.Config(
        create_service(services),
        http="httptools",
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=math.ceil(services.settings.shutdown_grace_s),
    )
    server = _AnnouncingServer(config, on_started=lambda: announce.started(_address(listener), services))
    stop.drain_with(server, services)
    # hundreds of thousands of objects live as long as the process; full garbage collections need not visit them
    gc.collect()
    gc.freeze()
    await server.serve(sockets=[listener])


class _AnnouncingServer(uvicorn.Server):
    """uvicorn that calls back when it listens, without its signal handling: ``_Stop`` handles signals."""

    def __init__(self, config: uvicorn.Config, *, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class _Stop:
    """Handles signals: during the start the first cancels it, later the first drains and the second exits at once."""

    def __init__(self) -> None:
        self.startup = anyio.CancelScope()
        self.reason: str | None = None
        self._server: uvicorn.Server | None = None
        self._services: Services | None = None

    def drain_with(self, server: uvicorn.Server, services: Services) -> None:
        self._server = server
        self._services = services

    async def on_signals(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for received in signals:
                self._stop(received)

    def _stop(self, received: signal.Signals) -> None:
        again, self.reason = self.reason is not None, received.name
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

    def event(self, name: str, words: str, **fields: object) -> None:
        """Print an event: ``words`` as text, or name and fields as a JSON object."""
        line = msgspec.json.encode({"event": name, **fields}).decode() if self._output.as_json else words
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def started(self, url: str, services: Services) -> None:
        """Print the address, and that the service is ready."""
        log_event(
            _log,
            logging.INFO,
            "ready",
            f"ragsvc {__version__} is ready",
            url=url,
            pid=os.getpid(),
            data_dir=str(services.settings.data_dir),
            seconds=round(time.monotonic() - self._started, 2),
        )
        data_dir = str(services.settings.data_dir)
        self.event("listening", f"ragsvc listens on {url}", url=url, pid=os.getpid(), data_dir=data_dir)
        seconds = round(time.monotonic() - self._started, 2)
        model, runtime = services.embedder.model.name, services.embedder.runtime
        self.event(
            "ready",
            f"ready after {seconds} s: data in {services.settings.data_dir}, {model} on {runtime}",
            seconds=seconds,
            embedding_model=model,
            embedding_runtime=runtime,
        )


def _bind(settings: Settings) -> socket.socket:
    """Bind before the slow start, so that an address in use is reported at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            _check_lock(settings)
            message = f"port {settings.port} of {settings.host} is in use; choose another with --port (0: any free one)"
        else:
            message = f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        raise CommandFailed(message, code="address_unavailable") from error
    return listener


def _check_lock(settings: Settings) -> None:
    """Raise ``DataDirectoryLocked`` if another ragsvc serves the directory: a better reason than the port."""
    lock = DataDirectoryLock(settings.data_dir)
    lock.acquire()
    lock.release()


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
