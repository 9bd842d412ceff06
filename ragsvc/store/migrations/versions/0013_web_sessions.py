"""Sessions of the web pages, and links that open a session once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Create the tables; both end with their key."""
    for table in ("web_sessions", "session_links"):
        op.create_table(
            table,
            sa.Column("token_hash", sa.LargeBinary(32), primary_key=True),
            sa.Column("key_id", sa.String, sa.ForeignKey("api_keys.id", ondelete="CASCADE"), nullable=False),
            sa.Column("secret_hash", sa.LargeBinary(32), nullable=False),
            sa.Column("created_at", sa.Integer, nullable=False),
            sa.Column("expires_at", sa.Integer, nullable=False),
        )
        op.create_index(f"{table}_by_key", table, ["key_id"])
        op.create_index(f"{table}_by_expiry", table, ["expires_at"])
