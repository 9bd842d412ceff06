"""Access control: authentication and limits, in the memory of the process that owns the data directory.

Keys and balances are rows. This process holds all of them (about 1 kB each), checks and counts in microseconds, and
writes spent tokens back in groups; ``core.access.limits.TokenLedger`` states the rule that makes this safe. Request
windows and parallel requests are counted in memory only, so a restart resets them. Changes made by this process take
effect at once. Those of another process (the command line on the same data directory) take effect within
``refresh_interval_s``, new keys at their first use.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import anyio
import msgspec
from sqlalchemy import Connection

from ragsvc.core.access.api_keys import ApiKey, KeyState, key_id_of
from ragsvc.core.access.failed_logins import FailedLogins
from ragsvc.core.access.limits import DAY_S, UNLIMITED, DayClock, MoneyLedger, RequestGate, TokenLedger
from ragsvc.core.access.money import show_amount
from ragsvc.core.access.principal import Principal
from ragsvc.core.access.request_note import note_request
from ragsvc.core.defaults import DEFAULT_FAILED_LOGINS_PER_MINUTE
from ragsvc.core.errors import (
    BalanceExhausted,
    Conflict,
    DatabaseUnavailable,
    KeyInactive,
    RateLimited,
    StorageFull,
    Unauthorized,
)
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.core.ports.token_meter import Need, Reservation
from ragsvc.store import key_rows, key_usage_rows, tenant_budget_rows
from ragsvc.store.database import Database
from ragsvc.store.key_usage_rows import Balances, DayUse, Forfeited, KeyUsage, Spending
from ragsvc.store.tenant_budget_rows import TenantBudget, TenantSpending

_log = logging.getLogger(__name__)

_MISSING = "No API key given. Send it as 'Authorization: Bearer rag_…'."
_INCORRECT = "Incorrect API key provided."
_REFRESH_PAUSE_S = 0.05
_IDLE_S = 1.0
_RETRY_S = 0.5
_UNUSED = DayUse()


T = TypeVar("T")
_UsageSlot = tuple[KeyId, int, str, str]
"""Key, day, model and endpoint family."""


async def write_to_the_end(database: Database, operation: Callable[[Connection], T]) -> T:
    """Write, and wait for the commit even if cancelled: the write will be committed, and memory must match the rows."""
    results: list[T] = []
    with anyio.CancelScope(shield=True):
        results.append(await database.write(operation))
    return results[0]


def _require_usable(key: ApiKey, now: float) -> None:
    """Raises ``Unauthorized`` for a revoked or expired key, and ``KeyInactive`` for one that is switched off."""
    if key.state is KeyState.REVOKED:
        raise Unauthorized("This API key was revoked.")
    if key.expired(now):
        raise Unauthorized("This API key has expired.")
    if key.state is KeyState.INACTIVE:
        raise KeyInactive(f"Key '{key.label}' is inactive.")


class LiveTenant:
    """The money budget of a tenant in memory, shared by its keys."""

    __slots__ = ("money", "name")

    def __init__(self, name: TenantId, *, day: int) -> None:
        self.name = name
        self.money = MoneyLedger("tenant", balance=None, per_day=None, day=day)


class LiveKey:
    """A key in memory: the stored value and the state of its limits."""

    __slots__ = ("gate", "key", "ledger", "money", "principal", "tenant")

    def __init__(self, key: ApiKey, tenant: LiveTenant, *, day: int, used_today: DayUse) -> None:
        limits = key.limits
        self.key = key
        self.principal = key.principal()
        self.gate = RequestGate(
            per_minute=limits.requests_per_minute,
            per_hour=limits.requests_per_hour,
            max_parallel=limits.max_parallel_requests,
        )
        self.tenant = tenant
        self.ledger = TokenLedger(
            balance=limits.token_balance, per_day=limits.tokens_per_day, day=day, used_today=used_today.tokens
        )
        self.money = MoneyLedger(
            "key",
            balance=limits.money_balance,
            per_day=limits.money_per_day,
            day=day,
            used_today=used_today.cost_micros,
        )

    def change(self, key: ApiKey) -> None:
        """Replace the stored value; counts and reservations stay."""
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
        self.money.balance = limits.money_balance
        self.money.per_day = limits.money_per_day

    @property
    def ledgers(self) -> tuple[TokenLedger, MoneyLedger, MoneyLedger]:
        """The ledgers of all budgets that bind requests of this key."""
        return self.ledger, self.money, self.tenant.money

    @property
    def money_limited(self) -> bool:
        """Whether the key or its tenant has a money budget."""
        return self.money.limited or self.tenant.money.limited

    @property
    def token_limit(self) -> int:
        """The token limit shown to clients: the daily budget, else the balance granted, else ``UNLIMITED``."""
        if self.key.limits.tokens_per_day is not None:
            return self.key.limits.tokens_per_day
        return UNLIMITED if self.key.token_grant is None else self.key.token_grant


class SessionFinder(Protocol):
    """Finds the key for the token in the cookie of a session of the web pages."""

    async def find_session_key(self, token: bytes) -> LiveKey:
        """Raises ``Unauthorized`` if the session has ended, and ``KeyInactive``."""
        ...


class Access:
    """Authenticates callers and meters their tokens (port ``TokenMeter``); for one event loop, within ``running()``."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] | None = None,
        flush_interval_s: float = 0.2,
        refresh_interval_s: float = 2.0,
        failed_logins_per_minute: int = DEFAULT_FAILED_LOGINS_PER_MINUTE,
    ) -> None:
        """``clock`` gives Unix seconds; with ``monotonic``, days of budgets survive a jump of this clock."""
        self.database = database
        self.clock = clock
        self._monotonic = monotonic
        self._days = None if monotonic is None else DayClock(wall=clock(), monotonic=monotonic())
        self._flush_interval_s = flush_interval_s
        self._refresh_interval_s = refresh_interval_s
        self.on_usage: Callable[[str, int, int, int], None] | None = None
        """Called with model, prompt tokens, completion tokens, and cost in millionths of a unit of money."""
        self.sessions: SessionFinder | None = None
        """The sessions of the web pages; without them no cookie authenticates."""
        self.late_settles = 0
        """Number of settled requests that had to wait for a write."""
        self._logins = FailedLogins(per_minute=failed_logins_per_minute)
        self._keys: dict[KeyId, LiveKey] = {}
        self._rowless: set[KeyId] = set()
        self._erased: set[KeyId] = set()
        self._by_secret: dict[bytes, KeyId] = {}
        """Keys by the SHA-256 of their secrets: an imported secret has no id in its text."""
        self._tenants: dict[TenantId, LiveTenant] = {}
        self._revision = 0
        self._budget_revision = 0
        self._tenant_use_is_loaded = False
        self._refresh_lock = anyio.Lock()
        self._refreshed_at = 0.0
        self._open: dict[int, tuple[LiveKey, Reservation]] = {}
        self._next_id = itertools.count(1)
        self._usage: dict[_UsageSlot, KeyUsage] = {}
        self._dirty: set[LiveKey] = set()
        self._dirty_tenants: set[LiveTenant] = set()
        self._wake = anyio.Event()
        self._urgent = anyio.Event()
        self._flushed = anyio.Event()
        self._flush_lock = anyio.Lock()
        self._disk_is_full = False
        self._leases_are_recovered = False

    # -- life ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Book the leases that a crash left, load keys, then write and refresh in the background until the exit."""
        try:
            await self._recover_leases()
        except StorageFull as error:
            _log.warning("Keys with a token limit wait until there is room: %s", error.message)
            self._disk_is_full = True
            self._wake.set()
        await self.refresh()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write_forever)
            tasks.start_soon(self._refresh_forever)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            try:
                await self._flush(release=True, last=True)
            except (StorageFull, DatabaseUnavailable) as error:
                _log.error("The last token usage could not be written: %s", error.message)

    async def _recover_leases(self) -> None:
        """Book the leases that a crash left as spent."""

        def recover(connection: Connection) -> Forfeited:
            of_tenants = tenant_budget_rows.recover_tenant_leases(connection)
            of_keys = key_usage_rows.recover_leases(connection)
            return Forfeited(of_keys.tokens, of_keys.micros + of_tenants)

        forfeited = await self.database.write(recover)
        self._leases_are_recovered = True
        if forfeited != Forfeited():
            _log.warning(
                "The last run did not end cleanly: %d leased tokens and %s of leased money were booked as spent.",
                forfeited.tokens,
                show_amount(forfeited.micros),
            )

    async def _recover_leases_late(self) -> None:
        """As ``_recover_leases``, after keys were loaded; keys with a limit could not be used until now."""
        await self._recover_leases()
        day = int(self.clock() // DAY_S)
        keys, used, budgets, spent = await self.database.write(
            lambda connection: (
                key_rows.changed_keys(connection, since=0),
                key_usage_rows.used_on(connection, day),
                tenant_budget_rows.changed_budgets(connection, since=0),
                tenant_budget_rows.tenants_used_on(connection, day),
            )
        )
        for key in keys:
            live = self._keys.get(key.id)
            if live is None:
                continue
            today = used.get(key.id, _UNUSED)
            if live.ledger.limited:
                live.ledger.balance = key.limits.token_balance
                live.ledger.used_today = today.tokens
            if live.money.limited:
                live.money.balance = key.limits.money_balance
                live.money.used_today = today.cost_micros
        for budget in budgets:
            money = self._tenant(budget.tenant).money
            if money.limited:
                money.balance = budget.money_balance
                money.used_today = spent.get(budget.tenant, 0)

    async def refresh(self) -> None:
        """Load keys that changed since the last refresh, and drop deleted ones."""
        async with self._refresh_lock:
            await self._load_changed()
            known = set(self._keys)  # before the read: a key created during the read must stay
            stored = await self.database.read(key_rows.key_ids)
            for deleted in known - stored - self._rowless:
                self.forget(deleted)

    async def _load_changed(self) -> None:
        self._refreshed_at = time.monotonic()
        since, budgets_since, day = self._revision, self._budget_revision, self._day()
        first = not self._tenant_use_is_loaded

        def changed(connection: Connection) -> tuple[list[ApiKey], list[TenantBudget]]:
            return (
                key_rows.changed_keys(connection, since=since),
                tenant_budget_rows.changed_budgets(connection, since=budgets_since),
            )

        if not any(await self.database.read(changed)):
            return
        # read again in the queue of writes: a balance read while a write is running would be the one before the write
        (keys, budgets), used, spent = await self.database.write(
            lambda connection: (
                changed(connection),
                key_usage_rows.used_on(connection, day),
                tenant_budget_rows.tenants_used_on(connection, day) if first else {},
            )
        )
        self._tenant_use_is_loaded = True
        for tenant, micros in spent.items():
            self._tenant(tenant).money.used_today = micros
        for budget in budgets:
            self.take_budget(budget)
        for key in keys:
            self._revision = max(self._revision, key.revision)
            self.take(key, used_today=used.get(key.id, _UNUSED))

    def _tenant(self, name: TenantId) -> LiveTenant:
        """The tenant in memory; a tenant that is not known yet has used nothing today."""
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = LiveTenant(name, day=self._day())
        return tenant

    def take_budget(self, budget: TenantBudget) -> None:
        """Set the budget of a tenant, as read from the rows after the last write."""
        self._budget_revision = max(self._budget_revision, budget.revision)
        money = self._tenant(budget.tenant).money
        money.balance = budget.money_balance
        money.per_day = budget.money_per_day

    def _day(self) -> int:
        """The present day of budgets and usage."""
        if self._days is None or self._monotonic is None:
            return int(self.clock() // DAY_S)
        return self._days.day(wall=self.clock(), monotonic=self._monotonic())

    def take(self, key: ApiKey, *, used_today: DayUse = _UNUSED) -> None:
        """Add a new key, or replace a changed one."""
        live = self._keys.get(key.id)
        if live is None:
            tenant = self._tenant(key.tenant)
            self._keys[key.id] = LiveKey(key, tenant, day=self._day(), used_today=used_today)
        elif key.revision > live.key.revision:  # the same revision may come with an older balance
            live.change(key)
        self._by_secret[key.secret_hash] = key.id
        if key.previous_secret_hash is not None:
            self._by_secret[key.previous_secret_hash] = key.id

    def trust(self, key: ApiKey) -> None:
        """Add a key that is not stored, until the process ends (the key of a command on the data directory)."""
        self._rowless.add(key.id)
        self.take(key)

    def forget(self, key_id: KeyId) -> None:
        """Drop a deleted key from memory."""
        if self._keys.pop(key_id, None) is not None:
            self._by_secret = {digest: known for digest, known in self._by_secret.items() if known != key_id}

    @asynccontextmanager
    async def usage_held_back(self) -> AsyncGenerator[None]:
        """A block during which no usage is written.

        A tenant is deleted and its keys are erased in such a block: usage that was taken for writing before the erasure
        would otherwise be written after the deletion.
        """
        async with self._flush_lock:
            yield

    def erase(self, key_id: KeyId) -> None:
        """Drop a deleted key and all its usage that is not written yet, because its tenant is deleted."""
        self._erased.add(key_id)
        self.forget(key_id)

    def forget_tenant(self, tenant: TenantId) -> None:
        """Drop the budget of a deleted tenant; a tenant of the same name begins without one."""
        self._tenants.pop(tenant, None)

    # -- callers ------------------------------------------------------------------------------------------------

    async def authenticate(self, credential: bytes | None, *, address: str | None = None) -> LiveKey:
        """Find the key for ``credential``; failures are limited by the address of the client. Raises as ``find_key``.

        Raises:
            RateLimited: too many failures from this address, and the credential has not worked from there.
        """
        if not credential:
            raise Unauthorized(_MISSING)
        self._logins.check(address, credential, time.monotonic())
        try:
            live = await self.find_key(credential)
        except Unauthorized:
            self._note_failed_login(address)
            raise
        self._logins.worked(address, credential)
        return live

    def _note_failed_login(self, address: str | None) -> None:
        if self._logins.failed(address, time.monotonic()):
            _log.warning("Too many failed authentications from %s: further ones get 429 for a minute.", address)

    async def find_key(self, credential: bytes) -> LiveKey:
        """Find the key for ``credential``, a header value with or without ``Bearer``.

        Raises:
            Unauthorized: missing, malformed, unknown, revoked or expired; only callers that know the secret can
                distinguish the last three.
            KeyInactive: the secret is correct and the key is switched off.
        """
        text = credential[7:].strip() if credential[:7].lower() == b"bearer " else credential.strip()
        live = self._find(text)
        if live is None:
            await self._load_new_keys()
            live = self._find(text)
        if live is None:
            raise Unauthorized(_INCORRECT)
        key, now = live.key, self.clock()
        if not key.accepts(text, now=now):
            raise Unauthorized(_INCORRECT)
        _require_usable(key, now)
        return live

    def may_continue(self, principal: Principal) -> bool:
        """Whether the key of a long request is still active, and may use neither more nor less than at its beginning.

        It was not deleted, revoked, switched off or changed, and has not expired.
        """
        live = self._keys.get(principal.key_id)
        if live is None or live.key.state is not KeyState.ACTIVE or live.key.expired(self.clock()):
            return False
        now = live.principal
        return (now.scopes, now.allowed_collections) == (principal.scopes, principal.allowed_collections)

    def key_of_secret(self, key_id: KeyId, secret_hash: bytes) -> LiveKey:
        """The key with an id, as long as it accepts the secret with this hash. Raises as ``find_key``."""
        live, now = self._keys.get(key_id), self.clock()
        if live is None or not live.key.accepts_hash(secret_hash, now=now):
            raise Unauthorized("The API key of this session was deleted or got a new secret.")
        _require_usable(live.key, now)
        return live

    async def authenticate_by(
        self, credential: bytes, find: Callable[[], Awaitable[LiveKey]], *, address: str | None = None
    ) -> LiveKey:
        """As ``authenticate``, for a credential that is not a key; ``find`` raises ``Unauthorized`` for a wrong one."""
        self._logins.check(address, credential, time.monotonic())
        try:
            return await find()
        except Unauthorized:
            self._note_failed_login(address)
            raise

    def _find(self, text: bytes) -> LiveKey | None:
        """The key that a text names, by the id in it, or by its hash if the secret was imported."""
        key_id = key_id_of(text)
        live = None if key_id is None else self._keys.get(key_id)
        if live is not None:
            return live
        found = self._by_secret.get(hashlib.sha256(text).digest())
        return None if found is None else self._keys.get(found)

    async def _load_new_keys(self) -> None:
        """Read the rows for keys that another process may have created; at most every 50 ms for all unknown keys."""
        asked = time.monotonic()
        async with self._refresh_lock:
            if self._refreshed_at <= asked:
                await anyio.sleep(max(0.0, self._refreshed_at + _REFRESH_PAUSE_S - time.monotonic()))
                await self._load_changed()

    def require_key(self, connection: Connection, key_id: KeyId) -> None:
        """Check, within the transaction of a change, that the key of the request still exists.

        A request is authenticated before its body is received. If its key, or the tenant with all its keys, is deleted
        in between, the request must not store anything: it would belong to a tenant that does not exist.

        Raises:
            Conflict: the key was deleted.
        """
        if key_id not in self._rowless and not key_rows.has_key(connection, key_id):
            raise Conflict("The API key was deleted while the request was received.")

    # -- tokens (port TokenMeter) -------------------------------------------------------------------------------

    async def reserve(self, principal: Principal, need: Need | int, *, family: str = "chat") -> Reservation:
        """Reserve tokens and money; see ``TokenMeter``.

        Raises:
            StorageFull: a budget is limited, and what is used cannot be written because the disk is full.
        """
        live = self._live(principal)
        note_request(family=family)
        if isinstance(need, int):
            need = Need(need)
        ledgers: tuple[TokenLedger, ...] = live.ledgers if need.cost else (live.ledger,)
        if self._disk_is_full and any(ledger.needs_lease for ledger in ledgers):
            raise StorageFull("The disk is full. The tokens of this key cannot be counted.")
        now, day = self.clock(), self._day()
        tokens = live.ledger.reserve(need.tokens, now=now, day=day, least=need.least_tokens)
        try:
            cost, tenant_cost = self._reserve_money(live, need.cost, need.least_cost, now=now, day=day)
        except BalanceExhausted:
            live.ledger.refund(tokens)
            raise
        money_limited = bool(need.cost) and live.money_limited
        limited = live.ledger.limited or money_limited
        reservation = Reservation(
            next(self._next_id), principal.key_id, tokens, family, limited, cost, tenant_cost, money_limited
        )
        self._open[reservation.id] = (live, reservation)
        if any(ledger.needs_lease for ledger in ledgers):
            self._mark(live, tenant=money_limited)
            self._urgent.set()  # the lease is written before the model has answered
        return reservation

    def _reserve_money(self, live: LiveKey, cost: int, least: int | None, *, now: float, day: int) -> tuple[int, int]:
        """Reserve money in the budgets of a key and its tenant. Raises ``BalanceExhausted``, and then reserves none."""
        if not cost:
            return 0, 0
        of_key = live.money.reserve(cost, now=now, day=day, least=least)
        try:
            return of_key, live.tenant.money.reserve(cost, now=now, day=day, least=least)
        except BalanceExhausted:
            live.money.refund(of_key)
            raise

    async def extend(self, reservation: Reservation, tokens: int, *, cost: int = 0) -> bool:
        """Reserve more for a request in progress; ``False`` if the budgets do not cover it."""
        opened = self._open.get(reservation.id)
        if opened is None:
            return False
        live, reserved = opened
        now, day = self.clock(), self._day()
        try:
            live.ledger.reserve(tokens, now=now, day=day)
        except (BalanceExhausted, RateLimited):
            return False
        try:
            of_key, of_tenant = self._reserve_money(live, cost, None, now=now, day=day)
        except BalanceExhausted:
            live.ledger.refund(tokens)
            return False
        extended = msgspec.structs.replace(
            reserved,
            tokens=reserved.tokens + tokens,
            cost=reserved.cost + of_key,
            tenant_cost=reserved.tenant_cost + of_tenant,
        )
        self._open[reservation.id] = (live, extended)
        return True

    async def settle(
        self, reservation: Reservation, *, prompt_tokens: int, completion_tokens: int, model: str, cost: int = 0
    ) -> None:
        """Record what was used; waits for a durable write only if a lease of key or tenant does not cover it.

        A write that the disk has no room for is not awaited: what was used stays in memory and is written later.
        """
        opened = self._open.pop(reservation.id, None)
        if opened is None:
            return
        live, reserved = opened
        day = self._day()
        ledgers: tuple[TokenLedger, ...] = (live.ledger,)
        covered = live.ledger.settle(reserved.tokens, prompt_tokens + completion_tokens, day=day)
        charged = bool(cost or reserved.cost or reserved.tenant_cost)
        if charged:
            ledgers = live.ledgers
            covered &= live.money.settle(reserved.cost, cost, day=day)
            covered &= live.tenant.money.settle(reserved.tenant_cost, cost, day=day)
        usage = self._usage_of(live, model=model, family=reservation.family)
        usage.prompt_tokens += prompt_tokens
        usage.completion_tokens += completion_tokens
        usage.requests += 1
        usage.cost_micros += cost
        if self.on_usage is not None:
            self.on_usage(model, prompt_tokens, completion_tokens, cost)
        self._mark(live, tenant=charged)
        if any(ledger.runs_low for ledger in ledgers):
            self._urgent.set()
        self.late_settles += not covered
        if not covered:
            with anyio.CancelScope(shield=True):
                await self._write_uncovered(ledgers)

    async def _write_uncovered(self, ledgers: tuple[TokenLedger, ...]) -> None:
        while not self._disk_is_full:
            self._urgent.set()
            await self._flushed.wait()
            if all(ledger.covered() for ledger in ledgers):
                return

    def count_request(self, principal: Principal, *, family: str) -> None:
        """Count a request that uses no tokens, such as a search, for the usage report; written within a second."""
        live = self._keys.get(principal.key_id)
        note_request(family=family)
        if live is not None:
            live.ledger.turn(self._day())
            self._usage_of(live, model="", family=family).requests += 1

    def count_outcome(self, live: LiveKey, *, model: str, family: str, duration_s: float | None) -> None:
        """Count the end of a request for the usage report: an error, or with ``duration_s`` an answer."""
        if self._keys.get(live.key.id) is not live:
            return  # the key was deleted; its tenant may have been, too
        live.ledger.turn(self._day())
        usage = self._usage_of(live, model=model, family=family)
        if duration_s is None:
            usage.errors += 1
        else:
            usage.timed_requests += 1
            usage.duration_ms += round(duration_s * 1000)

    def _usage_of(self, live: LiveKey, *, model: str, family: str) -> KeyUsage:
        slot = (live.key.id, live.ledger.day, model, family)
        usage = self._usage.get(slot)
        if usage is None:
            usage = self._usage[slot] = KeyUsage(*slot, live.key.tenant)
        return usage

    async def refund(self, reservation: Reservation) -> None:
        """Give the whole reservation back; ignored after ``settle``."""
        opened = self._open.pop(reservation.id, None)
        if opened is not None:
            live, reserved = opened
            live.ledger.refund(reserved.tokens)
            if reserved.cost or reserved.tenant_cost:
                live.money.refund(reserved.cost)
                live.tenant.money.refund(reserved.tenant_cost)

    async def remaining_money(self, principal: Principal) -> int | None:
        """Money that can be reserved now, in millionths of a unit; ``None`` if neither key nor tenant has a budget."""
        live, day = self._live(principal), self._day()
        left: list[int] = []
        for money in (live.money, live.tenant.money):
            money.turn(day)
            if money.remaining_micros is not None:
                left.append(money.remaining_micros)
        return min(left, default=None)

    async def remaining(self, principal: Principal) -> int:
        """Tokens that can be reserved now; ``UNLIMITED`` if the key has no token limit."""
        ledger = self._live(principal).ledger
        ledger.turn(self._day())
        return ledger.remaining()

    def _live(self, principal: Principal) -> LiveKey:
        live = self._keys.get(principal.key_id)
        if live is None:
            raise Unauthorized("This API key was deleted.")
        return live

    # -- writing back -------------------------------------------------------------------------------------------

    def _mark(self, live: LiveKey, *, tenant: bool) -> None:
        self._dirty.add(live)
        if tenant:
            self._dirty_tenants.add(live.tenant)
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
            except StorageFull as error:
                if not self._disk_is_full:
                    _log.warning("Token usage is kept in memory until there is room: %s", error.message)
                self._disk_is_full = True
                self._wake_settles()
                self._wake.set()
                await anyio.sleep(_RETRY_S)
            except Exception:  # noqa: BLE001 - survives a full disk; settles beyond their lease wait for a write
                _log.exception("Token usage could not be written and will be written again.")
                self._wake.set()
                await anyio.sleep(_RETRY_S)

    async def _flush(self, *, release: bool, last: bool = False) -> None:
        """Write spent tokens. ``release`` also ends the leases of idle keys, ``last`` those of all keys."""
        async with self._flush_lock:
            await self._flush_locked(release=release, last=last)

    async def _flush_locked(self, *, release: bool, last: bool) -> None:
        if not self._leases_are_recovered:
            await self._recover_leases_late()
            self._disk_is_full = False
        batch, self._dirty = self._dirty, set()
        tenants, self._dirty_tenants = self._dirty_tenants, set()
        if release:
            batch |= {live for live in self._keys.values() if live.ledger.durable.lease or live.money.durable.lease}
            tenants |= {tenant for tenant in self._tenants.values() if tenant.money.durable.lease}
        usages = {slot: usage for slot, usage in self._usage.items() if slot[0] not in self._erased}
        self._usage = {}
        if not batch and not tenants and not usages:
            return
        now = time.monotonic()
        writes = [
            (live, live.ledger.begin_write(now=now, last=last), live.money.begin_write(now=now, last=last))
            for live in batch
        ]
        tenant_writes = [(tenant, tenant.money.begin_write(now=now, last=last)) for tenant in tenants]
        spendings = [
            Spending(live.key.id, tokens, money)
            for live, tokens, money in writes
            if live.ledger.needs_write(tokens) or live.money.needs_write(money)
        ]
        tenant_spendings = [
            TenantSpending(tenant.name, money) for tenant, money in tenant_writes if tenant.money.needs_write(money)
        ]
        balances: dict[KeyId, Balances] = {}
        tenant_balances: dict[TenantId, int | None] = {}

        def book(connection: Connection) -> tuple[dict[KeyId, Balances], dict[TenantId, int | None]]:
            return (
                key_usage_rows.book(connection, spendings, list(usages.values())),
                tenant_budget_rows.book_tenants(connection, tenant_spendings),
            )

        try:
            if spendings or tenant_spendings or usages:
                balances, tenant_balances = await write_to_the_end(self.database, book)
        except Exception:
            for ledger in self._ledgers_of(batch, tenants):
                ledger.abort_write()
            self._dirty |= batch
            self._dirty_tenants |= tenants
            self._keep_usage(usages)
            raise
        for live in batch:
            after = balances.get(live.key.id, Balances(live.ledger.balance, live.money.balance))
            live.ledger.commit_write(balance=after.tokens)
            live.money.commit_write(balance=after.money)
        for tenant in tenants:
            tenant.money.commit_write(balance=tenant_balances.get(tenant.name, tenant.money.balance))
        self._disk_is_full = False
        self._wake_settles()

    def _ledgers_of(self, keys: Iterable[LiveKey], tenants: Iterable[LiveTenant]) -> list[TokenLedger]:
        of_keys = [ledger for live in keys for ledger in (live.ledger, live.money)]
        return [*of_keys, *(tenant.money for tenant in tenants)]

    def _wake_settles(self) -> None:
        flushed, self._flushed = self._flushed, anyio.Event()
        flushed.set()

    def _keep_usage(self, usages: dict[_UsageSlot, KeyUsage]) -> None:
        for slot, usage in usages.items():
            newer = self._usage.setdefault(slot, KeyUsage(*slot, usage.tenant))
            newer.add(usage)

    async def _refresh_forever(self) -> None:
        while True:
            await anyio.sleep(self._refresh_interval_s)
            try:
                await self.refresh()
            except Exception:  # noqa: BLE001 - repeated after the interval; the keys in memory stay valid
                _log.exception("API keys could not be read; the keys in memory stay in use.")
