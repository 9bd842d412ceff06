"""Files as objects of their own: each document is made from a file, and a file can exist without a document.

A document that exists gets an implicit file, whose id ends like the id of the document. Uploads in parts and their
parts have tables as well.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create the tables, and a file for each document, with the row id of the document."""
    op.create_table(
        "files",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("public_id", sa.String, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("filename", sa.String, nullable=False),
        sa.Column("media_type", sa.String, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("purpose", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("created_by", sa.String, nullable=True),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.Integer, nullable=True),
        sa.Column("deleted_at", sa.Integer, nullable=True),
        sa.Column("implicit", sa.Boolean, nullable=False),
        sa.UniqueConstraint("public_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("files_by_tenant", "files", ["tenant", "id"])
    op.create_index("files_by_size", "files", ["tenant", "deleted_at", "implicit", "size_bytes"])
    op.create_index("files_by_sha256", "files", ["tenant", "sha256"])
    for name, column in (("files_by_expiry", "expires_at"), ("files_by_deletion", "deleted_at")):
        condition = sa.text(f"{column} IS NOT NULL")
        op.create_index(name, "files", [column], sqlite_where=condition, postgresql_where=condition)
    op.create_table(
        "document_files",
        sa.Column("document_id", sa.Integer, sa.ForeignKey("documents.id", ondelete="CASCADE"), nullable=False),
        sa.Column("file_id", sa.Integer, sa.ForeignKey("files.id", ondelete="CASCADE"), nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("document_id", "file_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("document_files_by_file", "document_files", ["file_id", "document_id"])
    op.create_table(
        "uploads",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("public_id", sa.String, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("filename", sa.String, nullable=False),
        sa.Column("media_type", sa.String, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("purpose", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("created_by", sa.String, nullable=True),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.Integer, nullable=False),
        sa.Column("file_expires_after_s", sa.Integer, nullable=True),
        sa.Column("file_id", sa.Integer, sa.ForeignKey("files.id", ondelete="SET NULL"), nullable=True),
        sa.UniqueConstraint("public_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("uploads_by_tenant", "uploads", ["tenant", "status"])
    op.create_index("uploads_by_expiry", "uploads", ["status", "expires_at"])
    op.create_index("uploads_by_file", "uploads", ["file_id"])
    op.create_table(
        "upload_parts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("public_id", sa.String, nullable=False),
        sa.Column("upload_id", sa.Integer, sa.ForeignKey("uploads.id", ondelete="CASCADE"), nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.UniqueConstraint("public_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("upload_parts_by_upload", "upload_parts", ["upload_id", "size_bytes"])
    op.create_index("upload_parts_by_sha256", "upload_parts", ["tenant", "sha256", "size_bytes"])
    op.execute(
        "INSERT INTO files (id, public_id, tenant, filename, media_type, size_bytes, sha256, purpose, status, "
        "created_at, implicit) "
        "SELECT id, 'file-' || replace(public_id, 'doc_', ''), tenant, filename, media_type, size_bytes, sha256, "
        "'assistants', 'processed', created_at, true FROM documents ORDER BY id"
    )
    op.execute("INSERT INTO document_files (document_id, file_id, created_at) SELECT id, id, created_at FROM documents")
