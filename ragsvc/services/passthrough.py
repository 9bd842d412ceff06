"""Passes requests of the stateless families to the provider of their model, with everything ours around them.

Ours are the model's policy, tokens and fallback; the bytes of request and answer are the client's and the provider's.
Tokens are settled before the client sees the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Final, Protocol

import anyio
import msgspec

from ragsvc.core.access.principal import Principal
from ragsvc.core.gateway.chat import TokenUsage
from ragsvc.core.gateway.endpoint_families import Family, UsageScanner, estimate_written
from ragsvc.core.gateway.upstream_access import NO_ACCESS, UpstreamAccess
from ragsvc.core.ports.model_provider import ForwardReply, ForwardRequest
from ragsvc.core.ports.token_meter import TokenMeter
from ragsvc.services.model_registry import ModelRoute, first_able
from ragsvc.services.provider_routing import Router
from ragsvc.services.request_reservation import RequestReservation

_SCANNED: Final = ("application/json", "text/event-stream")


class ProxyBody(Protocol):
    """A request's body that can name the model as a provider does."""

    @property
    def spent(self) -> bool:
        """Whether a part of it has gone out that cannot be sent again."""
        ...

    def for_model(self, model: str) -> tuple[bytes | AsyncIterator[bytes], Mapping[str, str]]:
        """The body for a provider that knows the model as ``model``, and headers that describe it."""
        ...


class ProxyCall(msgspec.Struct, frozen=True, kw_only=True):
    """One request to pass on; ``path`` follows a provider's base URL. The estimates are tokens."""

    family: Family
    path: str
    model: str
    body: ProxyBody
    headers: Mapping[str, str]
    prompt_estimate: int = 0
    reply_estimate: int = 0


class ProxyAnswer:
    """A provider's answer on its way; iteration raises when it breaks off."""

    def __init__(self, reply: ForwardReply, booking: RequestReservation, call: ProxyCall) -> None:
        self._reply = reply
        self._booking = booking
        self._call = call
        self.status = reply.status
        self.headers = reply.headers
        kinds = (value.lower() for name, value in self.headers.items() if name.lower() == "content-type")
        self.content_type = next(kinds, "")
        self._scanner = UsageScanner() if self.content_type.startswith(_SCANNED) else None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._reply.__anext__()
        except StopAsyncIteration:
            await self._booking.settle(self._usage())
            raise
        if self._scanner is not None:
            self._scanner.feed(piece)
        return piece

    async def aclose(self) -> None:
        """Stop the provider if it still sends, and settle what passed; may be called twice."""
        with anyio.CancelScope(shield=True):
            try:
                await self._reply.aclose()
            finally:
                await self._booking.settle(self._usage())

    def _usage(self) -> TokenUsage:
        scanner = self._scanner
        if scanner is None:
            return TokenUsage.of(self._call.prompt_estimate, 0)
        has_events = self.content_type.startswith("text/event-stream")
        written = estimate_written(self._call.family, scanner, has_events=has_events)
        return scanner.reported() or TokenUsage.of(self._call.prompt_estimate, written)


class ProxyService:
    """Serves all families but chat."""

    def __init__(self, *, router: Router, meter: TokenMeter) -> None:
        self._router = router
        self._meter = meter

    async def forward(self, principal: Principal, call: ProxyCall, access: UpstreamAccess = NO_ACCESS) -> ProxyAnswer:
        """Pass a request on; returns when the answer's headers are there.

        Raises:
            PolicyDenied, ModelNotFound, BalanceExhausted, RateLimited, and what ``ChatBackend.complete`` raises.
        """
        routes = await self._router.routes(principal, call.model, call.family, access)
        reservation = await self._meter.reserve(principal, call.prompt_estimate + call.reply_estimate)
        booking = RequestReservation(self._meter, reservation, call.model)
        try:
            reply = await first_able(routes, lambda route: _ask(route, call), may_go_on=lambda: not call.body.spent)
        except asyncio.CancelledError:
            await booking.settle(TokenUsage.of(call.prompt_estimate, 0))
            raise
        except BaseException:
            await booking.refund()
            raise
        return ProxyAnswer(reply, booking, call)


async def _ask(route: ModelRoute, call: ProxyCall) -> ForwardReply:
    body, described = call.body.for_model(route.upstream_model)
    headers = {**call.headers, **described}
    return await route.provider.forward(ForwardRequest(method="POST", path=call.path, body=body, headers=headers))
