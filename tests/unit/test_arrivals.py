"""Callers at the same time go on together; a caller alone does not wait."""

from __future__ import annotations

from contextlib import suppress

import anyio

from ragsvc.services.arrivals import Arrivals


def fail() -> None:
    raise InterruptedError


def test_a_caller_alone_does_not_wait() -> None:
    async def main() -> None:
        arrivals = Arrivals(wait_s=1e6)
        for _ in range(3):
            with anyio.fail_after(10), arrivals.expected() as arrival:
                await arrival.together()
                await arrival.together()

    anyio.run(main)


def test_callers_wait_for_those_on_their_way_and_not_for_those_that_gave_up() -> None:
    async def main() -> None:
        arrivals = Arrivals(wait_s=1e6)
        order: list[str] = []
        doors = {name: anyio.Event() for name in ("first", "second", "failing", "slow")}

        async def call(name: str) -> None:
            with suppress(InterruptedError), arrivals.expected() as arrival:
                await doors[name].wait()
                order.append(f"{name} arrives")
                if name == "failing":
                    fail()
                if name == "slow":
                    arrival.give_up()
                await arrival.together()
                order.append("goes on")

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for name in doors:
                    tasks.start_soon(call, name)
                for door in doors.values():
                    await anyio.wait_all_tasks_blocked()
                    assert "goes on" not in order
                    door.set()
        assert order[:4] == [f"{name} arrives" for name in doors]
        assert order[4:] == ["goes on"] * 3

    anyio.run(main)


def test_nobody_waits_longer_than_a_moment() -> None:
    async def main() -> None:
        arrivals = Arrivals(wait_s=0.001)
        with anyio.fail_after(10), arrivals.expected(), arrivals.expected() as arrival:
            await arrival.together()

    anyio.run(main)
