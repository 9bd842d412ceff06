"""The failure of a background task ends the process with a message, also if the shutdown hangs."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

SCRIPT = """
import sys, time, logging
import anyio
import typer
from ragsvc.cli.execution import execute
from ragsvc.wiring.background_tasks import run_background_task, shutdown_finished

logging.basicConfig(format="%(levelname)s %(message)s")

class Panic(BaseException):
    pass

async def fail():
    await anyio.sleep(0.05)
    raise Panic("text of a document")

async def serve(output):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: run_background_task("ingest", fail, stuck_after_s=2))
        try:
            await anyio.sleep_forever()
        finally:
            if sys.argv[1] == "hangs":
                time.sleep(60)
            shutdown_finished()

try:
    execute(serve, as_json=False)
except typer.Exit as ended:
    sys.exit(ended.exit_code)
"""


def run(kind: str) -> tuple[int, str, float]:
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", SCRIPT, kind], capture_output=True, text=True, timeout=50, check=False)
    return done.returncode, done.stderr, time.monotonic() - begin


def test_a_failed_background_task_ends_the_process_with_a_message() -> None:
    code, errors, _ = run("ends")
    assert code == 1
    assert "CRITICAL background task 'ingest' failed with Panic; the service stops" in errors
    assert errors.splitlines()[-1] == (
        "ragsvc: The background task 'ingest' failed with Panic. The service stopped; start it again."
    )
    assert "text of a document" not in errors


def test_a_shutdown_that_hangs_after_a_failure_is_ended() -> None:
    code, errors, seconds = run("hangs")
    assert code == -signal.SIGALRM
    assert "background task 'ingest' failed" in errors
    assert seconds < 40
