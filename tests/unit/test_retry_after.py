"""``Retry-After`` as seconds or HTTP date, and ``retry-after-ms``."""

import math
from email.utils import formatdate

import httpx
import pytest

from ragsvc.core.retry_after import read_retry_after, retry_after_headers

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:50 GMT"}, 90.0),
        ({"retry-after": "Tuesday, 14-Nov-23 22:14:50 GMT"}, 90.0),
        ({"retry-after": "Tue Nov 14 22:14:50 2023"}, 90.0),
        ({"retry-after": formatdate(NOW - 90, usegmt=True)}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "\N{ARABIC-INDIC DIGIT FIVE}"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "Tue, 99 Nov 2023 22:14:50 GMT"}, None),
    ],
)
def test_a_wait_is_read(headers, wait_s) -> None:
    assert read_retry_after(headers, now=NOW) == wait_s
    assert (
        read_retry_after(httpx.Headers({name.title(): value.encode() for name, value in headers.items()}), now=NOW)
        == wait_s
    )


@pytest.mark.parametrize(
    ("wait_s", "seconds"),
    [(math.inf, "31536000"), (1e300, "31536000"), (-1.0, "0"), (-0.5, "0"), (-math.inf, "0"), (math.nan, "0")],
)
def test_a_wait_that_is_no_time_is_limited_to_a_year(wait_s: float, seconds: str) -> None:
    headers = retry_after_headers(wait_s)
    assert (headers["retry-after"], headers["retry-after-ms"]) == (seconds, str(int(seconds) * 1000))


@pytest.mark.parametrize("wait_s", [0.0, 0.0004, 0.02, 1.2004, 86_400.0])
def test_a_wait_that_was_written_is_read_again_and_never_shorter(wait_s: float) -> None:
    headers = retry_after_headers(wait_s)
    assert wait_s <= read_retry_after(headers) <= wait_s + 0.001
    assert wait_s <= read_retry_after({"retry-after": headers["retry-after"]}) < wait_s + 1
