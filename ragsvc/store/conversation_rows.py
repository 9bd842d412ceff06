"""Tables and statements of conversations and their items. Callers own the transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Select,
    UniqueConstraint,
    delete,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)
from sqlmodel import Field, SQLModel

from ragsvc.core.errors import ConversationItemNotFound, ConversationNotFound
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.store.tables import AnyRow, table_of

Item = dict[str, Any]


class ConversationRow(SQLModel, table=True):
    """A conversation. ``metadata`` is JSON, as is ``collections``: the names of all collections that it quotes."""

    __tablename__ = "conversations"  # pyright: ignore[reportAssignmentType]  # SQLModel takes a plain name
    __table_args__ = (
        Index("conversations_by_tenant", "tenant", "id"),
        Index("conversations_by_use", "last_active_at"),
        Index("conversations_by_key", "tenant", "key_id", "last_active_at", "id"),
        Index("conversations_by_use_of_tenant", "tenant", "last_active_at", "id"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    tenant: str
    metadata_json: bytes = Field(sa_column=Column("metadata", LargeBinary, nullable=False))
    collections: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: int
    last_active_at: int
    key_id: str | None = None
    """The key that made it; ``None`` if a release made it that did not note keys."""


class ConversationItemRow(SQLModel, table=True):
    """An item of a conversation, as JSON. The order of the items is that of their row ids."""

    __tablename__ = "conversation_items"  # pyright: ignore[reportAssignmentType]  # SQLModel takes a plain name
    __table_args__ = (
        UniqueConstraint("conversation_id", "public_id"),
        Index("conversation_items_in_order", "conversation_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    conversation_id: int = Field(
        sa_column=Column(Integer, ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False)
    )
    public_id: str
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


_conversations = table_of(ConversationRow)
_items = table_of(ConversationItemRow)


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as stored, without its items. ``key_id`` is the key that made it, if it was noted."""

    id: int
    public_id: str
    tenant: TenantId
    metadata: dict[str, str]
    collections: list[str]
    created_at: int
    last_active_at: int
    key_id: KeyId | None


def conversation_not_found(public_id: str, *, param: str) -> ConversationNotFound:
    """The error for an id that the tenant does not have, or that the key may not see."""
    return ConversationNotFound(f"There is no conversation '{public_id[:100]}'.", param=param)


def _item_not_found(public_id: str) -> ConversationItemNotFound:
    return ConversationItemNotFound(f"The conversation has no item '{public_id[:100]}'.", param="item_id")


def insert_conversation(
    connection: Connection, tenant: TenantId, public_id: str, *, metadata: dict[str, str], now: int, key_id: KeyId
) -> Conversation:
    """Insert a conversation without items, which the key ``key_id`` makes."""
    values = {
        "public_id": public_id,
        "tenant": tenant,
        "metadata": msgspec.json.encode(metadata),
        "collections": b"[]",
        "created_at": now,
        "last_active_at": now,
        "key_id": key_id,
    }
    inserted = connection.execute(insert(_conversations).values(**values)).inserted_primary_key
    assert inserted is not None  # noqa: S101 - the table has a primary key
    return _conversation(connection.execute(select(_conversations).where(_conversations.c.id == inserted[0])).one())


def find_conversation(
    connection: Connection, tenant: TenantId, public_id: str, *, active_after: int, param: str = "conversation_id"
) -> Conversation:
    """A conversation that was used after a time. Raises ``ConversationNotFound``."""
    row = connection.execute(
        select(_conversations).where(
            _conversations.c.public_id == public_id,
            _conversations.c.tenant == tenant,
            _conversations.c.last_active_at > active_after,
        )
    ).one_or_none()
    if row is None:
        raise conversation_not_found(public_id, param=param)
    return _conversation(row)


def conversation_page(
    connection: Connection,
    tenant: TenantId,
    *,
    limit: int,
    after: Conversation | None,
    key_id: KeyId | None,
    active_after: int,
) -> list[Conversation]:
    """Conversations of a tenant that were used after a time, the last used first, beginning behind ``after``.

    ``key_id`` limits them to those that this key made.
    """
    statement = select(_conversations).where(
        _conversations.c.tenant == tenant, _conversations.c.last_active_at > active_after
    )
    if key_id is not None:
        statement = statement.where(_conversations.c.key_id == key_id)
    order = tuple_(_conversations.c.last_active_at, _conversations.c.id)
    if after is not None:
        statement = statement.where(order < tuple_(literal(after.last_active_at), literal(after.id)))
    statement = statement.order_by(_conversations.c.last_active_at.desc(), _conversations.c.id.desc()).limit(limit)
    return [_conversation(row) for row in connection.execute(statement)]


def set_metadata(connection: Connection, conversation: Conversation, metadata: dict[str, str], *, now: int) -> None:
    connection.execute(
        update(_conversations)
        .where(_conversations.c.id == conversation.id)
        .values(metadata=msgspec.json.encode(metadata), last_active_at=now)
    )


def delete_conversation(connection: Connection, conversation: Conversation) -> None:
    connection.execute(delete(_conversations).where(_conversations.c.id == conversation.id))


def count_items(connection: Connection, conversation: Conversation) -> int:
    statement = select(func.count()).where(_items.c.conversation_id == conversation.id)
    return int(connection.execute(statement).scalar_one())


def size_of_items(connection: Connection, conversation: Conversation) -> int:
    """Bytes of all items as JSON."""
    statement = select(func.sum(func.length(_items.c.body))).where(_items.c.conversation_id == conversation.id)
    return int(connection.execute(statement).scalar_one() or 0)


