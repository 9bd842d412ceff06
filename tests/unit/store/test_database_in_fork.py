"""A process that forks while its other threads use databases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FORKS = """
import os, pathlib, signal, sys, threading, time
from ragsvc.store.sqlite_database import SqliteDatabase, connect_raw
path = pathlib.Path(sys.argv[1])
database = SqliteDatabase(path)
done = threading.Event()

def idle():
    database.read_sync(lambda rows: rows.exec_driver_sql("SELECT 1").scalar())
    done.wait()

def busy():
    while not done.is_set():
        connect_raw(path, key=None).close()

threads = [threading.Thread(target=each, daemon=True) for each in (idle, idle, busy, busy)]
for thread in threads:
    thread.start()
time.sleep(0.2)
ended = 0
for _ in range(100):
    child = os.fork()
    if child == 0:
        os._exit(0)
    deadline = time.monotonic() + 10
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            sys.exit(f"fork {ended} hangs")
        time.sleep(0.001)
    ended += 1
done.set()
for thread in threads:
    thread.join()
print(ended, database.read_sync(lambda rows: rows.exec_driver_sql("SELECT 7").scalar()), end="")
database.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no fork")
def test_a_fork_does_not_wait_for_the_locks_of_threads_it_does_not_have(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", FORKS, str(tmp_path / "rows.sqlite")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=100, check=False)
    assert (done.stderr, done.stdout) == ("", "100 7")
