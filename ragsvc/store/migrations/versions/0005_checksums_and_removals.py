"""Add checksums of stored texts, and the list of files whose removal is decided but not yet done."""

from __future__ import annotations

from hashlib import blake2b

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_ROWS_AT_ONCE = 1000
_CHECKSUM_BYTES = 8


def upgrade() -> None:
    """Add the columns, compute the checksums of existing rows, and create an empty table."""
    for table, keys in (("pages", ("document_id", "number")), ("passages", ("id",))):
        op.add_column(table, sa.Column("checksum", sa.LargeBinary, nullable=True))
        _fill(table, keys)
    op.create_table(
        "file_removals",
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "sha256"),
    )


def _fill(table: str, keys: tuple[str, ...]) -> None:
    """Read texts as bytes: a row whose text is not valid UTF-8 must not stop the upgrade."""
    connection = op.get_bind()
    columns = ", ".join(keys)
    text = "CAST(text AS BLOB)" if op.get_context().dialect.name == "sqlite" else "convert_to(text, 'UTF8')"
    condition = " AND ".join(f"{key} = :{key}" for key in keys)
    update = sa.text(f"UPDATE {table} SET checksum = :checksum WHERE {condition}")  # noqa: S608 - names from above
    after = sa.text(
        f"SELECT {columns}, {text} AS content FROM {table} "  # noqa: S608 - names from above
        f"WHERE ({columns}) > ({', '.join(f':{key}' for key in keys)}) ORDER BY {columns} LIMIT {_ROWS_AT_ONCE}"
    )
    last = dict.fromkeys(keys, -1)
    while rows := connection.execute(after, last).mappings().all():
        values = [
            {
                **{key: row[key] for key in keys},
                "checksum": blake2b(row["content"], digest_size=_CHECKSUM_BYTES).digest(),
            }
            for row in rows
        ]
        connection.execute(update, values)
        last = {key: rows[-1][key] for key in keys}
