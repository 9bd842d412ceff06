"""Limits of one key as pure state machines: request windows, parallel requests, tokens. Time comes in as an argument.

Not thread-safe and without I/O: the one process that owns a data directory drives them from its event loop.
"""

from __future__ import annotations

from collections import deque

import msgspec

from ragsvc.core.errors import BalanceExhausted, RateLimited

UNLIMITED = 999_999_999
"""What is shown where no limit is set, as ``GET /v1/tokens`` of the product's specification has it."""

DAY_S = 86_400
MINUTE_S = 60.0
HOUR_S = 3600.0
_SLOTS = 60
_PARALLEL_RETRY_S = 1.0
_RESERVED_RETRY_S = 1.0


class SlidingWindow:
    """At most ``limit`` events in *any* span of ``length_s`` seconds; memory is bounded by the slots, not the limit.

    Events are counted in slots of ``length_s / 60``, and a slot counts until its last instant has left the window. So
    the limit is never exceeded by one, and a place becomes free at most one slot (1 s of a minute, 60 s of an hour)
    later than with a list of all times.
    """

    __slots__ = ("_slot_s", "_slots", "_total", "length_s", "limit")

    def __init__(self, limit: int, length_s: float) -> None:
        self.limit = limit
        self.length_s = length_s
        self._slot_s = length_s / _SLOTS
        self._slots: deque[list[int]] = deque()
        self._total = 0

    def used(self, now: float) -> int:
        """Events that still count."""
        slots = self._slots
        while slots and (slots[0][0] + 1) * self._slot_s <= now - self.length_s:
            self._total -= slots.popleft()[1]
        return self._total

    def wait_s(self, now: float) -> float:
        """Seconds until one more event fits; 0 when it fits now."""
        excess = self.used(now) - self.limit + 1
        if excess <= 0:
            return 0.0
        for slot, count in self._slots:
            excess -= count
            if excess <= 0:
                return (slot + 1) * self._slot_s + self.length_s - now
        return self.length_s

    def add(self, now: float) -> None:
        """Count an event; the caller has seen ``wait_s`` return 0."""
        slot = int(now / self._slot_s)
        slots = self._slots
        if slots and slots[-1][0] >= slot:
            slots[-1][1] += 1
        else:
            slots.append([slot, 1])
        self._total += 1

    def clears_in_s(self, now: float) -> float:
        """Seconds until no event counts any more; 0 when none does."""
        if not self.used(now):
            return 0.0
        return (self._slots[-1][0] + 1) * self._slot_s + self.length_s - now


class WindowView(msgspec.Struct, frozen=True):
    """What a client is told of its request limit: the window that binds first."""

    limit: int
    remaining: int
    clears_in_s: float


class RequestGate:
    """Requests per minute and per hour, and requests at the same time."""

    __slots__ = ("_hour", "_minute", "max_parallel", "running")

    def __init__(self, *, per_minute: int | None, per_hour: int | None, max_parallel: int | None) -> None:
        self._minute = SlidingWindow(per_minute or UNLIMITED, MINUTE_S)
        self._hour = SlidingWindow(per_hour or UNLIMITED, HOUR_S)
        self.max_parallel = max_parallel
        self.running = 0

    def change_limits(self, *, per_minute: int | None, per_hour: int | None, max_parallel: int | None) -> None:
        """Set other limits; what was counted stays counted."""
        self._minute.limit = per_minute or UNLIMITED
        self._hour.limit = per_hour or UNLIMITED
        self.max_parallel = max_parallel

    def enter(self, now: float) -> None:
        """Count a request in and hold one of the parallel places, or refuse and change nothing.

        Raises:
            RateLimited: a window is full or all places are taken; ``retry_after_s`` tells when it may fit.
        """
        minute, hour = self._minute, self._hour
        if self.max_parallel is not None and self.running >= self.max_parallel:
            raise RateLimited(
                f"This key may run {self.max_parallel} requests at the same time.", retry_after_s=_PARALLEL_RETRY_S
            )
        wait_s = max(minute.wait_s(now), hour.wait_s(now))
        if wait_s > 0.0:
            full = hour if hour.wait_s(now) == wait_s else minute
            span = "hour" if full is hour else "minute"
            raise RateLimited(f"Rate limit of {full.limit} requests per {span} reached.", retry_after_s=wait_s)
        minute.add(now)
        hour.add(now)
        self.running += 1

    def leave(self) -> None:
        """Give the parallel place back."""
        self.running -= 1

    def view(self, now: float) -> WindowView:
        """The window with the fewest requests left (the minute when equal)."""
        minute, hour = self._minute, self._hour
        minute_left = minute.limit - minute.used(now)
        hour_left = hour.limit - hour.used(now)
        if hour_left < minute_left:
            return WindowView(hour.limit, max(0, hour_left), hour.clears_in_s(now))
        if minute.limit == UNLIMITED:
            return WindowView(UNLIMITED, UNLIMITED, 0.0)
        return WindowView(minute.limit, max(0, minute_left), minute.clears_in_s(now))


