"""A backend for any OpenAI-compatible provider (vLLM, Ollama, llama.cpp, a vendor), over a shared HTTP session."""

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
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.finish_reasons import finish_reason_of, is_finish_reason
from ragsvc.core.gateway.provider_settings import ProviderSettings
from ragsvc.core.ports.chat_backend import ChatReply
from ragsvc.core.ports.model_provider import ForwardRequest
from ragsvc.providers.model_contexts import ModelContexts
from ragsvc.providers.upstream_requests import HTTP_FAILURES, UpstreamClient, UpstreamEndpoint
from ragsvc.providers.upstream_stream import UpstreamStream, read_usage

_CHAT: Final = "/chat/completions"
_JSON_HEADERS: Final = {"Content-Type": "application/json", "Accept": "application/json"}
_STREAM_HEADERS: Final = {"Content-Type": "application/json", "Accept": "text/event-stream"}
_OWN_HEADERS: Final = re.compile(
    r"connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|content-length|content-encoding|"
    r"set-cookie|server|date",
    re.IGNORECASE,
)
"""Headers of the connection (RFC 9110 §7.6.1) or of the provider itself, which are not passed on."""


class _Message(msgspec.Struct):
    content: Any = None
    reasoning_content: str | None = None
    tool_calls: Any = None


class _CompletionChoice(msgspec.Struct):
    message: _Message | None = None
    finish_reason: Any = None


class _Completion(msgspec.Struct):
    """The fields of an answer that are required or metered."""

    choices: list[_CompletionChoice] | None = None
    usage: Raw = Raw(b"null")
    id: str | UnsetType | None = UNSET
    object: str | UnsetType | None = UNSET
    created: float | UnsetType | None = UNSET
    model: str | UnsetType | None = UNSET


_COMPLETIONS: Final = msgspec.json.Decoder(_Completion)


