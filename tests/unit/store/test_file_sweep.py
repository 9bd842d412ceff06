"""A start makes files and database agree, and deletes nothing that the database may merely have forgotten."""

import logging
import os
import time
from datetime import date, timedelta
from pathlib import Path

import pytest

from ragsvc.core.errors import ConfigurationError
from ragsvc.core.ids import TenantId
from ragsvc.crypto.at_rest import MasterKey
from ragsvc.store import document_rows
from ragsvc.store.blobs import BlobStore
from ragsvc.store.document_rows import NewDocument
from ragsvc.store.encrypt_directory import encrypt_directory
from ragsvc.store.file_sweep import SweepReport, quarantined_files, read_known_files, sweep
from ragsvc.store.local_files import LocalFiles
from ragsvc.store.sqlite_database import SqliteDatabase

ACME = TenantId("acme")
TODAY = date(2026, 5, 20)


class Directory:
    """A data directory with stored documents."""

    def __init__(self, root: Path, *, files: LocalFiles | None = None) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.blobs = BlobStore(root, files=files)
        self.database = SqliteDatabase(root / "ragsvc.sqlite")

    def store(self, data: bytes) -> str:
        incoming = self.blobs.incoming(limit_bytes=100)
        incoming.write(data)
        sha256 = incoming.finish()
        self.blobs.publish(incoming, ACME, sha256)
        return sha256

    def add(self, data: bytes) -> str:
        """Store a document; returns its public id."""
        sha256 = self.store(data)
        public_id = f"doc_{sha256[:24]}"

        def write(connection):
            collection = document_rows.ensure_collection(connection, ACME, "default", now=1)
            document_rows.insert_document(
                connection,
                NewDocument(
                    public_id=public_id,
                    tenant=ACME,
                    collection=collection,
                    filename="a.txt",
                    media_type="text/plain",
                    size_bytes=len(data),
                    sha256=sha256,
                    metadata={},
                    created_at=1,
                ),
            )

        self.database.write_sync(write)
        return public_id

    def delete(self, public_id: str, *, now: int) -> None:
        self.database.write_sync(lambda c: document_rows.delete_document(c, ACME, public_id, now=now))

    def files(self) -> list[bytes]:
        return sorted(path.read_bytes() for path in self.blobs.folder.rglob("*") if path.is_file())

    def quarantined(self) -> list[bytes]:
        return sorted(path.read_bytes() for path in quarantined_files(self.root))

    def sweep(self, *, today: date = TODAY, keep_days: int = 30) -> SweepReport:
        return sweep(self.blobs, self.database.read_sync(read_known_files), today=today, keep_days=keep_days)

    def new_database(self) -> None:
        """Move the database away, and open a new one in its place."""
        self.database.close()
        (self.root / "ragsvc.sqlite").rename(self.root / "moved")
        self.database = SqliteDatabase(self.root / "ragsvc.sqlite")

    def old_database(self) -> None:
        self.database.close()
        (self.root / "moved").rename(self.root / "ragsvc.sqlite")
        self.database = SqliteDatabase(self.root / "ragsvc.sqlite")


@pytest.fixture
def directory(tmp_path: Path):
    made = Directory(tmp_path)
    yield made
    made.database.close()


def test_an_unknown_file_goes_to_quarantine_and_is_logged(directory, caplog) -> None:
    directory.add(b"known")
    sha256 = directory.store(b"unknown")
    unfinished = directory.blobs.incoming(limit_bytes=10)
    unfinished.write(b"torn")
    assert directory.sweep() == SweepReport(quarantined=1)
    unfinished.discard()
    assert not any((directory.root / "uploads").iterdir())
    assert (directory.files(), directory.quarantined()) == ([b"known"], [b"unknown"])
    assert sum(sha256 in record.getMessage() for record in caplog.records) == 1


def test_a_new_database_touches_no_file(directory, caplog) -> None:
    for number in range(40):
        directory.add(b"%d" % number)
    directory.new_database()
    for _ in range(2):
        assert directory.sweep(today=TODAY + timedelta(days=400)) == SweepReport(refused=40)
    assert (len(directory.files()), directory.quarantined()) == (40, [])
    assert any(
        record.levelno == logging.ERROR and "40 stored files" in record.getMessage() for record in caplog.records
    )


def test_a_new_database_in_which_a_document_was_stored_touches_no_old_file(directory) -> None:
    for number in range(40):
        directory.add(b"%d" % number)
    directory.new_database()
    directory.add(b"first of the new database")
    assert directory.sweep() == SweepReport(refused=40)
    assert len(directory.files()) == 41


