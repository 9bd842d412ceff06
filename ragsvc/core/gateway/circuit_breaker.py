"""A circuit breaker: after repeated failures a provider gets no requests for a while, then a single trial request."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum


class Circuit(StrEnum):
    """Closed lets all requests through, open none, half-open a single one."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


def worst_circuit(circuits: Iterable[Circuit]) -> Circuit:
    """The state that lets the fewest requests through; ``CLOSED`` if there is none."""
    return max(circuits, key=_BY_SEVERITY.index, default=Circuit.CLOSED)


_BY_SEVERITY = (Circuit.CLOSED, Circuit.HALF_OPEN, Circuit.OPEN)


class CircuitBreaker:
    """Opens after ``failures`` consecutive failures, for ``cooldown_s``; ``clock`` gives monotonic seconds.

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
        if self._opened_at is None:
            return Circuit.CLOSED
        return Circuit.HALF_OPEN if self.wait_s <= 0 else Circuit.OPEN

    @property
    def wait_s(self) -> float:
        """Seconds until a trial request is allowed; 0 if requests are allowed now."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._cooldown_s - self._clock())

    def admit(self) -> bool:
        """Whether a request may be sent now; in the half-open state only the first caller gets ``True``.

        If the result of the trial request is not reported within another ``cooldown_s``, the next trial is allowed.
        """
        if self._opened_at is None:
            return True
        now = self._clock()
        if self.wait_s > 0 or (self._trial_since is not None and now - self._trial_since < self._cooldown_s):
            return False
        self._trial_since = now
        return True

    def succeeded(self) -> None:
        if self._failures:
            self._failures = 0
        if self._opened_at is not None:
            self._opened_at = self._trial_since = None

    def ignored(self) -> None:
        """Record an answer that shows neither that the provider works nor that it is down."""
        self._trial_since = None

    def failed(self) -> None:
        """Record a fault that shows that the provider is down."""
        self._failures += 1
        if self._opened_at is not None or self._failures >= self._limit:
            self._opened_at = self._clock()
            self._trial_since = None
