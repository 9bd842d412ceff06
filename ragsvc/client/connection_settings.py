"""The address and the API key of a client, from arguments or the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

import httpx

from ragsvc import __version__
from ragsvc.client.calls import base_url
from ragsvc.core.errors import ConfigurationError
from ragsvc.core.network import is_loopback


class ClientSettings(NamedTuple):
    """``uses_proxies``: whether the proxies of the environment apply; they are for other machines."""

    url: str
    headers: dict[str, str]
    uses_proxies: bool


def client_settings(url: str | None, api_key: str | None, environ: Mapping[str, str] | None = None) -> ClientSettings:
    """The settings of a client. Raises ``ConfigurationError`` with every problem."""
    environ = os.environ if environ is None else environ
    address = base_url(url or environ.get("RAGSVC_URL", ""))
    key = (api_key or environ.get("RAGSVC_API_KEY", "")).strip()
    problems: list[str] = []
    host = ""
    if not address:
        problems.append("no URL: pass it, or set RAGSVC_URL")
    else:
        try:
            parsed = httpx.URL(address)
        except httpx.InvalidURL as error:
            problems.append(f"'{address}' is not a URL ({error})")
        else:
            host = parsed.host
            if parsed.scheme not in ("http", "https") or not host:
                problems.append(
                    f"'{address}' is not the URL of a service; expected something like http://127.0.0.1:8080"
                )
    if not key:
        problems.append("no API key: pass it, or set RAGSVC_API_KEY")
    elif not key.isascii() or not key.isprintable():
        problems.append("the API key contains characters that are not allowed in a key")
    if problems:
        raise ConfigurationError(problems)
    headers = {"authorization": f"Bearer {key}", "user-agent": f"ragsvc-client/{__version__}"}
    return ClientSettings(address, headers, uses_proxies=not is_loopback(host))
