"""Kills the real service while it upgrades a data directory of an earlier release, and checks what is left."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from ragsvc.store.data_keys import DATABASE_FILE_NAME
from ragsvc.store.database import driver_connection
from ragsvc.store.migrations import revisions
from ragsvc.store.schema import read_revision
from ragsvc.store.sqlite_database import SqliteDatabase, connect_raw
from ragsvc.store.text_integrity import damaged_texts
from ragsvc.testing.preloaded_service import ForkedService, PreloadedProcess
from ragsvc.testing.service_runner import ROOT

OLD_DIRECTORY: Final = ROOT / "fixtures" / "data_directories" / "before_migrations" / "plain"
_OLD_REVISION: Final = "0001"
_LONGEST_DELAY_S: Final = 0.4
"""From the line of the log that announces the upgrade; about twice as long as the upgrade on a quiet machine."""
_ROWS: Final = {
    table: f"SELECT count(*) FROM {table}"  # noqa: S608 - names of this table
    for table in ("documents", "pages", "passages", "collections", "api_keys")
}


class UpgradeKills:
    """Kills upgrades of one directory until one has ended, then begins with a fresh copy of the old directory."""

    def __init__(self, preloaded: PreloadedProcess, *, scratch: Path, chance: random.Random) -> None:
        self._preloaded = preloaded
        self._scratch = scratch
        self._chance = chance
        self._directory = scratch / "upgraded"
        self._old_rows = _rows(OLD_DIRECTORY / DATABASE_FILE_NAME, scratch)
        self.kills = 0
        self.interrupted = 0
        """Kills that left the old schema, after the upgrade had begun."""

    def kill_once(self) -> list[str]:
        """Start the service on the old directory and kill it while it upgrades; returns what was lost."""
        if not self._directory.exists():
            shutil.copytree(OLD_DIRECTORY, self._directory)
        service = ForkedService(self._preloaded, self._directory, scratch=self._scratch, await_ready=False)
        try:
            _wait_until(lambda: "upgrading" in service.errors() or not service.is_running())
            time.sleep(self._chance.uniform(0, _LONGEST_DELAY_S))
        finally:
            service.kill()
        self.kills += 1
        return self._check()

    def _check(self) -> list[str]:
        database = self._directory / DATABASE_FILE_NAME
        copy = self._scratch / "upgrade-copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self._directory, copy, ignore=shutil.ignore_patterns("*.lock", "*.pid"))
        try:
            return self._check_copy(copy / database.name)
        finally:
            shutil.rmtree(copy)

    def _check_copy(self, path: Path) -> list[str]:
        with closing(connect_raw(path, key=None)) as connection:
            revision = read_revision(connection)
        if revision == _OLD_REVISION:
            self.interrupted += 1
        elif revision != revisions()[-1]:
            return [f"an upgrade that was killed left schema {revision}"]
        else:
            shutil.rmtree(self._directory)
            copy_of_old = path.with_name(f"{path.name}.before-{revisions()[1]}")
            if _rows(copy_of_old, self._scratch) != self._old_rows:
                return ["the copy that an upgrade made of the old database lacks rows"]
        upgraded = SqliteDatabase(path)
        try:
            damaged = upgraded.read_sync(lambda connection: list(damaged_texts(driver_connection(connection))))
            dangling = upgraded.read_sync(lambda c: c.exec_driver_sql("PRAGMA foreign_key_check").all())
        finally:
            upgraded.close()
        problems = [f"an upgrade damaged the text of {text.kind} {text.page}" for text in damaged]
        if dangling:
            problems.append(f"an upgrade left {len(dangling)} rows that refer to nothing")
        if (rows := _rows(path, self._scratch)) != self._old_rows:
            problems.append(f"an upgrade that was killed left {rows} rows of {self._old_rows}")
        return problems


def _rows(database: Path, scratch: Path) -> dict[str, int]:
    """Rows per table of a database that is not open; a copy is read, so that the file does not change."""
    copy = scratch / "counted.sqlite"
    shutil.copyfile(database, copy)
    try:
        with closing(sqlite3.connect(copy)) as connection:
            return {table: connection.execute(statement).fetchone()[0] for table, statement in _ROWS.items()}
    finally:
        for file in scratch.glob(f"{copy.name}*"):
            file.unlink()


def _wait_until(is_so: Callable[[], bool], *, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.005)
