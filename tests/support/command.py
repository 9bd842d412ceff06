"""Runs the real command line in a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ragsvc.testing.service_runner import ROOT, more_settings


class Done:
    """Exit code and output of a command."""

    def __init__(self, finished: subprocess.CompletedProcess[str]) -> None:
        self.code = finished.returncode
        self.out = finished.stdout
        self.err = finished.stderr

    @property
    def json(self) -> Any:
        """The JSON document on standard output; fails if the output contains anything else."""
        return json.loads(self.out)


def ragsvc(*arguments: object, env: dict[str, str], stdin: str = "", timeout_s: float = 100) -> Done:
    """Run ``ragsvc`` without the ``RAGSVC_*`` variables of this process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAGSVC_")}
    finished = subprocess.run(
        [sys.executable, "-m", "ragsvc", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**kept, **env},
        input=stdin,
        timeout=timeout_s,
    )
    assert "Traceback" not in finished.stderr, finished.stderr
    return Done(finished)


def at_service(url: str, key: str) -> dict[str, str]:
    """Environment variables of a command that uses a service."""
    return {"RAGSVC_URL": url, "RAGSVC_API_KEY": key}


def at_data(data_dir: Path) -> dict[str, str]:
    """Environment variables of a command that opens a data directory."""
    return {"RAGSVC_DATA_DIR": str(data_dir), **more_settings(data_dir)}
