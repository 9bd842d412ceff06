"""A seccomp filter: system calls by which a process reaches the network, other processes or the system fail (Linux).

Source: seccomp(2), and the numbers of <asm/unistd_64.h> (x86_64) and <asm-generic/unistd.h> (aarch64). The filter is
written here, because the packages that exist need libseccomp, which no wheel contains (pyseccomp), or were few months
old with few users when this was written.

It lists refused calls and not allowed ones: numerical libraries and later versions of the C library use calls that a
list of allowed ones would miss, and documents would then fail on some machines. Calls of later kernels, which a list of
refused ones would miss, have numbers above the highest known one; they fail with ``ENOSYS``, on which callers use an
older call. Refused calls fail with ``EPERM``. Calls of another architecture, such as those of 32-bit programs, end the
process, because their numbers mean other calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import Final

from ragsvc.extract.sandbox.kernel import system_call

_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_HIGHEST_KNOWN: Final = 471
_CLONE3: Final = 435

_REFUSED: Final = {
    "x86_64": (
        (29, 31),  # shmget, shmat, shmctl
        (41, 50),  # socket … listen
        (53, 53),  # socketpair
        (57, 59),  # fork, vfork, execve
        (64, 71),  # System V semaphores and message queues
        (90, 94),  # chmod, fchmod, chown, fchown, lchown
        (101, 101),  # ptrace
        (103, 103),  # syslog
        (129, 129),  # rt_sigqueueinfo
        (132, 133),  # utime, mknod
        (134, 135),  # uselib, personality
        (142, 142),  # sched_setparam
        (144, 144),  # sched_setscheduler
        (153, 156),  # vhangup, modify_ldt, pivot_root, _sysctl
        (159, 159),  # adjtimex
        (161, 161),  # chroot
        (163, 177),  # acct, clocks, mounts, swap, reboot, host names, ioperm, kernel modules
        (179, 180),  # quotactl, nfsservctl
        (188, 190),  # setxattr
        (197, 199),  # removexattr
        (212, 212),  # lookup_dcookie
        (220, 220),  # semtimedop
        (227, 227),  # clock_settime
        (235, 235),  # utimes
        (240, 241),  # mq_open, mq_unlink
        (246, 246),  # kexec_load
        (248, 251),  # add_key, request_key, keyctl, ioprio_set
        (253, 254),  # inotify
        (256, 256),  # migrate_pages
        (259, 261),  # mknodat, fchownat, futimesat
        (268, 268),  # fchmodat
        (272, 272),  # unshare
        (279, 280),  # move_pages, utimensat
        (288, 288),  # accept4
        (294, 294),  # inotify_init1
        (297, 301),  # rt_tgsigqueueinfo, perf_event_open, recvmmsg, fanotify
        (303, 305),  # file handles, clock_adjtime
        (307, 308),  # sendmmsg, setns
        (310, 314),  # process_vm_readv, process_vm_writev, kcmp, finit_module, sched_setattr
        (320, 323),  # kexec_file_load, bpf, execveat, userfaultfd
    ),
    "aarch64": (
        (5, 7),  # setxattr
        (14, 16),  # removexattr
        (18, 18),  # lookup_dcookie
        (26, 27),  # inotify
        (30, 30),  # ioprio_set
        (33, 33),  # mknodat
        (39, 42),  # mounts, pivot_root, nfsservctl
        (51, 55),  # chroot, chmod, chown
        (58, 58),  # vhangup
        (60, 60),  # quotactl
        (88, 89),  # utimensat, acct
        (92, 92),  # personality
        (97, 97),  # unshare
        (104, 106),  # kexec_load, kernel modules
        (112, 112),  # clock_settime
        (116, 119),  # syslog, ptrace, sched_setparam, sched_setscheduler
        (138, 138),  # rt_sigqueueinfo
        (142, 142),  # reboot
        (161, 162),  # sethostname, setdomainname
        (170, 171),  # settimeofday, adjtimex
        (180, 181),  # mq_open, mq_unlink
        (186, 207),  # System V IPC, socket … recvfrom
        (211, 212),  # sendmsg, recvmsg
        (217, 219),  # add_key, request_key, keyctl
        (221, 221),  # execve
        (224, 225),  # swap
        (238, 243),  # migrate_pages, move_pages, rt_tgsigqueueinfo, perf_event_open, accept4, recvmmsg
        (262, 266),  # fanotify, file handles, clock_adjtime
        (268, 274),  # setns, sendmmsg, process_vm_readv, process_vm_writev, kcmp, finit_module, sched_setattr
        (280, 282),  # bpf, execveat, userfaultfd
        (294, 294),  # kexec_file_load
    ),
}
"""Ranges of numbers, ends included."""

_REFUSED_EVERYWHERE: Final = (
    (424, 434),  # pidfd_send_signal, io_uring, mounts, pidfd_open
    (438, 438),  # pidfd_getfd
    (440, 440),  # process_madvise
    (442, 443),  # mount_setattr, quotactl_fd
    (448, 448),  # process_mrelease
    (452, 452),  # fchmodat2
    (463, 463),  # setxattrat
    (466, 466),  # removexattrat
    (469, 469),  # file_setattr
)
"""Calls with the same numbers on both architectures."""

_OWN_PROCESS_ONLY: Final = {
    "x86_64": (62, 200, 203, 234, 302),  # kill, tkill, sched_setaffinity, tgkill, prlimit64
    "aarch64": (122, 129, 130, 131, 261),
}
"""Calls whose first argument is a process: only this process (``abort`` signals itself), or 0 where it means itself."""

_ZERO_IS_OWN: Final = {"x86_64": (203, 302), "aarch64": (122, 261)}
_SETPRIORITY: Final = {"x86_64": 141, "aarch64": 140}
"""Allowed for a single process (first argument 0, not a group or a user), and only for this one."""

_CLONE: Final = {"x86_64": 56, "aarch64": 220}
_CLONE_THREAD: Final = 0x10000
_FCNTL: Final = {"x86_64": 72, "aarch64": 25}
_FCNTL_REFUSED: Final = (8, 10, 15)
"""``F_SETOWN``, ``F_SETSIG``, ``F_SETOWN_EX``: they let the kernel send signals to another process."""

_IOCTL: Final = {"x86_64": 16, "aarch64": 29}
_IOCTL_REFUSED: Final = (0x5412, 0x541C)
"""``TIOCSTI``, ``TIOCLINUX``: they type into a terminal."""

# <linux/bpf_common.h>, <linux/seccomp.h>
_LOAD_WORD: Final = 0x20
_JUMP_EQUAL: Final = 0x15
_JUMP_GREATER: Final = 0x25
_JUMP_GREATER_OR_EQUAL: Final = 0x35
_JUMP_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_ERROR: Final = 0x00050000
_KILL_PROCESS: Final = 0x80000000
_NUMBER_OFFSET: Final = 0
_ARCHITECTURE_OFFSET: Final = 4
_ARGUMENTS_OFFSET: Final = 16
_SET_MODE_FILTER: Final = 1
_FLAGS: Final = 0b101
"""For all threads; and without the mitigation of speculative store bypass, which slows old kernels by up to a third."""

_Instruction = tuple[int, int, int, int]


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def filter_system_calls() -> None:
    """Install the filter for this process. It must have called ``forbid_new_privileges``.

    Raises:
        OSError: the kernel has no seccomp filters, or the architecture is neither x86_64 nor aarch64.
    """
    machine = os.uname().machine
    if machine not in _AUDIT_ARCH or sys.byteorder != "little" or sys.maxsize < 1 << 32:
        raise OSError(errno.ENOSYS, f"No filter for the architecture {machine}.")
    program = b"".join(struct.pack("=HBBI", *step) for step in _program(machine, os.getpid()))
    described = _FilterProgram(len(program) // 8, program)
    system_call(_SECCOMP[machine], ctypes.c_uint(_SET_MODE_FILTER), ctypes.c_uint(_FLAGS), ctypes.byref(described))


def _program(machine: str, pid: int) -> list[_Instruction]:
    refuse, missing = _ERROR | errno.EPERM, _ERROR | errno.ENOSYS
    program: list[_Instruction] = [
        (_LOAD_WORD, 0, 0, _ARCHITECTURE_OFFSET),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD_WORD, 0, 0, _NUMBER_OFFSET),
        (_JUMP_GREATER, 0, 1, _HIGHEST_KNOWN),
        (_RETURN, 0, 0, missing),
        (_JUMP_EQUAL, 0, 1, _CLONE3),  # its flags are in memory, which a filter cannot read
        (_RETURN, 0, 0, missing),
    ]
    for first, last in (*_REFUSED[machine], *_REFUSED_EVERYWHERE):
        program += [
            (_JUMP_GREATER_OR_EQUAL, 0, 2, first),
            (_JUMP_GREATER, 1, 0, last),
            (_RETURN, 0, 0, refuse),
        ]
    for number in _OWN_PROCESS_ONLY[machine]:
        own = (pid, 0) if number in _ZERO_IS_OWN[machine] else (pid,)
        program += _if_argument(number, 0, own, then=_ALLOW, otherwise=refuse)
    own_priority = _if_argument(_SETPRIORITY[machine], 1, (0, pid), then=_ALLOW, otherwise=refuse)
    program += _if_argument(_SETPRIORITY[machine], 0, (0,), then=own_priority[1:], otherwise=refuse)
    program += _if_argument(_FCNTL[machine], 1, _FCNTL_REFUSED, then=refuse, otherwise=_ALLOW)
    program += _if_argument(_IOCTL[machine], 1, _IOCTL_REFUSED, then=refuse, otherwise=_ALLOW)
    return [
        *program,
        (_JUMP_EQUAL, 0, 4, _CLONE[machine]),
        (_LOAD_WORD, 0, 0, _ARGUMENTS_OFFSET),
        (_JUMP_ANY_BIT, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, refuse),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _if_argument(
    number: int, argument: int, values: tuple[int, ...], *, then: int | list[_Instruction], otherwise: int
) -> list[_Instruction]:
    """Decide the call ``number`` by the lower half of an argument; the kernel reads no more of these.

    ``then`` is an answer, or instructions that end with one.
    """
    last = [(_RETURN, 0, 0, then)] if isinstance(then, int) else then
    tests = [(_JUMP_EQUAL, len(values) - index, 0, value) for index, value in enumerate(values)]
    body: list[_Instruction] = [
        (_LOAD_WORD, 0, 0, _ARGUMENTS_OFFSET + 8 * argument),
        *tests,
        (_RETURN, 0, 0, otherwise),
        *last,
    ]
    return [(_JUMP_EQUAL, 0, len(body), number), *body]