class LedgerWrite(msgspec.Struct, frozen=True):
    """One write of a ledger: ``spent`` tokens leave the durable balance, ``lease`` may be spent before the next one.

    The lease counts for ``day``: what a crash leaves of it is booked there.
    """

    spent: int
    lease: int
    day: int


class TokenLedger:
    """Balance and daily budget of one key: reserve, settle, refund; the bookkeeping of what is durable.

    Reservations live in memory only and die with the process (refunded at the next start: nobody was answered).
    Settled tokens are written in groups. So that no crash can give back tokens whose use was acknowledged, the rows
    hold a *lease*: how much may be settled before the next write. After a crash the next start books the whole lease
    as spent, so ``durable balance - lease <= balance - acknowledged`` always, and a crash costs at most one lease. A
    settle beyond the lease waits for the next write before it is acknowledged; ``runs_low`` asks for that write when
    half is used, so that it hardly ever happens.

    A lease is ``LEASE_S`` seconds of the key's recent use, or what its running requests reserved if that is more (the
    beginning of a burst). So a crash costs a key about two seconds of its use, never more than ``MAX_LEASE`` tokens or
    its balance, and a quiet key nothing: its lease is 0.
    """

    MIN_LEASE = 2_048
    MAX_LEASE = 1_048_576
    MAX_RESERVED_LEASE = 65_536
    LEASE_S = 2.0
    _SHORTEST_S = 0.02
    """The shortest time a rate is measured over; a few writes in quick succession say little."""

    __slots__ = (
        "_booked_at",
        "_pending",
        "_rate",
        "balance",
        "day",
        "durable",
        "per_day",
        "reserved",
        "unbooked",
        "used_today",
    )

    def __init__(self, *, balance: int | None, per_day: int | None, day: int, used_today: int = 0) -> None:
        self.balance = balance
        self.per_day = per_day
        self.day = day
        self.used_today = used_today
        self.reserved = 0
        self.unbooked = 0
        self.durable = LedgerWrite(0, 0, day)
        """The last write; its ``lease`` is what the row holds."""
        self._pending: LedgerWrite | None = None
        self._booked_at = 0.0
        self._rate = 0.0

    @property
    def limited(self) -> bool:
        """Whether any token limit is set."""
        return self.balance is not None or self.per_day is not None

    def turn(self, day: int) -> None:
        """Begin a later UTC day; an earlier one (a clock set back) changes nothing."""
        if day > self.day:
            self.day = day
            self.used_today = 0

    def remaining(self) -> int:
        """Tokens that a reservation could get now; at least 0."""
        left = UNLIMITED
        if self.balance is not None:
            left = self.balance - self.unbooked - self.reserved
        if self.per_day is not None:
            left = min(left, self.per_day - self.used_today - self.reserved)
        return max(0, left)

    def reserve(self, tokens: int, *, now: float) -> None:
        """Set tokens aside.

        Raises:
            BalanceExhausted: the balance, less what runs, does not cover them.
            RateLimited: the day's budget does not; ``budget_gone`` unless running requests may give enough back.
        """
        self.turn(int(now // DAY_S))
        if self.balance is not None and tokens > self.balance - self.unbooked - self.reserved:
            raise BalanceExhausted(
                f"The token balance of this key is exhausted: {self.remaining()} tokens left, {tokens} needed."
            )
        if self.per_day is not None and tokens > self.per_day - self.used_today - self.reserved:
            gone = tokens > self.per_day - self.used_today
            raise RateLimited(
                f"The budget of {self.per_day} tokens a day is used up ({self.remaining()} left, {tokens} needed); "
                "it renews at 0:00 UTC.",
                retry_after_s=(self.day + 1) * DAY_S - now if gone else _RESERVED_RETRY_S,
                budget_gone=gone,
            )
        self.reserved += tokens

    def refund(self, tokens: int) -> None:
        """Give a reservation back."""
        self.reserved -= tokens

    def settle(self, reserved: int, spent: int, *, day: int) -> bool:
        """Book what was used in place of a reservation; false when the lease does not cover it (see ``covered``)."""
        self.turn(day)
        self.reserved -= reserved
        self.used_today += spent
        self.unbooked += spent
        return self.covered()

    def covered(self) -> bool:
        """Whether a crash now would lose no settled token: all unbooked ones lie within the durable lease."""
        if not self.limited:
            return True
        pending = self._pending
        if pending is not None and self.unbooked - pending.spent > self._covers(pending):
            return False
        return self.unbooked <= self._covers(self.durable)

    def _covers(self, booking: LedgerWrite) -> int:
        """Tokens of today that its lease covers; a crash would book the lease of another day on that one."""
        return booking.lease if booking.day == self.day else 0

    @property
    def wants_lease(self) -> bool:
        """Whether a first write should begin before tokens are settled."""
        return self.limited and not self._covers(self.durable)

    @property
    def runs_low(self) -> bool:
        """Whether half of the lease is used, so that the next write should begin now."""
        if not self.limited:
            return False
        pending = self._pending
        if pending is not None:
            return 2 * (self.unbooked - pending.spent) > pending.lease
        return 2 * self.unbooked > self.durable.lease

    def begin_booking(self, *, now: float, last: bool = False) -> LedgerWrite:
        """Take what the next write shall book; ``commit_booking`` or ``abort_booking`` follows.

        ``now`` is in seconds of a monotonic clock. ``last``: the process stops, nothing is settled any more, so no
        lease is left behind.
        """
        spent = self.unbooked
        self._measure(spent, now)
        lease = 0
        if self.limited and not last and (spent or self.reserved):
            wanted = max(self._rate * self.LEASE_S, min(self.reserved, self.MAX_RESERVED_LEASE), self.MIN_LEASE)
            lease = min(int(wanted), self.MAX_LEASE)
            if self.balance is not None:
                lease = min(lease, max(0, self.balance - spent))
        self._pending = LedgerWrite(spent, lease, self.day)
        return self._pending

    def _measure(self, spent: int, now: float) -> None:
        """Keep the rate of use in tokens a second: up at once, down by half every ``LEASE_S``."""
        elapsed_s = max(now - self._booked_at, self._SHORTEST_S)
        self._booked_at = now
        self._rate = max(spent / elapsed_s, self._rate * 0.5 ** (elapsed_s / self.LEASE_S))

    def needs_write(self, booking: LedgerWrite) -> bool:
        """Whether a booking differs from what the row holds."""
        held = self.durable
        if booking.spent and self.limited:
            return True
        return booking.lease != held.lease or (booking.lease > 0 and booking.day != held.day)

    def commit_booking(self, *, balance: int | None) -> None:
        """The write is durable; ``balance`` is the row's value after it."""
        pending = self._pending
        if pending is not None:
            self.unbooked -= pending.spent
            self.durable = pending
            self._pending = None
        self.balance = balance

    def abort_booking(self) -> None:
        """The write failed; what it held stays unbooked."""
        self._pending = None
