"""What PostgreSQL adds: several writers, a server that goes away, and messages of the server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from ragsvc.core.documents import Document
from ragsvc.core.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    DataDirectoryLocked,
    InvalidRequest,
    ShuttingDown,
)
from ragsvc.core.ids import DocumentId, PassageId
from ragsvc.store import document_rows, job_rows
from ragsvc.store.index_log_rows import append_change, changes_after, last_position
from ragsvc.store.migrations import revisions
from ragsvc.store.postgres_database import PostgresDatabase, describe_postgres
from tests.support.postgres_server import PostgresServer, server_binaries
from tests.support.stored_documents import ACME, OTHER, add

WAIT_S = 60


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.new_database()


@pytest.fixture
def opened(url: str) -> Iterator[Callable[[], PostgresDatabase]]:
    """Opens the database again, as another process would."""
    databases: list[PostgresDatabase] = []

    def open_again() -> PostgresDatabase:
        databases.append(PostgresDatabase(url))
        return databases[-1]

    yield open_again
    for database in databases:
        database.close()


class Held:
    """A write that runs ``work`` and holds its transaction open until it is released."""

    def __init__(self, database: PostgresDatabase, work: Callable[[Connection], object]) -> None:
        self.worked, self.released = threading.Event(), threading.Event()

        def write(connection: Connection) -> None:
            work(connection)
            self.worked.set()
            assert self.released.wait(WAIT_S)

        self.future = database._writer.submit(write)
        assert self.worked.wait(WAIT_S)

    def release(self) -> None:
        self.released.set()
        self.future.result(WAIT_S)


def log(document: Document, passage: int) -> Callable[[Connection], None]:
    return lambda connection: append_change(connection, document, "add", [PassageId(passage)])


def waits_for_lock(database: PostgresDatabase) -> None:
    """Return when a connection waits for an advisory lock."""
    deadline = time.monotonic() + WAIT_S
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    while not database.read_sync(lambda connection: connection.exec_driver_sql(waiting).scalar_one()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_index_that_follows_the_log_misses_no_entry_that_commits_late(opened) -> None:
    """The first entry draws its position first and commits last; a reader must not see the second one before it."""
    first, second = opened(), opened()
    document = add(first, "a")
    start = first.read_sync(lambda c: last_position(c, document.collection_id))
    held = Held(first, log(document, 1))
    late = second._writer.submit(log(document, 2))
    waits_for_lock(second)
    seen: list[int] = []

    def follow() -> None:
        after = seen[-1] if seen else start
        found = second.read_sync(lambda c: changes_after(c, document.collection_id, after, 10))
        seen.extend(change.seq for change in found)

    follow()
    assert (seen, late.done()) == ([], False)
    held.release()
    late.result(WAIT_S)
    follow()
    changes = second.read_sync(lambda c: changes_after(c, document.collection_id, start, 10))
    assert [change.ids().tolist() for change in changes] == [[1], [2]]
    assert seen == [change.seq for change in changes] == sorted(seen)


def test_of_all_processes_one_writes_at_a_time_and_sees_what_the_others_wrote(opened) -> None:
    databases = [opened() for _ in range(3)]
    databases[0].write_sync(lambda c: c.execute(text("INSERT INTO service_state (name, value) VALUES ('x', 0)")))

    def count(connection: Connection) -> None:
        value = connection.execute(text("SELECT value FROM service_state")).scalar_one()
        connection.execute(text("UPDATE service_state SET value = :value"), {"value": value + 1})

    def count_often(database: PostgresDatabase) -> None:
        for _ in range(50):
            database.write_sync(count)

    with ThreadPoolExecutor(len(databases)) as pool:
        list(pool.map(count_often, databases))
    assert databases[0].read_sync(lambda c: c.execute(text("SELECT value FROM service_state")).scalar_one()) == 150


def test_a_process_that_stops_within_a_transaction_does_not_stop_the_others_for_long(opened, monkeypatch) -> None:
    monkeypatch.setattr("ragsvc.store.postgres_database._IDLE_TIMEOUT_S", 1)
    stopped = opened()
    held = Held(stopped, lambda c: c.execute(text("INSERT INTO service_state (name, value) VALUES ('x', 1)")))
    other = opened()
    add(other, "a")  # waits until the server has ended the transaction
    names = text("SELECT name FROM service_state")
    assert other.read_sync(lambda c: c.execute(names).scalars().all()) == []
    held.release()  # the write is repeated in a new transaction
    assert other.read_sync(lambda c: c.execute(names).scalars().all()) == ["x"]


def test_a_claim_waits_for_another_and_takes_the_next_job(opened) -> None:
    first, second = opened(), opened()
    older, younger = add(first, "a"), add(first, "b")
    found: list[DocumentId] = []

    def claim(connection: Connection) -> None:
        job = job_rows.claim(connection, now=5)
        assert job is not None
        found.append(job.document.id)

    held = Held(first, claim)
    late = second._writer.submit(claim)
    waits_for_lock(second)
    held.release()
    late.result(WAIT_S)
    assert second.write_sync(lambda connection: job_rows.claim(connection, now=5)) is None
    assert found == [older.id, younger.id]


def test_each_job_is_claimed_once_by_processes_that_claim_at_the_same_time(opened) -> None:
    databases = [opened() for _ in range(4)]
    made = [add(databases[0], f"n{number}", tenant=(ACME, OTHER)[number % 2]) for number in range(40)]

    def claim_all(database: PostgresDatabase) -> list[DocumentId]:
        found: list[DocumentId] = []
        misses = 0
        while misses < 3:
            job = database.write_sync(lambda connection: job_rows.claim(connection, now=5))
            if job is None:
                misses += 1
            else:
                found.append(job.document.id)
        return found

    with ThreadPoolExecutor(len(databases)) as pool:
        claimed = [document for found in pool.map(claim_all, databases) for document in found]
    assert sorted(claimed) == sorted(document.id for document in made)


def test_writes_that_meet_a_deadlock_are_repeated(opened, url) -> None:
    """With a program that is none of ours, which does not take the lock of those that write."""
    import psycopg  # noqa: PLC0415 - an optional package

    database = opened()
    database.write_sync(lambda c: c.execute(text("CREATE TABLE t (k integer PRIMARY KEY, v integer NOT NULL)")))
    database.write_sync(lambda c: c.execute(text("INSERT INTO t VALUES (1, 0), (2, 0)")))
    met = threading.Barrier(2)
    runs: list[int] = []

    def write(connection: Connection) -> None:
        connection.execute(text("UPDATE t SET v = v + 1 WHERE k = 1"))
        runs.append(len(runs))
        if len(runs) == 1:  # the repetition does not meet the other one
            met.wait(WAIT_S)
        connection.execute(text("UPDATE t SET v = v + 1 WHERE k = 2"))

    late = database._writer.submit(write)
    with psycopg.connect(url) as foreign:
        foreign.execute("SET deadlock_timeout = '60s'")  # so that the server ends the other transaction
        foreign.execute("UPDATE t SET v = v + 1 WHERE k = 2")
        met.wait(WAIT_S)
        foreign.execute("UPDATE t SET v = v + 1 WHERE k = 1")
    late.result(WAIT_S)
    assert runs == [0, 1]
    assert database.read_sync(lambda c: c.execute(text("SELECT v FROM t")).scalars().all()) == [2, 2]


def test_a_server_that_was_away_is_used_again_by_itself() -> None:
    """A server of its own: that of the other tests stays."""
    binaries = server_binaries()
    pytest.importorskip("psycopg")
    if binaries is None:
        pytest.skip("PostgreSQL's server is not installed")
    server = PostgresServer(binaries)
    try:
        database = PostgresDatabase(server.new_database())
        add(database, "before")
        server.stop()
        for use in (database.read_sync, database.write_sync):
            with pytest.raises(DatabaseUnavailable) as caught:
                use(document_rows.count_by_status)
            assert caught.value.retry_after_s
        server.start()
        assert database.read_sync(document_rows.count_by_status) == {"queued": 1}
        add(database, "after")
        server.stop()
        server.start()  # both connections are lost, and nothing was used meanwhile
        add(database, "later")
        assert database.read_sync(document_rows.count_by_status) == {"queued": 3}
        database.close()
    finally:
        server.remove()


def test_a_database_has_one_service_also_after_its_connection_was_replaced(opened) -> None:
    service, command = opened(), opened()
    service.claim_service()
    add(command, "a")
    with pytest.raises(DataDirectoryLocked):
        command.claim_service()
    backend = service.write_sync(lambda c: c.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
    command.write_sync(lambda c: c.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": backend}))
    add(service, "b")
    with pytest.raises(DataDirectoryLocked):
        command.claim_service()
    service.close()
    command.claim_service()


def test_a_service_whose_place_was_taken_writes_nothing_until_it_is_free(opened) -> None:
    first, second = opened(), opened()
    first.claim_service()
    backend = first.write_sync(lambda c: c.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
    second.write_sync(lambda c: c.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": backend}))
    second.claim_service()
    with pytest.raises(DatabaseUnavailable):
        add(first, "a")
    second.close()
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            add(first, "b")
            break
        except DatabaseUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert first.read_sync(document_rows.count_by_status) == {"queued": 1}


def test_a_write_whose_connection_is_lost_half_way_is_repeated_once(opened) -> None:
    database, other = opened(), opened()
    runs: list[int] = []

    def write(connection: Connection) -> None:
        runs.append(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
        connection.execute(text("INSERT INTO service_state (name, value) VALUES ('x', 1)"))
        if len(runs) == 1:
            other.read_sync(lambda c: c.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": runs[0]}))
        connection.execute(text("SELECT 1"))

    database.write_sync(write)
    assert len(set(runs)) == 2
    assert database.read_sync(lambda c: c.execute(text("SELECT value FROM service_state")).scalars().all()) == [1]


def test_reads_cannot_write_and_see_one_state(opened) -> None:
    database = opened()
    with pytest.raises(DBAPIError, match="25006"):
        database.read_sync(lambda c: c.execute(text("INSERT INTO service_state (name, value) VALUES ('x', 1)")))

    def read_twice(connection: Connection) -> tuple[dict[str, int], dict[str, int]]:
        before = document_rows.count_by_status(connection)
        add(database, "meanwhile")
        return before, document_rows.count_by_status(connection)

    assert database.read_sync(read_twice) == ({}, {})
    assert database.read_sync(document_rows.count_by_status) == {"queued": 1}


def test_one_failing_write_undoes_only_itself_when_commits_are_shared(opened) -> None:
    database = opened()
    held = Held(database, lambda _: None)

    def put(name: str) -> Callable[[Connection], object]:
        return lambda c: c.execute(text("INSERT INTO service_state (name, value) VALUES (:n, 1)"), {"n": name})

    futures = [database._writer.submit(put(name)) for name in ("a", "a", "b")]
    held.release()
    failures = [future.exception(WAIT_S) for future in futures]
    assert [failure is None for failure in failures] == [True, False, True]
    names = database.read_sync(lambda c: c.execute(text("SELECT name FROM service_state")).scalars().all())
    assert sorted(names) == ["a", "b"]


def test_errors_of_the_server_quote_no_row(opened, caplog) -> None:
    database = opened()
    put = text("INSERT INTO service_state (name, value) VALUES ('secret name', 1)")
    database.write_sync(lambda c: c.execute(put))
    for use in (lambda c: c.execute(put), lambda c: c.exec_driver_sql(str(put))):
        with caplog.at_level(logging.DEBUG), pytest.raises(DBAPIError, match="23505 service_state_pkey") as caught:
            database.write_sync(use)
        assert "secret" not in f"{caught.value}{caught.value.__cause__}{caplog.text}"


def test_a_character_that_texts_cannot_have_is_refused(opened) -> None:
    database = opened()
    with pytest.raises(InvalidRequest, match=r"U\+0000"):
        database.read_sync(lambda c: document_rows.has_collection(c, ACME, "a\0b"))


def test_processes_that_start_together_make_the_schema_once(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database(empty=True)
    with ThreadPoolExecutor(4) as pool:
        databases = list(pool.map(lambda _: PostgresDatabase(url), range(4)))
    stamped = databases[0].read_sync(
        lambda c: c.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    )
    assert stamped == [revisions()[-1]]
    for database in databases:
        database.close()
    with pytest.raises(ShuttingDown):
        databases[0].read_sync(lambda _: None)


def test_a_newer_schema_is_refused(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    database = PostgresDatabase(url)
    database.write_sync(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    database.close()
    with pytest.raises(ConfigurationError, match="9999 is newer"):
        PostgresDatabase(url)
    assert describe_postgres(url)[1] == "9999"


def test_a_server_that_does_not_exist_is_named_without_its_address() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(DatabaseUnavailable) as caught:
        PostgresDatabase("postgresql://user:secret@127.0.0.1:1/nowhere")
    assert "secret" not in caught.value.message


def test_no_one_is_told_that_the_server_has_overwritten_deleted_rows(opened) -> None:
    assert not opened().erase_deleted()
