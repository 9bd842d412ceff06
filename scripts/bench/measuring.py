"""Measurements that benchmarks share: percentiles, what a process tree uses, facts about the machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a ``share`` (0 to 1) of the values is found, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    return percentile(values, 0.5)


class PeakMemory:
    """Samples the proportional set size of a process and its descendants; ``peak_bytes`` is the largest sum seen.

    PSS divides pages that several processes map among them, so that a sum over processes counts each page once.
    """

    def __init__(self, pid: int, *, every_s: float = 0.1) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.is_set():
            self.peak_bytes = max(self.peak_bytes, tree_bytes(self._pid))
            self._stop.wait(self._every_s)


def tree_bytes(pid: int) -> int:
    """Proportional set size of a process and all its descendants, summed."""
    return sum(_pss(process) for process in [pid, *descendants(pid)])


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return found
    for task in tasks:
        try:
            children = [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def thread_seconds(pid: int) -> float:
    """Processor seconds of a process's living threads, to the microsecond (``/proc/<pid>/stat`` counts in 10 ms)."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except OSError:  # the thread has ended
            continue
    return total / 1e9


class Usage:
    """Counts bytes that a process and its descendants caused to be written, and their processor seconds.

    Samples often, so that the counts of child processes that end are lost for a moment only.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen: dict[int, tuple[int, float]] = {}
        self._begin: dict[int, tuple[int, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._read()
        self._begin = dict(self._seen)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._read()

    def _sample(self) -> None:
        while not self._stop.wait(0.5):
            self._read()

    def _read(self) -> None:
        for pid in [self._pid, *descendants(self._pid)]:
            try:
                fields = Path(f"/proc/{pid}/io").read_text().split()
                times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            written = int(fields[fields.index("write_bytes:") + 1])
            self._seen[pid] = written, (int(times[11]) + int(times[12])) / _TICKS_PER_S

    @property
    def totals(self) -> tuple[int, float]:
        """Bytes and processor seconds since the begin."""
        ended, begun = self._seen.values(), self._begin.values()
        return sum(end[0] for end in ended) - sum(begin[0] for begin in begun), sum(end[1] for end in ended) - sum(
            begin[1] for begin in begun
        )


def _pss(pid: int) -> int:
    """The proportional set size; the resident size of processes that show it to root only, such as the service."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except PermissionError:
        return _resident_bytes(pid)
    except OSError:
        pass
    return 0


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def mebibytes(size: float) -> str:
    return f"{size / (1 << 20):.0f} MiB"


def machine() -> dict[str, Any]:
    """Commit, processor, load and Python version of the measurement."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "commit": commit.stdout.strip(),
        "cores": os.cpu_count(),
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "at": time.strftime("%Y-%m-%d"),
    }


def print_json(figures: dict[str, Any]) -> None:
    """Print figures together with ``machine()``."""
    print(json.dumps({**figures, "machine": machine()}, indent=1, ensure_ascii=False))
