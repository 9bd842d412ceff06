"""Web origins (RFC 6454) that may read responses: parsed from settings, compared with the header ``Origin``."""

from __future__ import annotations

import re
from typing import Final, Self

_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>(?:\*\.)?[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>\d{1,5}))?"
)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


class AllowedOrigins:
    """A set of origins; ``everything``: every origin, without credentials."""

    def __init__(self, origins: frozenset[str], patterns: tuple[re.Pattern[str], ...], *, everything: bool) -> None:
        self._origins = origins
        self._patterns = patterns
        self.everything = everything

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read origins that are separated by commas or blanks, or ``*`` alone. Raises ``ValueError``.

        >>> origins = AllowedOrigins.parse("https://app.example.com:443/, http://localhost:3000, https://*.example.org")
        >>> [o in origins for o in ("https://app.example.com", "http://localhost:3000", "https://a.example.org")]
        [True, True, True]
        >>> [o in origins for o in ("http://app.example.com", "https://example.org", "https://xexample.org", "null")]
        [False, False, False, False]
        """
        names = [name for name in re.split(r"[\s,]+", text) if name]
        if "*" in names:
            if len(names) > 1:
                raise ValueError("'*' allows every origin and cannot be combined with others")
            return cls(frozenset(), (), everything=True)
        origins = [_normalised(name) for name in names]
        patterns = tuple(_subdomains(origin) for origin in origins if "*" in origin)
        return cls(frozenset(origin for origin in origins if "*" not in origin), patterns, everything=False)

    def __contains__(self, origin: str) -> bool:
        if self.everything or origin in self._origins:
            return True
        return any(pattern.fullmatch(origin) for pattern in self._patterns)

    def __bool__(self) -> bool:
        return self.everything or bool(self._origins or self._patterns)


def _normalised(name: str) -> str:
    """An origin as browsers send it: in lower case, without a default port and without a path."""
    found = _ORIGIN.fullmatch(name.lower().removesuffix("/"))
    if found is None:
        raise ValueError(f"'{name}' is not an origin: expected '*' or a scheme, a host and an optional port")
    scheme, host, port = found["scheme"], found["host"], found["port"]
    return f"{scheme}://{host}" if port in (None, _DEFAULT_PORTS.get(scheme)) else f"{scheme}://{host}:{port}"


def _subdomains(origin: str) -> re.Pattern[str]:
    return re.compile(re.escape(origin).replace(re.escape("*."), r"(?:[a-z0-9_-]+\.)+", 1))
