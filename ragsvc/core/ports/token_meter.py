"""The port of token balances."""

from __future__ import annotations

from typing import Protocol

import msgspec

from ragsvc.core.access.principal import Principal
from ragsvc.core.ids import KeyId


class Reservation(msgspec.Struct, frozen=True):
    """Tokens reserved for a request; ``family`` is that of its endpoint, for the usage report.

    ``limited``: the key has a token limit, so that the request must not use more tokens than it reserved.
    """

    id: int
    key_id: KeyId
    tokens: int
    family: str = "chat"
    limited: bool = False


class TokenMeter(Protocol):
    """The balance of a key: reserve before a request, settle after it, refund on failure."""

    async def reserve(self, principal: Principal, tokens: int, *, family: str = "chat") -> Reservation:
        """Reserve ``tokens``. Raises ``BalanceExhausted`` or ``RateLimited`` (daily budget)."""
        ...

    async def extend(self, reservation: Reservation, tokens: int) -> bool:
        """Reserve more tokens for a request in progress; ``False`` if the limits of the key do not cover them."""
        ...

    async def settle(self, reservation: Reservation, *, prompt_tokens: int, completion_tokens: int, model: str) -> None:
        """Record the tokens used and give the rest of the reservation back; a second call is ignored."""
        ...

    async def refund(self, reservation: Reservation) -> None:
        """Give the whole reservation back; ignored after ``settle``."""
        ...

    async def remaining(self, principal: Principal) -> int:
        """Tokens that the key has left."""
        ...
