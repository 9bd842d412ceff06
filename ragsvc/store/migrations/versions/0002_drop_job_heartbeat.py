"""Drop ``jobs.heartbeat_at``, which was written and never read.

A running job belongs to the process that holds the lock of the data directory, and the next process queues it again.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Drop the column in place: SQLite has had ``DROP COLUMN`` since 3.35."""
    op.drop_column("jobs", "heartbeat_at")
