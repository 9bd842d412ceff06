"""The token reservation of one request."""

from __future__ import annotations

import anyio

from ragsvc.core.gateway.chat import TokenUsage
from ragsvc.core.ports.chat_backend import ChatStream
from ragsvc.core.ports.token_meter import Reservation, TokenMeter


class RequestReservation:
    """Tokens reserved for a request. Only the first call of ``settle`` or ``refund`` has an effect.

    Both run to completion even if the request is cancelled.
    """

    def __init__(self, meter: TokenMeter, reservation: Reservation, model: str) -> None:
        self._meter = meter
        self._reservation = reservation
        self._model = model
        self._open = True

    @property
    def limited(self) -> bool:
        """Whether the request must not use more tokens than are reserved."""
        return self._reservation.limited

    async def extend(self, tokens: int) -> bool:
        """Reserve more tokens; ``False`` if the limits of the key do not cover them."""
        return self._open and await self._meter.extend(self._reservation, tokens)

    async def settle(self, usage: TokenUsage) -> None:
        """Charge the tokens used and release the rest."""
        if self._open:
            self._open = False
            with anyio.CancelScope(shield=True):
                await self._meter.settle(
                    self._reservation,
                    prompt_tokens=usage.prompt_tokens,
                    completion_tokens=usage.completion_tokens,
                    model=self._model,
                )

    async def settle_stream(self, source: ChatStream) -> None:
        """Charge the tokens that a stream used. If cancelled while counting, the reservation stays open."""
        if self._open:
            await self.settle(await source.usage())

    async def refund(self) -> None:
        """Release all reserved tokens."""
        if self._open:
            self._open = False
            with anyio.CancelScope(shield=True):
                await self._meter.refund(self._reservation)
