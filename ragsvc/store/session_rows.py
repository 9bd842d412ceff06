"""Tables and statements of sessions of the web pages. Callers own the transaction.

Both tables hold only hashes: of the token in the cookie or of the code in the link, and of the key's secret with which
the session was opened. The rows of a key are removed with it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    LargeBinary,
    Select,
    String,
    Table,
    delete,
    func,
    insert,
    select,
)
from sqlmodel import Field, SQLModel

from ragsvc.core.ids import KeyId
from ragsvc.store.tables import table_of


class WebSessionRow(SQLModel, table=True):
    """A session: who has the token acts as the key until ``expires_at``."""

    __tablename__ = "web_sessions"  # pyright: ignore[reportAssignmentType]  # SQLModel takes a plain name
    __table_args__ = (
        Index("web_sessions_by_key", "key_id"),
        Index("web_sessions_by_expiry", "expires_at"),
    )

    token_hash: bytes = Field(sa_column=Column(LargeBinary(32), primary_key=True))
    key_id: str = Field(sa_column=Column(String, ForeignKey("api_keys.id", ondelete="CASCADE"), nullable=False))
    secret_hash: bytes = Field(sa_column=Column(LargeBinary(32), nullable=False))
    created_at: int
    expires_at: int


class SessionLinkRow(SQLModel, table=True):
    """A link that opens one session, once."""

    __tablename__ = "session_links"  # pyright: ignore[reportAssignmentType]  # SQLModel takes a plain name
    __table_args__ = (
        Index("session_links_by_key", "key_id"),
        Index("session_links_by_expiry", "expires_at"),
    )

    token_hash: bytes = Field(sa_column=Column(LargeBinary(32), primary_key=True))
    key_id: str = Field(sa_column=Column(String, ForeignKey("api_keys.id", ondelete="CASCADE"), nullable=False))
    secret_hash: bytes = Field(sa_column=Column(LargeBinary(32), nullable=False))
    created_at: int
    expires_at: int


_sessions = table_of(WebSessionRow)
_links = table_of(SessionLinkRow)


class SessionGrant(msgspec.Struct, frozen=True, kw_only=True):
    """A session or a link as stored; times are Unix seconds. ``secret_hash`` is that of the key when it was made."""

    token_hash: bytes
    key_id: KeyId
    secret_hash: bytes
    created_at: int
    expires_at: int


def add_session(connection: Connection, grant: SessionGrant, *, keep: int) -> list[bytes]:
    """Store a session; a key has at most ``keep`` of them. Returns the hashes of the oldest, which were removed."""
    connection.execute(insert(_sessions).values(**msgspec.structs.asdict(grant)))
    surplus = (
        select(_sessions.c.token_hash)
        .where(_sessions.c.key_id == grant.key_id)
        .order_by(_sessions.c.created_at.desc(), _sessions.c.expires_at.desc())
        .offset(keep)
    )
    removed = [bytes(row) for row in connection.execute(surplus).scalars() if row != grant.token_hash]
    connection.execute(delete(_sessions).where(_sessions.c.token_hash.in_(removed)))
    return removed


def all_sessions(connection: Connection, *, now: int) -> list[SessionGrant]:
    """The sessions that have not expired."""
    return [SessionGrant(**row) for row in connection.execute(_live(_sessions, now)).mappings()]


def remove_session(connection: Connection, token_hash: bytes) -> None:
    connection.execute(delete(_sessions).where(_sessions.c.token_hash == token_hash))


def add_link(connection: Connection, grant: SessionGrant, *, keep: int) -> None:
    """Store a link; a key has at most ``keep`` of them, this one and the newest others."""
    of_key = _links.c.key_id == grant.key_id
    newest = select(_links.c.token_hash).where(of_key).order_by(_links.c.expires_at.desc()).limit(keep - 1)
    connection.execute(delete(_links).where(of_key, _links.c.token_hash.not_in(newest)))
    connection.execute(insert(_links).values(**msgspec.structs.asdict(grant)))


def take_link(connection: Connection, token_hash: bytes, *, now: int) -> SessionGrant | None:
    """Remove a link and return it; ``None`` if it does not exist, was used or has expired."""
    row = connection.execute(_live(_links, now).where(_links.c.token_hash == token_hash)).mappings().first()
    connection.execute(delete(_links).where(_links.c.token_hash == token_hash))
    return None if row is None else SessionGrant(**row)


def remove_expired(connection: Connection, *, now: int) -> int:
    """Remove sessions and links whose time is over; returns their number."""
    return sum(
        connection.execute(delete(table).where(table.c.expires_at <= now)).rowcount for table in (_sessions, _links)
    )


def next_expiry(connection: Connection) -> int | None:
    """When the next session or link expires, in Unix seconds."""
    ends = [connection.execute(select(func.min(table.c.expires_at))).scalar() for table in (_sessions, _links)]
    return min((end for end in ends if end is not None), default=None)


def _live(table: Table, now: int) -> Select[Any]:
    return select(table).where(table.c.expires_at > now)