def taken_ids(connection: Connection, conversation: Conversation, ids: Iterable[str]) -> set[str]:
    """Those of the ids that items of the conversation have."""
    statement = select(_items.c.public_id).where(
        _items.c.conversation_id == conversation.id, _items.c.public_id.in_(list(ids))
    )
    return set(connection.execute(statement).scalars())


def append_items(
    connection: Connection,
    conversation: Conversation,
    items: Sequence[Item],
    *,
    collections: Iterable[str] = (),
    now: int,
) -> None:
    """Append items, and note the collections that they quote."""
    if items:
        rows = [
            {"conversation_id": conversation.id, "public_id": item["id"], "body": msgspec.json.encode(item)}
            for item in items
        ]
        connection.execute(insert(_items), rows)
    quoted = list(dict.fromkeys((*conversation.collections, *collections)))
    connection.execute(
        update(_conversations)
        .where(_conversations.c.id == conversation.id)
        .values(collections=msgspec.json.encode(quoted), last_active_at=now)
    )


def all_items(connection: Connection, conversation: Conversation) -> list[Item]:
    """The items, oldest first."""
    return _load(connection, _items.c.conversation_id == conversation.id)


def item_bodies(connection: Connection, conversation: Conversation) -> list[bytes]:
    """The items as encoded JSON, oldest first."""
    statement = select(_items.c.body).where(_items.c.conversation_id == conversation.id).order_by(_items.c.id)
    return list(connection.execute(statement).scalars())


def item_page(
    connection: Connection, conversation: Conversation, *, limit: int, after: str | None, descending: bool
) -> tuple[list[Item], bool]:
    """A page of items after the one with the id ``after``, and whether more follow.

    Raises:
        ConversationItemNotFound: the conversation has no item ``after``.
    """
    condition = _items.c.conversation_id == conversation.id
    if after is not None:
        place = _row_id(connection, conversation, after)
        condition &= _items.c.id < place if descending else _items.c.id > place
    found = _load(connection, condition, limit=limit + 1, descending=descending)
    return found[:limit], len(found) > limit


def find_item(connection: Connection, conversation: Conversation, public_id: str) -> Item:
    """Raises ``ConversationItemNotFound``."""
    found = _load(connection, _items.c.id == _row_id(connection, conversation, public_id))
    return found[0]


def delete_item(connection: Connection, conversation: Conversation, public_id: str, *, now: int) -> None:
    """Raises ``ConversationItemNotFound``."""
    place = _row_id(connection, conversation, public_id)
    connection.execute(delete(_items).where(_items.c.id == place))
    connection.execute(update(_conversations).where(_conversations.c.id == conversation.id).values(last_active_at=now))


def delete_inactive(connection: Connection, *, active_after: int, limit: int) -> int:
    """Remove at most ``limit`` conversations that were not used after a time; returns how many were removed."""
    old = select(_conversations.c.id).where(_conversations.c.last_active_at <= active_after).limit(limit)
    return connection.execute(delete(_conversations).where(_conversations.c.id.in_(old))).rowcount


def delete_conversations_of(connection: Connection, tenant: TenantId) -> int:
    """Remove all conversations of a tenant; returns how many there were."""
    return connection.execute(delete(_conversations).where(_conversations.c.tenant == tenant)).rowcount


def count_conversations(connection: Connection, tenant: TenantId) -> int:
    statement = select(func.count()).select_from(_conversations).where(_conversations.c.tenant == tenant)
    return int(connection.execute(statement).scalar_one())


def has_conversations(connection: Connection, tenant: TenantId) -> bool:
    statement = select(literal(1)).where(_conversations.c.tenant == tenant).limit(1)
    return connection.execute(statement).first() is not None


def select_tenants() -> Select[tuple[str]]:
    """The names of the tenants that have conversations."""
    return select(_conversations.c.tenant)


def conversations_for_export(connection: Connection, tenant: TenantId, *, after: int, limit: int) -> list[Conversation]:
    """Conversations of a tenant with a row id above ``after``, ascending."""
    statement = (
        select(_conversations)
        .where(_conversations.c.tenant == tenant, _conversations.c.id > after)
        .order_by(_conversations.c.id)
        .limit(limit)
    )
    return [_conversation(row) for row in connection.execute(statement)]


def _row_id(connection: Connection, conversation: Conversation, public_id: str) -> int:
    found = connection.execute(
        select(_items.c.id).where(_items.c.conversation_id == conversation.id, _items.c.public_id == public_id)
    ).scalar_one_or_none()
    if found is None:
        raise _item_not_found(public_id)
    return int(found)


def _load(
    connection: Connection, condition: ColumnElement[bool], *, limit: int | None = None, descending: bool = False
) -> list[Item]:
    statement = select(_items.c.body).where(condition).limit(limit)
    statement = statement.order_by(_items.c.id.desc() if descending else _items.c.id)
    return [msgspec.json.decode(body, type=Item) for body in connection.execute(statement).scalars()]


def _conversation(row: AnyRow) -> Conversation:
    return Conversation(
        id=row.id,
        public_id=row.public_id,
        tenant=TenantId(row.tenant),
        metadata=msgspec.json.decode(row.metadata, type=dict[str, str]),
        collections=msgspec.json.decode(row.collections, type=list[str]),
        created_at=row.created_at,
        last_active_at=row.last_active_at,
        key_id=None if row.key_id is None else KeyId(row.key_id),
    )
