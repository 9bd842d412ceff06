"""The caller of a request and its permissions."""

from __future__ import annotations

from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

from ragsvc.core.errors import PolicyDenied
from ragsvc.core.ids import KeyId, TenantId


class Scope(StrEnum):
    """Permissions of a key. ``admin`` manages keys and providers; ``proxy`` covers the stateless endpoint families."""

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
    """Whether the key may use a model; ``allowed_models`` are names and globs (``openai/*``), case-sensitive."""
    allowed = principal.allowed_models
    return not allowed or model in allowed or any(fnmatchcase(model, pattern) for pattern in allowed)


def require_model(principal: Principal, model: str) -> None:
    """Refuse a model that the key may not use.

    Raises:
        PolicyDenied: with the wording of the product's specification, which names key and model.
    """
    if not allows_model(principal, model):
        raise PolicyDenied(f"Key '{principal.label}' lacks scope for model '{model}'.", param="model")


def require_scope(principal: Principal, scope: Scope) -> None:
    """Refuse a request that needs a scope the key lacks. Raises ``PolicyDenied``, which names key and scope."""
    if scope not in principal.scopes:
        raise PolicyDenied(f"Key '{principal.label}' lacks scope '{scope.value}'.")
