"""Confines the child process that reads untrusted files, with all protections that the kernel has.

Each protection holds where another one is missing: the filter of system calls has no network and no signals, Landlock
no files, the dropped capabilities and ``/proc`` rules no memory of other processes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from ragsvc.extract.sandbox.kernel import drop_capabilities, forbid_new_privileges, forbid_tracing
from ragsvc.extract.sandbox.landlock import restrict_files
from ragsvc.extract.sandbox.readable_paths import DEVICES, installation_paths
from ragsvc.extract.sandbox.system_call_filter import filter_system_calls


def confine(*, readable: Sequence[str], packages: Sequence[str]) -> list[str]:
    """Confine this process irrevocably, before it starts threads and reads untrusted bytes.

    Afterwards it can read ``readable`` and the installation of Python with the loaded packages ``packages``, write
    nothing, and has no network, no other processes and no signals.

    Returns:
        A sentence for each protection that the system lacks. Never raises.
    """
    if sys.platform != "linux":
        return [f"Parser processes run unconfined: {sys.platform} has neither Landlock nor seccomp."]
    paths = [*readable, *installation_paths(packages)]
    steps: list[tuple[str, Callable[[], None]]] = [
        ("can be traced by processes of the same user (PR_SET_DUMPABLE)", forbid_tracing),
        ("keep the capabilities of the service (capset)", drop_capabilities),
        ("can gain privileges by executing programs (PR_SET_NO_NEW_PRIVS)", forbid_new_privileges),
        ("can read the files of the service's user (Landlock)", lambda: restrict_files(paths, writable=DEVICES)),
        ("can use the network and signals (seccomp)", filter_system_calls),
    ]
    missing: list[str] = []
    for exposure, protect in steps:
        try:
            protect()
        except OSError as error:
            missing.append(f"Parser processes {exposure}, because this system lacks the protection: {error.strerror}.")
    return missing
