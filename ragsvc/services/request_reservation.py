"""The reservation of one request, from before it costs anything to its end."""

from __future__ import annotations

import anyio

from ragsvc.core.gateway.chat import TokenUsage
from ragsvc.core.ports.chat_backend import ChatStream
from ragsvc.core.ports.token_meter import Reservation, TokenMeter


class RequestReservation:
    """Tokens set aside for one request; the first of ``settle`` and ``refund`` counts, and neither is interrupted."""

    def __init__(self, meter: TokenMeter, reservation: Reservation, model: str) -> None:
        self._meter = meter
        self._reservation = reservation
        self._model = model
        self._open = True

    async def settle(self, usage: TokenUsage) -> None:
        """Book what was used."""
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
        """Book what a stream used; cancelled while it counts, this stays open for the next call."""
        if self._open:
            await self.settle(await source.usage())

    async def refund(self) -> None:
        """Give all of it back."""
        if self._open:
            self._open = False
            with anyio.CancelScope(shield=True):
                await self._meter.refund(self._reservation)