class OpenAIUpstream:
    """A provider. ``count_tokens`` is used only if the provider reports no usage."""

    def __init__(
        self,
        settings: ProviderSettings,
        session: aiohttp.ClientSession,
        *,
        count_tokens: CountTokens,
        client: UpstreamClient | None = None,
        on_failure: Callable[[str, str], None] = lambda _provider, _reason: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._client = client or UpstreamClient(settings, session, on_failure=on_failure)
        self._contexts = ModelContexts()
        self._count_tokens = count_tokens
        self._now = now

    @property
    def circuits(self) -> Mapping[Family, Circuit]:
        """State of the circuit breaker of each endpoint family that was requested so far."""
        return self._client.circuits

    @property
    def in_use(self) -> int:
        """Number of requests in progress."""
        return self._client.slots.in_use

    async def complete(self, call: ChatCall) -> ChatReply:
        """Return the answer with the bytes of the provider, unless fields are missing that clients require."""
        client = self._client
        body = call.upstream_body()
        endpoint = _chat_endpoint(call.model)

        async def send() -> ChatReply:
            response = await client.open("POST", endpoint, body, _JSON_HEADERS)
            return await self._reply(call, await client.read(response))

        await client.slots.acquire()
        try:
            return await client.attempt(endpoint, send)
        finally:
            client.slots.release()

    async def stream(self, call: ChatCall) -> UpstreamStream:
        """Begin to answer; yields the blocks of the provider as they arrive."""
        client = self._client
        body = call.upstream_body(meter_usage=True)
        endpoint = _chat_endpoint(call.model)

        async def send() -> UpstreamStream:
            response = await client.open("POST", endpoint, body, _STREAM_HEADERS)
            if response.content_type != "text/event-stream":
                response.close()
                raise UpstreamFailed(f"Provider '{client.settings.name}' did not answer with an event stream.")
            stream = UpstreamStream(
                client,
                response,
                client_wants_usage=call.request.wants_usage,
                prompt_tokens=lambda: prompt_tokens(call, self._count_tokens),
                count_tokens=self._count_tokens,
            )
            await stream.begin()
            return stream

        await client.slots.acquire()
        try:
            stream = await client.attempt(endpoint, send)
        except BaseException:
            client.slots.release()
            raise
        stream.keep_slot()
        return stream

    async def forward(self, request: ForwardRequest) -> ForwardedReply:
        """Pass a request of any family on; a streamed body is sent at most once."""
        client = self._client
        endpoint = UpstreamEndpoint(request.path, request.family, request.model)
        await client.slots.acquire()
        try:
            response = await client.attempt(
                endpoint,
                lambda: client.open(request.method, endpoint, request.body, request.headers),
                retries=None if isinstance(request.body, bytes) else 0,
            )
        except BaseException:
            client.slots.release()
            raise
        return ForwardedReply(client, response, request.family)

    async def context_tokens(self, model: str) -> int | None:
        """The context length that the provider lists for a model."""
        return await self._contexts.tokens(model, self._client)

    def with_key(self, api_key: str, *, from_caller: bool = False) -> OpenAIUpstream:
        """The same provider with another key; slots and circuit breakers are shared."""
        other = copy.copy(self)
        other._client = self._client.with_key(api_key, from_caller=from_caller)  # noqa: SLF001 - its own copy
        return other

    async def aclose(self) -> None:
        """Does nothing: the session is closed by its creator."""

    async def _reply(self, call: ChatCall, body: bytes) -> ChatReply:
        name = self._client.settings.name
        try:
            completion = _COMPLETIONS.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamFailed(f"Provider '{name}' sent an answer that is not a chat completion.") from error
        if completion.choices is None:
            raise self._client.error_in_body(body)
        usage = read_usage(completion.usage)
        if usage is None:
            usage = await anyio.to_thread.run_sync(self._counted, call, completion)
        finished = all(is_finish_reason(choice.finish_reason) for choice in completion.choices)
        if not (finished and all((completion.id, completion.object, completion.created, completion.model))):
            body = self._completed(call, body, usage)
        return ChatReply(body=body, usage=usage)

    def _counted(self, call: ChatCall, completion: _Completion) -> TokenUsage:
        tokens = 0
        for choice in completion.choices or ():
            message = choice.message or _Message()
            texts = [message.content if isinstance(message.content, str) else "", message.reasoning_content or ""]
            if message.tool_calls:
                texts.append(msgspec.json.encode(message.tool_calls).decode())
            tokens += self._count_tokens("".join(texts))
        return TokenUsage.of(prompt_tokens(call, self._count_tokens), tokens)

    def _completed(self, call: ChatCall, body: bytes, usage: TokenUsage) -> bytes:
        """The answer with the fields that strict clients require and this provider left out."""
        members = msgspec.json.decode(body, type=dict[str, Any])
        given = {name: value for name, value in members.items() if value is not None}
        for choice in given["choices"]:
            called = isinstance(choice.get("message"), dict) and choice["message"].get("tool_calls")
            ending = finish_reason_of(choice.get("finish_reason"))
            choice["finish_reason"] = ending or ("tool_calls" if called else "stop")
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


def _chat_endpoint(model: str) -> UpstreamEndpoint:
    return UpstreamEndpoint(_CHAT, Family.CHAT, model)


def prompt_tokens(call: ChatCall, count_tokens: CountTokens) -> int:
    """Count the tokens of the messages sent to the provider."""
    if call.messages is None:
        return call.request.estimated_prompt_tokens(count_tokens)
    return sum(count_tokens(bytes(message).decode()) for message in call.messages)


class ForwardedReply:
    """An answer of a provider of any family; its body is iterated. Implements ``ForwardReply``."""

    def __init__(self, client: UpstreamClient, response: aiohttp.ClientResponse, family: Family | None) -> None:
        self._client = client
        self._response = response
        self._family = family
        self._since = time.perf_counter()
        self._closed = False

    @property
    def status(self) -> int:
        """HTTP status, below 300."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers to pass on to the client, names in lower case."""
        headers = self._response.headers.items()
        return {name.lower(): value for name, value in headers if not _OWN_HEADERS.fullmatch(name)}

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._response.content.readany()
        except HTTP_FAILURES as error:
            self._client.report_broken_answer(self._family, error, since=self._since)
            raise self._client.translate(error, before_body=False) from error
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._response.close()
            self._client.slots.release()
