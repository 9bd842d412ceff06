"""The port of token and money budgets."""

from __future__ import annotations

from typing import Protocol

import msgspec

from ragsvc.core.access.principal import Principal
from ragsvc.core.ids import KeyId


class Reservation(msgspec.Struct, frozen=True):
    """Tokens and money reserved for a request; ``family`` is that of its endpoint, for the usage report.

    Money is in millionths of a unit: ``cost`` in the budget of the key, ``tenant_cost`` in that of its tenant.
    ``limited``: the key has a limit of tokens or money, so that the request must not use more than it reserved;
    ``money_limited``: it has one of money.
    """

    id: int
    key_id: KeyId
    tokens: int
    family: str = "chat"
    limited: bool = False
    cost: int = 0
    tenant_cost: int = 0
    money_limited: bool = False


class Need(msgspec.Struct, frozen=True):
    """What a request needs at most, and at least; money is in millionths of a unit.

    If what is left covers the least, as much as is left is reserved.
    """

    tokens: int
    cost: int = 0
    least_tokens: int | None = None
    least_cost: int | None = None


class TokenMeter(Protocol):
    """The budgets of a key and its tenant: reserve before a request, settle after it, refund on failure."""

    async def reserve(self, principal: Principal, need: Need | int, *, family: str = "chat") -> Reservation:
        """Reserve what a request needs; a number is a need of tokens.

        Raises ``BalanceExhausted`` or ``RateLimited`` (daily budget of tokens).
        """
        ...

    async def extend(self, reservation: Reservation, tokens: int, *, cost: int = 0) -> bool:
        """Reserve more for a request in progress; ``False`` if the budgets do not cover it."""
        ...

    async def settle(
        self, reservation: Reservation, *, prompt_tokens: int, completion_tokens: int, model: str, cost: int = 0
    ) -> None:
        """Record what was used and give the rest of the reservation back; a second call is ignored.

        Is done completely also if the caller is cancelled, as ``refund`` is.
        """
        ...

    async def refund(self, reservation: Reservation) -> None:
        """Give the whole reservation back; ignored after ``settle``."""
        ...

    async def remaining(self, principal: Principal) -> int:
        """Tokens that the key has left."""
        ...
