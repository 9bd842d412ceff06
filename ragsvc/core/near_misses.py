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


def is_one_edit_apart(first: str, second: str) -> bool:
    """Whether one letter is missing, added or wrong, or two are exchanged; case, ``-`` and ``_`` do not count.

    >>> [is_one_edit_apart("max_tokens", other) for other in ("max_token", "max_toknes", "max_tokena", "maxTokens")]
    [True, True, True, True]
    >>> is_one_edit_apart("temperature", "tmprature")
    False
    """
    short, long = sorted((_plain(first), _plain(second)), key=len)
    same = next((at for at, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(long) - len(short) > 1:
        return False
    if len(long) > len(short):
        return short[same:] == long[same + 1 :]
    exchanged = short[same : same + 2][::-1] == long[same : same + 2] and short[same + 2 :] == long[same + 2 :]
    return exchanged or short[same + 1 :] == long[same + 1 :]
