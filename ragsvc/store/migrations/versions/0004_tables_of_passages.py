"""Add ``passages.tables``: which cells of the passage's text belong to which row and column."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; passages that exist have no tables until their document is read again."""
    op.add_column("passages", sa.Column("tables", sa.LargeBinary, nullable=True))
