"""Copies of moved rows that SQLite leaves in unallocated space are overwritten while the database is in use."""

import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection

from ragsvc.store.log_truncation import LogTruncation
from ragsvc.store.sqlite_database import SqliteDatabase, connect_raw
from ragsvc.store.unallocated_space import clear_unallocated_space


class Names:
    """A table of random names with an index, from which random rows are deleted."""

    def __init__(self, database: SqliteDatabase, *, seed: int) -> None:
        self._database = database
        self._chance = random.Random(seed)  # noqa: S311 - rows, not secrets
        self._serial = 0
        self.kept: dict[int, str] = {}
        self.deleted: list[bytes] = []

    @staticmethod
    def create(connection: Connection) -> None:
        connection.exec_driver_sql(
            "CREATE TABLE names (id INTEGER PRIMARY KEY AUTOINCREMENT, kind INT, name TEXT, other TEXT)"
        )
        connection.exec_driver_sql("CREATE INDEX by_name ON names (kind, name)")

    def change(self, connection: Connection) -> None:
        """Insert a row, and every other time delete a random one."""
        self._serial += 1
        name = f"er{self._serial:07d}x{'y' * self._chance.randrange(40)}"
        statement = "INSERT INTO names (kind, name, other) VALUES (?, ?, ?) RETURNING id"
        row = (self._chance.randrange(5), name, "z" * self._chance.randrange(200))
        self.kept[connection.exec_driver_sql(statement, row).scalar_one()] = name
        if self._serial % 2:
            number = self._chance.choice(sorted(self.kept))
            connection.exec_driver_sql("DELETE FROM names WHERE id = ?", (number,))
            self.deleted.append(self.kept.pop(number)[:10].encode())

    def left_in(self, folder: Path) -> list[bytes]:
        """Deleted names in the file or its log. A child reads them: closing a file releases this process's locks."""
        files = [path for path in (folder / "test.sqlite", folder / "test.sqlite-wal") if path.exists()]
        content = subprocess.run(["/bin/cat", *files], check=True, capture_output=True).stdout
        return [name for name in self.deleted if name in content]


def check(path: Path) -> str:
    with closing(connect_raw(path, key=None)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def test_copies_of_moved_rows_are_overwritten(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "test.sqlite")
    database.write_sync(Names.create)
    names = Names(database, seed=1)
    for _ in range(3000):
        database.write_sync(names.change)
    assert database.empty_log()
    assert names.left_in(tmp_path), "SQLite left no copy, so that this test shows nothing"
    assert database.erase_deleted()
    assert not names.left_in(tmp_path)
    for _ in range(300):  # the writer does not write old copies of pages
        database.write_sync(names.change)
    assert database.erase_deleted()
    assert not names.left_in(tmp_path)
    stored = database.read_sync(lambda c: dict(c.exec_driver_sql("SELECT id, name FROM names").fetchall()))
    assert stored == names.kept
    database.close()
    assert check(tmp_path / "test.sqlite") == "ok"


@pytest.mark.parametrize("page_bytes", [512, 1024, 65536])
def test_every_page_size_is_understood(tmp_path: Path, page_bytes: int) -> None:
    path = tmp_path / "test.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size={page_bytes}")
        connection.execute("VACUUM")
    database = SqliteDatabase(path)
    database.write_sync(Names.create)
    names = Names(database, seed=2)
    for _ in range(150):
        database.write_sync(lambda c: [names.change(c) for _ in range(20)])
    assert database.erase_deleted()
    database.close()
    with closing(connect_raw(path, key=None)) as connection:
        assert connection.execute("PRAGMA page_size").fetchone() == (page_bytes,)
    assert check(path) == "ok"
    assert not names.left_in(tmp_path)


