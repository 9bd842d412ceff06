"""Index for the list of a tenant's files with one purpose, which read all files of the tenant."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add the index."""
    op.create_index("files_by_purpose", "files", ["tenant", "purpose", "id"])
