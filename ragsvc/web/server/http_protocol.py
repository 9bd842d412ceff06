"""uvicorn's HTTP/1.1 protocol with bounds on everything that a client can send before anybody has authorised it.

uvicorn bounds neither the bytes nor the number of headers and has no timeout but that of idle connections. With these
bounds it answers small requests as fast as without them, see ``scripts/bench_attack``.

- A head has a maximum of bytes and headers and a time in which it must be complete. A body must make progress.
- Fields after the body (trailers, RFC 9110 §6.5.1) are dropped: nothing that arrives after a head changes how the
  request is authorised or routed.
- After an answer that ends the connection in the middle of a body, the rest is received and dropped for a while
  (RFC 9112 §9.6): the client, or a proxy, may still send and would lose the answer with the connection.
- What a client can make expensive by slicing (heads, chunked bodies) is parsed in small pieces, between which other
  connections get their turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Final, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from ragsvc.core.errors import HeadersTooLarge, InvalidRequest, Overloaded, RagsvcError, RequestTimedOut
from ragsvc.core.network import Networks, client_network
from ragsvc.web.error_rendering import render
from ragsvc.web.server.connections import ConnectionTable

_PIECE_BYTES: Final = 8 << 10
"""Bytes of a head or a chunked body that are parsed at a time: with chunks of one byte that takes about 1 ms."""
_CHEAP_S: Final = 0.0005
_PAUSE_FACTOR: Final = 4
"""After a piece that took longer, its connection pauses for this many times as long. The event loop accepts a single
connection in each turn, so without pauses a queue of connections waits for as many pieces."""
_MAX_PIPELINED: Final = 16
_MAX_CHUNK_OVERHEAD_BYTES: Final = 64 << 10
"""Bytes of chunk extensions or trailers between two pieces of a body."""
_MIN_BODY_BYTES: Final = 1024
"""Bytes of a body that must arrive within the body timeout, unless the body ends."""
_LINGER_S: Final = 30.0
_LINGER_IDLE_S: Final = 5.0
"""How long the rest of a body is dropped: in total, and without a byte of it."""


class _LingeringTransport:
    """A connection's transport that calls ``end`` instead of closing, until ``close_now``."""

    def __init__(self, transport: asyncio.Transport, end: Callable[[], bool]) -> None:
        self._transport = transport
        self._end = end
        self.lingers = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - an attribute of the transport
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self.lingers or self._transport.is_closing()

    def close(self) -> None:
        if self.is_closing():
            return
        if not self._end():
            self._transport.close()
            return
        self.lingers = True
        if self._transport.can_write_eof():  # not with TLS
            with contextlib.suppress(OSError):  # the client has reset the connection
                self._transport.write_eof()

    def write(self, data: bytes) -> None:
        """What an application goes on to write is dropped, as after any close."""
        if not self.lingers:
            self._transport.write(data)

    def close_now(self) -> None:
        self._transport.close()


