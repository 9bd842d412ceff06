"""Makes a model's exports in a child process at low priority, which can be stopped and whose memory is freed.

``python -m ragsvc.inference.prepare_model OPTIONS`` takes ``PrepareOptions`` as JSON. An export takes seconds or
minutes, and several times the memory of the model. Meanwhile the service answers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec
from anyio import CapacityLimiter

from ragsvc.core.errors import EmbeddingFailed, RagsvcError
from ragsvc.inference.factory import Runtime, open_embedder

_NICENESS: Final = 5
_REFUSED: Final = 3
_MESSAGE_CHARACTERS: Final = 500


class PrepareOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of ``open_embedder``."""

    setting: str
    data_dir: str
    runtime: Runtime
    offline: bool


async def prepare_model(options: PrepareOptions) -> None:
    """Make and check the exports of a model; the child process is killed if the caller is cancelled.

    Raises:
        EmbeddingFailed: the model does not work; the message is that of ``open_embedder``.
    """
    try:
        process = await anyio.to_thread.run_sync(_start, options)
    except OSError as error:
        raise EmbeddingFailed(
            f"The embedding model {options.setting} cannot be prepared: no process was started ({error.strerror})."
        ) from error
    try:
        code, text = await anyio.to_thread.run_sync(_wait, process, limiter=CapacityLimiter(1), abandon_on_cancel=True)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also ends the thread that waits
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_end, process)
        raise
    if code == _REFUSED:
        raise EmbeddingFailed(text.strip())
    if code:
        raise EmbeddingFailed(
            f"The embedding model {options.setting} cannot be prepared: {text[-_MESSAGE_CHARACTERS:].strip()}."
        )


def _start(options: PrepareOptions) -> subprocess.Popen[bytes]:
    """Start the child by ``subprocess``, in no case by the event loop.

    uvloop forks and lets the child run Python before it executes the program. There, objects of the other threads end:
    connections to the database close, and wait for ever for locks that those threads held.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAGSVC_")}
    return subprocess.Popen(  # noqa: S603 - this module
        [sys.executable, "-m", __name__, msgspec.json.encode(options).decode()],
        stdin=subprocess.PIPE,  # closed when this process ends, however it ends
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,  # also ends the child that runs sentence-transformers
    )


def _wait(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """The exit code, and what the child wrote to its standard error."""
    assert process.stderr is not None  # noqa: S101 - asked for above
    with process:
        text = process.stderr.read().decode("utf-8", "replace")
        return process.wait(), text


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes and wait for the exit code."""
    with process:
        pass


def _end_with_parent() -> None:
    """End with all children as soon as the parent does, which has the other end of the standard input.

    The next start makes the exports again, and two processes would need twice the memory.
    """
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    options = msgspec.json.decode(arguments[0], type=PrepareOptions)
    os.nice(_NICENESS)
    try:
        embedder = open_embedder(
            options.setting, data_dir=Path(options.data_dir), runtime=options.runtime, offline=options.offline
        )
    except RagsvcError as error:
        sys.stderr.write(error.message)
        return _REFUSED
    embedder.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
