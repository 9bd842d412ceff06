from fractions import Fraction
from itertools import zip_longest
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core.access.limits import (
    DAY_S,
    HOUR_S,
    MINUTE_S,
    UNLIMITED,
    DayClock,
    MoneyLedger,
    RequestGate,
    SlidingWindow,
    TokenLedger,
)
from ragsvc.core.errors import BalanceExhausted, RateLimited
from ragsvc.core.gateway.chat import TokenUsage
from ragsvc.core.gateway.prices import cost_micros
from ragsvc.core.gateway.provider_settings import Pricing

gaps = st.lists(st.floats(min_value=0, max_value=70, allow_nan=False), max_size=120)


@given(gaps, st.integers(1, 10), st.sampled_from([MINUTE_S, HOUR_S]), st.floats(0, 1e6))
def test_no_span_of_the_windows_length_ever_holds_one_event_too_many(gaps, limit, length_s, start):
    window, now, admitted, times = SlidingWindow(limit, length_s), start, [], []
    for gap in gaps:
        now += gap * length_s / MINUTE_S
        times.append(now)
        if window.wait_s(now) == 0:
            window.add(now)
            admitted.append(now)
    for last in admitted:
        assert sum(last - length_s < time <= last for time in admitted) <= limit
    # and nothing is refused that a list of times would admit one slot later
    for time in set(times) - set(admitted):
        assert sum(time - length_s - length_s / 60 - 1e-6 <= other <= time for other in admitted) >= limit


@given(st.lists(st.floats(0, 3), min_size=1, max_size=40), st.integers(1, 5))
def test_what_wait_s_promises_holds(gaps, limit):
    window, now = SlidingWindow(limit, MINUTE_S), 0.0
    for gap in gaps:
        now += gap
        wait_s = window.wait_s(now)
        if wait_s:
            assert 0 < wait_s <= MINUTE_S + 1
            now += wait_s + 1e-6
            assert window.wait_s(now) == 0
        window.add(now)
    assert window.used(now + window.clears_in_s(now) + 1e-6) == 0


def test_a_lowered_limit_counts_what_was_there():
    gate = RequestGate(per_minute=60, per_hour=None, max_parallel=None)
    for _ in range(10):
        gate.enter(5.0)
    gate.change_limits(per_minute=10, per_hour=None, max_parallel=None)
    with pytest.raises(RateLimited) as refused:
        gate.enter(6.0)
    assert refused.value.retry_after_s == pytest.approx(60.0)


def test_the_hour_binds_after_the_minutes():
    gate, now = RequestGate(per_minute=60, per_hour=100, max_parallel=None), 0.0
    for _ in range(60):
        gate.enter(now)
    now = 61.0
    for _ in range(40):
        gate.enter(now)
    assert gate.view(now).limit == 100
    with pytest.raises(RateLimited, match="100 requests per hour") as refused:
        gate.enter(now)
    assert refused.value.retry_after_s == pytest.approx(HOUR_S + 60 - 61)


def test_a_refused_request_counts_nowhere():
    gate = RequestGate(per_minute=2, per_hour=100, max_parallel=1)
    gate.enter(0.0)
    with pytest.raises(RateLimited, match="Rate limit of 1 parallel requests"):
        gate.enter(0.0)
    gate.leave()
    gate.enter(0.0)
    gate.leave()
    with pytest.raises(RateLimited, match="per minute"):
        gate.enter(0.0)
    assert gate.running == 0
    assert gate.view(0.0).remaining == 0


def test_without_limits_the_view_shows_the_specifications_number():
    gate = RequestGate(per_minute=None, per_hour=None, max_parallel=None)
    gate.enter(0.0)
    assert (gate.view(0.0).limit, gate.view(0.0).remaining) == (UNLIMITED, UNLIMITED)


def test_reservations_never_exceed_balance_or_day():
    ledger = TokenLedger(balance=140, per_day=80, day=0)
    ledger.reserve(50, now=0)
    assert ledger.remaining() == 30
    with pytest.raises(RateLimited) as waits:
        ledger.reserve(31, now=0)
    assert not waits.value.budget_gone
    with pytest.raises(RateLimited) as gone:
        ledger.reserve(81, now=10)
    assert gone.value.budget_gone
    assert gone.value.retry_after_s == DAY_S - 10
    with pytest.raises(BalanceExhausted):
        ledger.reserve(91, now=0)
    ledger.refund(50)
    ledger.reserve(80, now=0)
    ledger.settle(80, 80, day=0)
    ledger.reserve(60, now=DAY_S)  # the next day's budget, the same balance
    with pytest.raises(BalanceExhausted):
        ledger.reserve(1, now=DAY_S)


def test_a_clock_set_back_over_midnight_grants_no_second_day():
    ledger = TokenLedger(balance=None, per_day=10, day=5)
    ledger.reserve(10, now=5 * DAY_S)
    ledger.settle(10, 10, day=5)
    with pytest.raises(RateLimited):
        ledger.reserve(1, now=4 * DAY_S)


