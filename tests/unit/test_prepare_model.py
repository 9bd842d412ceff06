"""The child process that makes the exports of a model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import msgspec
import pytest

from ragsvc.core.errors import EmbeddingFailed
from ragsvc.inference.prepare_model import PrepareOptions, prepare_model

PARENT = """
import sys
import anyio, msgspec
from ragsvc.inference.prepare_model import PrepareOptions, prepare_model
anyio.run(prepare_model, msgspec.json.decode(sys.argv[1], type=PrepareOptions))
"""

FORKS = """
import os, pathlib, sys
import anyio, msgspec, uvloop
from ragsvc.core.errors import EmbeddingFailed
from ragsvc.inference.prepare_model import PrepareOptions, prepare_model
os.register_at_fork(after_in_child=pathlib.Path(sys.argv[2]).touch)
try:
    options = msgspec.json.decode(sys.argv[1], type=PrepareOptions)
    anyio.run(prepare_model, options, backend_options={"use_uvloop": True})
except EmbeddingFailed:
    print("failed", end="")
"""


def options_for(folder: Path) -> PrepareOptions:
    return PrepareOptions(setting=str(folder / "model"), data_dir=str(folder), runtime="auto", offline=True)


def processes_of(folder: Path) -> list[int]:
    """The processes that have the folder in their command line and end neither now nor before."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(folder) in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_for(folder: Path, count: int) -> list[int]:
    deadline = time.monotonic() + 15
    while len(found := processes_of(folder)) != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_service_leaves_no_process_behind(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    os.mkfifo(model / "config.json")  # reading it takes for ever, as an export takes minutes
    (model / "modules.json").write_text('[{"type": "Transformer", "path": ""}]')
    arguments = [sys.executable, "-c", PARENT, msgspec.json.encode(options_for(tmp_path)).decode()]
    with subprocess.Popen(arguments) as parent:
        wait_for(tmp_path, 2)
        time.sleep(0.5)
        assert len(processes_of(tmp_path)) == 2
        os.kill(parent.pid, signal.SIGKILL)
    wait_for(tmp_path, 0)


def test_a_process_that_cannot_be_started_is_a_failure_of_the_model(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    with pytest.raises(EmbeddingFailed, match="no process was started"):
        anyio.run(prepare_model, options_for(tmp_path))


def test_no_python_runs_between_the_fork_and_the_program(tmp_path: Path) -> None:
    """There it would wait for the locks of threads that the fork does not have."""
    forked = tmp_path / "forked"
    arguments = [sys.executable, "-c", FORKS, msgspec.json.encode(options_for(tmp_path)).decode(), str(forked)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "failed"
    assert not forked.exists()


def test_a_cancelled_preparation_ends_its_process(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    os.mkfifo(model / "config.json")
    (model / "modules.json").write_text('[{"type": "Transformer", "path": ""}]')

    async def cancelled() -> bool:
        with anyio.move_on_after(0.5) as scope:
            await prepare_model(options_for(tmp_path))
        return scope.cancelled_caught

    assert anyio.run(cancelled)
    assert processes_of(tmp_path) == []
