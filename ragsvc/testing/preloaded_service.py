# ruff: noqa: PLC0415, T201 - this process imports late and answers on standard output
"""Forks the real service from a process that has imported its modules, which saves about a second at each start.

After the imports it starts like any service: open the data directory, load the model, listen, serve.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx

from ragsvc.testing.service_runner import NO_CERTIFICATES, ROOT, ServiceFailed, service_environment

_CHILDREN_END_S = 30


class PreloadedProcess:
    """The forking process; leaving the ``with`` block ends it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ragsvc.testing.preloaded_service"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self._read() == "imported"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return str(json.loads(self._process.stdout.readline()))

    def ask(self, **command: object) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return int(self._read())


class ForkedService:
    """A forked service, with the part of ``RunningService``'s interface that the crash rounds use."""

    def __init__(
        self,
        preloaded: PreloadedProcess,
        data_dir: Path,
        *,
        scratch: Path,
        start_timeout_s: float = 120,
        await_ready: bool = True,
    ) -> None:
        self._preloaded = preloaded
        self._out, self._errors = scratch / "service.out", scratch / "service.err"
        self._out.write_text("")
        self._errors.write_text("")
        environment = service_environment(data_dir)
        self.pid = preloaded.ask(fork=True, env=environment, out=str(self._out), errors=str(self._errors))
        self._ended = False
        self.url = self._await_ready(time.monotonic() + start_timeout_s) if await_ready else ""

    def errors(self) -> str:
        """Its log up to now."""
        return self._errors.read_text()

    def is_running(self) -> bool:
        return _is_running(self.pid)

    def _await_ready(self, deadline: float) -> str:
        url = ""
        with httpx.Client(timeout=5, verify=NO_CERTIFICATES) as client:
            while time.monotonic() < deadline:
                if not url:
                    line = self._out.read_text().partition("\n")
                    url = json.loads(line[0])["url"] if line[1] else ""
                else:
                    with contextlib.suppress(httpx.TransportError):
                        if client.get(f"{url}/readyz").status_code == 200:
                            return url
                if not _is_running(self.pid):
                    break
                time.sleep(0.01)
        self.kill()
        raise ServiceFailed(self.errors()[-4000:])

    def client(self, key: str) -> httpx.Client:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120, verify=NO_CERTIFICATES)

    def kill(self) -> None:
        self._end(9)

    def stop(self) -> int:
        return self._end(15)

    def _end(self, number: int) -> int:
        if self._ended:
            return 0
        self._ended = True
        children = _children(self.pid)
        status = self._preloaded.ask(end=self.pid, signal=number)
        deadline = time.monotonic() + _CHILDREN_END_S
        while any(_is_running(child) for child in children):  # one of them may have the database open
            if time.monotonic() > deadline:
                raise ServiceFailed(f"Children of the service did not end: {children}")
            time.sleep(0.01)
        return status


def _children(pid: int) -> list[int]:
    """The processes that the threads of a process started and that have not ended (proc(5))."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            found += map(int, listed.read_text().split())
    return found


def _is_running(pid: int) -> bool:
    """Whether the process exists and has not ended; ``exe`` of a service may be read by root only."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def _fork(command: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    for path, descriptor in ((os.devnull, 0), (command["out"], 1), (command["errors"], 2)):
        opened = os.open(path, os.O_RDWR | (os.O_TRUNC | os.O_CREAT if descriptor else 0), 0o600)
        os.dup2(opened, descriptor)
    os.environ.clear()
    os.environ.update(command["env"])
    sys.argv = ["ragsvc", "serve", "--port", "0", "--json"]
    from ragsvc.cli import main

    try:
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - a forked child must not return to the parent's loop
        sys.stderr.write(repr(error))
        code = 1
    os._exit(code)


_PRELOADED = (
    "faiss",
    "onnxruntime",
    "tantivy",
    "ragsvc.cli.commands",
    "ragsvc.cli.serve",
    "ragsvc.inference.onnx_embedder",
    "ragsvc.web.service_app",
    "ragsvc.wiring.services",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
)


def _serve() -> None:
    for name in _PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # the collector of a forked service does not write to the memory that it shares
    print(json.dumps("imported"), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if "fork" in command:
            answer = _fork(command)
        else:
            os.kill(command["end"], command["signal"])
            _, status = os.waitpid(command["end"], 0)
            answer = os.waitstatus_to_exitcode(status)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