def test_a_clock_that_jumps_years_ahead_and_back_neither_locks_a_key_nor_grants_a_second_budget():
    ledger = TokenLedger(balance=None, per_day=10, day=5)
    ledger.reserve(7, now=5 * DAY_S)
    ledger.settle(7, 7, day=5)
    ledger.reserve(10, now=5000 * DAY_S)
    ledger.settle(10, 10, day=5000)
    with pytest.raises(RateLimited) as refused:
        ledger.reserve(4, now=5 * DAY_S + 3600)
    assert refused.value.retry_after_s == DAY_S - 3600
    ledger.reserve(3, now=5 * DAY_S)
    ledger.settle(3, 3, day=5)
    ledger.reserve(10, now=6 * DAY_S)
    ledger.settle(10, 10, day=6)
    with pytest.raises(RateLimited):
        ledger.reserve(1, now=5000 * DAY_S)


def test_the_day_follows_a_wall_clock_only_if_it_keeps_its_jump():
    noon = 100.5 * DAY_S
    clock = DayClock(wall=noon, monotonic=1000)
    assert clock.day(wall=noon + 100 * DAY_S, monotonic=1001) == 100
    assert clock.day(wall=noon + 100 * DAY_S + 500, monotonic=1501) == 100
    assert clock.day(wall=noon + 502, monotonic=1502) == 100  # it was wrong for a moment
    assert clock.day(wall=noon - 50 * DAY_S, monotonic=1600) == 100
    assert clock.day(wall=noon - 50 * DAY_S + 600, monotonic=2200) == 50  # it stays
    assert clock.day(wall=noon - 49.5 * DAY_S, monotonic=2200 + DAY_S / 2 - 600) == 51  # a day passes
    slow = DayClock(wall=noon, monotonic=0)
    assert slow.day(wall=noon + DAY_S / 2 + 200, monotonic=DAY_S / 2) == 101  # a small correction counts at once


def spend(ledger, tokens, *, now):
    """Settle tokens and write."""
    ledger.reserve(tokens, now=0)
    ledger.settle(tokens, tokens, day=0)
    booking = ledger.begin_write(now=now)
    ledger.commit_write(balance=ledger.balance - booking.spent)
    return booking


def test_a_lease_covers_two_seconds_of_recent_use_and_is_bounded():
    ledger = TokenLedger(balance=10**9, per_day=None, day=0)
    assert spend(ledger, 10, now=100.0).lease == TokenLedger.MIN_LEASE
    for number in range(1, 20):
        booking = spend(ledger, 5_000, now=100.0 + number * 0.05)
    assert booking.lease == pytest.approx(100_000 * TokenLedger.LEASE_S, rel=0.01)
    assert spend(ledger, 10**8, now=101.0).lease == TokenLedger.MAX_LEASE
    assert spend(ledger, 10, now=1000.0).lease == TokenLedger.MIN_LEASE
    assert spend(TokenLedger(balance=300, per_day=None, day=0), 100, now=0.0).lease == 200


def test_a_burst_leases_what_its_running_requests_reserved():
    ledger = TokenLedger(balance=10**9, per_day=None, day=0)
    ledger.reserve(20_000, now=0)
    assert ledger.begin_write(now=0.0).lease == 20_000
    ledger.reserve(10**8, now=0)
    assert ledger.begin_write(now=0.0).lease == TokenLedger.MAX_RESERVED_LEASE
    assert ledger.begin_write(now=0.0, last=True).lease == 0


def test_a_lease_runs_low_at_half_also_while_the_next_is_being_written():
    ledger = TokenLedger(balance=10**9, per_day=None, day=0)
    spend(ledger, 10, now=0.0)
    half = TokenLedger.MIN_LEASE // 2
    ledger.settle(0, half, day=0)
    assert not ledger.runs_low
    ledger.settle(0, 1, day=0)
    assert ledger.runs_low
    ledger.begin_write(now=100.0)
    assert not ledger.runs_low
    ledger.settle(0, half + 1, day=0)
    assert ledger.runs_low


class Durable:
    """What the rows hold, and what a start after a crash makes of it."""

    def __init__(self, balance):
        self.balance, self.lease, self.lease_day, self.used = balance, 0, 0, {}

    def write(self, booking, usage):
        self.balance -= booking.spent
        self.lease, self.lease_day = booking.lease, booking.day
        for day, tokens in usage.items():
            self.used[day] = self.used.get(day, 0) + tokens

    def balance_after_crash(self):
        return max(min(self.balance, 0), self.balance - self.lease)

    def used_after_crash(self, day):
        return self.used.get(day, 0) + (self.lease if day == self.lease_day else 0)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 6000)),
        st.tuples(st.just("settle"), st.integers(0, 6500)),
        st.tuples(st.just("refund"), st.just(0)),
        st.tuples(st.just("begin"), st.just(0)),
        st.tuples(st.just("commit"), st.just(0)),
        st.tuples(st.just("abort"), st.just(0)),
        st.tuples(st.just("midnight"), st.just(0)),
    ),
    max_size=60,
)


