"""Support for the encryption tests: test vectors, Node as a peer, and a small encrypted server on a socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import uvicorn
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto import ehbp, hpke, hpke_stream, rvenc, sealed_headers, sealed_requests
from ragsvc.crypto.keyring import Keyring
from ragsvc.store.replay_claims import SqliteClaims

REPOSITORY = Path(__file__).parents[2]
FIXTURES = REPOSITORY / "fixtures" / "crypto"
NODE_FOLDER = REPOSITORY / "tests" / "node"
KEY = "ragsvc_test-key"


def load_vectors(name: str) -> Any:
    return json.loads((FIXTURES / name).read_text())


class Clock:
    """A clock that returns ``now``, which the test sets."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class NodePeer:
    """A Node process that reads commands, one JSON document per line."""

    def __init__(self, node: str) -> None:
        self.process = subprocess.Popen(
            [node, "crosscheck.mjs"], cwd=NODE_FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def say(self, **message: Any) -> dict[str, Any]:
        """Send a command and return the reply."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.kill()
        self.process.wait(10)


def completion(content: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    made = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**made, "choices": [choice], "usage": usage}


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


class EncryptedServer:
    """A raw ASGI application over ``ragsvc.crypto`` that echoes the last message, whole or in pieces.

    ``seen`` records each request as received (method, path, headers, body), ``dialects`` the format of each opened
    request, ``decrypted`` the plaintexts.
    """

    def __init__(self, keyring: Keyring, claims: SqliteClaims) -> None:
        self.keyring = keyring
        self.claims = claims
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.dialects: list[str] = []
        self.decrypted: list[bytes] = []
        self.fetched_keys = 0
        self.plaintext_answers = False
        self.cut_streams = False
        self.aggregate = True
        self.pause_s = 0.0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append((scope["method"], scope["path"], headers, body))
        try:
            await self._route(scope, headers, body, send)
        except CryptoFailure as failure:
            error = {"message": str(failure), "type": "invalid_request_error", "param": None, "code": failure.code}
            await reply(send, 400, "application/json", json.dumps({"error": error}).encode())

    async def _route(self, scope: Any, headers: dict[str, str], body: bytes, send: Any) -> None:
        path = scope["path"]
        current = self.keyring.current()
        expires = {"key_id": current.key_id, "expires_at": current.expires_at}
        if self.pause_s:
            await asyncio.sleep(self.pause_s)
        if path == "/v1/hpke/key":
            self.fetched_keys += 1
            public = {
                "public_key": sealed_headers.encode_base64(current.hpke_public),
                "info": sealed_headers.INFO.decode(),
            }
            await reply(send, 200, "application/json", json.dumps({**public, **expires}).encode())
        elif path == "/rvenc/key":
            self.fetched_keys += 1
            public = {"public_key": current.xwing_public.hex(), "kem": rvenc.KEM_NAME}
            await reply(send, 200, "application/json", json.dumps({**public, **expires}).encode())
        elif path == ehbp.KEYS_PATH:
            await reply(send, 200, ehbp.KEYS_MEDIA_TYPE, ehbp.encode_key_config(current.hpke_public))
        elif self.plaintext_answers:
            await reply(send, 200, "application/json", json.dumps(completion("in the clear")).encode())
        elif path == "/rvenc/chat/completions":
            await self._rvenc(body, send)
        elif ehbp.ENCAPSULATED_KEY_HEADER.lower() in headers:
            await self._ehbp(headers, body, send)
        elif headers.get("accept") == sealed_headers.STREAM_MEDIA_TYPE:
            await self._stream(scope, headers, body, send)
        else:
            await self._one_shot(headers, body, send)

    async def _take(self, pending: sealed_requests.PendingRequest | sealed_requests.PendingInference) -> dict[str, Any]:
        plaintext = pending.accept(claimed=await self.claims.claim(pending.claim))
        self.decrypted.append(plaintext)
        return json.loads(plaintext) if plaintext.startswith(b"{") else {}

    async def _one_shot(self, headers: dict[str, str], body: bytes, send: Any) -> None:
        pending = sealed_requests.open_one_shot(self.keyring.accepted(), headers.get("x-hpke-enc"), body)
        request = await self._take(pending)
        self.dialects.append(str(pending.dialect))
        answer = completion(f"echo: {request['messages'][-1]['content']}")
        await reply(send, 200, sealed_headers.ONE_SHOT_MEDIA_TYPE, pending.seal_response(json.dumps(answer).encode()))

    async def _stream(self, scope: Any, headers: dict[str, str], body: bytes, send: Any) -> None:
        sealed_header = headers.get(sealed_headers.SEALED_BODY_HEADER.lower())
        query = scope["query_string"].decode()
        aad = hpke_stream.bind_request(
            method=scope["method"],
            target=scope["raw_path"].decode() + (f"?{query}" if query else ""),
            content_type=headers.get(sealed_headers.CONTENT_TYPE_HEADER.lower(), ""),
            api_key=headers["authorization"].removeprefix("Bearer "),
        )
        sealed = body if sealed_header is None else sealed_headers.decode_base64(sealed_header)
        pending = sealed_requests.open_streamed(self.keyring.accepted(), headers.get("x-hpke-enc"), sealed, aad=aad)
        request = await self._take(pending)
        status, media_type, parts = answer_parts(scope["path"], request)
        sealer = pending.stream_response()
        extra = [(sealed_headers.CONTENT_TYPE_HEADER.encode(), media_type.encode())]
        await begin(send, status, sealed_headers.STREAM_MEDIA_TYPE, extra)
        await more(send, sealer.start())
        for part in parts[:-1] if self.cut_streams else parts:  # truncates before [DONE], at the border of an event
            await more(send, sealer.write(part) + sealer.flush())
        await more(send, b"" if self.cut_streams else sealer.finish(), last=True)

    async def _ehbp(self, headers: dict[str, str], body: bytes, send: Any) -> None:
        keys = [key_set.hpke for key_set in self.keyring.accepted()]
        exchange = ehbp.ServerExchange(headers[ehbp.ENCAPSULATED_KEY_HEADER.lower()], keys)
        try:
            plaintext = exchange.request.feed(body)
        except CryptoFailure:
            problem = {"type": ehbp.KEY_CONFIG_PROBLEM, "title": "key configuration mismatch"}
            await reply(send, 422, ehbp.PROBLEM_MEDIA_TYPE, json.dumps(problem).encode())
            return
        exchange.request.finish()
        self.decrypted.append(plaintext)
        _, media_type, parts = answer_parts("/v1/chat/completions", json.loads(plaintext))
        extra = [(ehbp.RESPONSE_NONCE_HEADER.encode(), exchange.response_nonce_header.encode())]
        await begin(send, 200, media_type, extra)
        for part in parts:
            await more(send, exchange.seal_response(part))
        await more(send, b"", last=True)

    async def _rvenc(self, body: bytes, send: Any) -> None:
        fields = json.loads(body)
        inference = rvenc.EncryptedInference(fields["encryptedInference"], fields["cipherText"], fields["nonce"])
        pending = sealed_requests.open_inference(self.keyring.accepted(), inference)
        request = await self._take(pending)
        sealer = pending.seal_events()
        extra = [(rvenc.RESPONSE_NONCE_HEADER.encode(), sealer.response_nonce_header.encode())]
        await begin(send, 200, "text/event-stream", extra)
        content = request["messages"][-1]["content"]
        if content == "fail":
            await more(
                send, sealer.error(b'{"error": {"message": "the model broke", "type": "server_error"}}'), last=True
            )
            return
        if request.get("stream") or self.aggregate:
            for piece in ({"role": "assistant", "content": "echo: "}, {"content": content}):
                await more(send, sealer.data(json.dumps(chunk(piece)).encode()))
            await more(send, b": keep-alive\n\n" + sealer.data(json.dumps(chunk({}, "stop")).encode()))
        else:
            await more(send, sealer.data(json.dumps(completion(f"echo: {content}")).encode()))
        await more(send, b"" if self.cut_streams else sealer.done(), last=True)


def answer_parts(path: str, request: dict[str, Any]) -> tuple[int, str, list[bytes]]:
    """Status, media type and pieces of the plaintext response."""
    if path == "/v1/models":
        listed = {"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "us"}]}
        return 200, "application/json", [json.dumps(listed).encode()]
    content = request["messages"][-1]["content"]
    if content == "fail":
        error = {"message": "no such model", "type": "invalid_request_error", "param": "model", "code": "x"}
        return 404, "application/json", [json.dumps({"error": error}).encode()]
    if not request.get("stream"):
        return 200, "application/json", [json.dumps(completion(f"echo: {content}")).encode()]
    pieces = [{"role": "assistant", "content": "echo: "}, *({"content": word} for word in content.split(" "))]
    events = [f"data: {json.dumps(chunk(piece))}\n\n".encode() for piece in pieces]
    events.append(f"data: {json.dumps(chunk({}, 'stop'))}\n\n".encode())
    return 200, "text/event-stream", [*events, b"data: [DONE]\n\n"]


async def begin(send: Any, status: int, media_type: str, extra: list[tuple[bytes, bytes]]) -> None:
    headers = [(b"content-type", media_type.encode()), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def more(send: Any, body: bytes, *, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": not last})


async def reply(send: Any, status: int, media_type: str, body: bytes) -> None:
    await begin(send, status, media_type, [(b"content-length", str(len(body)).encode())])
    await more(send, body, last=True)


class RunningServer:
    """Runs the server on a free port of 127.0.0.1 in a thread, until ``close``."""

    def __init__(self, application: EncryptedServer) -> None:
        self.application = application
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(application, log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.005)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()


def make_exchange() -> tuple[Any, Any]:
    """A sender and a recipient context of the Oryxen format."""
    private_key = X25519PrivateKey.generate()
    sender = hpke.set_up_sender(private_key.public_key().public_bytes_raw(), sealed_headers.INFO)
    return sender, hpke.set_up_recipient(sender.enc, private_key, sealed_headers.INFO)


def in_memory_keyring(clock: Clock | None = None) -> Keyring:
    return Keyring.in_memory(clock=clock or Clock(), randomness=os.urandom)