def test_rows_are_written_and_read_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "test.sqlite"
    database = SqliteDatabase(path)
    database.write_sync(Names.create)
    names = Names(database, seed=3)
    database.write_sync(lambda c: [names.change(c) for _ in range(2000)])
    stop = threading.Event()
    counts: list[int] = []

    def write() -> None:
        while not stop.is_set():
            database.write_sync(names.change)

    def read() -> None:
        while not stop.is_set():
            counts.append(
                database.read_sync(lambda c: len(c.exec_driver_sql("SELECT name FROM names ORDER BY name").fetchall()))
            )

    threads = [threading.Thread(target=write), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    before = len(names.deleted)
    done = [database.erase_deleted(timeout_s=30) for _ in range(8)]
    stop.set()
    for thread in threads:
        thread.join()
    assert all(done)
    assert len(names.deleted) > before
    assert counts
    assert database.erase_deleted(timeout_s=30)
    stored = database.read_sync(lambda c: dict(c.exec_driver_sql("SELECT id, name FROM names").fetchall()))
    assert stored == names.kept
    database.close()
    assert check(path) == "ok"
    assert not names.left_in(tmp_path)


def test_closing_does_not_wait_until_a_large_file_was_read(tmp_path: Path) -> None:
    path = tmp_path / "test.sqlite"
    database = SqliteDatabase(path)
    database.write_sync(Names.create)
    assert database.empty_log()
    os.truncate(path, 100 << 30)  # zeros after the last page, which take no room and a minute to read
    results: list[bool] = []
    clearing = threading.Thread(target=lambda: results.append(database.erase_deleted(timeout_s=60)))
    clearing.start()
    time.sleep(1)
    assert clearing.is_alive()
    begin = time.monotonic()
    database.close()
    clearing.join()
    assert time.monotonic() - begin < 5
    assert results == [False]


def test_a_reader_that_holds_the_log_prevents_it(tmp_path: Path) -> None:
    path = tmp_path / "test.sqlite"
    database = SqliteDatabase(path, truncate_after_s=600)
    database.write_sync(Names.create)
    names = Names(database, seed=4)
    with closing(connect_raw(path, key=None)) as other:
        other.execute("BEGIN").close()
        other.execute("SELECT count(*) FROM names").fetchall()
        for _ in range(600):
            database.write_sync(names.change)
        assert not clear_unallocated_space(path, timeout_s=0)
        assert not database.erase_deleted(timeout_s=0)
        assert names.left_in(tmp_path)
    assert database.erase_deleted()
    assert not names.left_in(tmp_path)
    database.close()


def test_it_is_tried_again_until_it_was_done(tmp_path: Path) -> None:
    path = tmp_path / "test.sqlite"
    sqlite3.connect(path).close()
    calls: list[float] = []
    called, called_again = threading.Event(), threading.Event()

    def clear() -> bool:
        calls.append(time.monotonic())
        if len(calls) == 3:
            called.set()
        if len(calls) == 4:
            called_again.set()
        return len(calls) >= 3

    log = LogTruncation(
        lambda: sqlite3.connect(path, isolation_level=None),
        errors=sqlite3.Error,
        clear=clear,
        after_s=0.01,
        clear_after_s=3600,
    )
    log.note_commit()
    assert not called.wait(0.1)
    assert not calls
    log.clear_soon()
    assert called.wait(30)  # the first two calls had no effect
    log.note_commit()
    assert not called_again.wait(0.1)
    log.close()


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "test.sqlite"
    path.write_bytes(b"no database" * 1000)
    assert not clear_unallocated_space(path, timeout_s=1)
    assert path.read_bytes() == b"no database" * 1000
    assert not clear_unallocated_space(tmp_path / "missing.sqlite", timeout_s=1)
    assert not (tmp_path / "missing.sqlite").exists()


def test_the_child_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    path = tmp_path / "test.sqlite"
    with closing(connect_raw(path, key=None)) as writer:
        writer.execute("CREATE TABLE t (x)")
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("INSERT INTO t VALUES (1)")
        with closing(connect_raw(path, key=None)) as reader:
            reader.execute("BEGIN").close()
            reader.execute("SELECT * FROM t").fetchall()
            writer.execute("INSERT INTO t VALUES (2)")  # the log cannot be emptied: the child waits for the reader
            program = (
                "import sys, pathlib, ragsvc.store.unallocated_space as space; "
                "space.clear_unallocated_space(pathlib.Path(sys.argv[1]), timeout_s=600)"
            )
            with subprocess.Popen([sys.executable, "-c", program, str(path)]) as parent:
                listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
                wait_for(lambda: listed.read_text().split())
                (child,) = listed.read_text().split()
                parent.kill()
            wait_for(lambda: not Path(f"/proc/{child}").exists())


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
