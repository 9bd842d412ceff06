"""The headers of a provider that hold its key, and what they hold if a request or a tenant brings another key."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from ragsvc.core.gateway.provider_settings import ProviderSettings

_AUTHORIZATION: Final = "authorization"
_CREDENTIAL: Final = re.compile(r"authorization|(?:.+[-_])?(?:api)?(?:key|token)")
"""Names of headers that hold a key: ``api-key`` (Azure), ``x-api-key``, ``x-goog-api-key`` and others."""
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9-]*) +\S")


def request_headers(settings: ProviderSettings) -> dict[str, str]:
    """The headers of every request to a provider: its key, and the headers in its settings.

    >>> request_headers(ProviderSettings("p", "http://host", api_key="k", key_header="api-key", headers={"X": "1"}))
    {'api-key': 'k', 'X': '1'}
    """
    if not settings.api_key:
        return dict(settings.headers)
    value = _with_scheme(settings.key_header, "", settings.api_key)
    key_header = settings.key_header.lower()
    others = {name: text for name, text in settings.headers.items() if name.lower() != key_header}
    replaced = next((text for name, text in settings.headers.items() if name.lower() == key_header), None)
    return {settings.key_header: value if replaced is None else replaced, **others}


def with_other_key(settings: ProviderSettings, api_key: str) -> ProviderSettings:
    """The settings with another key in place of each credential of the operator.

    A provider that the operator keys by a header of ``headers`` gets the other key in that header, and no
    ``Authorization`` beside it. A scheme before the key (``Token``) is kept.

    >>> settings = ProviderSettings("p", "http://host", headers={"x-api-key": "operator", "anthropic-version": "1"})
    >>> request_headers(with_other_key(settings, "caller"))
    {'x-api-key': 'caller', 'anthropic-version': '1'}
    >>> settings = ProviderSettings("p", "http://host", key_header="X-Pass", headers={"x-pass": "operator"})
    >>> request_headers(with_other_key(settings, "caller"))
    {'x-pass': 'caller'}
    """
    credentials = _credentials_of(settings)
    replaced = {name: _with_scheme(name, text, api_key) for name, text in credentials.items()}
    headers = {**settings.headers, **replaced}
    keyed_by_header = bool(credentials)
    sends_key = bool(settings.api_key) or not keyed_by_header
    return msgspec.structs.replace(settings, headers=headers, api_key=api_key if sends_key else "")


def secrets_of(settings: ProviderSettings) -> tuple[str, ...]:
    """The keys that a request to the provider carries, without their schemes; a provider may quote them in errors."""
    found = [settings.api_key]
    for text in _credentials_of(settings).values():
        scheme = _SCHEME.match(text)
        found.append(text if scheme is None else text[len(scheme[1]) :].strip())
    return tuple(secret for secret in found if secret)


def _credentials_of(settings: ProviderSettings) -> dict[str, str]:
    """The headers of the settings that hold a key: by their names, and the one that the settings name."""
    key_header = settings.key_header.lower()
    return {name: text for name, text in settings.headers.items() if is_credential(name) or name.lower() == key_header}


def is_credential(name: str) -> bool:
    """Whether a header of this name holds a key.

    >>> [is_credential(name) for name in ("Api-Key", "X-Auth-Token", "anthropic-version", "X-Title")]
    [True, True, False, False]
    """
    return _CREDENTIAL.fullmatch(name.lower()) is not None


def _with_scheme(name: str, present: str, api_key: str) -> str:
    """The value of a header with another key: after the scheme that it has, or ``Bearer`` in ``Authorization``."""
    scheme = _SCHEME.match(present)
    if scheme is not None:
        return f"{scheme[1]} {api_key}"
    return f"Bearer {api_key}" if name.lower() == _AUTHORIZATION else api_key
