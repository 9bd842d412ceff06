"""Backups of data directories that an earlier release wrote: complete, incremental, verified, and consistent."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from ragsvc.core.access.api_keys import ApiKey
from ragsvc.core.errors import BackupDamaged, ConfigurationError, Conflict, DataDirectoryLocked
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.crypto.at_rest import MasterKey
from ragsvc.store.backup_archive import PIECE_BYTES, BackupArchive
from ragsvc.store.data_keys import open_data_keys
from ragsvc.store.directory_backup import back_up_directory, restore_directory
from ragsvc.store.directory_lock import DataDirectoryLock
from ragsvc.store.encrypt_directory import rotate_master_key
from ragsvc.store.key_rows import insert_key
from ragsvc.store.session_rows import SessionGrant, add_link, add_session
from ragsvc.store.sqlite_database import SqliteDatabase, connect_raw
from ragsvc.testing.service_runner import ROOT
from tests.support.old_data_directories import KINDS, OldDirectory


def keys_of(old: OldDirectory):
    master = None if old.master_key is None else MasterKey.from_bytes(old.master_key.encode())
    return open_data_keys(old.path, master)


def stored_files(data_dir: Path) -> dict[str, bytes]:
    """All files but the databases, which a copy may store differently."""
    return {
        str(path.relative_to(data_dir)): path.read_bytes()
        for path in sorted(data_dir.rglob("*"))
        if path.is_file() and not path.name.startswith(("ragsvc.", "claims."))
    }


def rows(path: Path, key: bytes | None) -> dict[str, list]:
    with closing(connect_raw(path, key=key)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        return {
            table: sorted(connection.execute(" ".join(("SELECT * FROM", table))).fetchall(), key=repr)
            for (table,) in tables
            if table != "sqlite_sequence"
        }


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_directory_has_every_row_every_file_and_every_key(kind: str, tmp_path: Path) -> None:
    old = OldDirectory(kind, tmp_path / "data")
    key = old.database_key
    database = SqliteDatabase(old.database, key=key)  # open, as in a running service
    try:
        database.write_sync(lambda c: c.exec_driver_sql("UPDATE passages SET text = 'only in the write-ahead log'"))
        made = back_up_directory(old.path, keys_of(old), tmp_path / "backup")
    finally:
        database.close()
    restored = tmp_path / "elsewhere" / "data"
    manifest = restore_directory(tmp_path / "backup", restored)
    assert manifest == made.manifest
    assert manifest.encrypted is (kind == "encrypted")
    assert manifest.missing == ()
    assert rows(restored / "ragsvc.sqlite", key) == rows(old.database, key)
    assert rows(restored / "claims.sqlite", None) == rows(old.path / "claims.sqlite", None)
    expected = {name: content for name, content in stored_files(old.path).items() if not name.startswith("derived/")}
    assert stored_files(restored) == expected
    assert len(expected) > 3
    for path in (restored, *restored.rglob("*")):
        assert path.is_dir() or path.name == "ragsvc.lock" or path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_backup_has_no_sessions_of_the_web_pages(kind: str, tmp_path: Path) -> None:
    """A restore would open sessions again that were ended after the backup."""
    old = OldDirectory(kind, tmp_path / "data")
    key = old.database_key
    grant = {"key_id": "key_0123456789ab", "secret_hash": b"s" * 32, "created_at": 1, "expires_at": 2_000_000_000}

    def open_session(connection) -> None:
        key = ApiKey(id=KeyId(grant["key_id"]), tenant=TenantId("acme"), label="pages", secret_hash=b"s" * 32)
        insert_key(connection, key)
        add_session(connection, SessionGrant(token_hash=b"t" * 32, **grant), keep=9)
        add_link(connection, SessionGrant(token_hash=b"c" * 32, **grant), keep=9)

    database = SqliteDatabase(old.database, key=key)
    try:
        database.write_sync(open_session)
        back_up_directory(old.path, keys_of(old), tmp_path / "backup")
        restored = tmp_path / "elsewhere" / "data"
        restore_directory(tmp_path / "backup", restored)
        kept = rows(restored / "ragsvc.sqlite", key)
        assert (kept["web_sessions"], kept["session_links"]) == ([], [])
        assert b"t" * 32 not in (restored / "ragsvc.sqlite").read_bytes()
        there = rows(old.database, key)
        assert len(there["web_sessions"]) == len(there["session_links"]) == 1, "the service goes on with its sessions"
        assert kept["api_keys"] == there["api_keys"]
    finally:
        database.close()


def test_a_second_snapshot_stores_only_what_changed_and_old_ones_can_be_removed(tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    database = SqliteDatabase(old.database)
    try:
        with database.path.open("rb") as file:
            assert len(file.read()) > 0
        database.write_sync(lambda c: c.exec_driver_sql("CREATE TABLE filler (content BLOB)"))
        for number in range(40):
            database.write_sync(
                lambda c, n=number: c.exec_driver_sql("INSERT INTO filler VALUES (?)", (bytes([n]) * 200_000,))
            )
        first = back_up_directory(old.path, None, tmp_path / "backup")
        again = back_up_directory(old.path, None, tmp_path / "backup")
        assert first.written_bytes > 8_000_000
        assert again.written_bytes <= 2 * PIECE_BYTES  # the header of the database at most
        database.write_sync(lambda c: c.exec_driver_sql("DELETE FROM filler WHERE rowid > 1"))
        database.write_sync(lambda c: c.exec_driver_sql("UPDATE passages SET text = 'changed'"))
        third = back_up_directory(old.path, None, tmp_path / "backup", keep=1)
    finally:
        database.close()
    ids = [first.manifest.id, again.manifest.id]
    assert third.removed == ids
    assert len({*ids, third.manifest.id}) == 3
    archive = BackupArchive(tmp_path / "backup")
    assert [manifest.id for manifest in archive.manifests()] == [third.manifest.id]
    used = {piece for file in third.manifest.files for piece in file.pieces}
    assert {path.name for path in (tmp_path / "backup" / "pieces").glob("??/*")} == used
    restore_directory(tmp_path / "backup", tmp_path / "restored")
    assert rows(tmp_path / "restored" / "ragsvc.sqlite", None) == rows(old.database, None)
    with pytest.raises(ConfigurationError, match="no snapshot"):
        restore_directory(tmp_path / "backup", tmp_path / "other", snapshot=first.manifest.id)


def test_files_of_an_encrypted_directory_are_copied_once_and_again_after_a_new_master_key(tmp_path: Path) -> None:
    old = OldDirectory("encrypted", tmp_path / "data")
    backup = tmp_path / "backup"
    first = back_up_directory(old.path, keys_of(old), backup)
    blobs = {file.path: file.pieces for file in first.manifest.files if file.path.startswith("blobs/")}
    assert blobs
    second = back_up_directory(old.path, keys_of(old), backup)
    assert second.written_bytes < first.written_bytes
    assert {file.path: file.pieces for file in second.manifest.files if file.path in blobs} == blobs
    new = MasterKey(b"\x05" * 32)
    rotate_master_key(old.path, MasterKey.from_bytes(old.master_key.encode()), new)
    third = back_up_directory(old.path, open_data_keys(old.path, new), backup)
    changed = {file.path for file in third.manifest.files if file.path in blobs and file.pieces != blobs[file.path]}
    assert changed == set(blobs)
    restore_directory(backup, tmp_path / "restored")
    keys = open_data_keys(tmp_path / "restored", new)
    assert rows(tmp_path / "restored" / "ragsvc.sqlite", keys.database_key)["documents"]
    for content in (path.read_bytes() for path in backup.rglob("*") if path.is_file()):
        assert b"CREATE TABLE documents" not in content


@pytest.mark.parametrize("moment", [1, 2])
def test_a_document_that_is_deleted_during_the_backup_is_in_neither_rows_nor_files(moment: int, tmp_path: Path) -> None:
    """The row disappears after it was read, and its file before it is copied: the worst moment."""
    old = OldDirectory("plain", tmp_path / "data")
    with closing(connect_raw(old.database, key=None)) as connection:
        tenant, first = connection.execute("SELECT tenant, sha256 FROM documents ORDER BY id LIMIT 1").fetchone()
    late = "ab" * 32  # the content of the document from the second reading of the rows on
    readings = 0

    def place(sha256: str) -> Path:
        return old.path / "blobs" / tenant / sha256[:2] / sha256

    def change_then_delete() -> None:
        nonlocal readings
        readings += 1
        with closing(connect_raw(old.database, key=None)) as other:
            if readings == moment - 1:
                place(late).parent.mkdir(exist_ok=True)
                place(first).rename(place(late))
                other.execute("UPDATE documents SET sha256 = ? WHERE sha256 = ?", (late, first))
            if readings == moment:
                victim = first if moment == 1 else late
                other.execute("DELETE FROM documents WHERE sha256 = ?", (victim,))
                place(victim).unlink()

    made = back_up_directory(old.path, None, tmp_path / "backup", on_rows_read=change_then_delete)
    assert readings == moment + 1
    assert made.manifest.missing == ()
    assert made.manifest.documents == 3
    restore_directory(tmp_path / "backup", tmp_path / "restored")
    shas = {path.name for path in (tmp_path / "restored" / "blobs").glob("*/??/*")}
    assert {row[0] for row in references(tmp_path / "restored" / "ragsvc.sqlite")} == shas
    assert not shas & {first, late}


def references(path: Path) -> list:
    with closing(connect_raw(path, key=None)) as connection:
        return connection.execute("SELECT DISTINCT sha256 FROM documents").fetchall()


def test_a_file_that_was_lost_before_is_reported_and_does_not_stop_the_backup(tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    lost = next(old.path.glob("blobs/*/??/*"))
    lost.unlink()
    made = back_up_directory(old.path, None, tmp_path / "backup")
    assert made.manifest.missing == (str(lost.relative_to(old.path)),)


def test_a_damaged_backup_is_refused_and_leaves_no_data_directory(tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    made = back_up_directory(old.path, None, tmp_path / "backup")
    piece = next(file for file in made.manifest.files if file.path.startswith("blobs/")).pieces[0]
    path = tmp_path / "backup" / "pieces" / piece[:2] / piece
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    with pytest.raises(BackupDamaged, match="other content"):
        restore_directory(tmp_path / "backup", tmp_path / "restored")
    assert not (tmp_path / "restored" / "ragsvc.sqlite").exists()
    path.unlink()
    with pytest.raises(BackupDamaged, match="is missing"):
        restore_directory(tmp_path / "backup", tmp_path / "restored")
    repaired = back_up_directory(old.path, None, tmp_path / "backup")  # the next backup stores the piece again
    assert repaired.written_bytes >= len(content)
    restore_directory(tmp_path / "backup", tmp_path / "restored")  # and the interrupted restore is repeated
    assert stored_files(tmp_path / "restored") == {
        name: content for name, content in stored_files(old.path).items() if not name.startswith("derived/")
    }


BACK_UP = """
import sys
from pathlib import Path
from ragsvc.store.directory_backup import back_up_directory

