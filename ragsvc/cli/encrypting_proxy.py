"""``ragsvc proxy``: serves the encrypting proxy on a loopback address until a signal."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Generator
from typing import Literal

import anyio
import msgspec
import uvicorn

from ragsvc.cli.failures import CommandFailed, usage_error
from ragsvc.cli.output import Output
from ragsvc.client import AsyncEncryptedTransport, HpkeStream, Rvenc
from ragsvc.client.encrypting_proxy import EncryptingGateway
from ragsvc.client.encryption_mode import EncryptionMode


class ProxyOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of ``ragsvc proxy``. ``pins`` are SHA-256 fingerprints of accepted server keys."""

    upstream: str
    host: str
    port: int
    mode: Literal["hpke-stream", "rvenc"]
    pins: tuple[str, ...]
    request_timeout_s: float
    max_buffer_bytes: int
    max_body_bytes: int


async def run_proxy(options: ProxyOptions, output: Output) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        CommandFailed: the address is not a loopback address, or in use.
        ConfigurationError: the server has neither TLS nor pinned keys.
    """
    if not _is_loopback(options.host):
        raise usage_error("--host must be a loopback address: clients send plaintext to the proxy")
    origin = options.upstream.rstrip("/").removesuffix("/v1")

    def make_transport() -> AsyncEncryptedTransport:
        return AsyncEncryptedTransport(
            origin, _mode(options), pinned_keys=options.pins or None, request_timeout_s=options.request_timeout_s
        )

    await make_transport().aclose()  # reports invalid settings now, not at the first request
    gateway = EncryptingGateway(origin, make_transport, max_body_bytes=options.max_body_bytes)
    with contextlib.closing(_bind(options)) as listener:
        config = uvicorn.Config(
            gateway, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False, server_header=False
        )
        server = _ProxyServer(config)
        _announce(listener, origin, options, output)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_on_signals, server)
            await server.serve(sockets=[listener])
            tasks.cancel_scope.cancel()
    await gateway.aclose()


class _ProxyServer(uvicorn.Server):
    """uvicorn without its signal handling: it would raise the signal again after shutdown."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def _stop_on_signals(server: uvicorn.Server) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            server.force_exit = server.should_exit
            server.should_exit = True


def _mode(options: ProxyOptions) -> EncryptionMode:
    return Rvenc(max_buffer_bytes=options.max_buffer_bytes) if options.mode == "rvenc" else HpkeStream()


def _bind(options: ProxyOptions) -> socket.socket:
    try:
        return socket.create_server((options.host, options.port), family=_family(options.host))
    except OSError as error:
        message = f"cannot listen on {options.host}:{options.port}: {error.strerror}"
        raise CommandFailed(message, code="address_unavailable") from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _announce(listener: socket.socket, origin: str, options: ProxyOptions, output: Output) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    line = f"ragsvc proxy listens on {url}/v1 and encrypts for {origin} ({options.mode})"
    if output.as_json:
        fields = {"event": "listening", "url": url, "upstream": origin, "mode": options.mode, "pid": os.getpid()}
        line = msgspec.json.encode(fields).decode()
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
