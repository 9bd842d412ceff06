"""Opening a database file brings it to this release's schema, with a copy of the old state, or refuses it."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ragsvc.core.errors import ConfigurationError, DataDirectoryLocked
from ragsvc.store.backup import remove_plain_backups
from ragsvc.store.data_keys import is_plain_database
from ragsvc.store.directory_lock import DataDirectoryLock
from ragsvc.store.migrations import FOLDER, revisions
from ragsvc.store.schema import prepare_schema, read_revision
from ragsvc.store.sqlite_database import SqliteDatabase, _open_engine, connect_raw
from ragsvc.store.text_integrity import text_checksum
from ragsvc.testing.service_runner import ROOT
from ragsvc.wiring.health_checks import CheckState
from ragsvc.wiring.health_checks import database as check_database
from tests.support.old_data_directories import KINDS, OldDirectory

TABLES = ("collections", "documents", "pages", "passages", "embeddings", "index_log", "api_keys", "providers")
UPGRADED = (
    f"upgrading ragsvc.sqlite from schema 0001 to {revisions()[-1]}, which earlier releases cannot open; "
    "copy of the old state: ragsvc.sqlite.before-0002"
)
PUBLIC_ID = "vs_ and 24 random digits"
STOP_IN_THE_SECOND_MIGRATION = """
import os, sys, time
from pathlib import Path
from sqlalchemy import Engine, event
from ragsvc.store.sqlite_database import SqliteDatabase

@event.listens_for(Engine, "after_cursor_execute")
def stop(connection, cursor, statement, parameters, context, executemany):
    if "DROP COLUMN" in statement:
        {action}

