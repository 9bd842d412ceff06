"""Threads and cores: how many there are for the models, and which of them give way."""

from __future__ import annotations

import os
import sys
import threading

_NICENESS = 15


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def lower_priority() -> None:
    """Nice the calling thread, and threads it will start, so that bulk work never delays the event loop (Linux)."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
