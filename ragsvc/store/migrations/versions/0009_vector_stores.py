"""Every collection is a vector store: a public id, a name to display, metadata, and an expiry."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0007"


def upgrade() -> None:
    """Add columns; existing collections get a random public id, and their name as the name to display."""
    op.add_column("collections", sa.Column("public_id", sa.String, nullable=False, server_default=""))
    op.add_column("collections", sa.Column("display_name", sa.String, nullable=True))
    op.add_column("collections", sa.Column("description", sa.String, nullable=True))
    op.add_column("collections", sa.Column("metadata", sa.LargeBinary, nullable=True))
    for column in ("last_active_at", "expires_after_days", "expires_at", "expired_at"):
        op.add_column("collections", sa.Column(column, sa.Integer, nullable=True))
    connection = op.get_bind()
    fill = sa.text("UPDATE collections SET public_id = :public_id, display_name = name WHERE id = :id")
    for row_id in connection.execute(sa.text("SELECT id FROM collections")).scalars().all():
        connection.execute(fill, {"id": row_id, "public_id": f"vs_{secrets.token_hex(12)}"})
    op.create_index("collections_by_public_id", "collections", ["public_id"], unique=True)
    op.create_index("collections_by_expiry", "collections", ["expires_at"])
