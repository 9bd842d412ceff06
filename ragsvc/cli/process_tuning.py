"""What a process that serves from many threads asks of the interpreter and the C library."""

from __future__ import annotations

import contextlib
import ctypes
import sys

# the parameters of mallopt(3), from <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

_SWITCH_S = 0.001
_ARENAS = 2
_LARGE_BYTES = 4 << 20
"""More than any block of the embedding model: mapping a fresh one each time took long texts half as long again."""

_SPARE_BYTES = 32 << 20


def let_threads_alternate() -> None:
    """Have a thread that computes give way after a millisecond, not five: others only start native work in that time.

    With 50 searches at once this gave 8 % more of them, idle or during an ingest; a fifth of a millisecond gave less.
    """
    sys.setswitchinterval(_SWITCH_S)


def keep_heap_small() -> None:
    """Two arenas for all threads, and large blocks straight from and to the system; call it before threads start.

    Does nothing where the C library is not glibc.

    By default glibc gives each of the service's threads an arena of its own, none of which returns what an ingest left
    in it, and raises the size from which blocks go back: after 480 pages of reports they kept twice as much as two
    arenas do, at the same speed.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library, or none to speak of
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, _ARENAS)
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_TRIM_THRESHOLD, _SPARE_BYTES)
