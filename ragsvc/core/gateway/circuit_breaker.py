"""A circuit breaker: after repeated failures a provider is left alone for a while, then tried by one request."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class Circuit(StrEnum):
    """Closed lets requests through, open none, half-open one."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Opens after ``failures`` failures in a row, for ``cooldown_s`` of the given monotonic clock.

    >>> now = [0.0]
    >>> breaker = CircuitBreaker(failures=2, cooldown_s=10, clock=lambda: now[0])
    >>> breaker.failed(); breaker.failed(); breaker.admit()
    False
    >>> now[0] = 11; breaker.admit(), breaker.admit()
    (True, False)
    >>> breaker.succeeded(); breaker.state.value
    'closed'
    """

    def __init__(self, *, failures: int, cooldown_s: float, clock: Callable[[], float]) -> None:
        self._limit = failures
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None
        self._trial_since: float | None = None

    @property
    def state(self) -> Circuit:
        """Where the breaker stands now."""
        if self._opened_at is None:
            return Circuit.CLOSED
        return Circuit.HALF_OPEN if self.wait_s <= 0 else Circuit.OPEN

    @property
    def wait_s(self) -> float:
        """Seconds until a request may be tried; 0 when it may be now."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._cooldown_s - self._clock())

    def admit(self) -> bool:
        """Whether a request may go out now; in the half-open state the first that asks may.

        A trial whose outcome nobody reports within another cooldown makes room for the next.
        """
        if self._opened_at is None:
            return True
        now = self._clock()
        if self.wait_s > 0 or (self._trial_since is not None and now - self._trial_since < self._cooldown_s):
            return False
        self._trial_since = now
        return True

    def succeeded(self) -> None:
        """The provider answered."""
        if self._failures:
            self._failures = 0
        if self._opened_at is not None:
            self._opened_at = self._trial_since = None

    def failed(self) -> None:
        """The provider did not answer, or not as a provider should."""
        self._failures += 1
        if self._opened_at is not None or self._failures >= self._limit:
            self._opened_at = self._clock()
            self._trial_since = None
