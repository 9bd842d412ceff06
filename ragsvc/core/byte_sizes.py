"""Sizes in bytes as text for people."""

from __future__ import annotations

from typing import Final

_KIB: Final = 1024


def size(size_bytes: float) -> str:
    """A size with its unit.

    >>> size(532), size(1_500_000)
    ('532 B', '1.4 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < _KIB or unit == "GiB":
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= _KIB
    raise AssertionError("unreachable")
