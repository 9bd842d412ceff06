"""Table and statements of stored responses. Callers own the transaction."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Column, Connection, Index, LargeBinary, delete, func, insert, literal, select, update
from sqlmodel import Field, SQLModel

from ragsvc.core.errors import ResponseNotFound
from ragsvc.core.ids import TenantId
from ragsvc.store.driver_statement import DriverStatement
from ragsvc.store.tables import AnyRow, table_of

UNFINISHED = ("queued", "in_progress")


class ResponseRow(SQLModel, table=True):
    """A response. ``input`` are the items of its own request and ``body`` is the response, both as JSON.

    ``collections`` is a JSON list of the names of all collections that were searched for it or for a response before
    it. ``previous_id`` is the public id of the response that it continues.
    """

    __tablename__ = "responses"  # pyright: ignore[reportAssignmentType]  # SQLModel takes a plain name
    __table_args__ = (
        Index("responses_by_tenant", "tenant", "id"),
        Index("responses_by_age", "created_at"),
        Index("responses_by_status", "status"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    tenant: str
    model: str
    status: str
    background: bool
    previous_id: str | None = None
    collections: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    input: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: int


_responses = table_of(ResponseRow)


class StoredResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A response as stored."""

    public_id: str
    tenant: TenantId
    model: str
    status: str
    background: bool
    previous_id: str | None
    collections: list[str]
    input: bytes
    body: bytes
    created_at: int


_insert = DriverStatement(insert(_responses), columns=StoredResponse.__struct_fields__)


def response_not_found(public_id: str, *, param: str = "response_id") -> ResponseNotFound:
    """The error for an id that the tenant does not have, or that the key may not see."""
    return ResponseNotFound(f"There is no response '{public_id[:100]}'.", param=param)


def add_response(connection: Connection, response: StoredResponse) -> None:
    values = {name: getattr(response, name) for name in response.__struct_fields__}
    values["collections"] = msgspec.json.encode(response.collections)
    _insert.run(connection, **values).close()


def change_response(connection: Connection, tenant: TenantId, public_id: str, *, status: str, body: bytes) -> bool:
    """Store the state of a response that has not ended; ``False`` if it has ended or was deleted."""
    statement = (
        update(_responses)
        .where(_responses.c.public_id == public_id, _responses.c.tenant == tenant, _responses.c.status.in_(UNFINISHED))
        .values(status=status, body=body)
    )
    return connection.execute(statement).rowcount > 0


def find_response(
    connection: Connection,
    tenant: TenantId,
    public_id: str,
    *,
    param: str = "response_id",
    with_input: bool = True,
) -> StoredResponse:
    """A response, without ``with_input`` with an empty input: it can have files. Raises ``ResponseNotFound``."""
    given = _responses.c.input if with_input else literal(b"[]").label("input")
    columns = [column for column in _responses.c if column is not _responses.c.input]
    row = connection.execute(
        select(*columns, given).where(_responses.c.public_id == public_id, _responses.c.tenant == tenant)
    ).one_or_none()
    if row is None:
        raise response_not_found(public_id, param=param)
    return _stored(row)


def delete_response(connection: Connection, tenant: TenantId, public_id: str) -> None:
    """Raises ``ResponseNotFound``."""
    gone = delete(_responses).where(_responses.c.public_id == public_id, _responses.c.tenant == tenant)
    if not connection.execute(gone).rowcount:
        raise response_not_found(public_id)


def delete_older(connection: Connection, *, before: int, limit: int) -> int:
    """Remove at most ``limit`` responses that were created before a time; returns how many were removed."""
    old = select(_responses.c.id).where(_responses.c.created_at < before).limit(limit)
    return connection.execute(delete(_responses).where(_responses.c.id.in_(old))).rowcount


def unfinished_ids(connection: Connection, *, before: int) -> list[tuple[TenantId, str]]:
    """Tenant and public id of the responses that were created before a time and have not ended."""
    statement = select(_responses.c.tenant, _responses.c.public_id).where(
        _responses.c.status.in_(UNFINISHED), _responses.c.created_at < before
    )
    return [(TenantId(tenant), public_id) for tenant, public_id in connection.execute(statement)]


def responses_for_export(
    connection: Connection, tenant: TenantId, *, after: int, limit: int, most_bytes: int = 32 << 20
) -> Sequence[tuple[int, StoredResponse]]:
    """(row id, response) of a tenant with ``row id > after``, ascending.

    The last one is that with which they have ``most_bytes``: their inputs can have files.
    """
    statement = (
        select(_responses).where(_responses.c.tenant == tenant, _responses.c.id > after).order_by(_responses.c.id)
    )
    found: list[tuple[int, StoredResponse]] = []
    size_bytes = 0
    for row in connection.execute(statement.limit(limit)):
        found.append((row.id, _stored(row)))
        size_bytes += len(row.input) + len(row.body)
        if size_bytes >= most_bytes:
            break
    return found


def delete_responses_of(connection: Connection, tenant: TenantId) -> int:
    """Remove all responses of a tenant; returns how many there were."""
    return connection.execute(delete(_responses).where(_responses.c.tenant == tenant)).rowcount


def has_response(connection: Connection, tenant: TenantId, public_id: str) -> bool:
    statement = select(literal(1)).where(_responses.c.public_id == public_id, _responses.c.tenant == tenant)
    return connection.execute(statement).first() is not None


def count_responses(connection: Connection, tenant: TenantId) -> int:
    statement = select(func.count()).select_from(_responses).where(_responses.c.tenant == tenant)
    return int(connection.execute(statement).scalar_one())


def has_responses(connection: Connection, tenant: TenantId) -> bool:
    statement = select(literal(1)).where(_responses.c.tenant == tenant).limit(1)
    return connection.execute(statement).first() is not None


def _stored(row: AnyRow) -> StoredResponse:
    return StoredResponse(
        public_id=row.public_id,
        tenant=TenantId(row.tenant),
        model=row.model,
        status=row.status,
        background=row.background,
        previous_id=row.previous_id,
        collections=msgspec.json.decode(row.collections, type=list[str]),
        input=row.input,
        body=row.body,
        created_at=row.created_at,
    )
