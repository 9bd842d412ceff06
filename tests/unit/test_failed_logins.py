"""The limit of failed authentications by address."""

import pytest

from ragsvc.core.access.failed_logins import FailedLogins
from ragsvc.core.errors import RateLimited


def test_an_address_with_too_many_failures_waits_for_the_next_minute():
    logins = FailedLogins(per_minute=3)
    assert [logins.failed("a", 100.0 + number) for number in range(4)] == [False, False, True, False]
    with pytest.raises(RateLimited) as refused:
        logins.check("a", b"any", 110.0)
    assert refused.value.retry_after_s == 50.0
    logins.check("b", b"any", 110.0)
    logins.check("a", b"any", 160.0)
    assert not logins.failed("a", 160.0)


def test_credentials_that_worked_from_the_address_are_exempt():
    logins = FailedLogins(per_minute=1)
    logins.worked("a", b"good")
    logins.failed("a", 0.0)
    logins.check("a", b"good", 1.0)
    for address, credential in (("a", b"other"), ("a", b"good ")):
        with pytest.raises(RateLimited):
            logins.check(address, credential, 1.0)


def test_the_limit_can_be_off_and_needs_an_address():
    logins = FailedLogins(per_minute=0)
    assert not any(logins.failed("a", 0.0) for _ in range(100))
    logins.check("a", b"x", 0.0)
    logins = FailedLogins(per_minute=1)
    assert not logins.failed(None, 0.0)
    logins.check(None, b"x", 0.0)


def test_memory_is_bounded():
    logins = FailedLogins(per_minute=1)
    for number in range(60_000):
        logins.failed(f"address {number}", number / 1000)
    assert len(logins._failures) <= 50_000
    for number in range(100_010):
        logins.worked("a", b"%d" % number)
    assert len(logins._worked) == 100_000
