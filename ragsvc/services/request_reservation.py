"""What one request has reserved of the budgets that bind it."""

from __future__ import annotations

from ragsvc.core.access.request_note import note_request
from ragsvc.core.gateway.chat import TokenUsage
from ragsvc.core.gateway.prices import FREE, NO_TOKENS, ONE_REQUEST, Quantities, cost_micros, reply_tokens_worth
from ragsvc.core.gateway.provider_settings import Pricing
from ragsvc.core.ports.chat_backend import ChatStream
from ragsvc.core.ports.token_meter import Reservation, TokenMeter

_NO_REQUEST = Quantities(requests=0)


class RequestReservation:
    """Tokens and money reserved for a request. Only the first call of ``settle`` or ``refund`` has an effect.

    Both run to completion even if the request is cancelled. ``pricing`` are the prices at which it is settled: those of
    the provider that answers, once it is known.
    """

    def __init__(self, meter: TokenMeter, reservation: Reservation, model: str, pricing: Pricing = FREE) -> None:
        self._meter = meter
        self._reservation = reservation
        self._model = model
        self._open = True
        self.pricing = pricing
        note_request(model=model)

    @property
    def limited(self) -> bool:
        """Whether the request must not use more than is reserved."""
        return self._reservation.limited

    def reply_tokens_for(self, prompt_tokens: int) -> int:
        """The reply tokens that may be used instead of reserved tokens of the prompt."""
        if not self._reservation.money_limited:
            return prompt_tokens
        return reply_tokens_worth(self.pricing, prompt_tokens)

    async def extend(self, tokens: int) -> bool:
        """Reserve more tokens of the reply; ``False`` if the budgets do not cover them."""
        cost = cost_micros(self.pricing, TokenUsage.of(0, tokens), _NO_REQUEST)
        return self._open and await self._meter.extend(self._reservation, tokens, cost=cost)

    async def settle(self, usage: TokenUsage = NO_TOKENS, quantities: Quantities = ONE_REQUEST) -> None:
        """Charge what was used and release the rest."""
        if self._open:
            self._open = False
            await self._meter.settle(
                self._reservation,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                model=self._model,
                cost=cost_micros(self.pricing, usage, quantities),
            )

    async def settle_stream(self, source: ChatStream) -> None:
        """Charge the tokens that a stream used. If cancelled while counting, the reservation stays open."""
        if self._open:
            await self.settle(await source.usage())

    async def refund(self) -> None:
        """Release all that is reserved."""
        if self._open:
            self._open = False
            await self._meter.refund(self._reservation)
