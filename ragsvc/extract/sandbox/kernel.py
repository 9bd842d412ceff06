"""System calls and ``prctl`` options that Python has no function for. Linux only; everything raises ``OSError``."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Final

# <linux/prctl.h>
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38

# <linux/capability.h>
_CAPABILITY_VERSION_3: Final = 0x20080522
_CAPSET: Final = {"x86_64": 126, "aarch64": 91}


@cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def system_call(number: int, *arguments: object) -> int:
    """Call the kernel. Raises ``OSError`` if the call fails."""
    result = int(_c_library().syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise _last_error()
    return result


def forbid_tracing() -> None:
    """Forbid other processes of the same user to trace this one, and the kernel to dump its memory.

    prctl(2), ``PR_SET_DUMPABLE``: also the files of ``/proc/PID`` that show memory or environment, such as ``environ``
    and ``mem``, are then readable for root only. A program started by ``execve`` is dumpable again.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    """No program that this process executes gets more privileges. Landlock and seccomp require it (prctl(2))."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Give up the capabilities of root, such as reading any file and tracing any process (capabilities(7)).

    Does nothing on architectures other than x86_64 and aarch64.
    """
    number = _CAPSET.get(os.uname().machine)
    if number is None:
        return
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, twice 32 bits
    system_call(number, header, nothing)


def _prctl(option: int, value: int) -> None:
    arguments = [ctypes.c_ulong(number) for number in (value, 0, 0, 0)]
    try:
        prctl = _c_library().prctl
    except AttributeError as error:  # not Linux
        raise OSError("no prctl") from error
    if prctl(ctypes.c_int(option), *arguments) != 0:
        raise _last_error()


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
