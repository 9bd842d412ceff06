"""The schema that all migrations make in a new SQLite file, as statements: a new file needs no migration.

Running the migrations one after another on an empty file takes 0.2 s, these statements some milliseconds. They are
what SQLite itself recorded of the migrations, so the schemas are equal to the letter. After a new migration,
``python -m ragsvc.store.migrations.newest`` writes them anew; without them, the migrations run.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from ragsvc.store.migrations import FOLDER

FILE_NAME: Final = "newest_sqlite.sql"
_END: Final = ";\n"
_WRITTEN: Final = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid"


def newest_statements(folder: Path = FOLDER) -> tuple[str, ...]:
    """The statements, of which the last names their revision; none if ``folder`` has no such file."""
    file = folder / FILE_NAME
    if not file.exists():
        return ()
    return tuple(file.read_text(encoding="utf-8").removesuffix(_END).split(_END))


def record_statements(connection: sqlite3.Connection) -> Iterator[str]:
    """The statements that make the schema of a migrated file without rows."""
    yield from (str(statement) for (statement,) in connection.execute(_WRITTEN))
    for name, highest in connection.execute("SELECT name, seq FROM sqlite_sequence ORDER BY name"):
        yield f"INSERT INTO sqlite_sequence (name, seq) VALUES ('{name}', {highest})"  # noqa: S608 - a table's name
    ((revision,),) = connection.execute("SELECT version_num FROM alembic_version")
    yield f"INSERT INTO alembic_version (version_num) VALUES ('{revision}')"  # noqa: S608 - a number


def write_statements(folder: Path = FOLDER) -> None:
    """Run the migrations on an empty file and write down what they made."""
    from sqlalchemy import create_engine  # noqa: PLC0415 - only to write the file

    from ragsvc.store.migrations.run import upgrade  # noqa: PLC0415 - imports Alembic

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "migrated.sqlite")
        engine = create_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            upgrade(connection, folder=folder)
        engine.dispose()
        with closing(sqlite3.connect(path)) as made:
            text = "".join(f"{statement}{_END}" for statement in record_statements(made))
    (folder / FILE_NAME).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_statements()
