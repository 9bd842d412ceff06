"""A provider that records its requests and answers every endpoint family with fixed bytes."""

from __future__ import annotations

import asyncio
import json
from typing import NamedTuple


class Recorded(NamedTuple):
    """A request as received."""

    path: str
    headers: dict[str, str]
    body: bytes


def sse(*events: object, name: str | None = None) -> bytes:
    head = b"" if name is None else f"event: {name}\n".encode()
    return b"".join(head + b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


VECTOR_BASE64 = "AACAPwAAAEAAAEBA"  # 1.0, 2.0, 3.0 as little-endian float32
SPEECH = b"ID3\x04\x00" + bytes(range(256)) * 800

JSON_ANSWERS = {
    "/v1/chat/completions": b"""{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m",
 "choices":[{"index":0,"message":{"role":"assistant","content":"Hello \\u00e9","refusal":null},"logprobs":null,
 "finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}""",
    "/v1/completions": b"""{"id":"cmpl-1", "object":"text_completion", "created":1700000000, "model":"m", "choices":
  [ {"text":" a \\u00e9 test", "index":0, "logprobs":null, "finish_reason":"stop"} ],
  "usage": {"prompt_tokens":5, "completion_tokens":7, "total_tokens":12}, "odd" : [1.50, null]}""",
    "/v1/embeddings": b"""{"object":"list","data":[{"object":"embedding","index":0,"embedding":"%s"}],
 "model":"m","usage":{"prompt_tokens":8,"total_tokens":8}}"""
    % VECTOR_BASE64.encode(),
    "/v1/responses": b"""{"id":"resp_1","object":"response","created_at":1700000000,"status":"completed","model":"m",
 "output":[{"type":"message","id":"msg_1","status":"completed","role":"assistant","content":[{"type":"output_text",
 "text":"Once upon a time","annotations":[]}]}],"parallel_tool_calls":true,"tool_choice":"auto","tools":[],
 "usage":{"input_tokens":30,"input_tokens_details":{"cached_tokens":0},"output_tokens":6,
 "output_tokens_details":{"reasoning_tokens":0},"total_tokens":36}}""",
    "/v1/images/generations": b"""{"created":1700000000,"data":[{"b64_json":"%s"}],
 "usage":{"total_tokens":100,"input_tokens":50,"output_tokens":50,
 "input_tokens_details":{"text_tokens":10,"image_tokens":40}}}"""
    % (b"QUJD" * 60000),
    "/v1/images/edits": b'{"created":1700000001,"data":[{"b64_json":"QUJD"}]}',
    "/v1/images/variations": b'{"created":1700000002,"data":[{"url":"https://example.com/a.png"}]}',
    "/v1/audio/transcriptions": b"""{"text":"Hallo Welt","usage":{"type":"tokens","input_tokens":14,"output_tokens":4,
 "total_tokens":18}}""",
    "/v1/audio/translations": b'{"text":"Hello world"}',
    "/v1/moderations": b"""{"id":"modr-1","model":"m","results":[{"flagged":false,"categories":{"hate":false},
 "category_scores":{"hate":0.0001}}]}""",
    "/v1/rerank": b'{"id":"r","results":[{"index":1,"relevance_score":0.98}],"usage":{"total_tokens":15}}',
    "/v1/ocr": b'{"pages":[{"index":0,"markdown":"# Title"}],"model":"m","usage_info":{"pages_processed":1}}',
    "/v1/videos/generations": b'{"id":"v","status":"queued"}',
}

COMPLETION_STREAM = (
    sse(*({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m",
           "choices": [{"text": word, "index": 0, "logprobs": None, "finish_reason": None}]} for word in ("a", " b")))
    + sse({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [],
           "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}})
    + b"data: [DONE]\n\n"
)  # fmt: skip
RESPONSE_STREAM = (
    sse({"type": "response.created", "sequence_number": 0, "response": json.loads(JSON_ANSWERS["/v1/responses"])},
        name="response.created")
    + sse({"type": "response.output_text.delta", "sequence_number": 1, "item_id": "msg_1", "output_index": 0,
           "content_index": 0, "delta": "Once", "logprobs": []}, name="response.output_text.delta")
    + sse({"type": "response.completed", "sequence_number": 2, "response": json.loads(JSON_ANSWERS["/v1/responses"])},
          name="response.completed")
)  # fmt: skip
CHAT_STREAM = (
    sse(*({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
           "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": end}]}
          for delta, end in (({"role": "assistant", "content": ""}, None), ({"content": "Hello"}, None),
                             ({"content": " world"}, None), ({}, "stop"))))
    + b"data: [DONE]\n\n"
)  # fmt: skip
FLOATS = JSON_ANSWERS["/v1/embeddings"].replace(f'"{VECTOR_BASE64}"'.encode(), b"[1.0, 2.0, 3.0]")
TOOL_ANSWER = b"""{"choices":[{"finish_reason":"tool_calls","index":0,
 "message":{"content":"I'll check","role":"assistant",
 "tool_calls":[{"function":{"arguments":"{\\"city\\":\\"Paris\\"}","name":"get_weather"},"id":"toolu_1","index":1,
 "type":"function"}]}}],"created":1774809792,"id":"chatcmpl-1","model":"m","object":"chat.completion",
 "usage":{"completion_tokens":67,"prompt_tokens":572,"total_tokens":639}}"""
EVENT_ANSWERS = {
    "/v1/completions": COMPLETION_STREAM,
    "/v1/responses": RESPONSE_STREAM,
    "/v1/chat/completions": CHAT_STREAM,
}


JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"


def answer_to(request: Recorded, fields: dict) -> tuple[str, bytes]:
    """Content type and body of the successful response."""
    path = request.path.removeprefix("/other")
    special = {
        "/v1/audio/speech": ("audio/mpeg", SPEECH),
        "/v1/models": (JSON, b'{"object":"list","data":[{"id":"a"},{"id":"b"}]}'),
    }
    if path in special:
        return special[path]
    if fields.get("stream"):
        return EVENTS, EVENT_ANSWERS[path]
    if fields.get("tools") and fields["messages"][-1]["role"] == "user":
        return JSON, TOOL_ANSWER
    if path == "/v1/embeddings" and fields.get("encoding_format") != "base64":
        return JSON, FLOATS
    if path == "/v1/audio/transcriptions" and b"\r\n\r\ntext\r\n" in request.body:
        return "text/plain; charset=utf-8", "Hallo Wélt\n".encode()
    return JSON, JSON_ANSWERS[path]


class RecordingProvider:
    """The ASGI application of the provider. The name of the model selects its behaviour.

    ``fail-<status>`` returns that status, ``breaks`` ends the response early, ``hangs`` never responds, and ``holds``
    pauses a stream until ``released`` is set.
    """

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.cancelled = 0
        self.cut = 0
        self.held = 0
        self.released = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.pieces: list[int] = []
        self.url = ""
        self.policy_inputs: list[dict] = []

    @property
    def last(self) -> Recorded:
        return self.requests[-1]

    async def __call__(self, scope, receive, send) -> None:
        body = await self._read(receive)
        if body is None:
            return
        if scope["path"].startswith("/policy/"):
            await self._decide(send, json.loads(body)["input"])
            return
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        request = Recorded(scope["path"], headers, body)
        self.requests.append(request)
        fields = json.loads(body) if body[:1] == b"{" else {}
        if headers.get("authorization") == "Bearer wrong":
            await self._fail(send, 401)
        elif not await self._misbehave(str(fields.get("model", "")), request, fields, receive, send):
            content_type, answer = answer_to(request, fields)
            await self._answer(send, content_type, answer)

    async def _read(self, receive) -> bytes | None:
        """The complete body; ``None`` if the client disconnected before its end."""
        body, more = b"", True
        self.pieces = []
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.cut += 1
                return None
            body += message.get("body", b"")
            self.pieces.append(len(message.get("body", b"")))
            more = message.get("more_body", False)
        return body

    async def _misbehave(self, model: str, request: Recorded, fields: dict, receive, send) -> bool:
        if model.startswith("fail-"):
            await self._fail(send, int(model.removeprefix("fail-")))
        elif model == "hangs":
            while (await receive())["type"] != "http.disconnect":
                continue
            self.cancelled += 1
        elif model == "holds":
            await self._hold(send, EVENT_ANSWERS[request.path])
        elif model == "breaks":
            await self._start(send, 200, EVENTS if fields.get("stream") else JSON)
            await send({"type": "http.response.body", "body": COMPLETION_STREAM[:150], "more_body": True})
            await asyncio.sleep(0.05)
            raise ConnectionError("on purpose")
        else:
            return False
        return True

    async def _hold(self, send, answer: bytes) -> None:
        """Start a stream, and continue it when the test sets ``released``."""
        await self._start(send, 200, "text/event-stream")
        border = answer.index(b"\n\n", answer.index(b"\n\n") + 2) + 2
        await send({"type": "http.response.body", "body": answer[:border], "more_body": True})
        self.held += 1
        self.loop = asyncio.get_running_loop()
        await self.released.wait()
        await send({"type": "http.response.body", "body": answer[border:], "more_body": False})

    async def _decide(self, send, given: dict) -> None:
        """Answer like the Data API of an Open Policy Agent server."""
        self.policy_inputs.append(given)
        model = given["model"]
        if model == "opa-broken":
            await self._start(send, 500, "application/json")
            await send({"type": "http.response.body", "body": b"{}"})
        elif model == "opa-undefined":
            await self._answer(send, "application/json", b"{}")
        else:
            allowed = not model.startswith("opa-denied")
            await self._answer(send, "application/json", json.dumps({"result": allowed}).encode())

    async def _fail(self, send, status: int) -> None:
        error = {"message": f"status {status}", "type": "x", "param": "input", "code": None}
        await self._start(send, status, "application/json")
        await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})

    async def _answer(self, send, content_type: str, body: bytes) -> None:
        await self._start(send, 200, content_type)
        for at in range(0, len(body), 50_000):
            await send({"type": "http.response.body", "body": body[at : at + 50_000], "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    @staticmethod
    async def _start(send, status: int, content_type: str) -> None:
        headers = [
            (b"content-type", content_type.encode()),
            (b"openai-organization", b"org-of-the-operator"),
            (b"openai-processing-ms", b"17"),
            (b"x-request-id", b"theirs"),
            (b"x-ratelimit-remaining-requests", b"1"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
