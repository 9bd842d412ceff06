"""Feedback on answers, and the key that made a conversation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Create the table; it is not known which key made a conversation of an older release."""
    op.create_table(
        "feedback",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("public_id", sa.String, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("rating", sa.String, nullable=False),
        sa.Column("answer_id", sa.String),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.UniqueConstraint("public_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("feedback_by_tenant", "feedback", ["tenant", "id"])
    op.create_index("feedback_by_key", "feedback", ["tenant", "key_id", "id"])
    op.create_index("feedback_by_answer", "feedback", ["tenant", "key_id", "answer_id"])
    op.add_column("conversations", sa.Column("key_id", sa.String))
    op.create_index("conversations_by_key", "conversations", ["tenant", "key_id", "last_active_at", "id"])
    op.create_index("conversations_by_use_of_tenant", "conversations", ["tenant", "last_active_at", "id"])
