"""Who calls and what their limits leave: the hot path of access control, held in memory by the one owning process.

Keys and balances are rows; this process holds them all (about 1 kB each), checks and counts in memory in
microseconds, and writes spent tokens back in groups (``core.access.limits.TokenLedger`` states the rule that makes
this safe).
Request windows and parallel places are memory only: a restart begins them anew. Changes made through this process hold
at once; those of another one (the command line on the same file) within ``refresh_interval_s``, a new key at first use.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from sqlalchemy import Connection

from ragsvc.core.access.api_keys import ApiKey, KeyState, key_id_of
from ragsvc.core.access.limits import DAY_S, UNLIMITED, RequestGate, TokenLedger
from ragsvc.core.access.principal import Principal
from ragsvc.core.errors import KeyInactive, Unauthorized
from ragsvc.core.ids import KeyId
from ragsvc.core.ports.token_meter import Reservation
from ragsvc.store import key_rows, key_usage_rows
from ragsvc.store.database import Database
from ragsvc.store.key_usage_rows import KeyUsage, Spending

_log = logging.getLogger(__name__)

_MISSING = "No API key given. Send it as 'Authorization: Bearer rag_…'."
_INCORRECT = "Incorrect API key provided."
_REFRESH_PAUSE_S = 0.05
_IDLE_S = 1.0
_RETRY_S = 0.5


T = TypeVar("T")


async def write_to_the_end(database: Database, operation: Callable[[Connection], T]) -> T:
    """Write, and wait for the commit even when cancelled: what began is committed, and memory must follow the rows."""
    results: list[T] = []
    with anyio.CancelScope(shield=True):
        results.append(await database.write(operation))
    return results[0]


class LiveKey:
    """A key as this process holds it: the row's value and the state of its limits."""

    __slots__ = ("gate", "key", "ledger", "principal")

    def __init__(self, key: ApiKey, *, day: int, used_today: int) -> None:
        limits = key.limits
        self.key = key
        self.principal = key.principal()
        self.gate = RequestGate(
            per_minute=limits.requests_per_minute,
            per_hour=limits.requests_per_hour,
            max_parallel=limits.max_parallel_requests,
        )
        self.ledger = TokenLedger(
            balance=limits.token_balance, per_day=limits.tokens_per_day, day=day, used_today=used_today
        )

    def change(self, key: ApiKey) -> None:
        """Take over a changed row; counts and reservations stay."""
        limits = key.limits
        self.key = key
        self.principal = key.principal()
        self.gate.change_limits(
            per_minute=limits.requests_per_minute,
            per_hour=limits.requests_per_hour,
            max_parallel=limits.max_parallel_requests,
        )
        self.ledger.balance = limits.token_balance
        self.ledger.per_day = limits.tokens_per_day

    @property
    def token_limit(self) -> int:
        """The token limit as clients are told it: of the day, else the balance as granted, else ``UNLIMITED``."""
        if self.key.limits.tokens_per_day is not None:
            return self.key.limits.tokens_per_day
        return UNLIMITED if self.key.token_grant is None else self.key.token_grant


