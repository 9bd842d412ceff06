"""A model provider for tests: raw ASGI on a real uvicorn server. The name of the model selects its behaviour."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import contextmanager

import uvicorn

REPLY_WORDS = ["Hello", " from", " the", " provider", "."]
USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
HEAD = {"id": "chatcmpl-upstream", "created": 1700000000, "model": "real-model"}


def completion(content="Hello from the provider.", *, n=1, finish_reason="stop", usage=USAGE, **message):
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": content, "refusal": None, **message},
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        for index in range(n)
    ]
    body = {**HEAD, "object": "chat.completion", "choices": choices, "x_extra": {"kept": [1.50, None]}}
    return body | ({"usage": usage} if usage else {})


def chunk(delta, *, index=0, finish_reason=None, **fields):
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {**HEAD, "object": "chat.completion.chunk", "choices": [choice], **fields}


def event(value) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}


def answer_of(request) -> str:
    """The text of the reply. If the prompt contains passages, the reply cites them."""
    last = [message for message in request["messages"] if message["role"] == "user"][-1]["content"]
    text = last if isinstance(last, str) else "".join(part.get("text", "") for part in last)
    if "<<<passage [1]" in text:
        return "Revenue rose by 12 percent in 2021 [1]. Nothing supports this [9]."
    return "".join(REPLY_WORDS)


class Upstream:
    """The ASGI application of the provider, with a record of its requests."""

    def __init__(self) -> None:
        self.requests: list[dict] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.cancelled = 0
        self.running = 0
        self.failures_left = 0
        self.chunk_delay_s = 0.0
        self.pause_s = 0.0
        self.released = threading.Event()
        self.url = ""
        self.echoes = False
        self.models: list[dict] = []
        self.model_lists = 0

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        if self.echoes:
            await self._start(send, "application/x-echo", headers=[(b"connection", b"close")])
            await self._send(send, body, more=False)
            return
        if scope["method"] == "GET" and scope["path"].endswith("/v1/models"):
            self.model_lists += 1
            await self._json(send, {"object": "list", "data": self.models})
            return
        if scope["path"].endswith("/responses"):  # the provider offers chat completions only
            await self._json(send, {"detail": "Not Found"}, status=404)
            return
        request = json.loads(body) if body[:1] == b"{" else {"model": scope["path"].rsplit("/", 1)[-1]}
        self.requests.append(request)
        behaviour = getattr(self, "_" + request["model"].replace("-", "_").split("/")[-1], self._ok)
        self.running += 1
        try:
            await behaviour(request, receive, send)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    # -- proper answers -----------------------------------------------------------------------------------------

    async def _ok(self, request, receive, send):
        if request.get("stream"):
            await self._stream(request, receive, send)
        else:
            await self._json(send, completion(answer_of(request), n=request.get("n") or 1))

    async def _stream(self, request, receive, send, *, usage=True, done=True):
        asked = bool((request.get("stream_options") or {}).get("include_usage"))
        null = {"usage": None} if asked else {}
        await self._start(send, "text/event-stream")
        text = answer_of(request)
        words = REPLY_WORDS if text == "".join(REPLY_WORDS) else [text[at : at + 7] for at in range(0, len(text), 7)]
        count = request.get("n") or 1
        for index in range(count):
            await self._send(send, event(chunk({"role": "assistant", "content": ""}, index=index, **null)))
        for word in words:
            for index in range(count):
                await self._send(send, event(chunk({"content": word}, index=index, **null)))
            if self.chunk_delay_s:
                await asyncio.sleep(self.chunk_delay_s)
        for index in range(count):
            await self._send(send, event(chunk({}, index=index, finish_reason="stop", **null)))
        if asked and usage:
            await self._send(send, event({**HEAD, "object": "chat.completion.chunk", "choices": [], "usage": USAGE}))
        await self._send(send, DONE if done else b"", more=False)

    async def _tools(self, request, receive, send):
        if request["messages"][-1]["role"] == "tool":
            await self._ok(request, receive, send)
        elif request.get("stream"):
            await self._start(send, "text/event-stream")
            begun = {"index": 0, **TOOL_CALL, "function": {"name": "get_weather", "arguments": ""}}
            await self._send(send, event(chunk({"role": "assistant", "content": None, "tool_calls": [begun]})))
            for part in ('{"city":', '"Paris"}'):
                delta = {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}
                await self._send(send, event(chunk(delta)))
            await self._send(send, event(chunk({}, finish_reason="tool_calls")))
            await self._send(send, DONE, more=False)
        else:
            await self._json(send, completion(None, finish_reason="tool_calls", tool_calls=[TOOL_CALL]))

    async def _no_usage(self, request, receive, send):
        if request.get("stream"):
            await self._stream(request, receive, send, usage=False)
        else:
            await self._json(send, completion(usage=None))

    async def _no_done(self, request, receive, send):
        await self._stream(request, receive, send, done=False)

    async def _crlf(self, request, receive, send):
        await self._start(send, "text/event-stream")
        text = b": hello\r\n\r\n" + event(chunk({"content": "one"})).replace(b"\n", b"\r\n")
        text += event(chunk({}, finish_reason="stop")).replace(b"\n", b"\r\n") + b"data: [DONE]\r\n\r\n"
        for at in range(0, len(text), 11):
            await self._send(send, text[at : at + 11])
        await self._send(send, b"", more=False)

    async def _sparse(self, request, receive, send):
        """Omit fields that strict clients require."""
        if request.get("stream"):
            await self._start(send, "text/event-stream")
            await self._send(send, event({**HEAD, "object": "chat.completion.chunk"}))
            await self._send(send, event(chunk({"content": "x"}, finish_reason="stop", usage=USAGE)) + DONE, more=False)
        else:
            await self._json(send, {"choices": completion()["choices"]})

    async def _empty_finish(self, request, receive, send):
        await self._odd_finish(request, send, odd="", ending="stop")

    async def _null_text_finish(self, request, receive, send):
        await self._odd_finish(request, send, odd="null", ending="length", spaced=True)

    async def _vendor_finish(self, request, receive, send):
        await self._odd_finish(request, send, odd=None, ending="end_turn")

    async def _never_finish(self, request, receive, send):
        await self._odd_finish(request, send, odd="", ending="")

    async def _missing_finish(self, request, receive, send):
        await self._odd_finish(request, send, odd=..., ending=...)

    async def _empty_finish_cut_short(self, request, receive, send):
        await self._odd_finish(request, send, odd="", ending="", done=False)

    async def _odd_finish(self, request, send, *, odd, ending, spaced=False, done=True):
        """Every chunk has a finish reason that ends nothing; ``...`` leaves the field out."""
        text = answer_of(request)
        if not request.get("stream"):
            body = completion(text, finish_reason=ending)
            if ending is ...:
                del body["choices"][0]["finish_reason"]
            await self._json(send, body)
            return
        await self._start(send, "text/event-stream")
        for delta, reason in [*(({"content": letter}, odd) for letter in text), ({}, ending)]:
            value = chunk(delta, finish_reason=reason)
            if reason is ...:
                del value["choices"][0]["finish_reason"]
            await self._send(send, b"data: " + json.dumps(value).encode() + b"\n\n" if spaced else event(value))
        if (request.get("stream_options") or {}).get("include_usage"):
            await self._send(send, event({**HEAD, "object": "chat.completion.chunk", "choices": [], "usage": USAGE}))
        await self._send(send, DONE if done else b"", more=False)

    async def _late(self, request, receive, send):
        """Answer when the test sets ``released``."""
        await self._until_released()
        await self._ok(request, receive, send)

    async def _late_token(self, request, receive, send):
        """Send headers at once, and tokens when the test sets ``released``."""
        await self._start(send, "text/event-stream")
        await self._send(send, b"")
        await self._until_released()
        await self._send(send, event(chunk({"role": "assistant", "content": "late"})))
        await self._send(send, event(chunk({}, finish_reason="stop")) + DONE, more=False)

    async def _late_failure(self, request, receive, send):
        await self._until_released()
        await self._json(send, {"error": {"message": "internal details"}}, status=500)

    async def _pauses(self, request, receive, send):
        """Pause between events and inside of one, for ``pause_s`` each."""
        await self._start(send, "text/event-stream")
        first, second = event(chunk({"role": "assistant", "content": "one"})), event(chunk({"content": " two"}))
        await self._send(send, first)
        await asyncio.sleep(self.pause_s)
        await self._send(send, second[:25])
        await asyncio.sleep(self.pause_s)
        await self._send(send, second[25:])
        await self._send(send, event(chunk({}, finish_reason="stop")) + DONE, more=False)

    async def _until_released(self):
        while not self.released.is_set():
            await asyncio.sleep(0.01)

    # -- faults -------------------------------------------------------------------------------------------------

    async def _slow(self, request, receive, send):
        await self._until_disconnect(receive)

    async def _stall(self, request, receive, send):
        await self._start(send, "text/event-stream")
        await self._send(send, event(chunk({"role": "assistant", "content": "one two"})))
        await self._until_disconnect(receive)

    async def _endless(self, request, receive, send):
        streams = request.get("stream")
        await self._start(send, "text/event-stream" if streams else "application/json")
        gone = asyncio.ensure_future(self._until_disconnect(receive))
        while not gone.done():
            await self._send(send, event(chunk({"content": "word "})) if streams else b" " * 65536)
            await asyncio.sleep(0.005)
        await gone

    async def _reset(self, request, receive, send):
        send.__self__.transport.abort()

    async def _reset_midway(self, request, receive, send):
        await self._start(send, "text/event-stream" if request.get("stream") else "application/json")
        await self._send(send, event(chunk({"role": "assistant", "content": "one two"})) + b'data: {"id":"cut')
        await asyncio.sleep(0.05)
        send.__self__.transport.abort()

    async def _cut_short(self, request, receive, send):
        await self._start(send, "text/event-stream")
        await self._send(send, event(chunk({"role": "assistant", "content": "one two"})), more=False)

    async def _garbage(self, request, receive, send):
        await self._start(send, "text/event-stream" if request.get("stream") else "application/json")
        await self._send(send, b"<html>\xff\xfe this is no JSON</html>\n\n", more=False)

    async def _garbage_midway(self, request, receive, send):
        await self._start(send, "text/event-stream")
        await self._send(send, event(chunk({"role": "assistant", "content": "one two"})) + b"data: {broken\n\n")
        await self._send(send, DONE, more=False)

    async def _error_midway(self, request, receive, send):
        await self._start(send, "text/event-stream")
        await self._send(send, event(chunk({"role": "assistant", "content": "one two"})))
        await self._send(send, event({"error": {"message": "the GPU is on fire", "code": 500}}) + DONE, more=False)

    async def _bad_request(self, request, receive, send):
        error = {"message": "Unsupported value: 'temperature'", "type": "invalid_request_error", "param": "temperature"}
        await self._json(send, {"error": error}, status=400)

    async def _unauthorized(self, request, receive, send):
        await self._json(send, {"error": {"message": "Incorrect API key provided: sk-secret"}}, status=401)

    async def _limited(self, request, receive, send):
        await self._fail_or_ok(request, receive, send, 429, [(b"retry-after-ms", b"20")])

    async def _limited_for_long(self, request, receive, send):
        await self._json(send, {"error": {"message": "later"}}, status=429, headers=[(b"retry-after", b"77")])

    async def _broken(self, request, receive, send):
        await self._fail_or_ok(request, receive, send, 500, [])

    async def _fail_or_ok(self, request, receive, send, status, headers):
        if self.failures_left == 0:
            await self._ok(request, receive, send)
        else:
            self.failures_left -= 1
            await self._json(send, {"error": {"message": "internal details"}}, status=status, headers=headers)

    # -- parts --------------------------------------------------------------------------------------------------

    async def _until_disconnect(self, receive):
        while (await receive())["type"] != "http.disconnect":
            pass
        self.cancelled += 1

    @staticmethod
    async def _start(send, content_type, status=200, headers=()):
        start = [(b"content-type", content_type.encode()), *headers]
        await send({"type": "http.response.start", "status": status, "headers": start})

    @staticmethod
    async def _send(send, body, *, more=True):
        await send({"type": "http.response.body", "body": body, "more_body": more})

    async def _json(self, send, value, status=200, headers=()):
        body = json.dumps(value, separators=(", ", ": ")).encode()
        length = (b"content-length", str(len(body)).encode())
        await self._start(send, "application/json", status, (length, *headers))
        await self._send(send, body, more=False)


@contextmanager
def serving(app, **options):
    """Run an ASGI application on a free port of 127.0.0.1 in a thread; yields the base URL and the server."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        config = uvicorn.Config(app, log_level="warning", access_log=False, **{"lifespan": "off"} | options)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 10
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{port}", server
        finally:
            server.should_exit = True
            thread.join(10)


@contextmanager
def serving_upstream():
    """A provider on a free port; yields the ``Upstream``."""
    upstream = Upstream()
    with serving(upstream, timeout_graceful_shutdown=1) as (url, server):
        upstream.url = f"{url}/v1"
        upstream.server = server
        yield upstream
