"""Any OpenAI-compatible provider (vLLM, Ollama, llama.cpp, a vendor) as a backend, over one shared HTTP session."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final
from uuid import uuid4

import aiohttp
import anyio.to_thread
import msgspec
from msgspec import UNSET, Raw, UnsetType

from ragsvc.core.errors import UpstreamFailed
from ragsvc.core.gateway.chat import ChatCall, CountTokens, TokenUsage
from ragsvc.core.gateway.circuit_breaker import Circuit
from ragsvc.core.gateway.provider_settings import ProviderSettings
from ragsvc.core.ports.chat_backend import ChatReply
from ragsvc.core.ports.model_provider import ForwardRequest
from ragsvc.providers.upstream_requests import HTTP_FAILURES, UpstreamClient
from ragsvc.providers.upstream_stream import UpstreamStream, read_usage

_CHAT: Final = "/chat/completions"
_JSON_HEADERS: Final = {"Content-Type": "application/json", "Accept": "application/json"}
_STREAM_HEADERS: Final = {"Content-Type": "application/json", "Accept": "text/event-stream"}
_OWN_HEADERS: Final = re.compile(
    r"connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|content-length|content-encoding|"
    r"set-cookie|server|date",
    re.IGNORECASE,
)
"""Headers of one connection or of the provider itself (RFC 9110 §7.6.1); they are not passed on."""


class _Message(msgspec.Struct):
    content: Any = None
    reasoning_content: str | None = None
    tool_calls: Any = None


class _CompletionChoice(msgspec.Struct):
    message: _Message | None = None


class _Completion(msgspec.Struct):
    """What must be in an answer, and what is metered."""

    choices: list[_CompletionChoice] | None = None
    usage: Raw = Raw(b"null")
    id: str | UnsetType | None = UNSET
    object: str | UnsetType | None = UNSET
    created: float | UnsetType | None = UNSET
    model: str | UnsetType | None = UNSET


_COMPLETIONS: Final = msgspec.json.Decoder(_Completion)


class OpenAIUpstream:
    """One provider. ``count_tokens`` is used only where the provider reports no usage."""

    def __init__(
        self,
        settings: ProviderSettings,
        session: aiohttp.ClientSession,
        *,
        count_tokens: CountTokens,
        exchange: UpstreamClient | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._exchange = exchange or UpstreamClient(settings, session)
        self._count_tokens = count_tokens
        self._now = now

    @property
    def circuit(self) -> Circuit:
        """Whether the provider is being asked at all."""
        return self._exchange.breaker.state

    @property
    def in_use(self) -> int:
        """Exchanges that are open now."""
        return self._exchange.slots.in_use

    async def complete(self, call: ChatCall) -> ChatReply:
        """Answer in one piece; the provider's bytes, unless they lack what every client expects."""
        exchange = self._exchange
        body = call.upstream_body()

        async def once() -> ChatReply:
            response = await exchange.open("POST", _CHAT, body, _JSON_HEADERS)
            return await self._reply(call, await exchange.read(response))

        await exchange.slots.acquire()
        try:
            return await exchange.attempt(once)
        finally:
            exchange.slots.release()

    async def stream(self, call: ChatCall) -> UpstreamStream:
        """Begin to answer; the provider's blocks as they come."""
        exchange = self._exchange
        body = call.upstream_body(meter_usage=True)

        async def once() -> UpstreamStream:
            response = await exchange.open("POST", _CHAT, body, _STREAM_HEADERS)
            if response.content_type != "text/event-stream":
                response.close()
                raise UpstreamFailed(f"provider '{exchange.settings.name}' does not stream")
            stream = UpstreamStream(
                exchange,
                response,
                client_wants_usage=call.request.wants_usage,
                prompt_tokens=lambda: prompt_tokens(call, self._count_tokens),
                count_tokens=self._count_tokens,
            )
            await stream.begin()
            return stream

        await exchange.slots.acquire()
        try:
            stream = await exchange.attempt(once)
        except BaseException:
            exchange.slots.release()
            raise
        stream.keep_slot()
        return stream

    async def forward(self, request: ForwardRequest) -> ForwardedReply:
        """Pass a request of any family on; a body that is a stream is sent once only."""
        exchange = self._exchange
        await exchange.slots.acquire()
        try:
            response = await exchange.attempt(
                lambda: exchange.open(request.method, request.path, request.body, request.headers),
                retries=None if isinstance(request.body, bytes) else 0,
            )
        except BaseException:
            exchange.slots.release()
            raise
        return ForwardedReply(exchange, response)

    def with_key(self, api_key: str, *, callers: bool = False) -> OpenAIUpstream:
        """The same provider, its slots and its breaker, asked with another key."""
        other = copy.copy(self)
        other._exchange = self._exchange.with_key(api_key, callers=callers)  # noqa: SLF001 - its own copy
        return other

    async def aclose(self) -> None:
        """Nothing of its own to free: the session belongs to whoever made it."""

    async def _reply(self, call: ChatCall, body: bytes) -> ChatReply:
        name = self._exchange.settings.name
        try:
            completion = _COMPLETIONS.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamFailed(f"provider '{name}' sent an answer that is no chat completion") from error
        if completion.choices is None:
            raise self._exchange.said_error(body)
        usage = read_usage(completion.usage)
        if usage is None:
            usage = await anyio.to_thread.run_sync(self._counted, call, completion)
        if not all((completion.id, completion.object, completion.created, completion.model)):
            body = self._completed(call, body, usage)
        return ChatReply(body=body, usage=usage)

    def _counted(self, call: ChatCall, completion: _Completion) -> TokenUsage:
        tokens = 0
        for choice in completion.choices or ():
            message = choice.message or _Message()
            said = [message.content if isinstance(message.content, str) else "", message.reasoning_content or ""]
            if message.tool_calls:
                said.append(msgspec.json.encode(message.tool_calls).decode())
            tokens += self._count_tokens("".join(said))
        return TokenUsage.of(prompt_tokens(call, self._count_tokens), tokens)

    def _completed(self, call: ChatCall, body: bytes, usage: TokenUsage) -> bytes:
        """The answer with the fields that strict clients need and this provider left out."""
        members = msgspec.json.decode(body, type=dict[str, Any])
        given = {name: value for name, value in members.items() if value is not None}
        return msgspec.json.encode(
            {
                "id": f"chatcmpl-{uuid4().hex}",
                "object": "chat.completion",
                "created": int(self._now()),
                "model": call.model,
                "usage": usage,
            }
            | given
        )


def prompt_tokens(call: ChatCall, count_tokens: CountTokens) -> int:
    """The tokens of what the provider was sent, as far as we can count them."""
    if call.messages is None:
        return call.request.estimated_prompt_tokens(count_tokens)
    return sum(count_tokens(bytes(message).decode()) for message in call.messages)


class ForwardedReply:
    """A provider's answer of any family, on its way."""

    def __init__(self, exchange: UpstreamClient, response: aiohttp.ClientResponse) -> None:
        self._exchange = exchange
        self._response = response
        self._closed = False

    @property
    def status(self) -> int:
        """HTTP status, below 300."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The provider's headers that concern the client."""
        headers = self._response.headers.items()
        return {name.lower(): value for name, value in headers if not _OWN_HEADERS.fullmatch(name)}

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._response.content.readany()
        except HTTP_FAILURES as error:
            self._exchange.breaker.failed()
            raise self._exchange.translate(error, before_body=False) from error
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Free connection and slot."""
        if not self._closed:
            self._closed = True
            self._response.close()
            self._exchange.slots.release()
