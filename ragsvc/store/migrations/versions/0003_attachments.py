"""Link documents to the documents that are attached to them.

``brought`` marks a document that exists only because it is attached: it is deleted with the last document that has it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create an empty table."""
    op.create_table(
        "attachments",
        sa.Column("parent_id", sa.Integer, sa.ForeignKey("documents.id", ondelete="CASCADE"), nullable=False),
        sa.Column("document_id", sa.Integer, sa.ForeignKey("documents.id", ondelete="CASCADE"), nullable=False),
        sa.Column("brought", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("parent_id", "document_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("attachments_by_document", "attachments", ["document_id", "parent_id"])
