"""The service behind the gate over a real SQLite file, with real kills."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
from sqlalchemy import text

from ragsvc.core.access.api_keys import KeyLimits, KeyState
from ragsvc.core.access.limits import DAY_S, UNLIMITED, TokenLedger
from ragsvc.core.access.principal import Scope
from ragsvc.core.errors import BalanceExhausted, KeyInactive, RateLimited, StorageFull, Unauthorized
from ragsvc.services.key_administration import Actor, KeyChange, KeyDraft, create_key
from tests.support.full_disk import fill, small_disk
from tests.support.keys_database import SmallDatabase, compose

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def database(tmp_path):
    with contextlib.closing(SmallDatabase(tmp_path / "keys.sqlite")) as database:
        yield database


def issue(database, **limits):
    draft = KeyDraft(tenant="acme", label="test", scopes=frozenset(Scope), limits=KeyLimits(**limits))
    return database.write_sync(lambda c: create_key(c, draft, actor=Actor(), now=int(time.time())))


def row(database, issued):
    query = text("SELECT token_balance, token_lease FROM api_keys WHERE id = :id")
    return database.write_sync(lambda c: tuple(c.execute(query, {"id": issued.key.id}).one()))


async def test_only_the_right_secret_of_a_live_key_gets_in(database):
    issued = issue(database)
    services = compose(database)
    async with services.access.running():
        for form in (f"Bearer {issued.text}", issued.text, f"bearer  {issued.text} "):
            live = await services.access.authenticate(form.encode())
            assert live.principal.tenant == "acme"
        for wrong in (None, b"", b"Bearer", b"Bearer x", issued.text[:-1].encode(), b"rag_000000000000_abc"):
            with pytest.raises(Unauthorized):
                await services.access.authenticate(wrong)


async def test_a_change_holds_at_the_next_call(database):
    issued = issue(database)
    services = compose(database)
    credential = issued.text.encode()
    async with services.access.running():
        await services.access.authenticate(credential)
        await services.keys.update(issued.key.id, KeyChange(state=KeyState.INACTIVE), actor=Actor())
        with pytest.raises(KeyInactive):
            await services.access.authenticate(credential)
        await services.keys.update(issued.key.id, KeyChange(state=KeyState.ACTIVE, expires_at=1), actor=Actor())
        with pytest.raises(Unauthorized, match="expired"):
            await services.access.authenticate(credential)
        await services.keys.update(issued.key.id, KeyChange(expires_at=None), actor=Actor())
        rotated = await services.keys.rotate(issued.key.id, overlap_s=60, actor=Actor())
        await services.access.authenticate(credential)
        await services.access.authenticate(rotated.text.encode())
        again = await services.keys.rotate(issued.key.id, overlap_s=0, actor=Actor())
        with pytest.raises(Unauthorized):
            await services.access.authenticate(rotated.text.encode())
        await services.keys.revoke(issued.key.id, actor=Actor())
        with pytest.raises(Unauthorized, match="revoked"):
            await services.access.authenticate(again.text.encode())
        await services.keys.delete(issued.key.id, actor=Actor())
        with pytest.raises(Unauthorized):
            await services.access.authenticate(again.text.encode())
        trail = await services.keys.audit(issued.key.id, before=None, limit=50)
        assert [entry.action for entry in trail][::-1] == [
            "create", "update", "update", "update", "rotate", "rotate", "revoke", "delete",
        ]  # fmt: skip


async def test_a_key_made_by_another_process_works_at_first_use_and_its_revocation_soon(database):
    services = compose(database, refresh_interval_s=0.05)
    async with services.access.running():
        await anyio.sleep(0.06)
        issued = issue(database)
        await services.access.authenticate(issued.text.encode())
        revoke = text("UPDATE api_keys SET state = 'revoked', revision = revision + 1")
        database.write_sync(lambda c: c.execute(revoke))
        await anyio.sleep(0.5)
        with pytest.raises(Unauthorized, match="revoked"):
            await services.access.authenticate(issued.text.encode())


@pytest.mark.sqlite_file
async def test_a_full_disk_refuses_keys_with_a_token_limit_until_there_is_room_and_serves_the_others(tmp_path):
    with (
        small_disk(tmp_path / "disk", megabytes=8) as disk,
        contextlib.closing(SmallDatabase(disk / "k.sqlite")) as rows,
    ):
        limited, unlimited = issue(rows, token_balance=10_000), issue(rows)
        rows.write_sync(lambda c: c.execute(text("UPDATE api_keys SET token_lease = 400 WHERE token_balance > 0")))
        filler = fill(disk)
        services = compose(rows, flush_interval_s=0.05)
        async with services.access.running():  # the lease that a crash left cannot be booked yet
            key = (await services.access.authenticate(limited.text.encode())).principal
            with pytest.raises(StorageFull):
                await services.access.reserve(key, 10)
            other = (await services.access.authenticate(unlimited.text.encode())).principal
            with anyio.fail_after(5):
                reservation = await services.access.reserve(other, 10)
                await services.access.settle(reservation, prompt_tokens=4, completion_tokens=6, model="m")
            filler.unlink()
            with anyio.fail_after(20):
                while await services.access.remaining(key) != 9_600:
                    await anyio.sleep(0.05)
            reservation = await services.access.reserve(key, 5_000)
            fill(disk)
            with anyio.fail_after(20):  # the answer was made: the client gets it
                await services.access.settle(reservation, prompt_tokens=4_000, completion_tokens=1_000, model="m")
            filler.unlink()
        assert row(rows, limited) == (4_600, 0)


async def test_hundreds_of_parallel_reservations_never_exceed_the_balance(database):
    issued = issue(database, token_balance=1000)
    services = compose(database)
    outcomes = []
    async with services.access.running():
        live = await services.access.authenticate(issued.text.encode())

        async def call():
            try:
                reservation = await services.access.reserve(live.principal, 10)
            except BalanceExhausted:
                outcomes.append(0)
                return
            await anyio.sleep(0.01)
            await services.access.settle(reservation, prompt_tokens=4, completion_tokens=6, model="m")
            await services.access.settle(reservation, prompt_tokens=4, completion_tokens=6, model="m")
            await services.access.refund(reservation)
            outcomes.append(10)

        async with anyio.create_task_group() as tasks:
            for _ in range(400):
                tasks.start_soon(call)
        assert sum(outcomes) == 1000
        assert len(outcomes) == 400
        assert await services.access.remaining(live.principal) == 0
    assert row(database, issued) == (0, 0)


async def test_balance_and_day_survive_a_restart_exactly_and_a_refund_leaves_no_trace(database):
    issued = issue(database, token_balance=1000, tokens_per_day=700)
    for remaining in (700, 600, 500):
        services = compose(database)
        async with services.access.running():
            principal = (await services.access.authenticate(issued.text.encode())).principal
            assert await services.access.remaining(principal) == remaining
            reservation = await services.access.reserve(principal, 400)
            await services.access.settle(reservation, prompt_tokens=60, completion_tokens=40, model="m")
            await services.access.refund(await services.access.reserve(principal, 100))
    assert row(database, issued) == (700, 0)
    usage = await services.keys.usage(issued.key.id, days=1)
    assert [(one.model, one.prompt_tokens, one.completion_tokens, one.requests) for one in usage] == [
        ("m", 180, 120, 3)
    ]


async def test_no_lease_outlives_a_clean_stop_or_a_quiet_second_even_over_midnight(database):
    issued = issue(database, token_balance=10_000)
    now = [20_000.5 * DAY_S]
    services = compose(database, clock=lambda: now[0])
    async with services.access.running():
        principal = (await services.access.authenticate(issued.text.encode())).principal
        held = await services.access.reserve(principal, 100)
        await anyio.sleep(0.3)
        assert row(database, issued) == (10_000, TokenLedger.MIN_LEASE)
        now[0] += DAY_S
        await services.access.settle(held, prompt_tokens=10, completion_tokens=0, model="m")
        with anyio.fail_after(10):
            while row(database, issued) != (9_990, 0):
                await anyio.sleep(0.1)
        held = await services.access.reserve(principal, 100)
        await services.access.settle(held, prompt_tokens=10, completion_tokens=0, model="m")
        await services.access.reserve(principal, 100)  # dies with the process
    assert row(database, issued) == (9_980, 0)


async def test_the_days_budget_renews_at_midnight_and_not_before(database):
    issued = issue(database, tokens_per_day=100)
    now = [20_000.0 * DAY_S + 100]
    services = compose(database, clock=lambda: now[0])
    async with services.access.running():
        principal = (await services.access.authenticate(issued.text.encode())).principal
        await services.access.settle(
            await services.access.reserve(principal, 100), prompt_tokens=100, completion_tokens=0, model="m"
        )
        now[0] += DAY_S - 101
        with pytest.raises(RateLimited) as gone:
            await services.access.reserve(principal, 1)
        assert (gone.value.budget_gone, gone.value.retry_after_s) == (True, 1)
        now[0] += 1
        assert await services.access.remaining(principal) == 100
        await services.access.reserve(principal, 100)


async def test_a_key_without_limits_shows_the_specifications_number(database):
    issued = issue(database)
    services = compose(database)
    async with services.access.running():
        principal = (await services.access.authenticate(issued.text.encode())).principal
        assert await services.access.remaining(principal) == UNLIMITED
        await services.access.settle(
            await services.access.reserve(principal, 10), prompt_tokens=5, completion_tokens=5, model="m"
        )
        assert await services.access.remaining(principal) == UNLIMITED


async def test_an_operators_new_balance_holds_while_tokens_are_in_flight(database):
    issued = issue(database, token_balance=100)
    services = compose(database)
    async with services.access.running():
        principal = (await services.access.authenticate(issued.text.encode())).principal
        reservation = await services.access.reserve(principal, 100)
        await services.keys.update(issued.key.id, KeyChange(token_balance=5000), actor=Actor())
        assert await services.access.remaining(principal) == 4900
        await services.access.settle(reservation, prompt_tokens=30, completion_tokens=0, model="m")
        assert await services.access.remaining(principal) == 4970
    assert row(database, issued) == (4970, 0)


async def test_the_balance_is_exact_after_every_step_while_rows_are_read_again_all_the_time(database):
    issued = issue(database, token_balance=1_000_000)
    services = compose(database, refresh_interval_s=0.001, flush_interval_s=0.001)
    expected = 1_000_000
    async with services.access.running():
        principal = (await services.access.authenticate(issued.text.encode())).principal
        for step in range(300):
            reservation = await services.access.reserve(principal, 500)
            await services.access.settle(reservation, prompt_tokens=300, completion_tokens=99, model="m")
            expected -= 399
            if step % 20 == 10:
                await services.keys.update(issued.key.id, KeyChange(label=f"l{step}"), actor=Actor())
            if step % 20 == 0:
                change = text("UPDATE api_keys SET label = 'other', revision = revision + 1")
                await database.write(lambda c, change=change: c.execute(change))
            assert await services.access.remaining(principal) == expected
    assert row(database, issued) == (expected, 0)


async def test_writes_are_grouped(database):
    issued = issue(database, token_balance=10**9)
    services = compose(database)
    async with services.access.running():
        principal = (await services.access.authenticate(issued.text.encode())).principal
        await anyio.sleep(0.1)
        before = database.writes
        for _ in range(200):
            reservation = await services.access.reserve(principal, 100)
            await services.access.settle(reservation, prompt_tokens=1, completion_tokens=1, model="m")
        await anyio.sleep(0.2)
        assert 1 <= database.writes - before <= 6


class SlowDatabase(SmallDatabase):
    """Every write takes 30 ms more."""

    async def write(self, operation):
        await anyio.sleep(0.03)
        return await super().write(operation)


async def test_steady_use_does_not_wait_for_writes(tmp_path):
    with contextlib.closing(SlowDatabase(tmp_path / "slow.sqlite")) as database:
        issued = issue(database, token_balance=10**9)
        services = compose(database)
        async with services.access.running():
            access = services.access
            principal = (await access.authenticate(issued.text.encode())).principal

            async def worker(steps):
                for _ in range(steps):
                    reservation = await access.reserve(principal, 1_000)
                    await anyio.sleep(0.005)
                    await access.settle(reservation, prompt_tokens=20, completion_tokens=40, model="m")

            async def load(steps):
                async with anyio.create_task_group() as tasks:
                    for _ in range(32):
                        tasks.start_soon(worker, steps)

            await load(20)
            warm = access.late_settles
            await load(100)
            assert access.late_settles - warm < 32  # of 3,200; a pause of the machine may cost one round
        assert row(database, issued) == (10**9 - 32 * 120 * 60, 0)


CHILD = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from tests.support.keys_database import SmallDatabase, compose

async def main():
    access = compose(SmallDatabase(sys.argv[1])).access
    async with access.running():
        principal = (await access.authenticate(sys.argv[3].encode())).principal
        async def work():
            while True:
                reservation = await access.reserve(principal, 300)
                await asyncio.sleep(0.001)
                await access.settle(reservation, prompt_tokens=100, completion_tokens=100, model="m")
                print(200, flush=True)
        await asyncio.gather(*(work() for _ in range(4)))

asyncio.run(main())
"""


def test_a_killed_process_never_leaves_more_than_was_acknowledged(database):
    start = 10_000_000
    issued = issue(database, token_balance=start)
    acknowledged = 0
    for run_s in (0.05, 0.3, 0.7):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, database.address, str(Path(__file__).parents[2]), issued.text],
            stdout=subprocess.PIPE,
        )
        first = child.stdout.readline()
        time.sleep(run_s)
        os.kill(child.pid, signal.SIGKILL)
        rest, _ = child.communicate(timeout=30)
        acknowledged += sum(int(line) for line in (first + rest).split(b"\n") if line)
    assert acknowledged > 0
    balance, lease = row(database, issued)
    left = balance - lease
    assert left <= start - acknowledged
    assert left >= start - acknowledged - 3 * (TokenLedger.MAX_LEASE + 4 * 200)
