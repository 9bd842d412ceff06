"""A PostgreSQL server of the tests: started from installed binaries, in a folder of its own, without fsync."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ragsvc.store.postgres_database import PostgresDatabase

if TYPE_CHECKING:
    from psycopg.sql import Composed

_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum": "off",
}


def server_binaries() -> Path | None:
    """The folder of the newest server that is installed; Debian's is not on the path."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[-1].parent
    found = shutil.which("postgres")
    return None if found is None else Path(found).resolve().parent


def _account() -> str | None:
    """The server refuses to run as root."""
    if os.geteuid():
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


class PostgresServer:
    """A server that ends with this process. Databases are copies of one that has the schema."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._names = itertools.count(1)
        self._account = _account()
        self.folder = Path(tempfile.mkdtemp(prefix="ragsvc-postgres-"))
        if self._account is not None:
            shutil.chown(self.folder, self._account)
        self._data = self.folder / "data"
        command = [binaries / "initdb", "-D", self._data, "-U", "ragsvc", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run([*command, "--locale=C.UTF-8"], user=self._account, check=True, capture_output=True, timeout=120)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self._has_template = False

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        import psycopg  # noqa: PLC0415 - an optional package

        options = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        ends_with_parent = ["setpriv", "--pdeathsig", "QUIT"] if shutil.which("setpriv") else []
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*ends_with_parent, self._binaries / "postgres", "-D", self._data, "-k", self.folder, *options],
                user=self._account,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End the server and all connections at once, without a clean shutdown."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(60)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str) -> str:
        return f"postgresql://ragsvc@/{database}?host={quote(str(self.folder), safe='')}"

    def execute(self, statement: Composed) -> None:
        """Run a statement about databases."""
        import psycopg  # noqa: PLC0415 - an optional package

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def new_database(self, *, empty: bool = False) -> str:
        """The URL of a new database with the schema, or of an empty one."""
        from psycopg import sql  # noqa: PLC0415 - an optional package

        if not self._has_template and not empty:
            self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier("template")))
            PostgresDatabase(self.url("template")).close()
            self._has_template = True
        name = f"test{next(self._names)}"
        template = sql.Identifier("template0" if empty else "template")
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), template))
        return self.url(name)
