"""Tables of API keys, their usage and their audit log. Times are Unix seconds; days are days since 1970 in UTC."""

from __future__ import annotations

import time

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Text
from sqlmodel import Field, SQLModel


def later_revision(highest: int | None) -> int:
    """A revision after ``highest``, that of the rows, and after those of rows that were deleted.

    It is a time in microseconds. A number that only exceeds those of the rows would be given again after a deletion,
    and a process that has seen it would not read the change.
    """
    return max((highest or 0) + 1, time.time_ns() // 1000)


class KeyRow(SQLModel, table=True):
    """One API key. ``scopes`` and the ``allowed_`` columns are JSON lists.

    ``revision`` grows with every change of any key.
    ``token_lease`` tokens may have been spent since ``token_balance`` was last written
    (``core.access.limits.TokenLedger``). Columns with ``money`` are the same in millionths of a unit of money.
    """

    __tablename__ = "api_keys"  # pyright: ignore[reportAssignmentType]  # SQLModel takes a plain name

    id: str = Field(primary_key=True)
    tenant: str = Field(index=True)
    label: str
    secret_hash: bytes = Field(sa_column=Column(LargeBinary(32), nullable=False))
    state: str
    scopes: str = Field(sa_column=Column(Text, nullable=False))
    allowed_models: str = Field(sa_column=Column(Text, nullable=False))
    requests_per_minute: int | None = None
    requests_per_hour: int | None = None
    tokens_per_day: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    token_balance: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    token_grant: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    token_lease: int = 0
    lease_day: int = 0
    max_parallel_requests: int | None = None
    expires_at: int | None = None
    previous_secret_hash: bytes | None = Field(default=None, sa_column=Column(LargeBinary(32), nullable=True))
    previous_expires_at: int | None = None
    created_at: int
    updated_at: int
    revision: int = Field(index=True)
    allowed_collections: str = Field(sa_column=Column(Text, nullable=False, server_default="[]"))
    money_per_day: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    money_balance: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    money_grant: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    money_lease: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    money_lease_day: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))


class UsageRow(SQLModel, table=True):
    """Tokens and requests of one key, day, model and endpoint family, with the tenant of the key.

    ``cost_micros`` is what they cost, in millionths of a unit of money. ``errors`` counts requests that were answered
    with an error. ``duration_ms`` is the sum of the durations of ``timed_requests`` requests without one.
    Model ``""``: leases counted as spent after a crash, or requests without a model (searches, uploads). Family
    ``""``: counted by a release that did not distinguish families.
    """

    __tablename__ = "usage"  # pyright: ignore[reportAssignmentType]  # SQLModel takes a plain name
    __table_args__ = (Index("ix_usage_tenant", "tenant", "day"),)

    key_id: str = Field(primary_key=True)
    day: int = Field(primary_key=True)
    model: str = Field(primary_key=True)
    family: str = Field(primary_key=True)
    tenant: str
    prompt_tokens: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    completion_tokens: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    requests: int = 0
    cost_micros: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    errors: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    timed_requests: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    duration_ms: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))


class TenantRow(SQLModel, table=True):
    """The limits of a tenant; ``NULL`` where the default of the service applies.

    The columns with ``money`` are its budget, as those of ``KeyRow``; ``revision`` grows with every change of a budget.
    """

    __tablename__ = "tenants"  # pyright: ignore[reportAssignmentType]  # SQLModel takes a plain name

    name: str = Field(primary_key=True)
    max_collections: int | None = None
    max_documents: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    max_bytes: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    updated_at: int
    money_per_day: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    money_balance: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    money_grant: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    money_lease: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    money_lease_day: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    revision: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))


class KeyAuditRow(SQLModel, table=True):
    """One change of a key: by whom (a key id, or ``local`` for the command line), what and when. Holds no secret.

    Also a change of a tenant's key for a provider, with ``key_id`` ``""``.
    """

    __tablename__ = "key_audit"  # pyright: ignore[reportAssignmentType]  # SQLModel takes a plain name
    __table_args__ = (Index("key_audit_by_tenant", "tenant", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    at: int
    key_id: str = Field(index=True)
    actor: str
    action: str
    changes: str = Field(sa_column=Column(Text, nullable=False))
    request_id: str | None = None
    tenant: str = Field(default="", sa_column=Column(String, nullable=False, server_default=""))


class IdempotencyRow(SQLModel, table=True):
    """The response to a ``POST`` with an ``Idempotency-Key``; sealed: it may hold a secret that is shown once."""

    __tablename__ = "idempotency_keys"  # pyright: ignore[reportAssignmentType]  # SQLModel takes a plain name

    owner: str = Field(primary_key=True)
    name_hash: bytes = Field(sa_column=Column(LargeBinary(32), primary_key=True))
    fingerprint: bytes = Field(sa_column=Column(LargeBinary(32), nullable=False))
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: int = Field(index=True)
