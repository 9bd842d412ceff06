"""The two servers that a gateway is compared with: a provider that answers immediately, and a bare pass-through to it.

gateway_servers.py upstream|bare PORT [UPSTREAM_URL]
"""

from __future__ import annotations

import json
import sys
from typing import Any

import aiohttp
import uvicorn
from litestar import Litestar, Request, post
from litestar.response import Response, Stream

HEAD = {"id": "chatcmpl-bench", "created": 1700000000, "model": "bench"}
MESSAGE = {"role": "assistant", "content": "word " * 40, "refusal": None}
REPLY = json.dumps(
    HEAD
    | {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": MESSAGE, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 40, "total_tokens": 60},
    }
).encode()
DONE = b"data: [DONE]\n\n"


def _event(choices: list[Any], **more: Any) -> bytes:
    chunk = HEAD | {"object": "chat.completion.chunk", "choices": choices} | more
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _delta(delta: dict[str, str], finish_reason: str | None = None) -> list[Any]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]


CHUNKS = [_event(_delta({"content": f"word{n} "})) for n in range(63)] + [_event(_delta({}, "stop"))]
USAGE = _event([], usage={"prompt_tokens": 20, "completion_tokens": 64, "total_tokens": 84})


async def upstream(scope: Any, receive: Any, send: Any) -> None:
    """A provider that answers immediately. A stream has 64 chunks, each sent separately."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    streams = b'"stream":true' in body or b'"stream": true' in body
    headers = [(b"content-type", b"text/event-stream" if streams else b"application/json")]
    if not streams:
        headers.append((b"content-length", b"%d" % len(REPLY)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": REPLY})
        return
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for event in CHUNKS:
        await send({"type": "http.response.body", "body": event, "more_body": True})
    if b"include_usage" in body:
        await send({"type": "http.response.body", "body": USAGE, "more_body": True})
    await send({"type": "http.response.body", "body": DONE})


def bare(upstream_url: str) -> Any:
    """A minimal pass-through on this stack, without keys, limits, metering, metrics or error handling."""
    session: list[aiohttp.ClientSession] = []

    async def start() -> None:
        session.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))

    async def stop() -> None:
        await session[0].close()

    @post("/v1/chat/completions", status_code=200)
    async def chat(request: Request) -> Response | Stream:  # type: ignore[type-arg]  # as short as users write it
        answer = await session[0].post(
            f"{upstream_url}/chat/completions",
            data=await request.body(),
            headers={"Content-Type": "application/json"},
        )
        if answer.content_type == "text/event-stream":
            return Stream(answer.content.iter_any(), media_type="text/event-stream")
        return Response(await answer.read(), media_type="application/json")

    return Litestar([chat], on_startup=[start], on_shutdown=[stop], openapi_config=None, logging_config=None)


def main() -> None:
    role, port, *rest = sys.argv[1:]
    app = upstream if role == "upstream" else bare(*rest)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(port),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        lifespan="off" if role == "upstream" else "on",
    )


if __name__ == "__main__":
    main()
