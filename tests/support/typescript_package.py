"""The TypeScript client, built in a copy, and programs that use it and the official OpenAI SDK."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from ragsvc.testing.service_runner import ROOT

SOURCE = ROOT / "ragsvc" / "client" / "typescript"
PROGRAMS = ROOT / "tests" / "clients" / "programs"
_BUILDS = ROOT / ".cache" / "clients"
_NOT_COPIED = shutil.ignore_patterns("node_modules", "dist", "build")

_COMPILER_OPTIONS = ("--module", "nodenext", "--target", "es2022", "--strict", "--types", "node")


class TypescriptPackage:
    """A built copy of the package; programs in its folder import it by its name, and ``openai`` beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def npm(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run npm in the folder; its output is checked by the caller."""
        environment = {**os.environ, "RAGSVC_FIXTURES": str(ROOT / "fixtures")}
        return subprocess.run(
            ["npm", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env=environment,
        )

    def command(self, program: str) -> list[str]:
        """The command that runs ``programs/<program>.mjs``; Node looks for packages where a program is."""
        return ["node", shutil.copy(PROGRAMS / f"{program}.mjs", self.folder)]

    def run(self, program: str, **variables: str) -> Any:
        """Run a program; returns the JSON that is its last line of output."""
        environment = {**os.environ, **variables}
        done = subprocess.run(
            self.command(program), capture_output=True, text=True, check=False, timeout=120, env=environment
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def run_typescript(self, text: str, **variables: str) -> str:
        """Check the types of a program, compile it and run it; returns its output."""
        (self.folder / "snippet.mts").write_text(text, encoding="utf-8")
        compiled = subprocess.run(
            ["node_modules/.bin/tsc", "--ignoreConfig", *_COMPILER_OPTIONS, "snippet.mts"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert compiled.returncode == 0, compiled.stdout
        environment = {**os.environ, **variables}
        done = subprocess.run(
            ["node", "snippet.mjs"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def conversation(self, program: str, **variables: str) -> Iterator[Conversation]:
        """Start a program that prints JSON lines and continues when it reads a line; it must end without a failure."""
        environment = {**os.environ, **variables}
        process = subprocess.Popen(
            self.command(program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        killer = threading.Timer(60, process.kill)
        killer.start()
        try:
            with process:
                yield Conversation(process)
        finally:
            killer.cancel()
            process.kill()
        assert process.returncode == 0


class Conversation:
    """A running program."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read(self) -> Any:
        """The next line that the program prints, which is JSON."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def proceed(self) -> None:
        """Let the program continue."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()


def build_typescript_package() -> TypescriptPackage:
    """Copy and build the package, if one of its files has changed; skips the test without Node."""
    if shutil.which("node") is None:
        pytest.skip("Node is not installed; the TypeScript client needs it")
    folder = _BUILDS / f"ragsvc-client-{_digest_of_sources()}"
    _BUILDS.mkdir(parents=True, exist_ok=True)
    package = TypescriptPackage(folder)
    with FileLock(_BUILDS / "ragsvc-client.lock"):
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(SOURCE, folder, ignore=_NOT_COPIED)
            for arguments in (["ci"], ["run", "build"]):
                done = package.npm(*arguments)
                assert done.returncode == 0, done.stdout + done.stderr
            (folder / "ready").touch()
    return package


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for pattern in ("*.json", "src/*", "tests/**/*"):
        for path in sorted(SOURCE.glob(pattern)):
            if path.is_file():
                digest.update(f"{path.relative_to(SOURCE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
