"""Alembic runs this file for each command: it migrates the connection that the caller put into the configuration.

The caller owns the transaction, so Alembic neither begins nor commits.
"""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
