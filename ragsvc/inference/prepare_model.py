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
import msgspec

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
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAGSVC_")}
    try:
        process = await anyio.open_process(
            [sys.executable, "-m", __name__, msgspec.json.encode(options).decode()],
            stdin=subprocess.PIPE,  # closed when this process ends, however it ends
            stdout=subprocess.DEVNULL,
            env={**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # also ends the child that runs sentence-transformers
        )
    except OSError as error:
        raise EmbeddingFailed(
            f"The embedding model {options.setting} cannot be prepared: no process was started ({error.strerror})."
        ) from error
    assert process.stderr is not None  # noqa: S101 - a pipe by default; narrows the type
    try:
        text = b"".join([chunk async for chunk in process.stderr]).decode("utf-8", "replace")
        code = await process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await process.aclose()
    if code == _REFUSED:
        raise EmbeddingFailed(text.strip())
    if code:
        raise EmbeddingFailed(
            f"The embedding model {options.setting} cannot be prepared: {text[-_MESSAGE_CHARACTERS:].strip()}."
        )


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
