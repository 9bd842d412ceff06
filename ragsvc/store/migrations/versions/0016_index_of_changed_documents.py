"""Index that finds a tenant's unfinished and recently changed documents, for the events of all documents."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the index; with the last two columns it suffices for counts."""
    op.create_index(
        "documents_by_status", "documents", ["tenant", "status", "updated_at", "collection_id", "media_type"]
    )
