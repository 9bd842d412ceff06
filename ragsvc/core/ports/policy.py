"""The port of policies: rules beyond those of an API key."""

from __future__ import annotations

from typing import Protocol

from ragsvc.core.access.principal import Principal
from ragsvc.core.gateway.endpoint_families import Family


class Policy(Protocol):
    """A rule beyond those of the key."""

    async def allows(self, principal: Principal, model: str, family: Family) -> bool:
        """Whether the key may use the model for this family. Raises ``ModelUnavailable`` without a decision."""
        ...