class _HeldFlowControl(FlowControl):
    """Flow control that the protocol can hold while it has received bytes that are not parsed yet."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._held = False

    def hold(self) -> None:
        if not self._held:
            self._held = True
            if not self.read_paused:
                self._transport.pause_reading()

    def release(self) -> None:
        if self._held:
            self._held = False
            if not self.read_paused:
                self._transport.resume_reading()

    def pause_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            if not self._held:
                self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            if not self._held:
                self._transport.resume_reading()


class BoundedHttpProtocol(HttpToolsProtocol):
    """A connection; see the module. Implements ``TrackedConnection``."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        *,
        table: ConnectionTable,
        trusted: Networks,
        state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(config, server_state, app_state=state, _loop=loop)
        self.address: str | None = None
        self._held_flow: _HeldFlowControl
        self._table = table
        self._trusted = trusted
        self._limits = table.limits
        self._problem: RagsvcError | None = None
        self._unparsed: bytes = b""
        self._parsed_to = 0
        self._in_head = True
        self._chunked = False
        self._head_fed = 0
        """Bytes received of a head that is not complete."""
        self._head_exact = 0
        """Bytes of the complete lines of this head."""
        self._messages = 0
        """Requests that were received completely."""
        self._overhead = 0
        self._waits_since = 0.0
        self._body_since = 0.0
        self._body_bytes = 0
        self._last_body_at = 0.0
        self._write_paused_at: float | None = None
        self._closing_at: float | None = None
        self._lingering: _LingeringTransport
        self._lingers_since = 0.0

    # -- life of the connection -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self.flow = self._held_flow = _HeldFlowControl(transport)
        self._lingering = _LingeringTransport(transport, self._linger)
        self.transport = cast("asyncio.Transport", self._lingering)
        if self.client and self.client[0] not in self._trusted:
            self.address = client_network(self.client[0])
        self._waits_since = now = self.loop.time()
        if self._table.admit(self, now):
            self._table.waits(self)
        else:
            self._answer(Overloaded("Too many open connections.", retry_after_s=1))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._table.remove(self)
        self._unparsed = b""
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self._lingering.lingers:
            self._lingering.close_now()
        else:
            super().shutdown()

    def make_room(self) -> None:
        self.transport.abort()

    def body_stalled_s(self, now: float) -> float:
        if self._lingering.lingers:
            return now - self._lingers_since
        return now - self._last_body_at if self._awaits_body() else 0.0

    def check(self, now: float) -> None:
        """Close the connection if a timeout has passed."""
        limits = self._limits
        if self._lingering.lingers and not self._closing_at:
            if now - self._lingers_since > _LINGER_S or now - self._last_body_at > _LINGER_IDLE_S:
                self._closing_at = now
                self._lingering.close_now()
        elif self.transport.is_closing():
            self._closing_at = self._closing_at or now
            if now - self._closing_at > limits.send_timeout_s:  # the client does not read what was sent last
                self.transport.abort()
        elif self._write_paused_at is not None and now - self._write_paused_at > limits.send_timeout_s:
            self.transport.abort()
        elif self._has_request():
            self._check_body(now)
        else:
            is_idle = self._messages > 0 and self._in_head and not self._head_fed
            timeout_s = limits.idle_timeout_s if is_idle else limits.header_timeout_s
            if now - self._waits_since > timeout_s:
                if not is_idle and self._in_head and self._head_fed:
                    self._answer(
                        RequestTimedOut(f"The headers did not arrive within {timeout_s:g} seconds.", retry_after_s=1)
                    )
                self.transport.close()

    def _check_body(self, now: float) -> None:
        if not self._awaits_body():
            self._body_since, self._body_bytes = now, 0
        elif now - self._body_since > self._limits.body_timeout_s:
            if self._body_bytes < _MIN_BODY_BYTES:
                self._fail(
                    RequestTimedOut(
                        f"Fewer than {_MIN_BODY_BYTES} bytes of the request body arrived within "
                        f"{self._limits.body_timeout_s:g} seconds.",
                        retry_after_s=1,
                    )
                )
            self._body_since, self._body_bytes = now, 0

    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]  # None before the first request

    def _awaits_body(self) -> bool:
        return self._has_request() and self.cycle.more_body and not self.flow.read_paused

    def _linger(self) -> bool:
        """Whether the connection ends in the middle of a body; its rest is dropped from now on."""
        if self._in_head or self.cycle is None or not self.cycle.more_body:  # pyright: ignore[reportUnnecessaryComparison]  # None before the first request
            return False
        if not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._lingers_since = self._last_body_at = self.loop.time()
        self._unparsed, self._parsed_to = b"", 0
        self._held_flow.release()
        self.flow.resume_reading()
        return True

    # -- bytes of the client --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._lingering.lingers:
            self._last_body_at = self.loop.time()
        elif self._unparsed:
            self._unparsed = self._unparsed[self._parsed_to :] + data
            self._parsed_to = 0
        elif len(data) <= _PIECE_BYTES:
            self._feed(data)
        else:
            self._unparsed, self._parsed_to = data, 0
            self._parse_pieces()

    def _parse_pieces(self) -> None:
        """Parse what was received, up to the end of a piece that may be expensive; the rest in the loop's next turn."""
        while self._parsed_to < len(self._unparsed) and not self.transport.is_closing():
            sliced = self._in_head or self._chunked
            end = self._parsed_to + _PIECE_BYTES if sliced else len(self._unparsed)
            piece = self._unparsed[self._parsed_to : end]
            self._parsed_to += len(piece)
            begin = time.perf_counter()
            if not self._feed(piece):
                break
            spent_s = time.perf_counter() - begin
            if (self._in_head or self._chunked) and self._parsed_to < len(self._unparsed):
                self._held_flow.hold()
                if spent_s < _CHEAP_S:
                    self.loop.call_soon(self._parse_pieces)
                else:
                    self.loop.call_later(_PAUSE_FACTOR * spent_s, self._parse_pieces)
                return
        self._unparsed, self._parsed_to = b"", 0
        if not self.transport.is_closing():
            self._held_flow.release()

    def _feed(self, piece: bytes) -> bool:
        """Parse a piece; ``False`` if the connection ends because of it."""
        if self.parser is None:  # the connection was lost
            return False
        messages, begins_head = self._messages, self._in_head and not self._head_fed
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserError:
            self._fail(self._problem or InvalidRequest("The request is not valid HTTP/1.1."))
            return False
        except httptools.HttpParserUpgrade:
            pass  # no upgrade is offered; the request is answered as if it had asked for none
        if self._in_head:
            self._head_fed = self._head_fed + len(piece) if messages == self._messages else self._head_exact
            if self._head_fed > self._limits.max_header_bytes:
                self._fail(self._too_large())
                return False
            if begins_head and not self._has_request():
                self._waits_since = self.loop.time()
        else:
            self._head_fed = 0
            self._overhead += len(piece)
            if self._chunked and self._overhead > _MAX_CHUNK_OVERHEAD_BYTES + _PIECE_BYTES:
                self._fail(InvalidRequest("The chunk extensions or trailers of the request are too long."))
                return False
        return True

    def _too_large(self) -> HeadersTooLarge:
        limits = self._limits
        return HeadersTooLarge(
            f"The request line and headers are too large: at most {limits.max_header_bytes} bytes and "
            f"{limits.max_headers} headers are accepted."
        )

    def _fail(self, error: RagsvcError) -> None:
        """Answer if that is possible, and close."""
        if not self.pipeline and not (self._has_request() and self.cycle.response_started):
            self._answer(error)
        self.transport.close()

    def _answer(self, error: RagsvcError) -> None:
        rendered = render(error, None)
        content = rendered.content
        headers = {**rendered.headers, "content-type": "application/json", "content-length": str(len(content))}
        lines = [STATUS_LINE[rendered.status]]
        lines += [b"%b: %b\r\n" % (name, value) for name, value in self.server_state.default_headers]
        lines += [f"{name}: {value}\r\n".encode() for name, value in headers.items() if name != "connection"]
        self.transport.write(b"".join([*lines, b"connection: close\r\n\r\n", content]))

    # -- callbacks of the parser ----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._problem = InvalidRequest("Too many requests were sent without waiting for an answer.")
            raise self._problem
        super().on_message_begin()
        self._head_exact = 0

    def on_url(self, url: bytes) -> None:
        self._head_exact += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer
        self._head_exact += len(name) + len(value) + 4
        if len(self.headers) >= self._limits.max_headers or self._head_exact > self._limits.max_header_bytes:
            self._problem = self._too_large()
            raise self._problem
        name = name.lower()
        if name == b"transfer-encoding":
            self._chunked = True
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._overhead = 0
        self._table.ends_waiting(self)
        self._body_since = self._last_body_at = self.loop.time()
        self._body_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._overhead = 0
        self._body_bytes += len(body)
        self._last_body_at = self.loop.time()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        self._chunked = False
        self._head_fed = self._head_exact = 0
        self._messages += 1
        super().on_message_complete()

    # -- end of a response ----------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """As in uvicorn, but without its timer for idle connections: ``check`` knows all timeouts."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self._waits_since = self.loop.time()
            self._table.waits(self)

    # -- bytes for the client -------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        self._write_paused_at = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._write_paused_at = None
        super().resume_writing()
