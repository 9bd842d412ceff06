"""Releases the pages of a file that a library has mapped into memory; they are read from the file again when needed."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import Final

_MADV_DONTNEED: Final = 4


def release_pages(path: Path) -> None:
    """Take the file's mapped pages out of this process' resident memory. Does nothing where this is not possible.

    Only for files that no code of this process changes, in memory or on the disk: onnxruntime maps constants privately,
    and reads them. The kernel maps the neighbours of each page that is touched, so that a few
    look-ups in a table make most of it resident.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):  # not Linux, or another C library
        madvise = ctypes.CDLL(None, use_errno=True).madvise
        for line in Path("/proc/self/maps").read_text().splitlines():
            place, access, _, _, _, *name = line.split(maxsplit=5)
            if name == [str(path)] and access.endswith("p"):
                start, end = (int(address, 16) for address in place.split("-"))
                madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)
