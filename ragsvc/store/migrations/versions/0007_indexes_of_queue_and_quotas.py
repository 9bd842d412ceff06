"""Indexes for the claim of a job and for the quota check of an upload.

With 100,000 queued jobs or stored documents, each read as many rows.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Replace the index of jobs by one that finds the tenants; add an index with the sizes of documents."""
    op.create_index("jobs_by_tenant", "jobs", ["state", "tenant", "id"])
    op.drop_index("jobs_by_state", table_name="jobs")
    op.create_index("documents_by_collection", "documents", ["collection_id", "size_bytes"])
