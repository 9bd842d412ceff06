"""Environments of the clients: each has its own, because the clients' dependencies clash with those of the service."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
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


@pytest.fixture(scope="session")
def run_program() -> RunProgram:
    """Runs ``programs/<program>.py`` in the environment of a client; returns the JSON object that it prints."""

    def run(environment: str, program: str, **variables: str) -> dict[str, Any]:
        done = subprocess.run(
            [_python_of(environment), HERE / "programs" / f"{program}.py"],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "PYTHONPATH": "", **variables},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