key = bytes.fromhex(sys.argv[2]) if len(sys.argv) > 2 else None
SqliteDatabase(Path(sys.argv[1]), key=key).close()
print("alembic" in sys.modules)
"""


@pytest.fixture(params=KINDS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> OldDirectory:
    return OldDirectory(request.param, tmp_path / "data")


def open_process(path: Path, key: bytes | None = None, *, action: str = "pass") -> subprocess.Popen[str]:
    code = STOP_IN_THE_SECOND_MIGRATION.format(action=action)
    arguments = [sys.executable, "-c", code, str(path), *([] if key is None else [key.hex()])]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, errors = process.communicate(timeout=60)
    return process.returncode, out + errors


def contents(path: Path, key: bytes | None, *tables: str) -> dict[str, list[tuple]]:
    """All rows; a random public id of a vector store is replaced by its form."""
    with closing(connect_raw(path, key=key)) as connection:
        statements = {table: " ".join(("SELECT * FROM", table, "ORDER BY 1, 2")) for table in tables}
        found = {table: connection.execute(statement).fetchall() for table, statement in statements.items()}
        return {table: [tuple(map(form, row)) for row in rows] for table, rows in found.items()}


def form(value: object) -> object:
    return PUBLIC_ID if isinstance(value, str) and re.fullmatch("vs_[0-9a-f]{24}", value) else value


def with_new_column(rows: dict[str, list[tuple]]) -> dict[str, list[tuple]]:
    """The rows of schema 0001 as the newest schema has them."""
    added: dict[str, Callable[[tuple], tuple]] = {
        "pages": lambda row: (text_checksum(row[3].encode()),),
        "passages": lambda row: (None, text_checksum(row[10].encode())),
        "collections": lambda row: (None, PUBLIC_ID, row[2], *[None] * 5),
        "api_keys": lambda _: ("[]", None, None, None, 0, 0),
    }
    return {
        table: [(*row, *added[table](row)) for row in found] if table in added else found
        for table, found in rows.items()
    }


def columns(path: Path, key: bytes | None, table: str) -> list[str]:
    with closing(connect_raw(path, key=key)) as connection:
        return [row[1] for row in connection.execute(f"PRAGMA table_info({table})").fetchall()]


def revision(path: Path, key: bytes | None) -> str | None:
    with closing(connect_raw(path, key=key)) as connection:
        return read_revision(connection)


def test_a_fresh_file_is_at_the_newest_revision_and_has_no_backup(tmp_path: Path) -> None:
    path = tmp_path / "fresh.sqlite"
    assert not path.exists()
    SqliteDatabase(path).close()
    assert revision(path, None) == revisions()[-1]
    assert [file.name for file in tmp_path.iterdir() if "before" in file.name] == []


def test_an_older_file_is_upgraded_and_keeps_its_rows(old: OldDirectory) -> None:
    key = old.database_key
    before = contents(old.database, key, *TABLES, "jobs")
    assert all(before.values())
    assert revision(old.database, key) == "0001"
    SqliteDatabase(old.database, key=key).close()
    assert revision(old.database, key) == revisions()[-1]
    assert contents(old.database, key, *TABLES) == with_new_column({table: before[table] for table in TABLES})
    (job,) = before["jobs"]
    assert contents(old.database, key, "jobs")["jobs"] == [job[:5] + job[6:]]
    assert "heartbeat_at" not in columns(old.database, key, "jobs")


def test_the_backup_is_the_old_state_private_and_encrypted_like_the_database(old: OldDirectory) -> None:
    key = old.database_key
    before = contents(old.database, key, *TABLES, "jobs", "sqlite_sequence")
    old.backup.with_name(f"{old.backup.name}.new").write_bytes(b"left by a process that was killed")
    SqliteDatabase(old.database, key=key).close()
    assert old.backup.stat().st_mode & 0o777 == 0o600
    assert is_plain_database(old.backup) == (key is None)
    assert contents(old.backup, key, *TABLES, "jobs", "sqlite_sequence") == before
    assert revision(old.backup, key) == "0001"
    with closing(connect_raw(old.backup, key=key)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert sorted(file.name for file in old.path.glob("*before*")) == [old.backup.name]


def test_the_backup_holds_what_only_the_write_ahead_log_held(tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    with closing(connect_raw(old.database, key=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL").fetchall()
        writer.execute("UPDATE collections SET name = 'renamed' WHERE id = 1").fetchall()
        assert b"renamed" not in old.database.read_bytes()
        SqliteDatabase(old.database).close()
    assert contents(old.backup, None, "collections")["collections"][0][2] == "renamed"


def test_a_second_start_makes_no_backup_and_does_not_import_alembic(old: OldDirectory) -> None:
    key = old.database_key
    assert finish(open_process(old.database, key)) == (0, f"True\n{UPGRADED}\n")
    old.backup.unlink()
    assert finish(open_process(old.database, key)) == (0, "False\n")
    assert not old.backup.exists()


def test_a_new_file_needs_no_alembic(tmp_path: Path) -> None:
    assert finish(open_process(tmp_path / "new.sqlite")) == (0, "False\n")


def test_a_file_with_some_tables_only_gets_the_others(tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    with closing(connect_raw(old.database, key=None)) as connection:
        for table in ("embeddings", "jobs", "pages", "passages", "documents", "collections"):
            connection.execute(f"DROP TABLE {table}").fetchall()
    keys = contents(old.database, None, "api_keys")
    SqliteDatabase(old.database).close()
    assert contents(old.database, None, "api_keys") == with_new_column(keys)
    assert contents(old.database, None, "documents", "jobs") == {"documents": [], "jobs": []}


def test_usage_counted_before_gets_the_tenant_of_its_key_and_no_family(tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    with closing(connect_raw(old.database, key=None)) as connection:
        ((key, tenant),) = connection.execute("SELECT id, tenant FROM api_keys ORDER BY id LIMIT 1").fetchall()
        connection.execute("DELETE FROM token_usage")
        statement = "INSERT INTO token_usage VALUES (?, 20000, 'm', 7, 5, 2), ('key_deleted', 20001, '', 9, 0, 1)"
        connection.execute(statement, (key,))
    SqliteDatabase(old.database).close()
    with closing(connect_raw(old.database, key=None)) as connection:
        columns = "key_id, day, model, family, tenant, prompt_tokens, completion_tokens, requests"
        rows = connection.execute(f"SELECT {columns} FROM usage ORDER BY day").fetchall()  # noqa: S608 - constants
    assert rows == [(key, 20000, "m", "", tenant, 7, 5, 2), ("key_deleted", 20001, "", "", "", 9, 0, 1)]


def test_the_audit_trail_before_gets_the_tenant_of_its_key_also_of_a_deleted_one(old: OldDirectory) -> None:
    created = '{"tenant":"gone","label":"x","scopes":[]}'
    with closing(connect_raw(old.database, key=old.database_key)) as connection:
        ((key, tenant),) = connection.execute("SELECT id, tenant FROM api_keys ORDER BY id LIMIT 1").fetchall()
        connection.execute("DELETE FROM key_audit")
        statement = "INSERT INTO key_audit (at, key_id, actor, action, changes) VALUES (?, ?, 'local', ?, ?)"
        for row in ((1, key, "update", "{}"), (2, "key_x", "create", created), (3, "key_x", "delete", "{}")):
            connection.execute(statement, row)
    SqliteDatabase(old.database, key=old.database_key).close()
    with closing(connect_raw(old.database, key=old.database_key)) as connection:
        rows = connection.execute("SELECT at, tenant FROM key_audit ORDER BY at").fetchall()
        usage = connection.execute("SELECT DISTINCT errors, timed_requests, duration_ms FROM usage").fetchall()
    assert rows == [(1, tenant), (2, "gone"), (3, "gone")]
    assert set(usage) <= {(0, 0, 0)}


def stamp_newer(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE alembic_version SET version_num = '0999'")


def mark_newer(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TABLE alembic_version")
    connection.execute("PRAGMA user_version=7")


@pytest.mark.parametrize(("change", "named"), [(stamp_newer, "0999"), (mark_newer, "user_version 7")])
def test_a_newer_file_is_refused_by_name_and_unchanged(
    tmp_path: Path, change: Callable[[sqlite3.Connection], None], named: str
) -> None:
    path = tmp_path / "ragsvc.sqlite"
    SqliteDatabase(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        change(connection)
    content = path.read_bytes()
    with pytest.raises(ConfigurationError, match=f"schema {named} is newer than {revisions()[-1]}.*use a newer ragsvc"):
        SqliteDatabase(path)
    assert path.read_bytes() == content
    assert not list(tmp_path.glob("*before*"))
    (check,) = check_database(tmp_path)
    assert check.state is CheckState.FAIL
    assert named in check.words


def test_releases_before_migrations_refuse_an_upgraded_file(old: OldDirectory) -> None:
    key = old.database_key
    SqliteDatabase(old.database, key=key).close()
    with closing(connect_raw(old.database, key=key)) as connection:
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    assert version > 1  # the newest that those releases open


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(ConfigurationError, match="unknown"):
        SqliteDatabase(tmp_path / "other.sqlite")


def test_a_kill_between_migrations_leaves_the_old_state(old: OldDirectory) -> None:
    key = old.database_key
    before = contents(old.database, key, *TABLES, "jobs", "sqlite_sequence")
    assert finish(open_process(old.database, key, action="os._exit(9)"))[0] == 9
    assert contents(old.database, key, *TABLES, "jobs", "sqlite_sequence") == before
    assert revision(old.database, key) == "0001"
    assert "heartbeat_at" in columns(old.database, key, "jobs")
    assert contents(old.backup, key, "jobs")["jobs"] == before["jobs"]
    SqliteDatabase(old.database, key=key).close()
    assert revision(old.database, key) == revisions()[-1]


def test_of_two_processes_that_open_an_old_file_the_second_waits_for_the_first(old: OldDirectory) -> None:
    key = old.database_key
    first = open_process(old.database, key, action="print('inside', flush=True); time.sleep(1.5)")
    assert first.stdout is not None
    assert first.stdout.readline() == "inside\n"
    second = open_process(old.database, key)
    assert finish(second) == (0, "False\n")
    assert finish(first) == (0, f"True\n{UPGRADED}\n")
    assert revision(old.database, key) == revisions()[-1]
    assert [file.name for file in old.path.glob("*before*")] == [old.backup.name]


def test_two_processes_may_create_the_same_file(tmp_path: Path) -> None:
    processes = [open_process(tmp_path / "new.sqlite") for _ in range(3)]
    assert [finish(process)[0] for process in processes] == [0, 0, 0]
    assert revision(tmp_path / "new.sqlite", None) == revisions()[-1]


# -- prepare_schema with migrations of the tests ----------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the migrations that tests may add to."""
    return Path(shutil.copytree(FOLDER, tmp_path / "migrations"))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    old = OldDirectory("plain", tmp_path / "data")
    engine = _open_engine(old.database, key=None, begin="BEGIN IMMEDIATE", query_only=False)
    yield engine
    engine.dispose()


