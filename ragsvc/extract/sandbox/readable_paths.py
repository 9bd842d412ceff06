"""The paths that an interpreter with its packages, shared libraries and fonts reads while it parses files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

DEVICES: Final = ("/dev/null",)
"""The only files that may be written."""

_SYSTEM: Final = (
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
    "/gnu/store",
    "/usr/share/fonts",
    "/usr/share/X11",
    "/usr/share/zoneinfo",
    "/usr/share/locale",
    "/usr/local/share/fonts",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
    "/dev/urandom",
    "/dev/zero",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/vm",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
)
_USER_FONTS: Final = (".fonts", ".local/share/fonts")
_PACKAGE_FOLDERS: Final = frozenset({"site-packages", "dist-packages", "lib-dynload"})


def installation_paths(packages: Iterable[str]) -> Iterator[str]:
    """The installation of Python, shared libraries, fonts, and the loaded packages ``packages``.

    A folder of the import path that is not a folder of installed packages, such as a working copy, is not included as a
    whole: a data directory is often in it. Its packages must be named and be imported before files are restricted.
    """
    yield from _SYSTEM
    for prefix in dict.fromkeys((sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)):
        yield from (os.path.join(prefix, name) for name in ("lib", "lib64", "pyvenv.cfg"))  # noqa: PTH118 - 1 ms cheaper
    yield os.path.dirname(os.__file__)  # noqa: PTH120 - as above
    for entry in sys.path:
        if _is_package_folder(entry):
            yield entry
    for package in packages:
        yield from getattr(sys.modules[package], "__path__", ())
    yield from filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
    if home := os.environ.get("HOME"):
        yield from (str(Path(home, name)) for name in _USER_FONTS)


def _is_package_folder(entry: str) -> bool:
    if not os.path.isdir(entry):  # noqa: PTH112 - an archive of modules, or nothing
        return bool(entry)
    if os.path.basename(entry) in _PACKAGE_FOLDERS:  # noqa: PTH119 - as above
        return True
    try:
        with os.scandir(entry) as children:
            return any(child.name.endswith(".dist-info") for child in children)
    except OSError:
        return False
