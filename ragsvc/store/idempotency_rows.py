"""Statements that store and find the sealed responses of repeatable requests."""

from __future__ import annotations

from typing import cast

from sqlalchemy import Connection, Table, delete, insert, select

from ragsvc.store.key_tables import IdempotencyRow

_rows = cast("Table", IdempotencyRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time


def find(connection: Connection, *, owner: str, name_hash: bytes, since: int) -> tuple[bytes, bytes] | None:
    """Fingerprint and sealed response of an earlier request that is not older than ``since``."""
    row = connection.execute(
        select(_rows.c.fingerprint, _rows.c.sealed).where(
            _rows.c.owner == owner, _rows.c.name_hash == name_hash, _rows.c.created_at >= since
        )
    ).first()
    return None if row is None else (row[0], row[1])


def remember(
    connection: Connection, *, owner: str, name_hash: bytes, fingerprint: bytes, sealed: bytes, at: int, since: int
) -> None:
    """Store a response, and delete all that are older than ``since``."""
    connection.execute(delete(_rows).where(_rows.c.created_at < since))
    connection.execute(
        insert(_rows).values(owner=owner, name_hash=name_hash, fingerprint=fingerprint, sealed=sealed, created_at=at)
    )
