"""Who calls, and what they may do."""

from __future__ import annotations

from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Protocol

import msgspec

from ragsvc.core.errors import PolicyDenied
from ragsvc.core.ids import KeyId, TenantId


class Scope(StrEnum):
    """What a key may touch. ``admin`` manages keys and providers; ``proxy`` covers the stateless endpoint families."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    DOCUMENTS_READ = "documents.read"
    DOCUMENTS_WRITE = "documents.write"
    SEARCH = "search"
    PROXY = "proxy"
    ADMIN = "admin"


DEFAULT_SCOPES = frozenset(Scope) - {Scope.ADMIN}


class Principal(msgspec.Struct, frozen=True):
    """The caller: a verified API key. ``allowed_models`` are names and globs; empty means all."""

    key_id: KeyId
    tenant: TenantId
    label: str
    scopes: frozenset[Scope]
    allowed_models: tuple[str, ...] = ()


def allows_model(principal: Principal, model: str) -> bool:
    """Tell whether the key may use a model; ``allowed_models`` are names and globs (``openai/*``), case counts."""
    allowed = principal.allowed_models
    return not allowed or model in allowed or any(fnmatchcase(model, pattern) for pattern in allowed)


def require_model(principal: Principal, model: str) -> None:
    """Refuse a model that the key may not use.

    Raises:
        PolicyDenied: in the words of the product's specification, naming key and model.
    """
    if not allows_model(principal, model):
        raise PolicyDenied(f"Key '{principal.label}' lacks scope for model '{model}'.", param="model")


def require_scope(principal: Principal, scope: Scope) -> None:
    """Refuse what the key's scopes do not cover.

    Raises:
        PolicyDenied: naming key and scope.
    """
    if scope not in principal.scopes:
        raise PolicyDenied(f"Key '{principal.label}' lacks scope '{scope.value}'.")


class Reservation(msgspec.Struct, frozen=True):
    """Tokens set aside for one request."""

    id: int
    key_id: KeyId
    tokens: int


class TokenMeter(Protocol):
    """The balance of a key: reserve before, settle after, refund on failure."""

    async def reserve(self, principal: Principal, tokens: int) -> Reservation:
        """Set ``tokens`` aside. Raises ``BalanceExhausted`` or ``RateLimited`` (daily budget)."""
        ...

    async def settle(self, reservation: Reservation, *, prompt_tokens: int, completion_tokens: int, model: str) -> None:
        """Book what was really used and give back the rest; a second call is ignored."""
        ...

    async def refund(self, reservation: Reservation) -> None:
        """Give all of it back; ignored after ``settle``."""
        ...

    async def remaining(self, principal: Principal) -> int:
        """Tokens left to the key."""
        ...


class UpstreamAccess(msgspec.Struct, frozen=True):
    """What one request brings for its provider: a key of the caller's own, and an address instead of a known name."""

    api_key: str | None = None
    base_url: str | None = None

    def __repr__(self) -> str:
        """Keeps the key."""
        return f"UpstreamAccess(base_url={self.base_url!r})"


NO_ACCESS = UpstreamAccess()
