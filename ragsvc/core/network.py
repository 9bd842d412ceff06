"""Classifies network addresses, and checks public URLs."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, Self
from urllib.parse import urlsplit

HOST_AND_PORT: Final = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
PATH_PREFIX: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)*")
"""The path of a public URL, without a slash at the end and without segments that mean another folder."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address, as written in a URL, belongs to this machine.

    >>> [is_loopback(host) for host in ("localhost", "127.8.0.1", "::1", "[::1]", "::ffff:127.0.0.1")]
    [True, True, True, True, True]
    >>> [is_loopback(host) for host in ("localhost.example.com", "0.0.0.0", "10.0.0.1", "::", "")]
    [False, False, False, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def client_network(host: str) -> str:
    """The network whose clients are counted together: an IPv4 address, or the first 64 bits of an IPv6 address.

    A subscriber of IPv6 has at least 2**64 addresses (RFC 6177), so a limit for each of them would be none.

    >>> [client_network(host) for host in ("192.0.2.7", "::ffff:192.0.2.7", "2001:db8:1:2:3::4", "name")]
    ['192.0.2.7', '192.0.2.7', '2001:db8:1:2::/64', 'name']
    """
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


class Networks:
    """A set of addresses and networks."""

    def __init__(self, networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network], *, everything: bool) -> None:
        self._networks = networks
        self._everything = everything

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read addresses and networks that are separated by commas; ``*`` is everything. Raises ``ValueError``.

        >>> proxies = Networks.parse("127.0.0.1, 10.0.0.0/8")
        >>> [host in proxies for host in ("127.0.0.1", "10.1.2.3", "::ffff:10.1.2.3", "192.0.2.1", "name")]
        [True, True, True, False, False]
        """
        names = [name.strip() for name in text.split(",") if name.strip()]
        return cls([ipaddress.ip_network(name) for name in names if name != "*"], everything="*" in names)

    def __contains__(self, host: str) -> bool:
        if self._everything or not self._networks:
            return self._everything
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


def public_url_problem(url: str) -> str | None:
    """What is wrong with the setting ``public_url``; ``None`` for a valid one.

    >>> public_url_problem("https://example.com/rag"), public_url_problem("https://example.com/rag/v1")
    (None, "expected the address without '/v1'")
    >>> public_url_problem("example.com")
    "expected 'http://' or 'https://', a host, and optionally a port and a path"
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    path = parts.path.rstrip("/")
    if (
        parts.scheme not in ("http", "https")
        or not HOST_AND_PORT.fullmatch(parts.netloc)
        or parts.query
        or parts.fragment
    ):
        return "expected 'http://' or 'https://', a host, and optionally a port and a path"
    if not PATH_PREFIX.fullmatch(path):
        return "expected a path of letters, digits and '-._~'"
    return "expected the address without '/v1'" if path.endswith("/v1") else None
