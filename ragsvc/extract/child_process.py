"""Starts a child process, sends requests to it, waits for replies with a deadline, and kills it. Blocking.

Maps the ways in which a child can end to errors. Knows nothing of queues and event loops (``parser``).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec

from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.extract import child_protocol
from ragsvc.extract.sandbox.input_folder import InputFolder

_TICK_S = 0.02
"""Interval of the memory checks. A child that exhausts its memory takes at least a few intervals to do so."""

NICENESS = 10
"""Of a child that reads whole documents, so that requests of users come first."""

_END_S = 2.0
_READ_BYTES = 1 << 18
_STDERR_TAIL_BYTES = 4096
_DELIBERATE_ENDS = frozenset({signal.SIGABRT, signal.SIGILL, signal.SIGTRAP})
_MEMORY_WORDS = ("memoryerror", "memory allocation", "out of memory", "bad_alloc", "cannot allocate")


class ParserProcessEnded(Exception):
    """The child ended before it accepted the job (after its idle timeout, for example); retry with another child."""


class ParserProcess:
    """A child process that does one job at a time.

    ``kill`` may be called from any thread at any time; the other methods from one thread at a time.
    """

    def __init__(
        self,
        *,
        memory_bytes: int,
        idle_s: float,
        files: child_protocol.ChildFiles,
        work_folder: Path | None,
        niceness: int = NICENESS,
    ) -> None:
        """Start the child. It may read ``files``, and the input of its job, which is linked into ``work_folder``."""
        self.served = 0
        self.rss_bytes = 0
        self._memory_bytes = memory_bytes
        self._peak_bytes = 0
        self._buffer = bytearray()
        self._lock = threading.Lock()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._input = InputFolder(work_folder)
        readable = msgspec.structs.replace(files, paths=(*files.paths, str(self._input.folder)))
        command = [sys.executable, "-P", "-m", "ragsvc.extract.parser_child"]
        command += [str(memory_bytes), str(idle_s), str(niceness)]
        command.append(msgspec.json.encode(readable).decode())
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=_child_environment(),
                bufsize=0,
            )
        except OSError:
            self._input.remove()
            raise
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._out, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def _out(self) -> int:
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        return self._process.stdout.fileno()

    def send(self, request: child_protocol.Request) -> None:
        """Send a job.

        Raises:
            ParserProcessEnded: the child has ended.
            StorageFull: the disk has no room for the link to the input.
        """
        request = msgspec.structs.replace(request, path=str(self._input.put(Path(request.path))))
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        self._stderr.seek(0)  # also resets the child's position: both share the open file
        self._stderr.truncate()
        view = memoryview(child_protocol.pack(request))
        try:
            while view:
                view = view[self._process.stdin.write(view) or 0 :]
        except OSError as error:
            raise ParserProcessEnded from error

    def receive(self, *, deadline: float) -> child_protocol.Reply | None:
        """Wait for the next reply; ``None`` if the child has ended.

        Raises:
            ExtractionFailed: ``timeout`` after ``deadline`` (monotonic), ``parser_crashed`` for an invalid reply; the
                child is killed in both cases.
        """
        try:
            header = self._read(child_protocol.HEADER_BYTES, deadline)
            payload = header and self._read(child_protocol.payload_length(header), deadline)
            return child_protocol.decode_reply(payload) if payload else None
        except ValueError as error:  # msgspec's errors are ValueErrors too
            self.kill()
            raise ExtractionFailed(FailureReason.PARSER_CRASHED, "The PDF parser sent an invalid reply.") from error

    def _read(self, count: int, deadline: float) -> bytes | None:
        while len(self._buffer) < count:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                self.kill()
                raise ExtractionFailed(FailureReason.TIMEOUT, "")
            if not self._selector.select(min(remaining, _TICK_S)):
                self._note_peak()
                continue
            chunk = os.read(self._out, _READ_BYTES)
            if not chunk:
                return None
            self._buffer += chunk
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _note_peak(self) -> None:
        """Record the peak of the child's address space (Linux), to distinguish lack of memory from other crashes."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            status = Path(f"/proc/{self.pid}/status").read_text()
            self._peak_bytes = int(status.split("VmPeak:")[1].split()[0]) * 1024

    def death(self) -> ExtractionFailed:
        """The reason why the child ended, after ``receive`` returned ``None``."""
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        tail = self._stderr_tail().lower()
        out_of_memory = (
            code == -signal.SIGKILL
            or any(word in tail for word in _MEMORY_WORDS)
            or (-code in _DELIBERATE_ENDS and self._peak_bytes > self._memory_bytes // 2)
        )
        if out_of_memory:
            return ExtractionFailed(
                FailureReason.OUT_OF_MEMORY, "Reading the file needs more memory than the limit for a document."
            )
        if code == -signal.SIGXCPU:
            return ExtractionFailed(FailureReason.TIMEOUT, "")
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return ExtractionFailed(
            FailureReason.PARSER_CRASHED, f"The PDF parser crashed while reading the file ({name})."
        )

    def _stderr_tail(self) -> str:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _STDERR_TAIL_BYTES))
        return self._stderr.read(_STDERR_TAIL_BYTES).decode("utf-8", "replace")

    def remove_input(self) -> None:
        """Remove the child's link to the file of its last job."""
        self._input.clear()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def close(self) -> None:
        """Kill the process and close its pipes."""
        with self._lock:
            self.kill()
            self._process.wait()
            self._selector.close()
            for stream in (self._process.stdin, self._process.stdout, self._stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            self._input.remove()


def _child_environment() -> dict[str, str]:
    """The environment: the service's import path, one thread per library, and few malloc arenas (address space).

    Other variables are not passed on: settings contain secrets, and the child reads untrusted files.
    """
    keep = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV")
    single = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    return {
        **{name: os.environ[name] for name in keep if name in os.environ},
        **dict.fromkeys(single, "1"),
        "MALLOC_ARENA_MAX": "2",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONHASHSEED": "0",
    }
