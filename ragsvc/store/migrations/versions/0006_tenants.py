"""Limits of tenants, collections that are being deleted, keys limited to collections, usage by tenant and family.

Usage counted before has no family; its tenant is that of the key, if the key still exists.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add columns and tables; the table of usage is replaced, because its primary key grows."""
    op.add_column("collections", sa.Column("deleted_at", sa.Integer, nullable=True))
    op.add_column("api_keys", sa.Column("allowed_collections", sa.Text, nullable=False, server_default="[]"))
    op.create_table(
        "tenants",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("max_collections", sa.Integer, nullable=True),
        sa.Column("max_documents", sa.BigInteger, nullable=True),
        sa.Column("max_bytes", sa.BigInteger, nullable=True),
        sa.Column("updated_at", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "usage",
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("family", sa.String, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("key_id", "day", "model", "family"),
    )
    op.execute(
        "INSERT INTO usage (key_id, day, model, family, tenant, prompt_tokens, completion_tokens, requests) "
        "SELECT key_id, day, model, '', coalesce((SELECT tenant FROM api_keys WHERE id = key_id), ''), "
        "prompt_tokens, completion_tokens, requests FROM token_usage"
    )
    op.drop_table("token_usage")
    op.create_index("ix_usage_tenant", "usage", ["tenant", "day"])
