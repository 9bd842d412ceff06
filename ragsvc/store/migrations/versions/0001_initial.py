"""The schema of the releases before numbered migrations, which marked it by ``PRAGMA user_version=1``.

Those releases created the tables of imported modules only: a file that the command line made may hold keys and no
documents. ``if_not_exists`` completes such a file.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables that are missing."""
    _create_collections_and_documents()
    _create_pages_and_passages()
    _create_embeddings()
    _create_jobs_and_index_log()
    _create_keys()
    _create_providers()


def _create_collections_and_documents() -> None:
    op.create_table(
        "collections",
        sa.Column("id", sa.Integer, primary_key=True, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.UniqueConstraint("tenant", "name"),
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    op.create_table(
        "documents",
        sa.Column("id", sa.Integer, primary_key=True, nullable=False),
        sa.Column("public_id", sa.String, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("collection_id", sa.Integer, sa.ForeignKey("collections.id"), nullable=False),
        sa.Column("filename", sa.String, nullable=False),
        sa.Column("media_type", sa.String, nullable=False),
        sa.Column("size_bytes", sa.Integer, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("stage", sa.String, nullable=False),
        sa.Column("title", sa.String),
        sa.Column("metadata", sa.LargeBinary, nullable=False),
        sa.Column("problems", sa.LargeBinary, nullable=False),
        sa.Column("timings", sa.LargeBinary, nullable=False),
        sa.Column("failure_code", sa.String),
        sa.Column("failure_message", sa.String),
        sa.Column("pages_total", sa.Integer, nullable=False),
        sa.Column("pages_done", sa.Integer, nullable=False),
        sa.Column("passages_total", sa.Integer, nullable=False),
        sa.Column("passages_done", sa.Integer, nullable=False),
        sa.Column("embedding_model", sa.String),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("updated_at", sa.Integer, nullable=False),
        sa.Column("ready_at", sa.Integer),
        sa.UniqueConstraint("collection_id", "sha256"),
        sa.UniqueConstraint("public_id"),
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    _create_index("documents_by_tenant", "documents", "tenant", "id")
    _create_index("documents_by_sha256", "documents", "tenant", "sha256")


def _create_pages_and_passages() -> None:
    op.create_table(
        "pages",
        sa.Column(
            "document_id",
            sa.Integer,
            sa.ForeignKey("documents.id", ondelete="CASCADE"),
            primary_key=True,
            nullable=False,
        ),
        sa.Column("number", sa.Integer, primary_key=True, nullable=False),
        sa.Column("label", sa.String),
        sa.Column("text", sa.Text, nullable=False),
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
    op.create_table(
        "passages",
        sa.Column("id", sa.Integer, primary_key=True, nullable=False),
        sa.Column("document_id", sa.Integer, sa.ForeignKey("documents.id", ondelete="CASCADE"), nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("page", sa.Integer, nullable=False),
        sa.Column("page_label", sa.String),
        sa.Column("start", sa.Integer, nullable=False),
        sa.Column("end", sa.Integer, nullable=False),
        sa.Column("token_count", sa.Integer, nullable=False),
        sa.Column("headings", sa.LargeBinary, nullable=False),
        sa.Column("embedding_hash", sa.LargeBinary, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    _create_index("passages_by_document", "passages", "document_id", "ordinal")
    _create_index("passages_by_embedding_hash", "passages", "embedding_hash")


def _create_embeddings() -> None:
    op.create_table(
        "embedding_models",
        sa.Column("id", sa.Integer, primary_key=True, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("dimension", sa.Integer, nullable=False),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("setting", sa.String, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.UniqueConstraint("fingerprint"),
        if_not_exists=True,
    )
    op.create_table(
        "embeddings",
        sa.Column("model_id", sa.Integer, primary_key=True, nullable=False),
        sa.Column(
            "passage_id", sa.Integer, sa.ForeignKey("passages.id", ondelete="CASCADE"), primary_key=True, nullable=False
        ),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
    _create_index("ix_embeddings_passage_id", "embeddings", "passage_id")
    op.create_table(
        "service_state",
        sa.Column("name", sa.String, primary_key=True, nullable=False),
        sa.Column("value", sa.Integer, nullable=False),
        if_not_exists=True,
    )


def _create_jobs_and_index_log() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer, primary_key=True, nullable=False),
        sa.Column("document_id", sa.Integer, sa.ForeignKey("documents.id", ondelete="CASCADE"), nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("heartbeat_at", sa.Integer),
        sa.Column("password", sa.String),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.UniqueConstraint("document_id"),
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    _create_index("jobs_by_state", "jobs", "state", "id")
    op.create_table(
        "index_log",
        sa.Column("seq", sa.Integer, primary_key=True, nullable=False),
        sa.Column("collection_id", sa.Integer, nullable=False),
        sa.Column("op", sa.String, nullable=False),
        sa.Column("document_id", sa.Integer, nullable=False),
        sa.Column("passage_ids", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    _create_index("index_log_by_collection", "index_log", "collection_id", "seq")


def _create_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String, primary_key=True, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("label", sa.String, nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("allowed_models", sa.Text, nullable=False),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("requests_per_hour", sa.Integer),
        sa.Column("tokens_per_day", sa.BigInteger),
        sa.Column("token_balance", sa.BigInteger),
        sa.Column("token_grant", sa.BigInteger),
        sa.Column("token_lease", sa.Integer, nullable=False),
        sa.Column("lease_day", sa.Integer, nullable=False),
        sa.Column("max_parallel_requests", sa.Integer),
        sa.Column("expires_at", sa.Integer),
        sa.Column("previous_secret_hash", sa.LargeBinary(32)),
        sa.Column("previous_expires_at", sa.Integer),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("updated_at", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        if_not_exists=True,
    )
    _create_index("ix_api_keys_tenant", "api_keys", "tenant")
    _create_index("ix_api_keys_revision", "api_keys", "revision")
    op.create_table(
        "token_usage",
        sa.Column("key_id", sa.String, primary_key=True, nullable=False),
        sa.Column("day", sa.Integer, primary_key=True, nullable=False),
        sa.Column("model", sa.String, primary_key=True, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "key_audit",
        sa.Column("id", sa.Integer, primary_key=True, nullable=False),
        sa.Column("at", sa.Integer, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("changes", sa.Text, nullable=False),
        sa.Column("request_id", sa.String),
        if_not_exists=True,
    )
    _create_index("ix_key_audit_key_id", "key_audit", "key_id")
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.String, primary_key=True, nullable=False),
        sa.Column("name_hash", sa.LargeBinary(32), primary_key=True, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        if_not_exists=True,
    )
    _create_index("ix_idempotency_keys_created_at", "idempotency_keys", "created_at")


def _create_providers() -> None:
    op.create_table(
        "providers",
        sa.Column("name", sa.String, primary_key=True, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("updated_at", sa.Integer, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "provider_keys",
        sa.Column("tenant", sa.String, primary_key=True, nullable=False),
        sa.Column("provider", sa.String, primary_key=True, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("updated_at", sa.Integer, nullable=False),
        if_not_exists=True,
    )


def _create_index(name: str, table: str, *columns: str) -> None:
    op.create_index(name, table, list(columns), if_not_exists=True)