@given(steps, st.lists(st.floats(0, 5), max_size=60), st.integers(0, 30_000), st.integers(1000, 30_000))
def test_no_crash_at_any_moment_gives_back_acknowledged_tokens(steps, pauses, balance, per_day):  # noqa: C901 - one machine, one table of steps
    ledger, durable = TokenLedger(balance=balance, per_day=per_day, day=0), Durable(balance)
    day, open_, booking, in_flight, unwritten = 0, [], None, {}, {}
    settled = acknowledged = 0
    settled_by_day, acknowledged_by_day = {}, {}
    now = 0.0
    for (step, number), pause in zip_longest(steps, pauses[: len(steps)], fillvalue=0.0):
        now += pause
        if step == "reserve":
            try:
                ledger.reserve(number, now=day * DAY_S)
                open_.append(number)
            except (BalanceExhausted, RateLimited):
                pass
        elif step == "settle" and open_:
            ledger.settle(open_.pop(), number, day=day)
            settled += number
            settled_by_day[day] = settled_by_day.get(day, 0) + number
            unwritten[day] = unwritten.get(day, 0) + number
        elif step == "refund" and open_:
            ledger.refund(open_.pop())
        elif step == "begin" and booking is None:
            booking, in_flight, unwritten = ledger.begin_write(now=now), unwritten, {}
        elif step == "commit" and booking is not None:
            durable.write(booking, in_flight)
            ledger.commit_write(balance=durable.balance)
            booking, in_flight = None, {}
        elif step == "abort" and booking is not None:
            ledger.abort_write()
            for one, tokens in in_flight.items():
                unwritten[one] = unwritten.get(one, 0) + tokens
            booking, in_flight = None, {}
        elif step == "midnight":
            day += 1
            ledger.turn(day)
        if ledger.covered():
            acknowledged, acknowledged_by_day = settled, dict(settled_by_day)
        assert durable.balance_after_crash() <= max(balance - acknowledged, min(durable.balance, 0))
        for one, tokens in acknowledged_by_day.items():
            assert durable.used_after_crash(one) >= tokens
        assert ledger.reserved == sum(open_)


def test_a_need_that_is_not_known_takes_what_is_left_but_no_less_than_the_least():
    ledger = TokenLedger(balance=100, per_day=None, day=0)
    assert ledger.reserve(1000, least=10, now=0) == 100
    with pytest.raises(BalanceExhausted):
        ledger.reserve(1000, least=1, now=0)
    ledger.settle(100, 95, day=0)
    with pytest.raises(BalanceExhausted):
        ledger.reserve(1000, least=10, now=0)
    assert ledger.reserve(1000, least=5, now=0) == 5
    assert TokenLedger(balance=None, per_day=None, day=0).reserve(1000, least=1, now=0) == 1000


def test_money_is_exhausted_in_total_and_for_a_day_with_words_for_people():
    ledger = MoneyLedger("tenant", balance=2_500_000, per_day=1_000_000, day=0)
    assert MoneyLedger("key", balance=None, per_day=None, day=0).remaining_micros is None
    with pytest.raises(
        BalanceExhausted, match=r"daily money budget of this tenant, 1, is exhausted: 1 left, 1\.000001 needed"
    ):
        ledger.reserve(1_000_001, now=0)
    for day in range(2):
        ledger.settle(ledger.reserve(1_000_000, now=day * DAY_S), 1_000_000, day=day)
    with pytest.raises(BalanceExhausted, match=r"money budget of this tenant is exhausted: 0\.5 left, 0\.6 needed"):
        ledger.reserve(600_000, now=2 * DAY_S)
    assert ledger.remaining_micros == 500_000


@given(st.lists(st.integers(0, 10**6), max_size=20), st.floats(0, 1000, allow_nan=False))
def test_costs_add_up_exactly(tokens, price):
    price = round(price, 6)
    exact = [Fraction(str(price)) * 1000 * count for count in tokens]
    costs = [cost_micros(Pricing(input=price), TokenUsage.of(count, 0)) for count in tokens]
    assert costs == [ceil(cost) for cost in exact]


def test_cached_tokens_have_their_own_price():
    pricing = Pricing(input=0.01, cached_input=0.001)
    assert cost_micros(pricing, TokenUsage.of(1000, 0, cached_tokens=900)) == 1000 + 900
    assert cost_micros(Pricing(input=0.01), TokenUsage.of(1000, 0, cached_tokens=900)) == 10_000
    assert cost_micros(pricing, TokenUsage.of(10, 0, cached_tokens=99)) == 10