def prepare(engine: Engine, folder: Path, **options: float) -> Path:
    path = folder.parent / "data" / "ragsvc.sqlite"
    prepare_schema(engine, path, connect=lambda path: connect_raw(path, key=None), folder=folder, **options)
    return path


def add_migration(folder: Path, body: str) -> None:
    number = int(revisions()[-1]) + 1
    text = f"import sqlalchemy as sa\nfrom alembic import op\n\nrevision = '{number:04}'\n"
    text += f"down_revision = '{revisions()[-1]}'\n"
    (folder / "versions" / f"{number:04}_of_a_test.py").write_text(f"{text}\n\ndef upgrade():\n    {body}\n")


def test_a_recreated_table_keeps_the_rows_that_refer_to_it_and_its_id_counter(engine: Engine, folder: Path) -> None:
    add_migration(
        folder,
        "with op.batch_alter_table('documents', recreate='always', table_kwargs={'sqlite_autoincrement': True}) as t:\n"
        "        t.add_column(sa.Column('note', sa.String))",
    )
    path = folder.parent / "data" / "ragsvc.sqlite"
    with closing(connect_raw(path, key=None)) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("DELETE FROM documents WHERE id = (SELECT max(id) FROM documents)")
    before = contents(path, None, "pages", "passages", "embeddings")
    counters = dict(contents(path, None, "sqlite_sequence")["sqlite_sequence"])
    assert counters["documents"] == 4
    prepare(engine, folder)
    assert "note" in columns(path, None, "documents")
    assert contents(path, None, "pages", "passages", "embeddings") == with_new_column(before)
    implicit_files = {"files": 3}  # one for each document, which the migration added
    assert dict(contents(path, None, "sqlite_sequence")["sqlite_sequence"]) == counters | implicit_files
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1


