"""Finds parameters of a chat that are probably misspelt.

Unknown parameters are legal, because providers have their own. So a probable mistake is reported, not refused.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ragsvc.core.gateway.chat import ChatRequest
from ragsvc.core.near_misses import is_one_edit_apart

_KNOWN: Final = frozenset(ChatRequest.__struct_fields__)
_SHORTEST: Final = 4
"""Shorter names are one edit from too many others."""
_OF_PROVIDERS: Final = frozenset({"top_k", "top_a", "top_n"})
"""Parameters of providers that are one edit from ``top_p``."""
_MOST: Final = 4
_Members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def misspelt_parameters(body: bytes) -> dict[str, str]:
    """The parameters of a JSON object that are one edit from a known one, with the known name; at most four.

    >>> misspelt_parameters(b'{"model": "m", "temprature": 1, "top_k": 5, "guided_json": {}}')
    {'temprature': 'temperature'}
    """
    found: dict[str, str] = {}
    members = _Members.decode(body)
    if members.keys() <= _KNOWN:
        return found
    for name in members:
        if name in _KNOWN or name in _OF_PROVIDERS or len(name) < _SHORTEST or not name.isprintable():
            continue
        meant = next((known for known in sorted(_KNOWN) if is_one_edit_apart(name, known)), None)
        if meant is not None and name.isascii() and len(found) < _MOST:
            found[name] = meant
    return found
