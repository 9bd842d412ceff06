"""Limits of a key as state machines: request windows, parallel requests, tokens. The caller passes ``now``.

Not thread-safe and without I/O: the process that owns a data directory uses them on its event loop. The arithmetic is
our own, because the window must be exact in bounded memory and a crash must never give back acknowledged tokens.
"""

from __future__ import annotations

from collections import deque

import msgspec

from ragsvc.core.access.money import show_amount
from ragsvc.core.errors import BalanceExhausted, RagsvcError, RateLimited

UNLIMITED = 999_999_999
"""Shown if no limit is set, as the product's specification of ``GET /v1/tokens`` demands."""

DAY_S = 86_400
MINUTE_S = 60.0
HOUR_S = 3600.0
_SLOTS = 60
_PARALLEL_RETRY_S = 1.0
_RESERVED_RETRY_S = 1.0
_KEPT_DAYS = 8


class SlidingWindow:
    """At most ``limit`` events in *any* span of ``length_s`` seconds, with 60 counters regardless of the limit.

    Events are counted in slots of ``length_s / 60``. A slot counts until all of it is older than the window. So the
    limit is never exceeded, and an event stops counting at most one slot later (1 s of a minute, 60 s of an hour) than
    with a list of all times.
    """

    __slots__ = ("_slot_s", "_slots", "_total", "length_s", "limit")

    def __init__(self, limit: int, length_s: float) -> None:
        self.limit = limit
        self.length_s = length_s
        self._slot_s = length_s / _SLOTS
        self._slots: deque[list[int]] = deque()
        self._total = 0

    def used(self, now: float) -> int:
        """Number of events in the window."""
        slots = self._slots
        while slots and (slots[0][0] + 1) * self._slot_s <= now - self.length_s:
            self._total -= slots.popleft()[1]
        return self._total

    def wait_s(self, now: float) -> float:
        """Seconds until another event is allowed; 0 if it is allowed now."""
        excess = self.used(now) - self.limit + 1
        if excess <= 0:
            return 0.0
        for slot, count in self._slots:
            excess -= count
            if excess <= 0:
                return (slot + 1) * self._slot_s + self.length_s - now
        return self.length_s

    def add(self, now: float) -> None:
        """Count an event; only after ``wait_s`` returned 0."""
        slot = int(now / self._slot_s)
        slots = self._slots
        if slots and slots[-1][0] >= slot:
            slots[-1][1] += 1
        else:
            slots.append([slot, 1])
        self._total += 1

    def clears_in_s(self, now: float) -> float:
        """Seconds until the window is empty; 0 if it is."""
        if not self.used(now):
            return 0.0
        return (self._slots[-1][0] + 1) * self._slot_s + self.length_s - now


