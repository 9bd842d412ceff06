"""Starts the real service in a child process on a free port, for tests and benchmarks."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]

_EXPORTS = ROOT / ".cache" / "models"
"""Exports of models that earlier services made: making one takes eight seconds of processor time."""


class ServiceFailed(Exception):
    """The child ended before it was ready; the message contains its output."""


class RunningService:
    """A child process that serves ``data_dir`` at ``url``; it imports the package of the folder ``root``."""

    def __init__(
        self, data_dir: Path, *, env: dict[str, str] | None = None, start_timeout_s: float = 120, root: Path = ROOT
    ) -> None:
        self.log: list[str] = []
        self.admin_key = ""
        self.data_dir = data_dir
        take_exports(data_dir)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ragsvc", "serve", "--port", "0", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=root,
            env=service_environment(data_dir, env),
        )
        self._log_reader = threading.Thread(target=self._keep_log, daemon=True)
        self._log_reader.start()
        try:
            self.url = self._address(start_timeout_s)
            self._wait_ready(start_timeout_s)
        except BaseException:
            self.kill()
            raise
        keep_exports(data_dir)

    def _keep_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)

    def _address(self, timeout_s: float) -> str:
        assert self.process.stdout is not None
        timer = threading.Timer(timeout_s, self.process.kill)
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            self.process.wait(10)
            time.sleep(0.1)
            raise ServiceFailed(f"exit {self.process.returncode}: {''.join(self.log)[-4000:]}")
        return str(json.loads(line)["url"])

    def _wait_ready(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        with httpx.Client(base_url=self.url, timeout=5, verify=NO_CERTIFICATES) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    if client.get("/readyz?exclude=storage").status_code == 200:
                        return
                if self.process.poll() is not None:
                    time.sleep(0.1)
                    raise ServiceFailed(f"exit {self.process.returncode}: {''.join(self.log)[-4000:]}")
                time.sleep(0.02)
        raise ServiceFailed(f"not ready after {timeout_s} s: {''.join(self.log)[-4000:]}")

    def client(self, key: str, **options: object) -> httpx.Client:
        """An HTTP client that authenticates with ``key``."""
        headers = {"authorization": f"Bearer {key}"}
        settings: dict[str, Any] = {"timeout": 120, "verify": NO_CERTIFICATES, **options}
        return httpx.Client(base_url=self.url, headers=headers, **settings)

    def kill(self) -> None:
        """Send SIGKILL, which has the effect of a power failure."""
        self.process.kill()
        self._reap()

    def stop(self, *, timeout_s: float = 60) -> int:
        """Send SIGTERM and wait until the service has drained; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self._reap(timeout_s)

    def _reap(self, timeout_s: float = 30) -> int:
        code = self.process.wait(timeout_s)
        self._log_reader.join(30)
        if self._log_reader.is_alive():  # closing the pipe would wait for the reader for ever
            raise ServiceFailed("A child of the service outlives it, and has its standard error open.")
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return code


def take_exports(data_dir: Path) -> None:
    """Copy the exports of earlier services into a data directory without models; the service checks them as its own."""
    models = data_dir / "models"
    if data_dir.is_dir() and not models.exists() and _EXPORTS.is_dir():
        shutil.copytree(_EXPORTS, models)
        models.chmod(0o700)


def keep_exports(data_dir: Path) -> None:
    """Keep the exports of a data directory for later services, unless some are kept already."""
    models = data_dir / "models"
    if _EXPORTS.exists() or not any(models.glob("*/*.onnx")):
        return
    _EXPORTS.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_EXPORTS.parent) as folder, contextlib.suppress(OSError):
        shutil.copytree(models, Path(folder, "models"))
        Path(folder, "models").rename(_EXPORTS)  # fails if another process was faster


def _no_more_settings(_: Path) -> dict[str, str]:
    return {}


_more_settings: list[Callable[[Path], dict[str, str]]] = [_no_more_settings]


def set_more_settings(settings_of: Callable[[Path], dict[str, str]]) -> None:
    """Give services and commands from now on further variables, which depend on their data directory."""
    _more_settings[0] = settings_of


def more_settings(data_dir: Path) -> dict[str, str]:
    """The variables that services and commands get for a data directory besides its path."""
    return _more_settings[0](data_dir)


def service_environment(data_dir: Path, extra: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment with ``extra``, without the ``RAGSVC_*`` settings of this process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAGSVC_")}
    own = {"RAGSVC_DATA_DIR": str(data_dir), "PYTHONUNBUFFERED": "1", **more_settings(data_dir)}
    return {**kept, **own, **(extra or {})}


NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain HTTP: a client otherwise reads all certificates of the system, which takes about 30 ms."""

UNLIMITED = ("--requests-per-minute", "0", "--requests-per-hour", "0")


def create_key(
    data_dir: Path,
    *,
    tenant: str = "acme",
    label: str = "test",
    extra: tuple[str, ...] = (),
    settings: dict[str, str] | None = None,
    root: Path = ROOT,
) -> str:
    """Create a key with the command line, while no service is running; returns its secret.

    The key has no request limit unless ``extra`` sets one: tests exceed the default of sixty requests per minute.
    """
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ragsvc",
            "keys",
            "create",
            "--tenant",
            tenant,
            "--label",
            label,
            "--json",
            *UNLIMITED,
            *extra,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env=service_environment(data_dir, settings),
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["key"])


@contextmanager
def running_proxy(upstream: str, *options: str) -> Generator[str]:
    """Run ``ragsvc proxy`` for ``upstream`` in a child process; yields its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ragsvc", "proxy", "--url", upstream, "--port", "0", "--json", *options],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=service_environment(Path("unused")),
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(20)
        process.stdout.close()
    assert code == 0
