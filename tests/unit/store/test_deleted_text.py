"""Deleted text leaves the database's files soon, and the index log does not grow for ever."""

import logging
import shutil
import time
from pathlib import Path

import anyio

from ragsvc.core.retrieval.search_values import SearchMode
from ragsvc.store.sqlite_database import SqliteDatabase
from tests.support.in_process_ingest import InProcessIngest
from tests.support.stored_documents import ACME

SECRET = b"the-walrus-of-the-third-harbour"


def holds_secret(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_file() and SECRET in path.read_bytes()]


def wait_until_gone(folder: Path) -> None:
    deadline = time.monotonic() + 30
    while holds_secret(folder):
        assert time.monotonic() < deadline, holds_secret(folder)
        time.sleep(0.05)


def test_deleted_text_leaves_the_write_ahead_log_while_the_database_is_open(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "ragsvc.sqlite", truncate_after_s=0.3)
    database.write_sync(lambda c: c.exec_driver_sql("CREATE TABLE t (x TEXT)"))
    database.write_sync(lambda c: c.exec_driver_sql("INSERT INTO t VALUES (?)", (SECRET.decode() * 100,)))
    assert holds_secret(tmp_path)
    database.write_sync(lambda c: c.exec_driver_sql("DELETE FROM t"))
    wait_until_gone(tmp_path)
    database.write_sync(lambda c: c.exec_driver_sql("INSERT INTO t VALUES ('still works')"))
    assert database.read_sync(lambda c: c.exec_driver_sql("SELECT x FROM t").scalar_one()) == "still works"
    database.close()


def test_deleted_text_leaves_the_write_ahead_log_of_a_killed_process(tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    database = SqliteDatabase(tmp_path / "ragsvc.sqlite")
    database.write_sync(lambda c: c.exec_driver_sql("CREATE TABLE t (x TEXT)"))
    database.write_sync(lambda c: c.exec_driver_sql("INSERT INTO t VALUES (?)", (SECRET.decode() * 100,)))
    database.write_sync(lambda c: c.exec_driver_sql("DELETE FROM t"))
    for name in ("ragsvc.sqlite", "ragsvc.sqlite-wal"):
        shutil.copy(tmp_path / name, killed / name)
    database.close()
    assert holds_secret(killed)
    database = SqliteDatabase(killed / "ragsvc.sqlite", truncate_after_s=0.1)
    wait_until_gone(killed)
    database.close()


def log_entries(service: InProcessIngest) -> int:
    return service.database.read_sync(lambda c: c.exec_driver_sql("SELECT count(*) FROM index_log").scalar_one())


def test_the_log_keeps_only_what_an_index_on_disk_still_needs(tmp_path: Path, caplog) -> None:
    folder = tmp_path / "data"

    async def main() -> None:
        service = InProcessIngest(folder)
        service.indexes.prunes_log = True
        async with service.running():
            for number in range(8):
                document = await service.add(f"Walrus {number} sleeps.", filename=f"{number}.txt")
                if number == 3:
                    shutil.copytree(folder / "derived", tmp_path / "older", ignore=shutil.ignore_patterns("live-*"))
            await service.documents.delete(ACME, document.public_id)
            assert log_entries(service) == 9
        for _ in range(2):  # a second start needs no entry either
            service = InProcessIngest(folder)
            async with service.running():
                assert log_entries(service) == 1
                assert len(await service.found("walrus", mode=SearchMode.LEXICAL)) == 7
                assert len(await service.found("walrus", mode=SearchMode.DENSE)) == 7
                assert service.indexes.verify(1).ok
        assert "built again" not in caplog.text

        shutil.rmtree(folder / "derived")
        shutil.copytree(tmp_path / "older", folder / "derived")  # indexes from before the entries that were pruned
        service = InProcessIngest(folder)
        async with service.running():
            added = await service.add("Walrus 9 sleeps.", filename="9.txt")
            assert len(await service.found("walrus")) == 8
            assert service.indexes.verify(1).ok
            await service.documents.delete(ACME, added.public_id)
            assert len(await service.found("walrus")) == 7
        assert "built again" in caplog.text

    caplog.set_level(logging.WARNING)
    anyio.run(main)
