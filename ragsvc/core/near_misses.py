"""Finds the name that a misspelt one probably means."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_CLOSE = 0.65


def near_miss(name: str, known: Iterable[str]) -> str | None:
    """The known name that is closest to an unknown one; case, ``-`` and ``_`` do not count. ``None``: none is close.

    >>> near_miss("useRag", ("use_rag", "rag")), near_miss("use_rga", ("use_rag", "rag")), near_miss("stop", ("rag",))
    ('use_rag', 'use_rag', None)
    """
    by_spelling = {_plain(other): other for other in known}
    close = get_close_matches(_plain(name), by_spelling, n=1, cutoff=_CLOSE)
    return by_spelling[close[0]] if close else None


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
