"""The commands of docs/howto/back-up.md that the snippet tests cannot run in the order of the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from ragsvc.store.migrations import revisions
from ragsvc.store.schema import read_revision
from ragsvc.store.sqlite_database import SqliteDatabase, connect_raw
from ragsvc.testing.service_runner import ROOT
from ragsvc.wiring.health_checks import CheckState, upgrade_copies
from tests.support.documentation_pages import FENCE
from tests.support.old_data_directories import KINDS, OldDirectory

PAGE = (ROOT / "docs/howto/back-up.md").read_text(encoding="utf-8")
UPGRADE_WRITE_AND_DIE = """
import os, sys
from pathlib import Path
from ragsvc.store.sqlite_database import SqliteDatabase

key = bytes.fromhex(sys.argv[2]) if len(sys.argv) > 2 else None
database = SqliteDatabase(Path(sys.argv[1]), key=key)
database.write_sync(lambda c: c.exec_driver_sql("UPDATE passages SET text = text || ' (changed after the upgrade)'"))
os._exit(9)
"""


def commands(heading: str) -> str:
    """The code of the first ``bash`` block under a heading of the page."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return next(block["code"] for block in FENCE.finditer(section) if block["language"] == "bash")


def run(script: str, **variables: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **{name: str(path) for name, path in variables.items()}}
    command = ["bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def contents(path: Path, key: bytes | None) -> dict[str, list[tuple]]:
    with closing(connect_raw(path, key=key)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        return {
            table: sorted(connection.execute(" ".join(("SELECT * FROM", table))).fetchall(), key=repr)
            for (table,) in tables
            if table != "sqlite_sequence"
        }


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_back_after_an_upgrade_restores_the_state_before_it_although_the_service_was_killed(
    kind: str, tmp_path: Path
) -> None:
    old = OldDirectory(kind, tmp_path / "data")
    key = old.database_key
    before = contents(old.database, key)
    arguments = [sys.executable, "-c", UPGRADE_WRITE_AND_DIE, str(old.database), *([] if key is None else [key.hex()])]
    assert subprocess.run(arguments, cwd=ROOT, timeout=60, check=False).returncode == 9
    wal = old.database.with_name(f"{old.database.name}-wal")
    assert wal.stat().st_size > 0  # pages of the newer release, which SQLite would write into the restored file
    snapshot = old.path / "derived" / "1" / "snapshot"
    snapshot.parent.mkdir(parents=True)
    snapshot.write_bytes(b"covers positions of the log that the restored log gives out again")

    script = commands("After an upgrade")
    assert re.search(rf"\.before-{revisions()[1]}\b", script)
    done = run(script, RAGSVC_DATA_DIR=old.path)
    assert done.returncode == 0, done.stderr
    assert not wal.exists()
    assert not (old.path / "derived").exists()
    assert contents(old.database, key) == before
    with closing(connect_raw(old.database, key=key)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert read_revision(connection) == revisions()[0]
    assert old.database.stat().st_mode & 0o777 == 0o600
    assert old.backup.exists()


def test_the_archive_of_a_stopped_service_leaves_out_copies_that_keep_deleted_documents(tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    SqliteDatabase(old.database).close()
    unfinished = old.backup.with_name(f"{old.backup.name}.new")
    unfinished.write_bytes(b"left by a process that was killed")
    archive = "tar" + commands("With the service stopped").partition("\ntar")[2]
    done = run(archive, RAGSVC_DATA_DIR=old.path, BACKUP=tmp_path)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / "ragsvc.tar.gz") as packed:
        names = set(packed.getnames())
    assert {"./ragsvc.sqlite", "./master.key", "./claims.sqlite", "./blobs"} <= names
    assert [name for name in names if "before" in name] == []


def test_doctor_warns_while_a_copy_from_before_an_upgrade_exists(tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    assert list(upgrade_copies(old.path)) == []
    SqliteDatabase(old.database).close()
    (check,) = upgrade_copies(old.path)
    assert (check.name, check.state) == ("upgrade copies", CheckState.WARN)
    assert old.backup.name in check.words
    assert "deleted" in check.words
    old.backup.unlink()
    assert list(upgrade_copies(old.path)) == []


@pytest.mark.parametrize("key_files", [("master.key",), ("sealing.key", "data.key")])
def test_the_online_backup_copies_committed_rows_and_every_key_file(key_files: tuple[str, ...], tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    content = (old.path / "master.key").read_bytes()
    (old.path / "master.key").unlink()
    for name in key_files:
        (old.path / name).write_bytes(content)
    backup = tmp_path / "backup"
    backup.mkdir()
    with closing(connect_raw(old.path / "claims.sqlite", key=None)) as connection:
        connection.execute("INSERT INTO claims VALUES ('key', x'01', 9)").close()
    database = SqliteDatabase(old.database)
    try:
        database.write_sync(lambda c: c.exec_driver_sql("UPDATE passages SET text = 'only in the write-ahead log'"))
        done = run(commands("With the service running"), RAGSVC_DATA_DIR=old.path, BACKUP=backup)
    finally:
        database.close()
    assert done.returncode == 0, done.stderr
    assert contents(backup / "ragsvc.sqlite", None) == contents(old.database, None)
    claims = contents(backup / "claims.sqlite", None)
    assert claims == contents(old.path / "claims.sqlite", None)
    assert claims["claims"]
    for name in key_files:
        assert (backup / name).read_bytes() == content
    assert {path.name for path in backup.iterdir()} == {"ragsvc.sqlite", "claims.sqlite", "blobs", *key_files}
    stored = {path.relative_to(old.path) for path in (old.path / "blobs").rglob("*")}
    assert {path.relative_to(backup) for path in (backup / "blobs").rglob("*")} == stored
    assert (backup / "ragsvc.sqlite").stat().st_mode & 0o077 == 0


def test_the_online_backup_of_an_encrypted_directory_fails_instead_of_being_incomplete(tmp_path: Path) -> None:
    old = OldDirectory("encrypted", tmp_path / "data")
    backup = tmp_path / "backup"
    backup.mkdir()
    done = run(commands("With the service running"), RAGSVC_DATA_DIR=old.path, BACKUP=backup)
    assert done.returncode != 0
    assert "file is not a database" in done.stderr
