"""The sockets of ``ragsvc serve``: an address and port, a Unix socket, or the sockets of a systemd unit; and TLS."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

from ragsvc.cli.failures import CommandFailed
from ragsvc.cli.service_manager import ServiceManager
from ragsvc.config import Settings
from ragsvc.core.errors import ConfigurationError
from ragsvc.core.network import Networks, is_loopback
from ragsvc.store.directory_lock import DataDirectoryLock

_log = logging.getLogger(__name__)

_SOCKET_MODE = 0o660


class Listener:
    """A bound socket and its URL; ``path`` is the file of a Unix socket that this process made."""

    def __init__(self, bound: socket.socket, *, has_tls: bool, path: Path | None = None) -> None:
        self.socket = bound
        self._path = path
        self.url = _url(bound, has_tls=has_tls)

    @property
    def is_exposed(self) -> bool:
        """Whether other machines can connect."""
        return self.socket.family != socket.AF_UNIX and not is_loopback(self.socket.getsockname()[0])

    def close(self) -> None:
        self.socket.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def bind(settings: Settings, manager: ServiceManager) -> list[Listener]:
    """Bind before the slow start, so that an address in use is reported at once.

    Raises:
        DataDirectoryLocked: the address is in use, by another process that serves the data directory.
        CommandFailed: the service cannot listen on the address.
        ConfigurationError: ``trusted_proxies`` is not a list of addresses.
    """
    try:
        Networks.parse(settings.trusted_proxies)
    except ValueError as error:
        raise ConfigurationError([f"trusted_proxies: {error}"]) from error
    has_tls = settings.ssl_certfile is not None
    if passed := manager.sockets():
        return [Listener(bound, has_tls=has_tls) for bound in passed]
    if settings.unix_socket is not None:
        return [Listener(_bind_unix(settings.unix_socket), has_tls=has_tls, path=settings.unix_socket)]
    return [Listener(_bind_address(settings), has_tls=has_tls)]


def open_tls(settings: Settings) -> ssl.SSLContext | None:
    """The context for HTTPS; ``None`` without a certificate. Raises ``ConfigurationError``."""
    if settings.ssl_certfile is None:
        if settings.ssl_keyfile is not None:
            raise ConfigurationError(["ssl_keyfile: a key needs the certificate in ssl_certfile"])
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
    except (OSError, ssl.SSLError) as error:
        files = [str(path) for path in (settings.ssl_certfile, settings.ssl_keyfile) if path is not None]
        reason = error.strerror or getattr(error, "reason", None) or str(error)
        raise ConfigurationError([f"ssl_certfile: {' and '.join(files)} cannot be used ({reason})"]) from error
    return context


def warn_of_plaintext(settings: Settings, listeners: Sequence[Listener]) -> None:
    """Log a warning if other machines can connect without TLS: keys and documents then cross the network readable."""
    exposed = [listener.url for listener in listeners if listener.is_exposed]
    if exposed and settings.ssl_certfile is None:
        _log.warning(
            "%s can be reached from other machines without TLS: API keys and documents are sent in plain text. "
            "Set ssl_certfile, or listen on 127.0.0.1 or a Unix socket behind a proxy that ends TLS.",
            ", ".join(exposed),
        )


def _bind_address(settings: Settings) -> socket.socket:
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


def _bind_unix(path: Path) -> socket.socket:
    """Bind a Unix socket for this user and its group; the socket of a process that has ended is replaced."""
    if _is_served(path):
        raise CommandFailed(f"another process listens on {path}", code="address_unavailable")
    listener = socket.socket(socket.AF_UNIX)
    try:
        if path.is_socket():
            path.unlink()
        listener.bind(str(path))
        path.chmod(_SOCKET_MODE)
    except OSError as error:
        listener.close()
        message = f"cannot listen on {path}: {error.strerror or error}"
        raise CommandFailed(message, code="address_unavailable") from error
    return listener


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _check_lock(settings: Settings) -> None:
    """Raise ``DataDirectoryLocked`` if another ragsvc serves the directory: a better reason than the port."""
    lock = DataDirectoryLock(settings.data_dir)
    lock.acquire()
    lock.release()


def _url(bound: socket.socket, *, has_tls: bool) -> str:
    scheme = "https" if has_tls else "http"
    if bound.family == socket.AF_UNIX:
        return f"{scheme}+unix://{bound.getsockname()}"
    host, port = bound.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
