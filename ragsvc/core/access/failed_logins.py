"""Limits failed authentications by address, in fixed windows of a minute. Pure: the caller gives the time."""

from __future__ import annotations

from typing import Final

from ragsvc.core.errors import RateLimited

_WINDOW_S: Final = 60.0
_MAX_ADDRESSES: Final = 50_000
_MAX_CREDENTIALS: Final = 100_000


class FailedLogins:
    """Counts failures by address; an address with too many may only use credentials that have worked from there.

    Without this exception one client could shut out all others behind the same router or proxy.
    """

    def __init__(self, *, per_minute: int) -> None:
        """``per_minute`` 0 switches the limit off."""
        self._per_minute = per_minute
        self._failures: dict[str, tuple[float, int]] = {}
        self._worked: dict[int, None] = {}

    def check(self, address: str | None, credential: bytes, now: float) -> None:
        """Refuse a credential that has not worked from an address with too many failures.

        Raises:
            RateLimited: until the end of the minute.
        """
        if not self._per_minute or address is None or (failed := self._failures.get(address)) is None:
            return
        begin, count = failed
        left_s = begin + _WINDOW_S - now
        if left_s > 0 and count >= self._per_minute and hash((address, credential)) not in self._worked:
            raise RateLimited("Too many failed authentications from this address.", retry_after_s=left_s)

    def failed(self, address: str | None, now: float) -> bool:
        """Count a failure; ``True`` if it is the one that reaches the limit."""
        if not self._per_minute or address is None:
            return False
        begin, count = self._failures.get(address, (now, 0))
        if now - begin >= _WINDOW_S:
            begin, count = now, 0
        if address not in self._failures and len(self._failures) >= _MAX_ADDRESSES:
            self._drop_old(now)
        self._failures[address] = (begin, count + 1)
        return count + 1 == self._per_minute

    def worked(self, address: str | None, credential: bytes) -> None:
        """Remember that a credential was accepted; only its hash, which differs in each process, is kept."""
        if not self._per_minute or address is None:
            return
        known = hash((address, credential))
        if known not in self._worked:
            if len(self._worked) >= _MAX_CREDENTIALS:
                del self._worked[next(iter(self._worked))]
            self._worked[known] = None

    def _drop_old(self, now: float) -> None:
        self._failures = {address: failed for address, failed in self._failures.items() if now - failed[0] < _WINDOW_S}
        if len(self._failures) >= _MAX_ADDRESSES:
            self._failures.clear()
