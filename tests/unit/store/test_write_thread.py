"""The write thread of both SQLite files: shared commits, and an end for every write that was queued."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ragsvc.core.errors import Overloaded, ShuttingDown
from ragsvc.store.write_thread import WriteThread


class SqliteFile:
    """A connection whose transactions are counted and can be made to fail at their begin or their commit."""

    savepoint_for_one = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun = 0
        self.fault: str | None = None  # of the second transaction: begin or commit

    def open(self):
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        connection.execute("CREATE TABLE t (v INTEGER UNIQUE)")
        return closing(connection)

    @contextmanager
    def transaction(self, connection):
        self.begun += 1
        connection.execute("BEGIN IMMEDIATE" if self._works("begin") else "BEGIN nonsense")
        try:
            yield
            connection.execute("COMMIT" if self._works("commit") else "COMMIT nonsense")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    def _works(self, step):
        return self.begun != 2 or self.fault != step

    def driver(self, connection):
        return connection

    def has_lost(self, connection, error):
        return not connection.in_transaction

    def may_repeat(self, error, *, times):
        return False

    def translate(self, error):
        return RuntimeError(str(error))


@pytest.fixture
def file(tmp_path: Path) -> SqliteFile:
    return SqliteFile(tmp_path / "t.sqlite")


@pytest.fixture
def make(file: SqliteFile):
    made: list[WriteThread[sqlite3.Connection]] = []

    def make_thread(*, group_limit: int = 10, queue_limit: int = 100) -> WriteThread[sqlite3.Connection]:
        made.append(
            WriteThread(file, name="w", group_limit=group_limit, queue_limit=queue_limit, overloaded="too many")
        )
        return made[-1]

    yield make_thread
    for thread in made:
        thread.close()


def put(value: int) -> Callable[[sqlite3.Connection], int]:
    def write(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO t VALUES (?)", (value,))
        return value

    return write


@contextmanager
def held(thread: WriteThread[sqlite3.Connection]):
    """Keeps the thread in a write, so that others queue up behind it."""
    entered, go_on = threading.Event(), threading.Event()

    def hold(_connection: sqlite3.Connection) -> None:
        entered.set()
        assert go_on.wait(10)

    future = thread.submit(hold)
    assert entered.wait(10)
    yield
    go_on.set()
    future.result(10)


def stored(file: SqliteFile) -> list[int]:
    with closing(sqlite3.connect(file.path)) as connection:
        return [value for (value,) in connection.execute("SELECT v FROM t ORDER BY v")]


def test_waiting_writes_share_commits_up_to_the_limit(file, make):
    thread = make(group_limit=10)
    with held(thread):
        futures = [thread.submit(put(number)) for number in range(25)]
    assert [future.result(10) for future in futures] == list(range(25))
    assert file.begun == 1 + 3
    assert stored(file) == list(range(25))


def test_an_error_undoes_only_its_own_write(file, make):
    thread = make()
    with held(thread):
        futures = [thread.submit(put(number)) for number in (1, 1, 2)]
    assert (futures[0].result(10), futures[2].result(10)) == (1, 2)
    with pytest.raises(RuntimeError, match="UNIQUE"):
        futures[1].result(10)
    assert stored(file) == [1, 2]


@pytest.mark.parametrize("fault", ["begin", "commit"])
def test_every_write_of_a_failed_transaction_ends_with_its_error(file, make, fault):
    file.fault = fault
    thread = make()
    with held(thread):
        futures = [thread.submit(put(number)) for number in range(3)]
        assert futures[1].cancel()
    for future in (futures[0], futures[2]):
        with pytest.raises(RuntimeError, match="nonsense"):
            future.result(10)
    assert thread.submit(put(9)).result(10) == 9
    assert stored(file) == [9]


def test_a_cancelled_write_is_not_run(file, make):
    thread = make()
    with held(thread):
        futures = [thread.submit(put(number)) for number in range(3)]
        assert futures[1].cancel()
    assert futures[2].result(10) == 2
    assert stored(file) == [0, 2]


def test_a_full_queue_refuses_and_a_closed_thread_too(file, make):
    thread = make(queue_limit=2)
    with held(thread):
        futures = [thread.submit(put(number)) for number in range(2)]
        with pytest.raises(Overloaded, match="too many"):
            thread.submit(put(2))
    assert thread.close()
    assert not thread.close()
    assert [future.result(0) for future in futures] == [0, 1]
    with pytest.raises(ShuttingDown):
        thread.submit(put(3))