def test_a_migration_that_leaves_dangling_rows_is_undone(engine: Engine, folder: Path) -> None:
    add_migration(folder, "op.execute('DELETE FROM documents')")
    with pytest.raises(ConfigurationError, match="refer to missing rows"):
        prepare(engine, folder)
    path = folder.parent / "data" / "ragsvc.sqlite"
    assert revision(path, None) == "0001"
    assert len(contents(path, None, "documents")["documents"]) == 4


def add_dangling_rows(path: Path) -> list[tuple]:
    """Rows that refer to missing rows, as a release without foreign keys could have left them."""
    with closing(connect_raw(path, key=None)) as connection:
        connection.execute("INSERT INTO pages (document_id, number, label, text) VALUES (998, 1, NULL, 'a')")
        connection.execute("INSERT INTO pages (document_id, number, label, text) VALUES (999, 1, NULL, 'b')")
        return connection.execute("PRAGMA foreign_key_check").fetchall()


def test_dangling_rows_from_before_the_upgrade_do_not_prevent_it(engine: Engine, folder: Path, caplog) -> None:
    path = folder.parent / "data" / "ragsvc.sqlite"
    dangling = add_dangling_rows(path)
    assert len(dangling) == 2
    add_migration(
        folder,
        "with op.batch_alter_table('pages', recreate='always', table_kwargs={'sqlite_with_rowid': False}) as t:\n"
        "        t.add_column(sa.Column('note', sa.String))",
    )
    prepare(engine, folder)
    assert revision(path, None) == f"{int(revisions()[-1]) + 1:04}"
    warnings = [record.getMessage() for record in caplog.records if "missing rows" in record.getMessage()]
    assert warnings == ["ragsvc.sqlite: before the upgrade, 2 rows of pages referred to missing rows of documents"]


def test_dangling_rows_that_a_migration_adds_to_older_ones_are_refused(engine: Engine, folder: Path) -> None:
    path = folder.parent / "data" / "ragsvc.sqlite"
    add_dangling_rows(path)
    add_migration(folder, "op.execute('DELETE FROM documents WHERE id = 1')")
    with pytest.raises(
        ConfigurationError, match=r"not upgraded: a migration made \d+ rows of \w+ refer to missing rows of"
    ):
        prepare(engine, folder)
    assert revision(path, None) == "0001"
    assert len(contents(path, None, "documents")["documents"]) == 4


@contextmanager
def locked_by_another_process(data_dir: Path) -> Iterator[None]:
    code = (
        "import sys\nfrom pathlib import Path\nfrom ragsvc.store.directory_lock import DataDirectoryLock\n"
        "lock = DataDirectoryLock(Path(sys.argv[1]))\nlock.acquire()\nprint('held', flush=True)\nsys.stdin.read()"
    )
    arguments = [sys.executable, "-c", code, str(data_dir)]
    with subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield
        holder.communicate()


def test_a_directory_that_another_process_serves_is_not_upgraded(engine: Engine, folder: Path) -> None:
    data_dir = folder.parent / "data"
    with locked_by_another_process(data_dir):
        with pytest.raises(DataDirectoryLocked):
            prepare(engine, folder, lock_wait_s=0.2)
        assert revision(data_dir / "ragsvc.sqlite", None) == "0001"
    prepare(engine, folder)
    assert revision(data_dir / "ragsvc.sqlite", None) == revisions()[-1]


def test_a_newer_directory_that_another_process_serves_is_refused_without_waiting(engine: Engine, folder: Path) -> None:
    path = prepare(engine, folder)
    with closing(connect_raw(path, key=None)) as connection:
        stamp_newer(connection)
    with locked_by_another_process(path.parent), pytest.raises(ConfigurationError, match="0999"):
        prepare(engine, folder, lock_wait_s=0.2)


def test_the_process_that_holds_the_lock_upgrades_and_keeps_the_lock(engine: Engine, folder: Path) -> None:
    lock = DataDirectoryLock(folder.parent / "data")
    lock.acquire()
    prepare(engine, folder, lock_wait_s=0)
    with pytest.raises(DataDirectoryLocked):
        DataDirectoryLock(folder.parent / "data").acquire()
    lock.release()
    assert not lock.is_held_by_this_process


def test_plain_backups_are_removed_and_encrypted_ones_kept(tmp_path: Path) -> None:
    for kind in KINDS:
        old = OldDirectory(kind, tmp_path / kind)
        SqliteDatabase(old.database, key=old.database_key).close()
        remove_plain_backups(old.database)
        assert old.backup.exists() == (kind == "encrypted")
        assert old.database.exists()
