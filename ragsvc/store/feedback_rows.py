"""Table and statements of feedback on answers. Callers own the transaction."""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import Column, Connection, Index, LargeBinary, Select, delete, func, insert, literal, select
from sqlmodel import Field, SQLModel

from ragsvc.core.errors import FeedbackNotFound
from ragsvc.core.feedback import Feedback, FeedbackDraft, Rating
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.store.tables import AnyRow, table_of


class FeedbackRow(SQLModel, table=True):
    """Feedback on an answer; ``body`` is JSON with question, answer, citations and note."""

    __tablename__ = "feedback"  # pyright: ignore[reportAssignmentType]  # SQLModel takes a plain name
    __table_args__ = (
        Index("feedback_by_tenant", "tenant", "id"),
        Index("feedback_by_key", "tenant", "key_id", "id"),
        Index("feedback_by_answer", "tenant", "key_id", "answer_id"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    tenant: str
    key_id: str
    rating: str
    answer_id: str | None = None
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: int


_PAGE_BYTES: Final = 1 << 20
"""The bodies of a page, without the last: answers and quotes can be long, and an encoder holds the interpreter lock."""

_feedback = table_of(FeedbackRow)
_draft = msgspec.json.Decoder(FeedbackDraft)


class FeedbackReach(msgspec.Struct, frozen=True):
    """Which feedback a caller sees: that of a key, or all of the tenant if ``key_id`` is ``None``."""

    tenant: TenantId
    key_id: KeyId | None


def feedback_not_found(public_id: str) -> FeedbackNotFound:
    """The error for an id that the caller does not see."""
    return FeedbackNotFound(f"There is no feedback '{public_id[:100]}'.", param="feedback_id")


def insert_feedback(
    connection: Connection, tenant: TenantId, key_id: KeyId, public_id: str, draft: FeedbackDraft, *, now: int
) -> Feedback:
    """Insert feedback; earlier feedback of the key on the same answer is replaced and keeps its id."""
    if draft.answer_id is not None:
        former = (
            _feedback.c.tenant == tenant,
            _feedback.c.key_id == key_id,
            _feedback.c.answer_id == draft.answer_id,
        )
        known = connection.execute(select(_feedback.c.public_id).where(*former)).scalars().first()
        if known is not None:
            public_id = known
            connection.execute(delete(_feedback).where(*former))
    values = {
        "public_id": public_id,
        "tenant": tenant,
        "key_id": key_id,
        "rating": draft.rating.value,
        "answer_id": draft.answer_id,
        "body": msgspec.json.encode(draft),
        "created_at": now,
    }
    connection.execute(insert(_feedback).values(**values))
    return find_feedback(connection, FeedbackReach(tenant, key_id), public_id)


def find_feedback(connection: Connection, reach: FeedbackReach, public_id: str) -> Feedback:
    """Raises ``FeedbackNotFound``."""
    row = connection.execute(_within(reach).where(_feedback.c.public_id == public_id)).one_or_none()
    if row is None:
        raise feedback_not_found(public_id)
    return _stored(row)


def delete_feedback(connection: Connection, reach: FeedbackReach, public_id: str) -> None:
    """Raises ``FeedbackNotFound``."""
    found = find_feedback(connection, reach, public_id)
    connection.execute(delete(_feedback).where(_feedback.c.id == found.id))


def feedback_page(
    connection: Connection, reach: FeedbackReach, *, limit: int, before: int | None = None, rating: Rating | None = None
) -> tuple[list[Feedback], bool]:
    """A page of feedback with row ids below ``before``, newest first, and whether more follows.

    It has fewer than ``limit`` entries if these are long.
    """
    statement = _within(reach)
    if rating is not None:
        statement = statement.where(_feedback.c.rating == rating.value)
    if before is not None:
        statement = statement.where(_feedback.c.id < before)
    return _some(connection, statement.order_by(_feedback.c.id.desc()), limit)


def feedback_for_export(connection: Connection, tenant: TenantId, *, after: int, limit: int) -> list[Feedback]:
    """Some feedback of a tenant with a row id above ``after``, ascending; none if there is no more."""
    statement = _within(FeedbackReach(tenant, None)).where(_feedback.c.id > after)
    return _some(connection, statement.order_by(_feedback.c.id), limit)[0]


def delete_feedback_of(connection: Connection, tenant: TenantId) -> int:
    """Remove all feedback of a tenant; returns how much there was."""
    return connection.execute(delete(_feedback).where(_feedback.c.tenant == tenant)).rowcount


def count_feedback(connection: Connection, tenant: TenantId) -> int:
    return connection.execute(select(func.count()).where(_feedback.c.tenant == tenant)).scalar_one()


def has_feedback(connection: Connection, tenant: TenantId) -> bool:
    statement = select(literal(1)).where(_feedback.c.tenant == tenant).limit(1)
    return connection.execute(statement).first() is not None


def select_feedback_tenants() -> Select[tuple[str]]:
    """The names of the tenants that have feedback."""
    return select(_feedback.c.tenant)


def _within(reach: FeedbackReach) -> Select[AnyRow]:
    statement = select(_feedback).where(_feedback.c.tenant == reach.tenant)
    return statement if reach.key_id is None else statement.where(_feedback.c.key_id == reach.key_id)


def _some(connection: Connection, statement: Select[AnyRow], limit: int) -> tuple[list[Feedback], bool]:
    """At most ``limit`` of the selected pieces, fewer if they are long, and whether more follows."""
    found: list[Feedback] = []
    size_bytes = 0
    with connection.execute(statement.limit(limit + 1)) as rows:
        for row in rows:
            if len(found) == limit or size_bytes >= _PAGE_BYTES:
                return found, True
            found.append(_stored(row))
            size_bytes += len(row.body)
    return found, False


def _stored(row: AnyRow) -> Feedback:
    return Feedback(
        id=row.id,
        public_id=row.public_id,
        tenant=TenantId(row.tenant),
        key_id=KeyId(row.key_id),
        draft=_draft.decode(row.body),
        created_at=row.created_at,
    )
