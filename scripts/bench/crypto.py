"""Cost of sealed requests on the real service compared with plaintext, interleaved in one run; prints a JSON document.

One-shot: a chat with the local model, without retrieval, over one keep-alive connection, alternately plain and sealed.
Sealing and opening at the client are measured separately. Streams: a provider sends as fast as it can, and the client
opens every chunk. Targets: at most 1 ms added at the median, at least 80 % of the plaintext throughput.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ragsvc.crypto import hpke, sealed_headers
from ragsvc.crypto.hpke_stream import StreamOpener, bind_request
from ragsvc.testing.service_runner import RunningService, create_key

PATH = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "Hello there, what can you do?"}]


def upstream_events(tokens: int) -> bytes:
    made = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "fast"}
    delta = [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]
    last = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    events = [{**made, "choices": delta}] * tokens + [{**made, "choices": last}]
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"


@contextmanager
def fast_provider(tokens: int) -> Iterator[str]:
    body = upstream_events(tokens)

    class Provider(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def require(*, holds: bool) -> None:
    """Exit if a response is wrong, because its time would be meaningless."""
    if not holds:
        raise SystemExit("the service sent a wrong response")


class Caller:
    """A keep-alive connection to the service."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        self.key = key
        self.public_key = sealed_headers.decode_base64(json.loads(self.get("/v1/hpke/key"))["public_key"])

    def get(self, path: str) -> bytes:
        self.connection.request("GET", path)
        return self.connection.getresponse().read()

    def post(self, body: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
        self.connection.request("POST", PATH, body, {"Authorization": f"Bearer {self.key}", **headers})
        return self.connection.getresponse()


def one_shot_times(caller: Caller, rounds: int) -> dict[str, float]:
    body = json.dumps({"model": "local/chat-model", "messages": QUESTION}).encode()
    plain, sealed, client = [], [], []
    for _ in range(rounds):
        begin = time.perf_counter()
        answer = caller.post(body, {"Content-Type": "application/json"}).read()
        plain.append(time.perf_counter() - begin)
        require(holds=b"chat.completion" in answer)

        begin = time.perf_counter()
        context = hpke.set_up_sender(caller.public_key, sealed_headers.INFO)
        content = context.seal(body)
        headers = {
            "X-HPKE-Enc": sealed_headers.encode_base64(context.enc),
            "Content-Type": sealed_headers.ONE_SHOT_MEDIA_TYPE,
        }
        sealing = time.perf_counter() - begin
        begin = time.perf_counter()
        answer = caller.post(content, headers).read()
        sealed.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        require(holds=b"chat.completion" in context.open_response(answer))
        client.append(sealing + time.perf_counter() - begin)
    p50 = {"plain": statistics.median(plain), "sealed": statistics.median(sealed), "client": statistics.median(client)}
    figures = {f"{name}_p50_ms": round(value * 1000, 3) for name, value in p50.items()}
    return {**figures, "added_p50_ms": round((p50["sealed"] - p50["plain"]) * 1000, 3)}


def stream_rates(caller: Caller, rounds: int, tokens: int) -> dict[str, float]:
    body = json.dumps({"model": "fast", "messages": QUESTION, "stream": True}).encode()
    plain, sealed = [], []
    for _ in range(rounds):
        begin = time.perf_counter()
        answer = caller.post(body, {"Content-Type": "application/json"}).read()
        plain.append(tokens / (time.perf_counter() - begin))
        require(holds=answer.count(b" word") == tokens)

        begin = time.perf_counter()
        context = hpke.set_up_sender(caller.public_key, sealed_headers.INFO)
        aad = bind_request(method="POST", target=PATH, content_type="application/json", api_key=caller.key)
        headers = {
            "X-HPKE-Enc": sealed_headers.encode_base64(context.enc),
            "X-HPKE-Content-Type": "application/json",
            "Content-Type": sealed_headers.ONE_SHOT_MEDIA_TYPE,
            "Accept": sealed_headers.STREAM_MEDIA_TYPE,
        }
        reply = caller.post(context.seal(body, aad), headers)
        opener = StreamOpener(context)
        opened = bytearray()
        while piece := reply.read1(65536):
            opened += opener.feed(piece)
        opened += opener.finish()
        sealed.append(tokens / (time.perf_counter() - begin))
        require(holds=opened.count(b" word") == tokens)
    rates = {"plain": statistics.median(plain), "sealed": statistics.median(sealed)}
    figures = {f"{name}_tokens_per_s": round(value) for name, value in rates.items()}
    return {**figures, "sealed_of_plain": round(rates["sealed"] / rates["plain"], 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, fast_provider(options.tokens) as provider:
        data_dir, config = Path(folder) / "data", Path(folder) / "ragsvc.toml"
        config.write_text(f'[[providers]]\nname = "bench"\nbase_url = "{provider}"\nmodels = ["fast"]\n')
        key = create_key(data_dir)
        service = RunningService(data_dir, env={"RAGSVC_CONFIG": str(config)})
        try:
            caller = Caller(service.url, key)
            one_shot_times(caller, 20)
            stream_rates(caller, 2, options.tokens)
            result = {
                "one_shot": one_shot_times(caller, options.requests),
                "stream": stream_rates(caller, options.streams, options.tokens),
            }
        finally:
            service.stop()
    result["targets_met"] = result["one_shot"]["added_p50_ms"] <= 1 and result["stream"]["sealed_of_plain"] >= 0.8
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
