"""Regular expressions that are compiled at their first use: compiling all of them took a tenth of each start."""

from __future__ import annotations

import re
from typing import Any, Final, cast

_METHODS: Final = ("search", "match", "fullmatch", "finditer", "findall", "sub", "subn", "split")


def late_pattern(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """As ``re.compile``. The object has the methods of a pattern, and cannot be passed to functions of ``re``.

    >>> late_pattern("B+", re.IGNORECASE).sub("-", "abba")
    'a-a'
    """
    return cast("re.Pattern[str]", _LatePattern(pattern, flags))


class _LatePattern:
    """Takes the bound methods of the compiled pattern as attributes, so that calls cost what they cost there."""

    def __init__(self, pattern: str, flags: int) -> None:
        self.pattern = pattern
        self._flags = flags

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a method of re.Pattern, or a number
        if name.startswith("__"):
            raise AttributeError(name)
        compiled = re.compile(self.pattern, self._flags)
        for method in _METHODS:
            setattr(self, method, getattr(compiled, method))
        return getattr(compiled, name)
