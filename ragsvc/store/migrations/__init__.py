"""The database schema as numbered migrations, applied by Alembic; this package itself does not import Alembic.

A migration is a file ``versions/NNNN_what_it_does.py``. The file names are the only list of revisions: the newest
number is the schema that this release needs.

How to add a migration:

1. Change the table in ``ragsvc/store/tables.py`` (or wherever the model is).
2. Add ``versions/NNNN_what_it_does.py`` with the next number. ``revision`` equals the number in the file name and
   ``down_revision`` equals the number before it.
3. Write ``upgrade()`` with ``alembic.op`` and ``sqlalchemy`` only. Do not import models: they change later, the
   migration does not. A released migration is never edited.
4. Write statements that SQLite and PostgreSQL understand. Where that is impossible, ask
   ``op.get_context().dialect.name``.
5. Prefer ``op.add_column`` and ``op.drop_column``. ``op.batch_alter_table`` recreates a table on SQLite; name
   ``table_kwargs={"sqlite_autoincrement": True}`` (or ``"sqlite_with_rowid": False``) there, because reflection does
   not see these options.
6. Do not commit and do not set pragmas: all pending migrations run in one transaction. At its end, an upgrade is
   refused if more rows than before refer to missing rows.
7. Run ``python -m ragsvc.store.migrations.newest``: it records the schema that new SQLite files get.
8. Run ``pytest tests/unit/store/migrations``: it compares the migrated schema with the models and the recorded one.
9. Add a test that upgrades a file with rows from the revision before, if rows are changed.

There is no ``downgrade``. ``schema`` copies the file before an upgrade; docs/howto/back-up.md describes how to restore
the copy. The write-ahead log of the upgraded file and the index snapshots must be removed first.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent


@cache
def revisions(folder: Path = FOLDER) -> tuple[str, ...]:
    """All revisions, oldest first, read from the names of the files in ``versions``.

    >>> revisions()[0]
    '0001'
    """
    return tuple(sorted(file.name.partition("_")[0] for file in (folder / "versions").glob("[0-9]*_*.py")))
