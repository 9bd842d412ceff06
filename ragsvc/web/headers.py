"""Request ids and rate limit headers."""

from __future__ import annotations

import math
import re
import time
from random import getrandbits
from typing import TYPE_CHECKING

from ragsvc.core.access.limits import DAY_S

if TYPE_CHECKING:
    from ragsvc.services.access_control import LiveKey

Header = tuple[bytes, bytes]

OUR_HEADERS = frozenset(
    [b"x-request-id"]
    + [b"x-ratelimit-" + part for part in (b"limit", b"remaining", b"reset")]
    + [
        b"x-ratelimit-" + part + kind
        for part in (b"limit", b"remaining", b"reset")
        for kind in (b"-requests", b"-tokens")
    ]
)
"""Set by ``RequestMiddleware``; the same headers of a provider's answer are about its own limits and are dropped."""

DROPPED_PASSAGES_HEADER = b"x-ragsvc-passages-dropped"
"""The number of retrieved passages that did not fit into the model's context; only present if there are any."""

MISSPELT_PARAMETERS_HEADER = b"x-ragsvc-misspelt-parameters"
"""Unknown parameters of a chat that are one edit from a known one: ``temprature (temperature?)``."""

_VALID_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def new_request_id() -> str:
    """Generate ``req_`` and 32 hexadecimal digits: 48 bits of milliseconds and 80 random bits, as in a ULID."""
    return f"req_{int(time.time() * 1000):012x}{getrandbits(80):020x}"


def valid_id(value: bytes | None) -> str | None:
    """A request id of a client if it is safe in headers and logs: 1 to 128 letters, digits and ``._:-``."""
    return value.decode("ascii") if value and _VALID_ID.fullmatch(value) else None


def duration(seconds: float) -> bytes:
    """Format a duration as OpenAI's API does.

    >>> [duration(s) for s in (0, 0.017, 1, 62.2, 3600)]
    [b'0s', b'17ms', b'1s', b'1m3s', b'1h0m0s']
    """
    if 0 < seconds < 1:
        return b"%dms" % math.ceil(seconds * 1000)
    whole = math.ceil(seconds)
    minutes, rest = divmod(whole, 60)
    if not minutes:
        return b"%ds" % rest
    hours, minutes = divmod(minutes, 60)
    return b"%dh%dm%ds" % (hours, minutes, rest) if hours else b"%dm%ds" % (minutes, rest)


def limit_headers(live: LiveKey, *, monotonic: float, now: float) -> list[Header]:
    """Rate limit headers for the state after this request was counted, in two families.

    The headers of the product's specification ("Limits"): ``X-RateLimit-Reset`` is the Unix second at which the shown
    window is empty. The headers of OpenAI ("Rate limits in headers") end with ``-requests`` or ``-tokens``.
    """
    view = live.gate.view(monotonic)
    limit, remaining = b"%d" % view.limit, b"%d" % view.remaining
    return [
        (b"x-ratelimit-limit", limit),
        (b"x-ratelimit-remaining", remaining),
        (b"x-ratelimit-reset", b"%d" % math.ceil(now + view.clears_in_s)),
        (b"x-ratelimit-limit-requests", limit),
        (b"x-ratelimit-remaining-requests", remaining),
        (b"x-ratelimit-reset-requests", duration(view.clears_in_s)),
        (b"x-ratelimit-limit-tokens", b"%d" % live.token_limit),
        (b"x-ratelimit-remaining-tokens", b"%d" % live.ledger.remaining()),
        (b"x-ratelimit-reset-tokens", _token_reset(live, now)),
    ]


def _token_reset(live: LiveKey, now: float) -> bytes:
    """Time until the daily budget renews; ``0s`` without one (a balance does not renew)."""
    if live.ledger.per_day is None:
        return b"0s"
    return duration(DAY_S - now % DAY_S)
