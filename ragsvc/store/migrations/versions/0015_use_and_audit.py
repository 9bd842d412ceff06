"""Errors and durations in the usage of keys, and the tenant of each entry of the audit trail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

_TENANT_OF_ENTRY = """
UPDATE key_audit SET tenant = coalesce(
    (SELECT k.tenant FROM api_keys k WHERE k.id = key_audit.key_id),
    (SELECT json_extract(c.changes, '$.tenant') FROM key_audit c
      WHERE c.key_id = key_audit.key_id AND c.action IN ('create', 'import') ORDER BY c.id DESC LIMIT 1),
    '')
"""


def upgrade() -> None:
    """Add the columns; no past request was measured, and old entries get the tenant of their key."""
    op.add_column("usage", sa.Column("errors", sa.Integer, nullable=False, server_default="0"))
    op.add_column("usage", sa.Column("timed_requests", sa.Integer, nullable=False, server_default="0"))
    op.add_column("usage", sa.Column("duration_ms", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("key_audit", sa.Column("tenant", sa.String, nullable=False, server_default=""))
    op.execute(_TENANT_OF_ENTRY)
    op.create_index("key_audit_by_tenant", "key_audit", ["tenant", "id"])