print("begun", flush=True)
made = back_up_directory(Path(sys.argv[1]), None, Path(sys.argv[2]), keep=2)
print(made.manifest.id, flush=True)
"""


def test_a_backup_that_is_killed_at_any_moment_leaves_the_earlier_ones_whole(tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    backup = tmp_path / "backup"
    chance = random.Random(7)  # noqa: S311 - moments of a test
    killed = finished = 0
    database = SqliteDatabase(old.database)
    try:
        database.write_sync(lambda c: c.exec_driver_sql("CREATE TABLE filler (content BLOB)"))
        for round_number in range(12):
            database.write_sync(
                lambda c: c.exec_driver_sql("INSERT INTO filler VALUES (?)", (chance.randbytes(3_000_000),))
            )
            command = [sys.executable, "-c", BACK_UP, str(old.path), str(backup)]
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "begun\n"
                if round_number % 4:
                    time.sleep(chance.uniform(0, 0.15))
                    process.kill()
                process.wait(60)
            killed += process.returncode == -9
            finished += process.returncode == 0
            if not finished:
                continue
            target = tmp_path / f"restored-{round_number}"
            manifest = restore_directory(backup, target)
            with closing(connect_raw(target / "ragsvc.sqlite", key=None)) as connection:
                assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
                assert connection.execute("SELECT count(*) FROM documents").fetchone()[0] == manifest.documents
            shutil.rmtree(target)
        last = back_up_directory(old.path, None, backup, keep=1)
    finally:
        database.close()
    assert killed >= 4
    assert finished >= 3
    used = {piece for file in last.manifest.files for piece in file.pieces}
    assert {path.name for path in (backup / "pieces").glob("??/*")} == used
    expected = {"pieces", "snapshots", "ragsvc-backup.json", "backup.lock"}
    assert {path.name for path in backup.iterdir()} <= expected  # no temporary file is left


def test_a_restore_that_was_interrupted_between_its_last_steps_is_repeated(tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    back_up_directory(old.path, None, tmp_path / "backup")
    restored = tmp_path / "restored"
    restore_directory(tmp_path / "backup", restored)
    staging = restored / "restore.partial"
    staging.mkdir()
    (restored / "ragsvc.sqlite").rename(staging / "ragsvc.sqlite")  # as if killed before the last rename
    restore_directory(tmp_path / "backup", restored)
    assert rows(restored / "ragsvc.sqlite", None) == rows(old.database, None)
    assert not staging.exists()


def test_places_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    foreign = tmp_path / "documents"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="other files"):
        back_up_directory(old.path, None, foreign)
    with pytest.raises(ConfigurationError, match="inside the data directory"):
        back_up_directory(old.path, None, old.path / "backup")
    with pytest.raises(ConfigurationError, match="no database"):
        back_up_directory(foreign, None, tmp_path / "backup")
    with pytest.raises(ConfigurationError, match="no backup"):
        restore_directory(foreign, tmp_path / "restored")
    back_up_directory(old.path, None, tmp_path / "backup")
    with pytest.raises(ConfigurationError, match="not empty"):
        restore_directory(tmp_path / "backup", foreign)
    with pytest.raises(ConfigurationError, match="not empty"):
        restore_directory(tmp_path / "backup", old.path)
    assert (foreign / "thesis.txt").read_text() == "mine"
    busy = DataDirectoryLock(tmp_path / "busy")
    busy.acquire()
    try:
        with pytest.raises(DataDirectoryLocked):
            restore_directory(tmp_path / "backup", tmp_path / "busy")
    finally:
        busy.release()
    with BackupArchive(tmp_path / "backup").locked(), pytest.raises(Conflict):
        back_up_directory(old.path, None, tmp_path / "backup")


def test_a_manifest_cannot_write_outside_the_restored_directory(tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    made = back_up_directory(old.path, None, tmp_path / "backup")
    path = tmp_path / "backup" / "snapshots" / f"{made.manifest.id}.json"
    changed = json.loads(path.read_text())
    changed["files"][0]["path"] = "../outside"
    path.write_text(json.dumps(changed))
    with pytest.raises(ConfigurationError, match="outside"):
        restore_directory(tmp_path / "backup", tmp_path / "restored")
    shutil.rmtree(tmp_path / "restored")
    changed["files"] = "none"
    path.write_text(json.dumps(changed))
    with pytest.raises(BackupDamaged):
        restore_directory(tmp_path / "backup", tmp_path / "restored")


def snapshot_ids(archive: Path) -> list[str]:
    return [manifest.id for manifest in BackupArchive(archive).manifests()]


def forget_directories(archive: Path) -> None:
    """Make the archive one of an earlier release, which noted no directories."""
    marker = archive / "ragsvc-backup.json"
    marker.write_text(json.dumps({"format": json.loads(marker.read_text())["format"], "object": "ragsvc.backup"}))
    for path in (archive / "snapshots").iterdir():
        manifest = json.loads(path.read_text())
        files = [file for file in manifest["files"] if file["path"] != "directory.id"]
        path.write_text(
            json.dumps({**manifest, "files": files, "directory_id": None, "data_dir": None}, separators=(",", ":"))
        )


def test_an_archive_refuses_another_directory_whose_backup_would_remove_its_snapshots(tmp_path: Path) -> None:
    first, other = (OldDirectory("plain", tmp_path / name) for name in ("first", "other"))
    archive = tmp_path / "backup"
    made = back_up_directory(first.path, None, archive)
    before = {path: path.read_bytes() for path in archive.rglob("*") if path.is_file()}
    with pytest.raises(ConfigurationError) as refused:
        back_up_directory(other.path, None, archive, keep=1)
    for words in (str(first.path), str(other.path), "--same-directory"):
        assert words in str(refused.value)
    assert {path: path.read_bytes() for path in archive.rglob("*") if path.is_file()} == before
    assert snapshot_ids(archive) == [made.manifest.id]
    back_up_directory(other.path, None, tmp_path / "elsewhere")  # a refused directory can have its own archive
    moved = tmp_path / "moved"
    first.path.rename(moved)
    again = back_up_directory(moved, None, archive, keep=1)
    assert (snapshot_ids(archive), again.manifest.data_dir) == ([again.manifest.id], str(moved))


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_directory_continues_its_archive(kind: str, tmp_path: Path) -> None:
    old = OldDirectory(kind, tmp_path / "data")
    archive = tmp_path / "backup"
    keys = keys_of(old)
    back_up_directory(old.path, keys, archive)
    forget_directories(archive)
    (old.path / "directory.id").unlink()
    adopted = back_up_directory(old.path, keys, archive)
    ids = snapshot_ids(archive)
    assert (len(ids), ids[-1]) == (2, adopted.manifest.id)
    other = OldDirectory("plain", tmp_path / "other")
    with pytest.raises(ConfigurationError, match="another"):
        back_up_directory(other.path, None, archive)
    for number, snapshot in enumerate(ids):  # the first has no id: an earlier release made it
        restored = tmp_path / f"restored {number}"
        restore_directory(archive, restored, snapshot=snapshot)
        assert back_up_directory(restored, keys, archive).manifest.directory_id == adopted.manifest.directory_id
    (old.path / "directory.id").unlink()  # as in a copy by hand of only some files
    with pytest.raises(ConfigurationError, match="--same-directory"):
        back_up_directory(old.path, keys, archive)
    back_up_directory(old.path, keys, archive, same_directory=True)
    back_up_directory(old.path, keys, archive)
    back_up_directory(restored, keys, archive)
    assert len(snapshot_ids(archive)) == 7


def test_a_directory_that_takes_no_id_is_backed_up_into_archives_that_belong_to_no_other(tmp_path: Path) -> None:
    """A full disk takes no file either; a link to nowhere fails in the same way for every user."""
    old, other = (OldDirectory("plain", tmp_path / name) for name in ("data", "other"))
    (old.path / "directory.id").symlink_to(tmp_path / "missing" / "directory.id")
    assert back_up_directory(old.path, None, tmp_path / "backup").manifest.directory_id is None
    back_up_directory(other.path, None, tmp_path / "others")
    with pytest.raises(ConfigurationError, match="another"):
        back_up_directory(old.path, None, tmp_path / "others")
    (old.path / "directory.id").unlink()
    (old.path / "directory.id").write_text("")
    with pytest.raises(ConfigurationError, match=r"directory\.id holds no id"):
        back_up_directory(old.path, None, tmp_path / "backup")
