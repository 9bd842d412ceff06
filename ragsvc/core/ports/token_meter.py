"""The port of token balances."""

from __future__ import annotations

from typing import Protocol

import msgspec

from ragsvc.core.access.principal import Principal
from ragsvc.core.ids import KeyId


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
