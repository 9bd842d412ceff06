"""Providers that a request names by address: only those that the operator allows, and none inside by accident.

An entry with a plain host means that host, wherever it is. An entry with ``*.`` trusts names only, so what they
resolve to must be a public address; the check is on the very address that is then connected to.
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
    """Resolves names to public addresses only."""

    def __init__(self, resolver: AbstractResolver) -> None:
        self._resolver = resolver

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:  # noqa: ANN401 - aiohttp's
        """The public addresses of a name. Raises ``PolicyDenied`` when one of them is not."""
        found = await self._resolver.resolve(host, port, family)
        if not all(is_public(one["host"]) for one in found):
            raise PolicyDenied("The provider's address leads into a private network.", param=_PARAM)
        return found

    async def close(self) -> None:
        """Close the resolver behind."""
        await self._resolver.close()


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also where IPv6 wraps IPv4.

    >>> [is_public(one) for one in ("8.8.8.8", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1")]
    [True, False, False, False, False]
    """
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip.sixtofour is not None or ip in _NAT64:
            return False
    return ip.is_global and not ip.is_multicast


_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class AllowedBaseUrls:
    """Implements ``DirectProviders``. ``open_provider`` makes a provider over a session."""

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
            ConfigurationError: an entry is no address.
        """
        self._allowed = [_entry(one) for one in allowed]
        self._open_provider = open_provider
        self._session = session
        self._public_session = public_session
        self._kept: OrderedDict[str, ModelProvider] = OrderedDict()

    def provider(self, base_url: str) -> ModelProvider:
        """The provider at an address. Raises ``PolicyDenied``; ``InvalidRequest`` for what is no address."""
        url = _parsed(base_url)
        matching = [entry for entry in self._allowed if _matches(entry, url)]
        if not matching:
            raise PolicyDenied("This provider's address is not allowed here.", param=_PARAM)
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
        raise InvalidRequest("This is no address.", param=_PARAM) from error
    if url.scheme not in ("http", "https") or not url.host or url.user or url.password:
        raise InvalidRequest("An address begins with https:// and a host, and names no user.", param=_PARAM)
    if url.query_string or url.fragment or any(part in (".", "..") for part in url.parts):
        raise InvalidRequest("An address ends with its path.", param=_PARAM)
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
