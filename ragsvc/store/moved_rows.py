"""Notes in a database whose rows are being moved to another database, or were.

With them, no service serves part of the rows, or rows that have changed elsewhere since.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, delete, select

from ragsvc.core.errors import ConfigurationError
from ragsvc.store.engines import engine_of
from ragsvc.store.tables import ServiceStateRow, table_of

INCOMPLETE: Final = "rows are being moved here"
"""Its value is a number of the data directory whose rows they are."""
GONE: Final = "rows were moved elsewhere"
"""Its value is the Unix time of the move."""
LEFT_BY: Final = "the data directory of the rows that were moved"
"""Its value is the number of that directory."""
MOVE_NOTES: Final = (INCOMPLETE, GONE, LEFT_BY)
_state = table_of(ServiceStateRow)


def read_note(connection: Connection, name: str) -> int | None:
    """The value of a note; ``None`` if there is no such note."""
    found: int | None = connection.execute(select(_state.c.value).where(_state.c.name == name)).scalar_one_or_none()
    return found


def write_note(connection: Connection, name: str, value: int) -> None:
    connection.execute(engine_of(connection).upsert(_state, {"name": name, "value": value}, {"value": value}))


def remove_note(connection: Connection, name: str) -> None:
    connection.execute(delete(_state).where(_state.c.name == name))


def require_all_rows(connection: Connection) -> None:
    """Raise ``ConfigurationError`` unless the database has all rows, and has them alone."""
    if read_note(connection, INCOMPLETE) is not None:
        raise ConfigurationError(
            ["this database holds a part of the rows, because a move was interrupted: run 'ragsvc migrate-to' again"]
        )
    gone = read_note(connection, GONE)
    if gone is not None:
        day = datetime.fromtimestamp(gone, UTC).date().isoformat()
        problem = f"the rows of this database were moved to another one on {day}: set RAGSVC_DATABASE_URL to that one"
        raise ConfigurationError([f"{problem}, or unset it for the file in the data directory"])
