"""Cost of sealed requests on the real service compared with plaintext, interleaved in one run; prints a JSON document.

One-shot: a chat with the local model, without retrieval, over one keep-alive connection, alternately plain and sealed.
Sealing and opening at the client are measured separately. Streams: a provider sends as fast as it can, and the client
opens every chunk. Targets: at most 1 ms added at the median, at least 80 % of the plaintext throughput.

``--stream`` measures only streams. With ``--base``, a service and a client of each revision run side by side, and each
round streams one plain and one sealed chat from each of them. The processor time of service and client together is
printed as well, because other processes of the machine disturb it less.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ragsvc.crypto import hpke, sealed_headers
from ragsvc.crypto.hpke_stream import StreamOpener, bind_request
from ragsvc.testing.service_runner import RunningService, create_key
from scripts.bench.base_revision import ROOT, checked_out
from scripts.bench.fixed_provider import fixed_provider
from scripts.bench.measuring import PeakMemory, machine, thread_seconds

PATH = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "Hello there, what can you do?"}]


def upstream_events(tokens: int) -> bytes:
    made = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "fast"}
    delta = [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]
    last = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    events = [{**made, "choices": delta}] * tokens + [{**made, "choices": last}]
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"


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


class Revision:
    """The service of a revision, and a client with the package of that revision."""

    def __init__(self, root: Path, folder: Path, provider: str, tokens: int) -> None:
        folder.mkdir()
        config = folder / "ragsvc.toml"
        config.write_text(f'[[providers]]\nname = "bench"\nbase_url = "{provider}"\nmodels = ["fast"]\n')
        key = create_key(folder / "data", root=root)
        self.service = RunningService(folder / "data", env={"RAGSVC_CONFIG": str(config)}, root=root)
        program = str(Path(__file__).with_name("stream_client.py"))
        self._client = subprocess.Popen(
            [sys.executable, program, str(root), self.service.url, key, str(tokens)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.wall: dict[str, list[float]] = {"plain": [], "sealed": []}
        self.processor: dict[str, list[float]] = {"plain": [], "sealed": []}

    def stream(self, kind: str) -> None:
        assert self._client.stdin is not None
        assert self._client.stdout is not None
        spent_s = thread_seconds(self.service.process.pid)
        self._client.stdin.write(kind + "\n")
        self._client.stdin.flush()
        line = self._client.stdout.readline()
        require(holds=bool(line))
        found = json.loads(line)
        self.wall[kind].append(found["s"])
        self.processor[kind].append(thread_seconds(self.service.process.pid) - spent_s + found["processor_s"])

    def figures(self, tokens: int) -> dict[str, float]:
        """Throughput, and what the sealed stream reaches of the plain one: median of the rounds' own ratios."""
        plain, sealed = self.wall["plain"], self.wall["sealed"]
        cost_plain, cost_sealed = self.processor["plain"], self.processor["sealed"]
        return {
            "plain_tokens_per_s": round(tokens / statistics.median(plain)),
            "sealed_tokens_per_s": round(tokens / statistics.median(sealed)),
            "sealed_of_plain": round(statistics.median(plain) / statistics.median(sealed), 3),
            "plain_processor_ms": round(statistics.median(cost_plain) * 1000, 3),
            "sealed_processor_ms": round(statistics.median(cost_sealed) * 1000, 3),
            "sealed_of_plain_processor": round(statistics.median(cost_plain) / statistics.median(cost_sealed), 3),
        }

    def stop(self) -> None:
        assert self._client.stdin is not None
        self._client.stdin.close()
        self._client.wait(10)
        self.service.stop()


def compare_streams(base: Path | None, rounds: int, tokens: int) -> dict[str, Any]:
    """Stream in turn from each revision; returns its figures, and the memory by which each service grew at most."""
    roots = {"new": ROOT} if base is None else {"base": base, "new": ROOT}
    with (
        tempfile.TemporaryDirectory() as folder,
        fixed_provider(upstream_events(tokens), media_type="text/event-stream") as provider,
        ExitStack() as stack,
    ):
        revisions: dict[str, Revision] = {}
        for name, root in roots.items():
            revisions[name] = Revision(root, Path(folder, name), provider, tokens)
            stack.callback(revisions[name].stop)
        watches = {
            name: stack.enter_context(PeakMemory(found.service.process.pid)) for name, found in revisions.items()
        }
        turns = [(found, kind) for found in revisions.values() for kind in ("plain", "sealed")]
        for number in range(rounds + 3):
            for found, kind in turns[number % len(turns) :] + turns[: number % len(turns)]:
                found.stream(kind)
            if number < 3:  # the first rounds warm up
                for found in revisions.values():
                    found.wall = {"plain": [], "sealed": []}
                    found.processor = {"plain": [], "sealed": []}
        result: dict[str, Any] = {name: found.figures(tokens) for name, found in revisions.items()}
        for name, watch in watches.items():
            result[name]["peak_memory_mib"] = round(watch.peak_bytes / (1 << 20))
    if base is not None:
        for kind in ("plain", "sealed"):
            name = f"{kind}_processor_ms"
            result[f"base_of_new_{kind}"] = round(result["base"][name] / result["new"][name], 3)
    return {"rounds": rounds, "tokens": tokens, **result, "machine": machine()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--stream", action="store_true", help="only streams")
    parser.add_argument("--base", help="with --stream: a revision, or a folder with its files, to compare with")
    options = parser.parse_args()
    if options.stream:
        with ExitStack() as stack:
            base = None if options.base is None else stack.enter_context(checked_out(options.base))
            print(json.dumps(compare_streams(base, options.streams, options.tokens), indent=2))
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        fixed_provider(upstream_events(options.tokens), media_type="text/event-stream") as provider,
    ):
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
