"""Policies beyond the rules of keys: decisions per key, model and family, cached briefly, denied on failure."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from ragsvc.core.access.principal import Principal
from ragsvc.core.errors import ModelUnavailable
from ragsvc.core.gateway.endpoint_families import Family

_REMEMBERED = 10_000

Decide = Callable[[Mapping[str, Any]], Awaitable[bool]]
"""Decides whether an input is allowed; an exception means that there is no decision."""


class _Decision(msgspec.Struct, frozen=True):
    allowed: bool
    until: float


class CachedPolicy:
    """Implements ``Policy`` with a cache: decisions are kept for ``keep_s`` seconds, failures are not."""

    def __init__(
        self, decide: Decide, *, keep_s: float, timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._decide = decide
        self._keep_s = keep_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._decisions: OrderedDict[tuple[Principal, str, Family], _Decision] = OrderedDict()

    async def allows(self, principal: Principal, model: str, family: Family) -> bool:
        """Return the cached or a new decision.

        Raises:
            ModelUnavailable: the policy gave no decision, so the request is not allowed.
        """
        question = (principal, model, family)
        known = self._decisions.get(question)
        if known is not None and known.until > self._clock():
            return known.allowed
        try:
            async with asyncio.timeout(self._timeout_s):
                allowed = await self._decide(policy_input(principal, model, family))
        except Exception as error:  # any failure of a policy engine: no decision, no access
            raise ModelUnavailable("The policy for this request gives no decision.", retry_after_s=1) from error
        self._decisions[question] = _Decision(allowed, self._clock() + self._keep_s)
        self._decisions.move_to_end(question)
        if len(self._decisions) > _REMEMBERED:
            self._decisions.popitem(last=False)
        return allowed


def policy_input(principal: Principal, model: str, family: Family) -> dict[str, Any]:
    """The ``input`` of a policy."""
    return {
        "key": {
            "id": principal.key_id,
            "label": principal.label,
            "tenant": principal.tenant,
            "scopes": sorted(scope.value for scope in principal.scopes),
        },
        "model": model,
        "family": family.value,
    }