class DayClock:
    """The UTC day, from a wall clock that may jump and a monotonic clock that does not.

    A jump of more than five minutes counts once the wall clock has kept it for ten minutes: a clock that is wrong for a
    moment neither grants a day's budget nor takes it away. Smaller corrections count at once.
    """

    TOLERANCE_S = 300.0
    ADOPTED_AFTER_S = 600.0

    __slots__ = ("_candidate", "_candidate_since", "_offset")

    def __init__(self, *, wall: float, monotonic: float) -> None:
        self._offset = self._candidate = wall - monotonic
        self._candidate_since = monotonic

    def day(self, *, wall: float, monotonic: float) -> int:
        """The present day, in days since 1970."""
        offset = wall - monotonic
        if abs(offset - self._offset) <= self.TOLERANCE_S:
            self._offset = self._candidate = offset
            self._candidate_since = monotonic
        elif abs(offset - self._candidate) > self.TOLERANCE_S:
            self._candidate, self._candidate_since = offset, monotonic
        elif monotonic - self._candidate_since >= self.ADOPTED_AFTER_S:
            self._offset = offset
        return int((monotonic + self._offset) // DAY_S)


class WindowView(msgspec.Struct, frozen=True):
    """The request limit as shown to clients: that of the window with the fewest requests left."""

    limit: int
    remaining: int
    clears_in_s: float


class RequestGate:
    """Limits requests per minute, per hour, and in parallel."""

    __slots__ = ("_hour", "_minute", "max_parallel", "running")

    def __init__(self, *, per_minute: int | None, per_hour: int | None, max_parallel: int | None) -> None:
        self._minute = SlidingWindow(per_minute or UNLIMITED, MINUTE_S)
        self._hour = SlidingWindow(per_hour or UNLIMITED, HOUR_S)
        self.max_parallel = max_parallel
        self.running = 0

    def change_limits(self, *, per_minute: int | None, per_hour: int | None, max_parallel: int | None) -> None:
        """Change the limits; events counted so far stay counted."""
        self._minute.limit = per_minute or UNLIMITED
        self._hour.limit = per_hour or UNLIMITED
        self.max_parallel = max_parallel

    def enter(self, now: float) -> None:
        """Count a request and one more parallel request; call ``leave`` when it ends.

        Raises:
            RateLimited: a limit is reached, nothing was counted; ``retry_after_s`` is the time to wait.
        """
        minute, hour = self._minute, self._hour
        if self.max_parallel is not None and self.running >= self.max_parallel:
            raise RateLimited(
                f"Rate limit of {self.max_parallel} parallel requests reached.", retry_after_s=_PARALLEL_RETRY_S
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
        """Count one parallel request less."""
        self.running -= 1

    def view(self, now: float) -> WindowView:
        """The window with the fewest requests left; the minute if both have as many."""
        minute, hour = self._minute, self._hour
        minute_left = minute.limit - minute.used(now)
        hour_left = hour.limit - hour.used(now)
        if hour_left < minute_left:
            return WindowView(hour.limit, max(0, hour_left), hour.clears_in_s(now))
        if minute.limit == UNLIMITED:
            return WindowView(UNLIMITED, UNLIMITED, 0.0)
        return WindowView(minute.limit, max(0, minute_left), minute.clears_in_s(now))


class LedgerWrite(msgspec.Struct, frozen=True):
    """A write of a ledger: ``spent`` tokens leave the durable balance, ``lease`` may be spent before the next write.

    After a crash the lease is booked as spent on ``day``.
    """

    spent: int
    lease: int
    day: int


class TokenLedger:
    """Balance and daily budget of a key: reserve, settle, refund, and the record of what is durable.

    Reservations exist in memory only; a crash refunds them, as the requests were not answered. Settled tokens are
    written in groups. So that a crash never gives back acknowledged tokens, the rows hold a *lease*: the tokens that
    may be settled before the next write. After a crash the next start books the whole lease as spent. So
    ``durable balance - lease <= balance - acknowledged`` always holds, and a crash costs at most one lease. A settle
    beyond the lease waits for the next write before it is acknowledged; ``runs_low`` requests that write when half of
    the lease is used, so that such waits are rare.

    A lease covers ``LEASE_S`` seconds of the recent use of the key, or the tokens that running requests reserved if
    these are more (at the start of a burst). So a crash costs a key about two seconds of use, never more than
    ``MAX_LEASE`` tokens or its balance. An idle key has a lease of 0 and loses nothing.
    """

    MIN_LEASE = 2_048
    MAX_LEASE = 1_048_576
    MAX_RESERVED_LEASE = 65_536
    LEASE_S = 2.0
    _NO_LIMIT = UNLIMITED
    _SHORTEST_S = 0.02
    """The shortest time over which a rate is measured; writes in quick succession give no reliable rate."""

    __slots__ = (
        "_days",
        "_pending",
        "_rate",
        "_written_at",
        "balance",
        "day",
        "durable",
        "per_day",
        "reserved",
        "unwritten",
        "used_today",
    )

    def __init__(self, *, balance: int | None, per_day: int | None, day: int, used_today: int = 0) -> None:
        self.balance = balance
        self.per_day = per_day
        self.day = day
        self.used_today = used_today
        self._days: dict[int, int] = {}
        self.reserved = 0
        self.unwritten = 0
        self.durable = LedgerWrite(0, 0, day)
        """The last write; the row holds its ``lease``."""
        self._pending: LedgerWrite | None = None
        self._written_at = 0.0
        self._rate = 0.0

    @property
    def limited(self) -> bool:
        """Whether any token limit is set."""
        return self.balance is not None or self.per_day is not None

    def turn(self, day: int) -> None:
        """Begin a later UTC day, or return to a day if the clock was more than a day ahead for a time.

        A clock that is set back over midnight changes nothing, and no day's budget is granted twice.
        """
        if self.day - 1 <= day <= self.day:
            return
        self._days[self.day] = self.used_today
        self.used_today = self._days.get(day, 0 if day > self.day else self.used_today)
        self.day = day
        for known in sorted(self._days)[:-_KEPT_DAYS]:
            del self._days[known]

    def remaining(self) -> int:
        """Tokens available to a reservation now; at least 0."""
        left = self._NO_LIMIT
        if self.balance is not None:
            left = self.balance - self.unwritten - self.reserved
        if self.per_day is not None:
            left = min(left, self.per_day - self.used_today - self.reserved)
        return max(0, left)

    def reserve(self, tokens: int, *, now: float, day: int | None = None, least: int | None = None) -> int:
        """Reserve tokens; ``day`` is that of ``now`` if it is not given. Returns the tokens reserved.

        With ``least``, the need is not known exactly: what is left is reserved if it is less than ``tokens``.

        Raises:
            BalanceExhausted: the balance without the other reservations does not cover them.
            RateLimited: the daily budget does not; ``budget_gone`` unless refunds of running requests may suffice.
        """
        self.turn(int(now // DAY_S) if day is None else day)
        if least is not None and least < tokens:
            tokens = max(least, min(tokens, self.remaining()))
        if self.balance is not None and tokens > self.balance - self.unwritten - self.reserved:
            raise self._exhausted(tokens)
        if self.per_day is not None and tokens > self.per_day - self.used_today - self.reserved:
            raise self._day_used_up(tokens, self.per_day, now)
        self.reserved += tokens
        return tokens

    def _exhausted(self, needed: int) -> RagsvcError:
        return BalanceExhausted(
            f"The token balance of this key is exhausted: {self.remaining()} tokens left, {needed} needed."
        )

    def _day_used_up(self, needed: int, per_day: int, now: float) -> RagsvcError:
        gone = needed > per_day - self.used_today
        return RateLimited(
            f"Rate limit of {per_day} tokens per day reached: {self.remaining()} left, {needed} needed. The "
            "budget renews at 0:00 UTC.",
            retry_after_s=DAY_S - now % DAY_S if gone else _RESERVED_RETRY_S,
            budget_gone=gone,
        )

    def refund(self, tokens: int) -> None:
        self.reserved -= tokens

    def settle(self, reserved: int, spent: int, *, day: int) -> bool:
        """Replace a reservation by the tokens used; ``False`` if the lease does not cover them (see ``covered``)."""
        self.turn(day)
        self.reserved -= reserved
        self.used_today += spent
        self.unwritten += spent
        return self.covered()

    def covered(self) -> bool:
        """Whether a crash now would lose no settled token: the durable lease covers all tokens not written yet."""
        if not self.limited:
            return True
        pending = self._pending
        if pending is not None and self.unwritten - pending.spent > self._covers(pending):
            return False
        return self.unwritten <= self._covers(self.durable)

    def _covers(self, write: LedgerWrite) -> int:
        """Tokens of today that the lease of a write covers; a crash would book the lease of another day there."""
        return write.lease if write.day == self.day else 0

    @property
    def needs_lease(self) -> bool:
        """Whether a write should begin before tokens are settled, because there is no lease yet."""
        return self.limited and not self._covers(self.durable)

    @property
    def runs_low(self) -> bool:
        """Whether more than half of the lease is used, so that the next write should begin now."""
        if not self.limited:
            return False
        pending = self._pending
        if pending is not None:
            return 2 * (self.unwritten - pending.spent) > pending.lease
        return 2 * self.unwritten > self.durable.lease

    def begin_write(self, *, now: float, last: bool = False) -> LedgerWrite:
        """The next write; the caller executes it and calls ``commit_write`` or ``abort_write``.

        ``now`` is monotonic seconds. With ``last`` the lease is 0: the process stops and settles no more tokens.
        """
        spent = self.unwritten
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
        """Update the rate of use in tokens per second; it rises at once and halves every ``LEASE_S``."""
        elapsed_s = max(now - self._written_at, self._SHORTEST_S)
        self._written_at = now
        self._rate = max(spent / elapsed_s, self._rate * 0.5 ** (elapsed_s / self.LEASE_S))

    def needs_write(self, write: LedgerWrite) -> bool:
        """Whether a write would change the row."""
        held = self.durable
        if write.spent and self.limited:
            return True
        return write.lease != held.lease or (write.lease > 0 and write.day != held.day)

    def commit_write(self, *, balance: int | None) -> None:
        """Record that the write is durable; ``balance`` is the value of the row after it."""
        pending = self._pending
        if pending is not None:
            self.unwritten -= pending.spent
            self.durable = pending
            self._pending = None
        self.balance = balance

    def abort_write(self) -> None:
        """Record that the write failed; its tokens are part of the next write."""
        self._pending = None


class MoneyLedger(TokenLedger):
    """The same rules for money, in millionths of a unit: total and daily budget of a key or a tenant."""

    MIN_LEASE = 10_000
    MAX_LEASE = 100_000_000
    MAX_RESERVED_LEASE = 1_000_000
    _NO_LIMIT = 1 << 62

    __slots__ = ("_owner",)

    def __init__(self, owner: str, *, balance: int | None, per_day: int | None, day: int, used_today: int = 0) -> None:
        """``owner`` is ``key`` or ``tenant``, for messages."""
        super().__init__(balance=balance, per_day=per_day, day=day, used_today=used_today)
        self._owner = owner

    @property
    def remaining_micros(self) -> int | None:
        """Money available to a reservation now; ``None`` without a budget."""
        return self.remaining() if self.limited else None

    def _exhausted(self, needed: int) -> RagsvcError:
        return BalanceExhausted(
            f"The money budget of this {self._owner} is exhausted: {show_amount(self.remaining())} left, "
            f"{show_amount(needed)} needed."
        )

    def _day_used_up(self, needed: int, per_day: int, now: float) -> RagsvcError:
        del now
        return BalanceExhausted(
            f"The daily money budget of this {self._owner}, {show_amount(per_day)}, is exhausted: "
            f"{show_amount(self.remaining())} left, {show_amount(needed)} needed. It renews at 0:00 UTC."
        )
