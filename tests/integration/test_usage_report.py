"""The usage report: days at the ends of the calendar, and reports of many rows."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import insert

from ragsvc.core.access.limits import DAY_S
from ragsvc.core.access.principal import Scope
from ragsvc.services.key_administration import Actor, KeyDraft, create_key
from ragsvc.store.key_tables import UsageRow
from ragsvc.web.app import create_app
from tests.support.keys_database import SmallDatabase, compose

pytestmark = pytest.mark.anyio

TODAY = 20_000
ROWS = 10_000


def usage(key_id: str) -> list[dict[str, object]]:
    """Rows of many days, each of a model of its own."""
    same = {"key_id": key_id, "family": "chat", "tenant": "acme", "requests": 1, "timed_requests": 2, "duration_ms": 5}
    return [
        {"day": TODAY - n % 300, "model": f"model {n}", "prompt_tokens": n, "completion_tokens": n, **same}
        for n in range(1, ROWS + 1)
    ]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class World:
    """An application in memory with a key that may see everything."""

    def __init__(self, database: SmallDatabase) -> None:
        self.database = database
        self.services = compose(database, clock=lambda: TODAY * DAY_S + 100.0)
        draft = KeyDraft(tenant="acme", label="x", scopes=frozenset({Scope.ADMIN}))
        issued = database.write_sync(lambda connection: create_key(connection, draft, actor=Actor(), now=1))
        self.key_id = issued.key.id
        self._headers = {"authorization": f"Bearer {issued.text}"}
        self._app = create_app(self.services, route_handlers=[])

    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=self._headers)


@pytest.fixture
async def world(tmp_path: Path):
    database = SmallDatabase(tmp_path / "keys.sqlite")
    world = World(database)
    async with world.services.access.running():
        yield world
    database.close()


@pytest.mark.parametrize("path", ["/v1/usage", "/v1/key/usage"])
@pytest.mark.parametrize("until", ["0001-01-01", "0001-01-29"])
async def test_a_report_of_the_first_days_of_the_calendar_begins_with_them(world: World, path: str, until: str) -> None:
    async with world.client() as client:
        reply = await client.get(path, params={"until": until})
        assert reply.status_code == 200, reply.text
        assert (reply.json()["since"], reply.json()["until"]) == ("0001-01-01", until)


@pytest.mark.parametrize("form", ["json", "csv"])
@pytest.mark.parametrize("path", ["/v1/usage", "/v1/key/usage", "/v1/keys/{}/usage"])
async def test_a_report_of_many_rows_keeps_the_event_loop_free(world: World, path: str, form: str) -> None:
    """The share of the loop's thread in the processor time of the process, whatever else the machine does."""
    world.database.write_sync(lambda connection: connection.execute(insert(UsageRow), usage(world.key_id)))
    whole = {"since": "1970-01-01", "group_by": "day,model"} if "{}" not in path else {"days": 366}
    none = {"since": "2999-01-01", "group_by": "day,model"} if "{}" not in path else {"days": 1}
    used: list[tuple[float, float]] = []
    async with world.client() as client:
        for params in (none, whole):
            attempts = []
            for _ in range(5):
                begin, begin_in_all = time.thread_time(), time.process_time()
                reply = await client.get(path.format(world.key_id), params={**params, "format": form})
                attempts.append((time.thread_time() - begin, time.process_time() - begin_in_all))
                assert reply.status_code == 200, reply.text
            used.append(min(attempts))
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(reply.text)))
        assert len(rows) == ROWS
        assert {row["latency_ms"] for row in rows} == {"2.5"}
    else:
        assert reply.headers["content-type"] == "application/json"
        rows = reply.json()["data"]
        assert len(rows) == ROWS
        assert {row["latency_ms"] for row in rows} == {2.5}
        assert sum(row["prompt_tokens"] for row in rows) == ROWS * (ROWS + 1) // 2
    more_in_loop, more_in_all = (used[1][of] - used[0][of] for of in (0, 1))
    assert more_in_loop < 0.1 * more_in_all