def test_an_older_database_deletes_nothing_and_the_newer_one_gets_its_files_back(directory) -> None:
    for number in range(30):
        directory.add(b"%d" % number)
    directory.database.close()
    older = (directory.root / "ragsvc.sqlite").read_bytes()
    directory.database = SqliteDatabase(directory.root / "ragsvc.sqlite")
    directory.add(b"newer")
    directory.database.close()
    (directory.root / "ragsvc.sqlite").rename(directory.root / "moved")
    (directory.root / "ragsvc.sqlite").write_bytes(older)
    directory.database = SqliteDatabase(directory.root / "ragsvc.sqlite")
    assert directory.sweep() == SweepReport(quarantined=1)
    assert directory.quarantined() == [b"newer"]
    directory.old_database()
    assert directory.sweep() == SweepReport(restored=1)
    assert (len(directory.files()), directory.quarantined()) == (31, [])


def test_quarantine_has_an_age_limit(directory, caplog) -> None:
    directory.add(b"known")
    directory.store(b"unknown")
    directory.sweep()
    (directory.root / "quarantine" / "notes").mkdir()
    (directory.root / "quarantine" / "notes" / "mine.txt").write_text("of the operator")
    assert directory.sweep(today=TODAY + timedelta(days=400), keep_days=0) == SweepReport()
    assert directory.sweep(today=TODAY + timedelta(days=30)) == SweepReport()
    caplog.clear()
    assert directory.sweep(today=TODAY + timedelta(days=31)) == SweepReport(expired=1)
    assert "quarantine for more than 30 days" in caplog.text
    assert directory.quarantined() == []
    assert (directory.root / "quarantine" / "notes" / "mine.txt").exists()


def test_encryption_refuses_files_without_a_document(directory) -> None:
    pytest.importorskip("sqlcipher3")
    directory.add(b"known")
    directory.store(b"unknown")
    for _ in range(2):
        directory.database.close()
        with pytest.raises(ConfigurationError, match=r"1 stored files of .* belong to no document"):
            encrypt_directory(directory.root, MasterKey.from_bytes(bytes(range(32)).hex().encode()))
        directory.database = SqliteDatabase(directory.root / "ragsvc.sqlite")
        directory.sweep()  # in quarantine, it would not be encrypted either
    assert (directory.files(), directory.quarantined()) == ([b"known"], [b"unknown"])


def test_the_file_of_a_deleted_document_is_removed_after_a_kill(directory) -> None:
    document = directory.add(b"deleted")
    directory.add(b"kept")
    directory.delete(document, now=int(time.time()))  # the process is killed before it removes the file
    assert directory.sweep() == SweepReport(removed=1)
    assert (directory.files(), directory.quarantined()) == ([b"kept"], [])


def test_bytes_that_were_stored_again_after_the_deletion_are_not_removed(directory) -> None:
    document = directory.add(b"deleted and stored again")
    directory.add(b"kept")
    directory.delete(document, now=int(time.time()) - 1000)
    (path,) = [path for path in directory.blobs.folder.rglob("*") if path.is_file() and b"again" in path.read_bytes()]
    os.utime(path)  # an older copy of the database was restored: it knows the deletion, not the later upload
    assert directory.sweep() == SweepReport(quarantined=1)
    again = directory.add(b"deleted and stored again")
    directory.delete(again, now=int(time.time()))
    directory.add(b"deleted and stored again")
    assert directory.sweep() == SweepReport()
    assert len(directory.files()) == 2


class ElsewhereFiles(LocalFiles):
    """A folder outside of the data directory, in which another process may be storing a file."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, is_elsewhere=True)


def test_a_file_elsewhere_that_may_be_arriving_is_left_until_it_is_an_hour_old(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "data", files=ElsewhereFiles(tmp_path / "shared"))
    directory.add(b"known")
    sha256 = directory.store(b"the row of this file is not committed yet")
    assert directory.sweep() == SweepReport()
    path = directory.blobs.path(ACME, sha256)
    os.utime(path, (time.time() - 3700, time.time() - 3700))
    assert directory.sweep() == SweepReport(quarantined=1)
    assert not path.exists()
    public_id = directory.add(b"the row of this file is not committed yet")
    directory.blobs.remove(ACME, sha256)
    assert directory.sweep() == SweepReport(restored=1)
    assert path.read_bytes() == b"the row of this file is not committed yet"
    directory.delete(public_id, now=int(time.time()))
    assert directory.sweep() == SweepReport(removed=1)
    directory.database.close()
