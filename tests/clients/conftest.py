"""Environments of the clients: each has its own, because the clients' dependencies clash with those of the service."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent.parent / ".cache" / "clients"

RunProgram = Callable[..., dict[str, Any]]


def _python_of(name: str) -> Path:
    """The interpreter of an environment with ``requirements/<name>.txt``, made when the file has changed."""
    requirements = HERE / "requirements" / f"{name}.txt"
    state = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = ENVIRONMENTS / f"{name}-{state}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ready = folder / "ready"
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with FileLock(ENVIRONMENTS / f"{name}.lock"):
        if not ready.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, timeout=120)
            install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
            subprocess.run(install, check=True, timeout=580)
            ready.touch()
    return python


def _node_folder_of(name: str) -> Path:
    """A folder with the Node packages of ``packages/<name>``, made when their lock file has changed."""
    source = HERE / "packages" / name
    state = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = ENVIRONMENTS / f"{name}-{state}"
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with FileLock(ENVIRONMENTS / f"{name}.lock"):
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(source, folder)
            subprocess.run(["npm", "ci"], cwd=folder, check=True, capture_output=True, timeout=300)
            (folder / "ready").touch()
    return folder


def _result_of(command: Sequence[str | Path], variables: Mapping[str, str]) -> dict[str, Any]:
    """Run a program; returns the JSON object that is its last line of output."""
    environment = {**os.environ, "PYTHONPATH": "", **variables}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def run_program() -> RunProgram:
    """Runs ``programs/<program>.py`` in the environment of a client; returns the JSON object that it prints."""

    def run(environment: str, program: str, **variables: str) -> dict[str, Any]:
        return _result_of([_python_of(environment), HERE / "programs" / f"{program}.py"], variables)

    return run


@pytest.fixture(scope="session")
def run_node_program() -> RunProgram:
    """``run_program`` for ``programs/<program>.mjs``; Node looks for packages where a program is, so it is copied."""
    if shutil.which("node") is None:
        pytest.skip("Node is not installed; the JavaScript clients need it")

    def run(environment: str, program: str, **variables: str) -> dict[str, Any]:
        folder = _node_folder_of(environment)
        copied = shutil.copy(HERE / "programs" / f"{program}.mjs", folder)
        return _result_of(["node", copied], variables)

    return run
