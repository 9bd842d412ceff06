"""Errors and durations in the usage of keys, and the tenant of each entry of the audit trail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

# {changed_tenant}: the field "tenant" of the JSON object in c.changes
_TENANT_OF_ENTRY = """
UPDATE key_audit SET tenant = coalesce(
    (SELECT k.tenant FROM api_keys k WHERE k.id = key_audit.key_id),
    (SELECT {changed_tenant} FROM key_audit c
      WHERE c.key_id = key_audit.key_id AND c.action IN ('create', 'import') ORDER BY c.id DESC LIMIT 1),
    '')
"""


def upgrade() -> None:
    """Add the columns; no past request was measured, and old entries get the tenant of their key."""
    op.add_column("usage", sa.Column("errors", sa.Integer, nullable=False, server_default="0"))
    op.add_column("usage", sa.Column("timed_requests", sa.Integer, nullable=False, server_default="0"))
    op.add_column("usage", sa.Column("duration_ms", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("key_audit", sa.Column("tenant", sa.String, nullable=False, server_default=""))
    is_sqlite = op.get_context().dialect.name == "sqlite"
    changed_tenant = "json_extract(c.changes, '$.tenant')" if is_sqlite else "c.changes::json ->> 'tenant'"
    op.execute(_TENANT_OF_ENTRY.format(changed_tenant=changed_tenant))
    op.create_index("key_audit_by_tenant", "key_audit", ["tenant", "id"])
