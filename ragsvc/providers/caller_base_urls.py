"""Providers that a request names by base URL: only those that the operator allows, protected against SSRF.

An entry with a plain host allows that host, also in a private network. An entry with ``*.`` allows host names of a
domain, so they must resolve to public addresses. The check is made on the address that is then connected to.
"""

from __future__ import annotations

import ipaddress
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ragsvc.core.errors import ConfigurationError, InvalidRequest, PolicyDenied
from ragsvc.core.gateway.provider_settings import ProviderSettings
from ragsvc.core.ports.model_provider import ModelProvider

_KEPT: Final = 64
_PARAM: Final = "X-Provider-Base-URL"
_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")


class PublicResolver(AbstractResolver):
    """A resolver that refuses names with addresses in private networks."""

    def __init__(self, resolver: AbstractResolver) -> None:
        self._resolver = resolver

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:  # noqa: ANN401 - aiohttp's
        """The addresses of a name. Raises ``PolicyDenied`` if one of them is not public."""
        addresses = await self._resolver.resolve(host, port, family)
        if not all(is_public(address["host"]) for address in addresses):
            raise PolicyDenied("The base URL leads into a private network.", param=_PARAM)
        return addresses

    async def close(self) -> None:
        await self._resolver.close()


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, and not to a cloud's own services.

    Forms in which IPv6 embeds IPv4 are judged by that address (RFC 4291: mapped) or are not public, because a gateway
    or tunnel may lead to any address (NAT64, 6to4, Teredo, ISATAP and others).

    >>> [is_public(ip) for ip in ("8.8.8.8", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1")]
    [True, False, False, False, False]
    >>> [is_public(ip) for ip in ("168.63.129.16", "192.0.0.192", "64:ff9b:1::1", "::ffff:168.63.129.16")]
    [False, False, False, False]
    """
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip.packed[8:12] in _ISATAP:
            return False
    if any(ip in network for network in _NOT_PUBLIC):
        return False
    return ip.is_global and not ip.is_multicast


_NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure: host services and metadata
        "192.0.0.0/24",  # IETF protocol assignments (RFC 6890); 192.0.0.192 is Oracle's metadata service
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "::/96",  # IPv4-compatible (RFC 4291)
        "::ffff:0:0:0/96",  # IPv4-translated (RFC 2765)
        "64:ff9b::/96",  # NAT64 (RFC 6052)
        "64:ff9b:1::/48",  # NAT64 of local networks (RFC 8215)
        "2001::/32",  # Teredo (RFC 4380)
        "2002::/16",  # 6to4 (RFC 3056)
        "fec0::/10",  # site-local (RFC 3879)
    )
)
_ISATAP: Final = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")
"""The start of an interface identifier of ISATAP (RFC 5214)."""


class AllowedBaseUrls:
    """Implements ``ProvidersByUrl``. ``open_provider`` opens a provider over a session."""

    def __init__(
        self,
        allowed: Sequence[str],
        open_provider: Callable[[ProviderSettings, aiohttp.ClientSession], ModelProvider],
        *,
        session: aiohttp.ClientSession,
        public_session: aiohttp.ClientSession,
    ) -> None:
        """``public_session`` connects through a ``PublicResolver``.

        Raises:
            ConfigurationError: an entry is not a URL.
        """
        self._allowed = [_entry(entry) for entry in allowed]
        self._open_provider = open_provider
        self._session = session
        self._public_session = public_session
        self._kept: OrderedDict[str, ModelProvider] = OrderedDict()

    def provider(self, base_url: str) -> ModelProvider:
        """The provider at a base URL. Raises ``PolicyDenied``, or ``InvalidRequest`` for a malformed URL."""
        url = _parsed(base_url)
        matching = [entry for entry in self._allowed if _matches(entry, url)]
        if not matching:
            raise PolicyDenied("This base URL is not allowed (setting 'allowed_base_urls').", param=_PARAM)
        address = str(url).rstrip("/")
        known = self._kept.get(address)
        if known is None:
            session = self._session if any(not _is_pattern(entry) for entry in matching) else self._public_session
            name = _NAME.sub("-", f"address-{url.host}")[:64]
            known = self._kept[address] = self._open_provider(ProviderSettings(name=name, base_url=address), session)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(address)
        return known


def _parsed(text: str) -> URL:
    try:
        url = URL(text)
    except ValueError as error:
        raise InvalidRequest("The base URL is malformed.", param=_PARAM) from error
    if url.scheme not in ("http", "https") or not url.host or url.user or url.password:
        raise InvalidRequest("A base URL begins with https:// and a host, and has no user name.", param=_PARAM)
    if url.query_string or url.fragment or any(part in (".", "..") for part in url.parts):
        raise InvalidRequest("A base URL has no query, no fragment and no '..' in its path.", param=_PARAM)
    return url


def _entry(text: str) -> URL:
    try:
        return _parsed(text)
    except InvalidRequest as error:
        raise ConfigurationError([f"allowed_base_urls: '{text}': {error.message}"]) from error


def _is_pattern(entry: URL) -> bool:
    return (entry.host or "").startswith("*.")


def _matches(entry: URL, url: URL) -> bool:
    if (entry.scheme, entry.port) != (url.scheme, url.port):
        return False
    host, wanted = (url.host or "").lower().rstrip("."), (entry.host or "").lower()
    if _is_pattern(entry):
        if not host.endswith(wanted[1:]) or _is_ip(host):
            return False
    elif host != wanted:
        return False
    path, prefix = url.path.rstrip("/") + "/", entry.path.rstrip("/") + "/"
    return path.startswith(prefix)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
