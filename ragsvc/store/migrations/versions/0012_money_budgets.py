"""Budgets in money for keys and tenants, and the cost of usage, in millionths of a unit of money."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the columns; nothing has a budget in money, and past usage cost nothing."""
    for table in ("api_keys", "tenants"):
        for name in ("money_per_day", "money_balance", "money_grant"):
            op.add_column(table, sa.Column(name, sa.BigInteger))
        op.add_column(table, sa.Column("money_lease", sa.BigInteger, nullable=False, server_default="0"))
        op.add_column(table, sa.Column("money_lease_day", sa.Integer, nullable=False, server_default="0"))
    op.add_column("tenants", sa.Column("revision", sa.Integer, nullable=False, server_default="0"))
    op.add_column("usage", sa.Column("cost_micros", sa.BigInteger, nullable=False, server_default="0"))