class Access:
    """Authenticates callers and meters their tokens (port ``TokenMeter``). Runs on one event loop, in ``running()``."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float] = time.time,
        flush_interval_s: float = 0.2,
        refresh_interval_s: float = 2.0,
    ) -> None:
        """``clock`` gives Unix seconds. Set ``on_usage`` to be told every settled request."""
        self.database = database
        self.clock = clock
        self._flush_interval_s = flush_interval_s
        self._refresh_interval_s = refresh_interval_s
        self.on_usage: Callable[[str, int, int], None] | None = None
        """Called with model, prompt tokens and completion tokens."""
        self.late_settles = 0
        """Settled requests that had to wait for a write."""
        self._keys: dict[KeyId, LiveKey] = {}
        self._rowless: set[KeyId] = set()
        self._revision = 0
        self._refresh_lock = anyio.Lock()
        self._refreshed_at = 0.0
        self._open: dict[int, tuple[LiveKey, Reservation]] = {}
        self._next_id = itertools.count(1)
        self._usage: dict[tuple[KeyId, int, str], KeyUsage] = {}
        self._dirty: set[LiveKey] = set()
        self._wake = anyio.Event()
        self._urgent = anyio.Event()
        self._flushed = anyio.Event()

    # -- life ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Book what a crash left open, load keys, then write and refresh in the background; the exit writes all."""
        forfeited = await self.database.write(key_usage_rows.recover_leases)
        if forfeited:
            _log.warning("the last run did not end cleanly: %d leased tokens were booked as spent", forfeited)
        await self.refresh()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write_forever)
            tasks.start_soon(self._refresh_forever)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._flush(release=True, last=True)

    async def refresh(self) -> None:
        """Take over keys that changed in the rows since the last time, and forget deleted ones."""
        async with self._refresh_lock:
            await self._take_changed()
            known = set(self._keys)  # before the read: a key made during it must stay
            present = await self.database.read(key_rows.key_ids)
            for gone in known - present - self._rowless:
                self.forget(gone)

    async def _take_changed(self) -> None:
        self._refreshed_at = time.monotonic()
        since, day = self._revision, int(self.clock() // DAY_S)
        if not await self.database.read(lambda connection: key_rows.changed_keys(connection, since=since)):
            return
        # Read again in the writer's queue: a balance read beside a booking in flight would be that of before it.
        changed, used = await self.database.write(
            lambda connection: (
                key_rows.changed_keys(connection, since=since),
                key_usage_rows.used_on(connection, day),
            )
        )
        for key in changed:
            self._revision = max(self._revision, key.revision)
            self.take(key, used_today=used.get(key.id, 0))

    def take(self, key: ApiKey, *, used_today: int = 0) -> None:
        """Hold a new or changed key from now on."""
        live = self._keys.get(key.id)
        if live is None:
            self._keys[key.id] = LiveKey(key, day=int(self.clock() // DAY_S), used_today=used_today)
        elif key.revision > live.key.revision:  # the same one again may carry an older balance
            live.change(key)

    def trust(self, key: ApiKey) -> None:
        """Hold a key that has no row, until the process ends (the command line's own, on the data directory)."""
        self._rowless.add(key.id)
        self.take(key)

    def forget(self, key_id: KeyId) -> None:
        """Drop a deleted key at once."""
        self._keys.pop(key_id, None)

    # -- callers ------------------------------------------------------------------------------------------------

    async def authenticate(self, credential: bytes | None) -> LiveKey:
        """Find the key that ``credential`` is (the header's value, with or without ``Bearer``).

        Raises:
            Unauthorized: nothing given, another form, unknown, revoked or expired; the caller cannot tell which of the
                last three unless it holds the secret.
            KeyInactive: the key is right and switched off.
        """
        if not credential:
            raise Unauthorized(_MISSING)
        text = credential[7:].strip() if credential[:7].lower() == b"bearer " else credential.strip()
        key_id = key_id_of(text)
        if key_id is None:
            raise Unauthorized(_INCORRECT)
        live = self._keys.get(key_id)
        if live is None:
            live = await self._look_again(key_id)
        key, now = live.key, self.clock()
        if not key.accepts(text, now=now):
            raise Unauthorized(_INCORRECT)
        if key.state is KeyState.REVOKED:
            raise Unauthorized("This API key was revoked.")
        if key.expired(now):
            raise Unauthorized("This API key has expired.")
        if key.state is KeyState.INACTIVE:
            raise KeyInactive(f"Key '{key.label}' is inactive.")
        return live

    async def _look_again(self, key_id: KeyId) -> LiveKey:
        """Another process may just have made the key. Unknown keys share a look at the rows at most every 50 ms."""
        asked = time.monotonic()
        async with self._refresh_lock:
            if self._refreshed_at <= asked:
                await anyio.sleep(max(0.0, self._refreshed_at + _REFRESH_PAUSE_S - time.monotonic()))
                await self._take_changed()
        live = self._keys.get(key_id)
        if live is None:
            raise Unauthorized(_INCORRECT)
        return live

    # -- tokens (port TokenMeter) -------------------------------------------------------------------------------

    async def reserve(self, principal: Principal, tokens: int) -> Reservation:
        """Set ``tokens`` aside; see ``TokenMeter``."""
        live = self._live(principal)
        live.ledger.reserve(tokens, now=self.clock())
        reservation = Reservation(next(self._next_id), principal.key_id, tokens)
        self._open[reservation.id] = (live, reservation)
        if live.ledger.wants_lease:
            self._mark(live)
            self._urgent.set()  # the lease is there before the model has answered
        return reservation

    async def settle(self, reservation: Reservation, *, prompt_tokens: int, completion_tokens: int, model: str) -> None:
        """Book what was used; waits for a durable write only when the key's lease does not cover it."""
        opened = self._open.pop(reservation.id, None)
        if opened is None:
            return
        live, _ = opened
        day = int(self.clock() // DAY_S)
        covered = live.ledger.settle(reservation.tokens, prompt_tokens + completion_tokens, day=day)
        slot = (reservation.key_id, live.ledger.day, model)
        usage = self._usage.get(slot)
        if usage is None:
            usage = self._usage[slot] = KeyUsage(*slot)
        usage.prompt_tokens += prompt_tokens
        usage.completion_tokens += completion_tokens
        usage.requests += 1
        if self.on_usage is not None:
            self.on_usage(model, prompt_tokens, completion_tokens)
        self._mark(live)
        if live.ledger.runs_low:
            self._urgent.set()
        self.late_settles += not covered
        while not covered:
            self._urgent.set()
            await self._flushed.wait()
            covered = live.ledger.covered()

    async def refund(self, reservation: Reservation) -> None:
        """Give all of it back; ignored after ``settle``."""
        opened = self._open.pop(reservation.id, None)
        if opened is not None:
            opened[0].ledger.refund(reservation.tokens)

    async def remaining(self, principal: Principal) -> int:
        """Tokens that could be reserved now; ``UNLIMITED`` when nothing limits the key."""
        ledger = self._live(principal).ledger
        ledger.turn(int(self.clock() // DAY_S))
        return ledger.remaining()

    def _live(self, principal: Principal) -> LiveKey:
        live = self._keys.get(principal.key_id)
        if live is None:
            raise Unauthorized("This API key was deleted.")
        return live

    # -- writing back -------------------------------------------------------------------------------------------

    def _mark(self, live: LiveKey) -> None:
        self._dirty.add(live)
        self._wake.set()

    async def _write_forever(self) -> None:
        while True:
            with anyio.move_on_after(_IDLE_S):
                await self._wake.wait()
            quiet = not self._wake.is_set()
            self._wake = anyio.Event()
            if not quiet:
                with anyio.move_on_after(self._flush_interval_s):
                    await self._urgent.wait()
            self._urgent = anyio.Event()
            try:
                await self._flush(release=quiet)
            except Exception:  # noqa: BLE001 - outlives a full disk; settles beyond their lease wait for a write
                _log.exception("token use could not be written; trying again")
                self._wake.set()
                await anyio.sleep(_RETRY_S)

    async def _flush(self, *, release: bool, last: bool = False) -> None:
        """Write what was spent. ``release`` also gives up the leases of quiet keys, ``last`` those of all."""
        batch, self._dirty = self._dirty, set()
        if release:
            batch |= {live for live in self._keys.values() if live.ledger.durable.lease}
        usages, self._usage = self._usage, {}
        if not batch and not usages:
            return
        now = time.monotonic()
        bookings = [(live, live.ledger.begin_booking(now=now, last=last)) for live in batch]
        spendings = [
            Spending(live.key.id, one.spent, one.lease, one.day)
            for live, one in bookings
            if live.ledger.needs_write(one)
        ]
        balances: dict[KeyId, int | None] = {}
        try:
            if spendings or usages:
                balances = await write_to_the_end(
                    self.database, lambda connection: key_usage_rows.book(connection, spendings, list(usages.values()))
                )
        except Exception:
            for live, _ in bookings:
                live.ledger.abort_booking()
            self._dirty |= batch
            self._keep_usage(usages)
            raise
        for live, _ in bookings:
            live.ledger.commit_booking(balance=balances.get(live.key.id, live.ledger.balance))
        flushed, self._flushed = self._flushed, anyio.Event()
        flushed.set()

    def _keep_usage(self, usages: dict[tuple[KeyId, int, str], KeyUsage]) -> None:
        for slot, usage in usages.items():
            newer = self._usage.setdefault(slot, KeyUsage(*slot))
            newer.prompt_tokens += usage.prompt_tokens
            newer.completion_tokens += usage.completion_tokens
            newer.requests += usage.requests

    async def _refresh_forever(self) -> None:
        while True:
            await anyio.sleep(self._refresh_interval_s)
            try:
                await self.refresh()
            except Exception:  # noqa: BLE001 - tried again; the keys in memory stay valid meanwhile
                _log.exception("keys could not be read again; keeping what is known")
