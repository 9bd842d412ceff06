"""The caller of a request and its permissions."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

from ragsvc.core.errors import PolicyDenied
from ragsvc.core.ids import KeyId, TenantId


class Scope(StrEnum):
    """Permissions of a key. ``admin`` manages everything; ``proxy`` covers the stateless endpoint families.

    ``chat.plain`` allows chats without documents only, ``chat`` allows both. ``tenant.admin`` manages the keys and the
    collections of its own tenant and sees its usage.
    """

    CHAT = "chat"
    CHAT_PLAIN = "chat.plain"
    EMBEDDINGS = "embeddings"
    DOCUMENTS_READ = "documents.read"
    DOCUMENTS_WRITE = "documents.write"
    SEARCH = "search"
    PROXY = "proxy"
    TENANT_ADMIN = "tenant.admin"
    ADMIN = "admin"


DEFAULT_SCOPES = frozenset(Scope) - {Scope.ADMIN, Scope.TENANT_ADMIN, Scope.CHAT_PLAIN}

_SUFFICIENT = {
    Scope.CHAT_PLAIN: frozenset({Scope.CHAT_PLAIN, Scope.CHAT}),
    Scope.TENANT_ADMIN: frozenset({Scope.TENANT_ADMIN, Scope.ADMIN}),
}
"""Scopes that include others."""

_WANTED = {Scope.CHAT_PLAIN: "'chat', or 'chat.plain' for chats without documents"}
"""The scopes to name where one that includes the required scope is the usual one."""


class Principal(msgspec.Struct, frozen=True):
    """The caller: a verified API key. ``allowed_models`` are names and globs; empty means all.

    ``allowed_collections`` are names of collections; empty means all.
    """

    key_id: KeyId
    tenant: TenantId
    label: str
    scopes: frozenset[Scope]
    allowed_models: tuple[str, ...] = ()
    allowed_collections: tuple[str, ...] = ()


def allows_model(principal: Principal, model: str) -> bool:
    """Whether the key may use a model; ``allowed_models`` are names and globs (``openai/*``), case-sensitive."""
    allowed = principal.allowed_models
    return not allowed or model in allowed or any(fnmatchcase(model, pattern) for pattern in allowed)


def covers_models(own: Sequence[str], granted: Sequence[str]) -> bool:
    """Whether names and globs ``granted`` reach no model beyond ``own``; for both, empty means all.

    A granted glob is compared as text with the own globs. This is right where ``*`` is the only wildcard of the own
    glob, because ``*`` then matches the wildcards of the granted glob and also all that they match. An own glob with
    ``?`` or ``[`` covers no other glob than itself.
    """
    return not own or (bool(granted) and all(_covers_name(own, name) for name in granted))


def _covers_name(own: Sequence[str], name: str) -> bool:
    is_glob = any(character in name for character in "*?[")
    return name in own or any(
        fnmatchcase(name, pattern) for pattern in own if not is_glob or ("?" not in pattern and "[" not in pattern)
    )


def require_model(principal: Principal, model: str) -> None:
    """Refuse a model that the key may not use.

    Raises:
        PolicyDenied: with the wording of the product's specification, which names key and model.
    """
    if not allows_model(principal, model):
        raise PolicyDenied(f"Key '{principal.label}' lacks scope for model '{model}'.", param="model")


def require_scope(principal: Principal, scope: Scope) -> None:
    """Refuse a request that needs a scope the key lacks. Raises ``PolicyDenied``, which names key and scope."""
    if not principal.scopes & _SUFFICIENT.get(scope, {scope}):
        wanted = _WANTED.get(scope, f"'{scope.value}'")
        raise PolicyDenied(f"Key '{principal.label}' lacks scope {wanted}.")


def allows_collection(principal: Principal, name: str) -> bool:
    """Whether the key may use a collection."""
    return not principal.allowed_collections or name in principal.allowed_collections


def require_collection(principal: Principal, name: str) -> None:
    """Refuse a collection that the key may not use. Raises ``PolicyDenied``, which names key and collection."""
    if not allows_collection(principal, name):
        raise PolicyDenied(f"Key '{principal.label}' may not use the collection '{name}'.", param="collection")
