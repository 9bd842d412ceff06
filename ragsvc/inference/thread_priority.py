"""The number of cores for the models, and the priority of their threads."""

from __future__ import annotations

import os
import sys
import threading

_NICENESS = 15


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def lower_priority() -> None:
    """Lower the priority of the calling thread and of threads that it starts later (Linux only).

    Bulk work then does not delay the event loop.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
