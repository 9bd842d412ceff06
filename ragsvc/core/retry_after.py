"""``Retry-After`` (RFC 9110 §10.2.3) and ``retry-after-ms``, the header that OpenAI's SDKs prefer: written and read."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

_NUMBER: Final = re.compile(r"\d{1,9}(\.\d*)?", re.ASCII)
_LONGEST_WAIT_S: Final = 365 * 86_400


def retry_after_headers(wait_s: float) -> dict[str, str]:
    """Both headers for a wait in seconds, rounded up and clamped to 0 to 365 days.

    >>> retry_after_headers(1.2004)
    {'retry-after': '2', 'retry-after-ms': '1201'}
    """
    wait_s = 0.0 if math.isnan(wait_s) else min(max(wait_s, 0.0), _LONGEST_WAIT_S)
    return {"retry-after": str(math.ceil(wait_s)), "retry-after-ms": str(math.ceil(wait_s * 1000))}


def read_retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Seconds to wait, at least 0; ``None`` if neither header has a valid value.

    ``retry-after-ms`` goes before ``Retry-After``, whose value is a number of seconds or an HTTP date. The date is
    compared with ``now`` (Unix seconds; the current time by default). Names in ``headers`` are case-insensitive or in
    lower case.

    >>> read_retry_after({"retry-after-ms": "1500", "retry-after": "9"})
    1.5
    >>> read_retry_after({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, now=40)
    60.0
    """
    milliseconds = headers.get("retry-after-ms", "").strip()
    if _NUMBER.fullmatch(milliseconds):
        return float(milliseconds) / 1000
    value = headers.get("retry-after", "").strip()
    if _NUMBER.fullmatch(value):
        return float(value)
    try:
        at = parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, at - (time.time() if now is None else now))
