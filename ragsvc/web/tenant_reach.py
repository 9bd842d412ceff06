"""Which tenant an administrator reaches: all with the scope ``admin``, its own with ``tenant.admin``."""

from __future__ import annotations

from typing import Any

from litestar import Request

from ragsvc.core.access.principal import Scope
from ragsvc.core.errors import PolicyDenied
from ragsvc.core.ids import TenantId
from ragsvc.web.context import principal_of


def own_tenant(request: Request[Any, Any, Any]) -> TenantId | None:
    """The only tenant that the caller reaches; ``None`` if it reaches all."""
    principal = principal_of(request)
    return None if Scope.ADMIN in principal.scopes else principal.tenant


def require_tenant(request: Request[Any, Any, Any], tenant: str) -> None:
    """Refuse a tenant that the caller does not reach. Raises ``PolicyDenied``."""
    own = own_tenant(request)
    if own is not None and tenant != own:
        label = principal_of(request).label
        raise PolicyDenied(f"Key '{label}' reaches its own tenant only; other tenants need the scope 'admin'.")
