"""Passes requests of the stateless endpoint families to the provider of their model.

Adds access rules for models, token metering and fallback; the bytes of request and answer are not changed. Tokens are
settled before the end of the answer is sent to the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import anyio
import msgspec

from ragsvc.core.access.principal import Principal
from ragsvc.core.defaults import DEFAULT_MAX_PROMPT_CHARACTERS
from ragsvc.core.errors import UnsupportedParameter
from ragsvc.core.gateway.chat import CountTokens, TokenUsage
from ragsvc.core.gateway.document_suffix import RequestedModel
from ragsvc.core.gateway.endpoint_families import Family, estimate_written
from ragsvc.core.gateway.event_stream import WholeEvents
from ragsvc.core.gateway.prices import FREE, Quantities, cost_micros
from ragsvc.core.gateway.request_quantities import (
    ONE_CALL,
    ExpectedQuantities,
    measure_quantities,
    scanner_of,
)
from ragsvc.core.gateway.text_streams import CUT_FAMILIES, TextStreamEnd
from ragsvc.core.gateway.upstream_access import NO_ACCESS, UpstreamAccess
from ragsvc.core.ports.model_provider import ForwardReply, ForwardRequest, ProxyBody
from ragsvc.core.ports.token_meter import Need, TokenMeter
from ragsvc.services.model_registry import ModelRoute, first_able
from ragsvc.services.provider_routing import Router
from ragsvc.services.request_reservation import RequestReservation
from ragsvc.services.stream_budget import StreamBudget
from ragsvc.services.token_rates import TokenRates

_SCANNED: Final = ("application/json", "text/event-stream")
_SCANNED_TRANSCRIPTS: Final = (*_SCANNED, "text/", "application/x-subrip")
"""Media types of answers that may state what was used; transcripts as subtitles have times."""
_UNKNOWN_TOKENS: Final = frozenset({Family.IMAGES, Family.AUDIO, Family.VIDEOS, Family.OCR, Family.RERANK})
"""Families whose tokens do not follow from the size of a request."""
DEFAULT_MEDIA_TOKENS: Final = 1056
"""Tokens reserved for a request of such a family before the first answer of its model: an image of medium quality."""


class ProxyCall(msgspec.Struct, frozen=True, kw_only=True):
    """A request to pass on; ``path`` follows the base URL of a provider. The estimates are in tokens.

    ``limits_reply``: the request limits the tokens of the reply.
    """

    family: Family
    path: str
    model: str
    body: ProxyBody
    headers: Mapping[str, str]
    prompt_estimate: int = 0
    reply_estimate: int = 0
    limits_reply: bool = False
    quantities: ExpectedQuantities = ONE_CALL

    @property
    def units(self) -> float:
        """The measure with which the tokens of the request grow."""
        return float(self.prompt_estimate + self.reply_estimate) if self.prompt_estimate else self.quantities.units


class ProxyAnswer:
    """An answer of a provider; iteration yields its body and raises if it breaks off."""

    def __init__(
        self,
        reply: ForwardReply,
        reservation: RequestReservation,
        call: ProxyCall,
        *,
        count_tokens: CountTokens = len,
        rates: TokenRates | None = None,
    ) -> None:
        self._reply = reply
        self._rates = rates or TokenRates()
        self._reservation = reservation
        self._call = call
        self.status = reply.status
        self.headers = reply.headers
        kinds = (value.lower() for name, value in self.headers.items() if name.lower() == "content-type")
        self.content_type = next(kinds, "")
        scanned = _SCANNED_TRANSCRIPTS if call.family is Family.AUDIO else _SCANNED
        self._scanner = scanner_of(call.family) if self.content_type.startswith(scanned) else None
        self._whole = False
        self._cut: TokenUsage | None = None
        self._events = WholeEvents()
        self._end = TextStreamEnd(call.family)
        self._budget: StreamBudget | None = None
        is_stream = self.content_type.startswith("text/event-stream")
        if reservation.limited and is_stream and call.family in CUT_FAMILIES:
            self._budget = StreamBudget(
                reply_tokens=call.reply_estimate,
                may_grow=not call.limits_reply,
                read_text=self._end.read_text,
                count_tokens=count_tokens,
                unused_prompt=self._unused_prompt,
                extend=reservation.extend,
            )

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._cut is not None:
            raise StopAsyncIteration
        try:
            piece = await self._reply.__anext__()
        except StopAsyncIteration:
            self._whole = True
            await self._settle()
            if rest := self._events.take_rest():
                return rest
            raise
        if self._scanner is not None:
            self._scanner.feed(piece)
        return piece if self._budget is None else await self._within(piece, self._budget)

    async def _within(self, piece: bytes, budget: StreamBudget) -> bytes:
        """The whole events of a piece within the budget, with the end of the stream if it is cut."""
        block = self._events.feed(piece)
        kept, cut = await budget.take(_with_line_feeds(block)) if block else (b"", False)
        if not cut:
            return block
        unused = await self._unused_prompt()
        self._cut = TokenUsage.of(self._call.prompt_estimate - unused, budget.counted)
        await self._settle()
        await self._reply.aclose()
        return kept + self._end.last_events(self._cut)

    async def _unused_prompt(self) -> int:
        """Tokens by which the estimate of the prompt is too high: it has three bytes a token, and texts have four."""
        return self._reservation.reply_tokens_for(self._call.prompt_estimate // 4)

    async def aclose(self) -> None:
        """Stop the provider if it still sends, and settle the tokens; may be called twice."""
        with anyio.CancelScope(shield=True):
            try:
                await self._reply.aclose()
            finally:
                await self._settle()

    async def _settle(self) -> None:
        usage = self._usage()
        if self._whole and self._cut is None:
            self._rates.learn(self._call.model, self._call.path, self._call.units, usage.total_tokens)
            self._whole = False
        await self._reservation.settle(usage, self._quantities())

    def _quantities(self) -> Quantities:
        call = self._call
        if self._scanner is None:
            return call.quantities.assumed
        has_events = self.content_type.startswith("text/event-stream")
        return measure_quantities(call.family, call.path, call.quantities.assumed, self._scanner, has_events=has_events)

    def _usage(self) -> TokenUsage:
        if self._cut is not None:
            return self._cut
        scanner = self._scanner
        if scanner is None:
            return TokenUsage.of(self._call.prompt_estimate, 0)
        has_events = self.content_type.startswith("text/event-stream")
        written = estimate_written(self._call.family, scanner, has_events=has_events)
        return scanner.reported() or TokenUsage.of(self._call.prompt_estimate, written)


def _with_line_feeds(events: bytes) -> bytes:
    """Events with line feeds as line ends; those of the format may be carriage returns, which JSON strings escape."""
    return events.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in events else events


class ProxyService:
    """Serves all endpoint families except chat."""

    def __init__(
        self,
        *,
        router: Router,
        meter: TokenMeter,
        count_tokens: CountTokens = len,
        max_prompt_characters: Callable[[str], int] = lambda _: DEFAULT_MAX_PROMPT_CHARACTERS,
        requested: Callable[[str], RequestedModel] = RequestedModel,
        default_models: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """``count_tokens`` counts the text of streams of keys with a token limit.

        ``max_prompt_characters`` returns the longest prompt of a model, ``requested`` what a client means by a name.
        ``default_models`` are the models of requests that name none, by the names of ``default_model_kind``.
        """
        self._requested = requested
        self.default_models = default_models
        self._router = router
        self._count_tokens = count_tokens
        self._rates = TokenRates()
        self._meter = meter
        self.max_prompt_characters = max_prompt_characters

    async def forward(
        self,
        principal: Principal,
        call: ProxyCall,
        access: UpstreamAccess = NO_ACCESS,
        *,
        prepared: Callable[[], None] = lambda: None,
    ) -> ProxyAnswer:
        """Pass a request on; returns once the headers of the answer have arrived.

        ``prepared`` is called when the request was admitted, and the provider is asked next.

        Raises:
            PolicyDenied, ModelNotFound, UnsupportedParameter, BalanceExhausted, RateLimited, and the errors of
            ``ChatBackend.complete``.
        """
        if access.base_url is None:
            asked = self._requested(call.model)
            if asked.documents:
                raise UnsupportedParameter(
                    f"The suffix of '{call.model}' cannot be honoured by /v1{call.path}: "
                    "only POST /v1/chat/completions and /v1/responses answer from documents.",
                    param="model",
                )
            call = msgspec.structs.replace(call, model=asked.name)
        routes = await self._router.routes(principal, call.model, call.family, access)
        # what a caller's own provider reports must not decide what other tenants need for a model of the same name
        rates = self._rates if access.base_url is None else TokenRates()
        need = self._need(call, routes, rates)
        reserved = await self._meter.reserve(principal, need, family=call.family.value)
        reservation = RequestReservation(self._meter, reserved, call.model, routes[0].pricing)
        try:
            prepared()
            reply = await first_able(
                routes, lambda route: _ask(route, call, reservation), may_go_on=lambda: not call.body.spent
            )
        except asyncio.CancelledError:
            await reservation.settle(TokenUsage.of(call.prompt_estimate, 0), call.quantities.least)
            raise
        except BaseException:
            await reservation.refund()
            raise
        return ProxyAnswer(reply, reservation, call, count_tokens=self._count_tokens, rates=rates)

    def _need(self, call: ProxyCall, routes: Sequence[ModelRoute], rates: TokenRates) -> Need:
        """What a request needs: tokens as estimated, or as requests of the model before it used; and their price."""
        most = least = call.prompt_estimate + call.reply_estimate
        known = rates.expected(call.model, call.path, call.units)
        if call.family in _UNKNOWN_TOKENS:
            least = max(least, 1) if known is None else known
            default = max(most, DEFAULT_MEDIA_TOKENS * max(1, call.quantities.expected.images))
            most = default if known is None else known
        elif known is not None and call.family not in CUT_FAMILIES:
            most = least = max(least, known)
        cost = least_cost = 0
        for route in routes:
            if route.pricing != FREE:
                cost = max(cost, _price(route, call, most, call.quantities.expected))
                least_cost = max(least_cost, _price(route, call, least, call.quantities.least))
        return Need(most, cost, least_tokens=least, least_cost=least_cost)


def _price(route: ModelRoute, call: ProxyCall, tokens: int, quantities: Quantities) -> int:
    """The price of a request; tokens of an unknown kind are of the dearer kind."""
    pricing = route.pricing
    reply = call.reply_estimate
    if call.family in _UNKNOWN_TOKENS and pricing.output > pricing.input:
        reply = tokens
    return cost_micros(pricing, TokenUsage.of(tokens - reply, reply), quantities)


async def _ask(route: ModelRoute, call: ProxyCall, reservation: RequestReservation) -> ForwardReply:
    reservation.pricing = route.pricing
    body, body_headers = call.body.for_model(route.upstream_model)
    headers = {**call.headers, **body_headers}
    request = ForwardRequest(
        method="POST", path=call.path, body=body, headers=headers, family=call.family, model=route.upstream_model
    )
    return await route.provider.forward(request)
