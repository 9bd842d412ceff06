import asyncio
import sqlite3
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from ragsvc.core.errors import ConfigurationError, ShuttingDown, StorageFull
from ragsvc.store.database import driver_connection
from ragsvc.store.sqlite_database import SqliteDatabase
from tests.support.full_disk import fill, small_disk


@pytest.fixture
def database(tmp_path: Path):
    database = SqliteDatabase(tmp_path / "test.sqlite")
    database.write_sync(lambda connection: connection.exec_driver_sql("CREATE TABLE t (v INTEGER UNIQUE)"))
    yield database
    database.close()


def values(database: SqliteDatabase) -> list[int]:
    return database.read_sync(
        lambda connection: [row[0] for row in connection.exec_driver_sql("SELECT v FROM t ORDER BY v")]
    )


def put(value: int):
    def write(connection: Connection) -> int:
        connection.exec_driver_sql("INSERT INTO t VALUES (?)", (value,))
        return value

    return write


def test_what_write_returned_another_connection_reads(database: SqliteDatabase) -> None:
    assert database.write_sync(put(1)) == 1
    with sqlite3.connect(database.path) as other:
        assert other.execute("SELECT v FROM t").fetchall() == [(1,)]
    other.close()


def test_one_failing_write_undoes_only_itself_when_commits_are_shared(database: SqliteDatabase) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def hold(_connection: Connection) -> None:
        entered.set()
        go_on.wait(5)

    def insert_then_fail(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO t VALUES (99)")
        raise ZeroDivisionError

    async def all_at_once() -> list[object]:
        first = asyncio.ensure_future(database.write(hold))
        await asyncio.to_thread(entered.wait, 5)
        rest = [asyncio.ensure_future(database.write(write)) for write in (put(1), insert_then_fail, put(2))]
        await asyncio.sleep(0)
        go_on.set()
        return await asyncio.gather(first, *rest, return_exceptions=True)

    results = asyncio.run(all_at_once())
    assert results[1] == 1
    assert isinstance(results[2], ZeroDivisionError)
    assert results[3] == 2
    assert values(database) == [1, 2]


def test_readers_cannot_write(database: SqliteDatabase) -> None:
    with pytest.raises(OperationalError, match="readonly"):
        database.read_sync(put(1))


def test_a_full_disk_is_said_so_and_changes_nothing(database: SqliteDatabase) -> None:
    def fill(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE big (b BLOB)")
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 5}")
        connection.exec_driver_sql("INSERT INTO big VALUES (zeroblob(10000000))")

    with pytest.raises(StorageFull):
        database.write_sync(fill)
    database.write_sync(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count=1000000").close())
    database.write_sync(put(3))
    assert values(database) == [3]


def test_a_write_that_finds_the_disk_full_fails_alone(database: SqliteDatabase) -> None:
    """SQLite ends the whole transaction; on a full disk reads can be in it, because the log cannot be shared."""
    is_busy, may_go = threading.Event(), threading.Event()

    def occupy(_: Connection) -> None:
        is_busy.set()
        may_go.wait(30)

    def too_large(connection: Connection) -> None:
        driver_connection(connection).rollback()
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorname = "SQLITE_FULL"
        raise error

    def queue(write):
        found: list[object] = []

        def run() -> None:
            try:
                found.append(database.write_sync(write))
            except StorageFull as error:
                found.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread, found

    first, _ = queue(occupy)
    assert is_busy.wait(30)
    waiting = [queue(write) for write in (put(1), too_large, put(2))]
    while database._writer._queue.qsize() < len(waiting):
        time.sleep(0.01)
    may_go.set()
    for thread, _ in [(first, None), *waiting]:
        thread.join(30)
    assert [type(found[0]) for _, found in waiting] == [int, StorageFull, int]
    assert values(database) == [1, 2]


def test_close_finishes_queued_writes_and_then_refuses(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "x.sqlite")
    database.write_sync(lambda connection: connection.exec_driver_sql("CREATE TABLE t (v INTEGER)"))
    futures = [database._writer.submit(put(number)) for number in range(200)]
    database.close()
    assert [future.result(1) for future in futures] == list(range(200))
    with pytest.raises(ShuttingDown):
        database.write_sync(put(1))
    with sqlite3.connect(tmp_path / "x.sqlite") as other:
        assert other.execute("SELECT count(*) FROM t").fetchone() == (200,)
    other.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted by /proc")
def test_a_thread_that_ends_takes_its_connection_along(database: SqliteDatabase) -> None:
    put_all = [database.write_sync(put(number)) for number in range(3)]
    before = descriptors()
    for _ in range(20):
        thread = threading.Thread(target=values, args=(database,))
        thread.start()
        thread.join()
    assert descriptors() <= before + 4
    assert values(database) == put_all


def test_close_waits_for_reads_of_any_thread_and_then_refuses(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "test.sqlite")
    reading, go_on, seen = threading.Event(), threading.Event(), list[int]()

    def slow(connection: Connection) -> int:
        reading.set()
        go_on.wait(5)
        return int(connection.exec_driver_sql("SELECT 41 + 1").scalar_one())

    thread = threading.Thread(target=lambda: seen.append(database.read_sync(slow)))
    thread.start()
    assert reading.wait(5)
    closing = threading.Thread(target=database.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    go_on.set()
    for waiting in (thread, closing):
        waiting.join(5)
        assert not waiting.is_alive()
    assert seen == [42]
    with pytest.raises(ShuttingDown):
        database.read_sync(lambda _: None)


def test_an_error_of_the_driver_itself_undoes_the_read_and_is_no_cause_of_itself(database: SqliteDatabase) -> None:
    def broken(connection: Connection) -> None:
        driver_connection(connection).execute("SELECT * FROM nowhere")

    with pytest.raises(sqlite3.OperationalError) as caught:
        database.read_sync(broken)
    assert caught.value.__cause__ is None
    assert values(database) == []


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "newer.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version=9999")
    other.close()
    with pytest.raises(ConfigurationError, match="newer"):
        SqliteDatabase(path)


def as_a_backup(path: Path) -> None:
    """Make a database whose journal mode has to be changed when it is opened."""
    SqliteDatabase(path).close()
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)


def test_the_journal_mode_is_changed_before_others_read(tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / f"{number}.sqlite"
        as_a_backup(path)
        database = SqliteDatabase(path)
        assert path.read_bytes()[18:20] == b"\x02\x02"  # https://sqlite.org/fileformat.html#file_format_version_numbers
        database.close()


def test_opening_waits_for_a_writer_in_another_journal_mode(tmp_path: Path) -> None:
    path = tmp_path / "ragsvc.sqlite"
    as_a_backup(path)
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE").close()
        timer = threading.Timer(0.3, lambda: other.execute("COMMIT").close())
        timer.start()
        database = SqliteDatabase(path)
        assert database.write_sync(lambda connection: connection.exec_driver_sql("SELECT 1").scalar_one()) == 1
        database.close()
        timer.join()


def test_a_log_that_a_full_disk_keeps_from_being_emptied_is_no_error(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=16) as disk:
        path = disk / "test.sqlite"
        database = SqliteDatabase(path, truncate_after_s=600)
        database.write_sync(lambda connection: connection.exec_driver_sql("CREATE TABLE t (v BLOB)"))
        database.write_sync(lambda connection: connection.exec_driver_sql("INSERT INTO t VALUES (zeroblob(2000000))"))
        filler = fill(disk)
        assert not database.empty_log(timeout_s=0)
        filler.unlink()
        assert database.empty_log()
        assert path.with_name("test.sqlite-wal").stat().st_size == 0
        database.close()
        filler = fill(disk)
        database = SqliteDatabase(path)  # without room to share the log
        assert not database.empty_log(timeout_s=0)
        filler.unlink()
        database.close()


def test_a_closed_database_refuses_reads_of_the_event_loop(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "test.sqlite")
    database.close()
    with pytest.raises(ShuttingDown):
        asyncio.run(database.read(lambda _: None))
