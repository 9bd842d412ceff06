"""The event stream of a provider, checked and metered while it is passed to the client.

Blocks are passed on as they arrive. Only those events are parsed that have a usage, have a finish reason unknown to
clients, or do not look like a chunk (no ``choices``, no closing brace): they may be errors, comments or invalid data.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import aiohttp
import anyio.to_thread
import msgspec
from msgspec import UNSET, Raw, UnsetType

from ragsvc.core.errors import RagsvcError, UpstreamFailed
from ragsvc.core.gateway.chat import MOST_TOKENS, CountTokens, TokenUsage
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.event_stream import EventAligner, encode_event, event_data, split_events
from ragsvc.core.gateway.finish_reasons import find_unknown_finish, finish_reason_of
from ragsvc.core.gateway.stream_usage import StreamLedger
from ragsvc.providers.upstream_requests import HTTP_FAILURES, UpstreamClient

_DONE_ENDS: Final = (b"data: [DONE]\n\n", b"data:[DONE]\n\n")
_DONE_WORDS: Final = (b"data: [DONE]", b"data:[DONE]")
_NULL_USAGES: Final = (b',"usage":null', b', "usage": null')
_FIGURE: Final = re.compile(rb'"usage"(?!: ?null)')
_END_WAIT_S: Final = 0.5
_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw])


class UpstreamStream:
    """The chunks of an answer whose response headers have arrived; ``begin`` reads the first block."""

    def __init__(
        self,
        client: UpstreamClient,
        response: aiohttp.ClientResponse,
        *,
        client_wants_usage: bool,
        prompt_tokens: Callable[[], int],
        count_tokens: CountTokens,
    ) -> None:
        self._client = client
        self._response = response
        self._read = response.content.readany
        self._client_wants_usage = client_wants_usage
        self._prompt_tokens = prompt_tokens
        self._count_tokens = count_tokens
        self._aligner = EventAligner()
        self._ledger = StreamLedger()
        self._first: bytes | None = None
        self._failure: RagsvcError | None = None
        self._begun = False
        self._at_end = False
        self._closed = False
        self._holds_slot = False
        self._since = time.perf_counter()

    @property
    def finished(self) -> bool:
        """Whether iteration has yielded the last block."""
        return self._at_end and self._first is None

    async def begin(self) -> None:
        """Wait for the first block. Raises ``RetriableFailure``, or the error in the first event."""
        try:
            self._first = await self.__anext__()
        except StopAsyncIteration:
            pass  # an empty answer
        except BaseException:
            self._response.close()
            raise
        self._begun = True

    def keep_slot(self) -> None:
        """Let ``aclose`` release the slot of the provider."""
        self._holds_slot = True

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        try:
            while not self._at_end and self._failure is None:
                try:
                    piece = await self._read()
                except HTTP_FAILURES as error:
                    raise self._client.translate(error, before_body=not self._begun) from error
                block = self._take(piece)
                if self._at_end:
                    block += await self._closing_usage()
                if block:
                    return block
            if self._failure is not None:
                raise self._failure
        except RagsvcError as error:
            if self._begun:
                self._client.report_broken_answer(Family.CHAT, error.__cause__, since=self._since)
            raise
        raise StopAsyncIteration

    async def usage(self) -> TokenUsage:
        """The usage reported by the provider, else counted from the prompt and the streamed text."""
        if self._ledger.reported is not None:
            return self._ledger.reported
        text = self._ledger.streamed_text()
        return await anyio.to_thread.run_sync(
            lambda: TokenUsage.of(self._prompt_tokens(), text.count(self._count_tokens))
        )

    async def prompt_tokens(self) -> int:
        """The tokens of the prompt reported by the provider, else counted."""
        if self._ledger.reported is not None:
            return self._ledger.reported.prompt_tokens
        return await anyio.to_thread.run_sync(self._prompt_tokens)

    async def aclose(self) -> None:
        """Release connection and slot; closing the connection stops a provider that still generates."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._at_end and self._failure is None:
                await self._read_end()
        finally:
            self._response.close()  # no effect if the body was read to its end: the connection is in the pool again
            if self._holds_slot:
                self._client.slots.release()

    async def _read_end(self) -> None:
        """Read the response to its end, so that the connection can be reused; gives up after half a second."""
        if self._response.content.at_eof():
            return
        with contextlib.suppress(*HTTP_FAILURES):
            async with asyncio.timeout(_END_WAIT_S):
                while not self._response.content.at_eof():
                    await self._read()

    def _take(self, piece: bytes) -> bytes:
        """The events that a piece completes (``b""`` if none). Most pieces are whole events that need no change."""
        if piece[-3:] == b"}\n\n" and not self._aligner.tail and b'"usage"' not in piece:
            events = piece.count(b"}\n\n")
            if events == piece.count(b'"choices"') == piece.count(b"\n\n") and find_unknown_finish(piece) < 0:
                self._ledger.add(piece)
                return piece
        if not piece:
            self._end()
            return b""
        return self._take_any(piece)

    def _take_any(self, piece: bytes) -> bytes:
        block = self._aligner.feed(piece)
        if block.endswith(_DONE_ENDS):
            block = block[: block.rfind(b"data:")]
            self._at_end = True
        return self._checked(block) if block else b""

    def _end(self) -> None:
        """Handle the end of the body without ``[DONE]``: legal after a finish reason, else the answer is incomplete."""
        rest = self._aligner.tail.strip()
        if rest and rest not in _DONE_WORDS:
            raise UpstreamFailed(f"Provider '{self._client.settings.name}' broke off its answer.")
        if not rest and not self._ledger.has_finish():
            raise UpstreamFailed(f"Provider '{self._client.settings.name}' ended its answer too early.")
        self._at_end = True

    async def _closing_usage(self) -> bytes:
        """A usage chunk for a client that requested it, if the provider sent none."""
        if not self._client_wants_usage or self._ledger.reported is not None:
            return b""
        usage = await self.usage()
        self._ledger.report(usage)
        head = self._ledger.head
        return encode_event(
            {
                "id": head.id,
                "object": "chat.completion.chunk",
                "created": head.created,
                "model": head.model,
                "choices": [],
                "usage": usage,
            }
        )

    def _checked(self, block: bytes) -> bytes:
        if not self._client_wants_usage:
            for spelled in _NULL_USAGES:
                if spelled in block:
                    block = block.replace(spelled, b"")
        figure = _FIGURE.search(block)
        places = [place for place in (figure.start() if figure else -1, find_unknown_finish(block)) if place >= 0]
        border = block.rfind(b"\n\n", 0, min(places)) + 2 if places else len(block)
        head = block[: border if border > 1 else 0]
        if not _is_plain(head):
            head = b""
        if len(head) < len(block):
            block = head + self._read_events(block[len(head) :], after=head)
        if block:
            self._ledger.add(block)
        return block

    def _read_events(self, block: bytes, *, after: bytes) -> bytes:
        """Check a block event by event. After a failure, returns the events before it; the failure is raised next."""
        kept = b""
        for event in split_events(block):
            try:
                kept += self._read_event(event)
            except RagsvcError as error:
                if not kept and not after:
                    raise
                self._failure = error
                self._at_end = False
                break
        return kept

    def _read_event(self, event: bytes) -> bytes:
        data = event_data(event)
        if data is None or data == b"[DONE]":
            return b"" if data else event
        try:
            members = _MEMBERS.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UpstreamFailed(f"Provider '{self._client.settings.name}' sent an event that is not JSON.") from error
        if "error" in members and "choices" not in members:
            raise self._client.error_in_body(data)
        changed = "choices" not in members
        if changed:
            members["choices"] = Raw(b"[]")
        if find_unknown_finish(data) >= 0:
            members["choices"] = _with_known_finishes(members["choices"])
            changed = True
        usage = read_usage(members.get("usage"))
        if usage is not None:
            self._ledger.report(usage)
            if not self._client_wants_usage:
                if msgspec.json.decode(members["choices"]) == []:
                    return b""
                del members["usage"]
                changed = True
        return encode_event(members) if changed else event


