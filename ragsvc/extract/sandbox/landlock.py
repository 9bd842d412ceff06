"""Landlock (Linux 5.13): limits a process to the files it is given. From later versions on also: no TCP, no signals.

Source: landlock(7) and ``Documentation/userspace-api/landlock.rst`` of the kernel. Written with ``ctypes``, because the
packages that wrap these three system calls were few months old and had few users when this was written; the child's
protection should not depend on them.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from typing import Final

from ragsvc.extract.sandbox.kernel import system_call

# the same numbers on all architectures
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446

_CREATE_RULESET_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1

_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_FILE_RIGHTS: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""The rights that can be restricted, by the version from which on: 2 links, 3 truncation, 5 ioctl of devices."""

_TCP_VERSION: Final = 4
_TCP_RIGHTS: Final = 0b11
_SCOPE_VERSION: Final = 6
_SCOPES: Final = 0b11
"""Abstract Unix sockets, and signals to processes outside."""


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneathAttributes(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def restrict_files(readable: Iterable[str], *, writable: Iterable[str] = ()) -> None:
    """Limit this thread, and threads it starts later, to reading ``readable`` and writing the files ``writable``.

    Folders include everything beneath them; paths that do not exist are passed over. No program can be executed. The
    process must have called ``forbid_new_privileges``.

    Raises:
        OSError: the kernel has no Landlock, or it is switched off.
    """
    version = system_call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_CREATE_RULESET_VERSION))
    rights = _FILE_RIGHTS[max(known for known in _FILE_RIGHTS if known <= version)]
    attributes = _RulesetAttributes(rights, _TCP_RIGHTS, _SCOPES)
    size = ctypes.sizeof(attributes) if version >= _SCOPE_VERSION else 16 if version >= _TCP_VERSION else 8
    ruleset = system_call(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path in readable:
            _allow(ruleset, path, _READ_FILE)
        for path in writable:
            _allow(ruleset, path, _READ_FILE | _WRITE_FILE)
        system_call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights |= _READ_DIR
        rule = _PathBeneathAttributes(rights, descriptor)
        system_call(
            _ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0)
        )
    finally:
        os.close(descriptor)