def _with_known_finishes(choices: Raw) -> Raw:
    """The choices with finish reasons that clients know, and null for values that end no answer."""
    try:
        decoded = msgspec.json.decode(choices, type=list[dict[str, Any]])
    except msgspec.DecodeError:
        return choices
    for choice in decoded:
        if "finish_reason" in choice:
            choice["finish_reason"] = finish_reason_of(choice["finish_reason"])
    return Raw(msgspec.json.encode(decoded))


def _is_plain(block: bytes) -> bool:
    """Whether every event of a block of whole events looks like a chunk."""
    events = block.count(b"\n\n")
    return block.count(b'"choices"') == events == block.count(b"}\n\n")


class _Counts(msgspec.Struct):
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    prompt_tokens_details: Raw | UnsetType = UNSET


class _Details(msgspec.Struct):
    cached_tokens: float | None = None


_COUNTS: Final = msgspec.json.Decoder(_Counts | None)
_DETAILS: Final = msgspec.json.Decoder(_Details | None)


def read_usage(raw: Raw | None) -> TokenUsage | None:
    """The usage reported by a provider, in whole tokens; ``None`` if it reports none, or one that is not possible."""
    if raw is None:
        return None
    try:
        counts = _COUNTS.decode(raw)
    except msgspec.DecodeError:
        return None
    if counts is None or (counts.prompt_tokens is None and counts.completion_tokens is None):
        return None
    if max(counts.prompt_tokens or 0, counts.completion_tokens or 0) > MOST_TOKENS:
        return None
    return TokenUsage.of(
        max(0, int(counts.prompt_tokens or 0)),
        max(0, int(counts.completion_tokens or 0)),
        cached_tokens=_cached_tokens(counts.prompt_tokens_details),
    )


def _cached_tokens(raw: Raw | UnsetType) -> int:
    if raw is UNSET:
        return 0
    try:
        details = _DETAILS.decode(raw)
    except msgspec.DecodeError:
        return 0
    return 0 if details is None else max(0, int(details.cached_tokens or 0))
