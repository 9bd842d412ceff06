"""Log, metrics and traces of the real service: an operator finds what is wrong, and nothing that users wrote."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import ROOT, RunningService, create_key, service_environment
from tests.support.upstream_server import serving_upstream

pytestmark = pytest.mark.model

CANARY = "Quetzalmarmot"
QUESTION = f"What does {CANARY} cost?"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Operated:
    """A service as an operator sees it: its log and its metrics."""

    def __init__(self, running: RunningService, key: str) -> None:
        self.running = running
        self.key = key
        self.http = running.client(key)

    def events(self, name: str) -> list[dict]:
        lines = [json.loads(line) for line in self.running.log]
        return [line for line in lines if line["event"] == name]

    def wait_for(self, name: str, *, count: int = 1) -> list[dict]:
        deadline = time.monotonic() + 20
        while len(found := self.events(name)) < count:
            assert time.monotonic() < deadline, self.running.log
            time.sleep(0.05)
        return found

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Values by name and values of the labels in the order of their names."""
        text = self.http.get("/metrics").text
        return {
            (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def ask(self, model: str, *, stream: bool = False, **options: object) -> httpx.Response:
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": QUESTION}], **options}
        return self.http.post("/v1/chat/completions", json=body)

    def upload(self, content: bytes, filename: str, kind: str = "application/pdf") -> httpx.Response:
        parameters = {"filename": filename}
        return self.http.post("/v1/rag/documents", params=parameters, content=content, headers={"content-type": kind})


@contextmanager
def operated(service: RunningService, folder: Path, *, settings: str = "", **environment: str) -> Iterator[Operated]:
    data_dir = folder / "data"
    data_dir.mkdir()
    (data_dir / "models").symlink_to(service.data_dir / "models")  # the export of the model takes a while
    key = create_key(data_dir)
    env = {"RAGSVC_LOG_FORMAT": "json", **environment}
    if settings:
        (folder / "ragsvc.toml").write_text(settings)
        env["RAGSVC_CONFIG"] = str(folder / "ragsvc.toml")
    running = RunningService(data_dir, env=env)
    try:
        made = Operated(running, key)
        with made.http:
            yield made
    finally:
        assert running.stop() == 0


PROVIDERS = """
[[providers]]
name = "dead"
base_url = "http://127.0.0.1:{dead_port}/v1"
api_key = "sk-operators-secret"
retries = 0
breaker_failures = 3
breaker_cooldown_s = 60
models = ["dead-model"]

[[providers]]
name = "alive"
base_url = "{url}"
api_key = "sk-operators-secret"
models = [{{ id = "real-model", pricing = {{ input = 2.0, output = 4.0 }} }}, "broken", "reset_midway"]
retries = 0
"""


def test_a_dead_upstream_is_found_from_the_log_and_the_metrics_alone(service: RunningService, tmp_path: Path) -> None:
    with serving_upstream() as upstream:
        settings = PROVIDERS.format(dead_port=free_port(), url=upstream.url)
        with operated(service, tmp_path, settings=settings) as here:
            replies = [here.ask("dead-model") for _ in range(6)]
            assert {reply.status_code for reply in replies} == {503}
            assert here.ask("real-model").status_code == 200
            metrics = here.metrics()
            (first, *others) = here.wait_for("upstream_error")
            failed = here.wait_for("request_failed")

    # the log names the provider and why, once and not for each request, and the request that met it
    assert (first["level"], first["provider"], first["reason"]) == ("warning", "dead", "unreachable")
    assert first["error_type"] == "ClientConnectorError"
    assert others == []
    assert first["request_id"] == replies[0].headers["x-request-id"]
    assert [line["request_id"] for line in failed] == [first["request_id"]]
    assert (failed[0]["route"], failed[0]["status"]) == ("/v1/chat/completions", 503)
    assert failed[0]["code"] == "model_unavailable"
    # the metrics name it too: attempts until the circuit breaker opened, and no fault of the other provider
    assert metrics["ragsvc_upstream_errors_total", "dead", "unreachable"] == 3
    assert metrics["ragsvc_provider_available", "dead"] == 0
    assert metrics["ragsvc_provider_available", "alive"] == 1
    assert not [name for name in metrics if name[0] == "ragsvc_upstream_errors_total" and name[1] == "alive"]
    assert metrics["ragsvc_chat_duration_seconds_count", "dead-model", "error"] == 6


def test_tokens_money_and_stages_of_chats_and_documents_are_counted(service: RunningService, tmp_path: Path) -> None:
    with serving_upstream() as upstream:
        settings = PROVIDERS.format(dead_port=free_port(), url=upstream.url)
        with operated(service, tmp_path, settings=settings) as here:
            assert here.upload(text_pdf([[f"The {CANARY} project costs 4,711 euros."]]), "a.pdf").status_code == 201
            failed = here.upload(b"%PDF-1.4\nnothing of a PDF", "b.pdf")
            assert failed.status_code == 422
            for stream in (False, True):
                assert here.ask("real-model", use_rag=True, stream=stream).status_code == 200
            assert here.ask("broken").status_code in {200, 503}
            assert here.http.post("/v1/rag/search", json={"query": "costs", "mode": "dense"}).status_code == 200
            assert here.http.post("/v1/rag/search", json={"query": "costs", "collection": "none"}).status_code == 404
            time.sleep(2.1)  # the age that stored state may have
            metrics = here.metrics()
            (reported,) = here.wait_for("document_failed")

    assert metrics["ragsvc_documents", "ready"] == 1
    assert metrics["ragsvc_documents", "failed"] == 1
    assert metrics["ragsvc_documents", "queued"] == 0
    assert metrics["ragsvc_ingest_queue_jobs",] == 0
    for stage in ("parse", "embed", "index"):
        assert metrics["ragsvc_ingest_stage_duration_seconds_count", stage] >= 1
    assert metrics["ragsvc_ingest_duration_seconds_count", "ok"] == 1
    assert metrics["ragsvc_ingest_duration_seconds_count", "error"] == 1
    code = reported["code"]
    assert metrics["ragsvc_ingest_failures_total", code] == 1
    assert reported["document_id"] == failed.headers["location"].rsplit("/", 1)[1]
    assert (reported["level"], reported["tenant"], code) == ("warning", "acme", failed.json()["error"]["code"])
    assert metrics["ragsvc_search_duration_seconds_count", "hybrid", "ok"] == 2  # of the chats
    assert metrics["ragsvc_search_duration_seconds_count", "dense", "ok"] == 1
    assert metrics["ragsvc_search_duration_seconds_count", "hybrid", "refused"] == 1
    for stage in ("embed", "find"):
        assert metrics["ragsvc_search_stage_duration_seconds_count", stage] == 3
    assert metrics["ragsvc_chat_duration_seconds_count", "real-model", "ok"] == 2
    for stage in ("search", "prompt", "upstream"):
        assert metrics["ragsvc_chat_stage_duration_seconds_count", stage] >= 2
    assert metrics["ragsvc_tokens_total", "prompt", "real-model"] == 22
    assert metrics["ragsvc_tokens_total", "completion", "real-model"] == 10
    assert metrics["ragsvc_cost_total", "real-model"] == pytest.approx(22 * 2.0 / 1000 + 10 * 4.0 / 1000)
    assert metrics["process_resident_memory_bytes",] > 1e8
    assert metrics["process_open_fds",] > 5
    assert metrics["ragsvc_index_memory_bytes",] > 0
    assert metrics["ragsvc_database_size_bytes",] > 10_000
    assert 0 < metrics["ragsvc_disk_free_bytes",] <= metrics["ragsvc_disk_size_bytes",]


def test_the_whole_log_is_json_lines_without_secrets_or_text_even_at_level_debug(
    service: RunningService, tmp_path: Path
) -> None:
    with serving_upstream() as upstream:
        settings = PROVIDERS.format(dead_port=free_port(), url=upstream.url)
        options = {"RAGSVC_LOG_LEVEL": "debug", "RAGSVC_ACCESS_LOG": "true"}
        with operated(service, tmp_path, settings=settings, **options) as here:
            here.upload(text_pdf([[f"The {CANARY} project costs 4,711 euros."]]), f"{CANARY}.pdf")
            here.upload(f"%PDF-1.4 {CANARY}".encode(), f"{CANARY} broken.pdf")
            here.http.post("/v1/rag/search", json={"query": QUESTION})
            here.http.post("/v1/rag/search", content=f'{{"query": "{CANARY}", '.encode())
            here.http.post("/v1/rag/search", json={"query": QUESTION, "filters": {"type": CANARY}})
            here.http.get(f"/v1/rag/documents/{CANARY}?name={CANARY}")
            upstream.failures_left = 1
            for model in ("dead-model", "real-model", "broken", CANARY):
                here.ask(model, use_rag=True, user=CANARY)
            answered = here.http.get("/v1/models", headers={"x-client-request-id": "mine-7"})
            (ready,) = here.wait_for("document_ready")
            deadline = time.monotonic() + 20
            while answered.headers["x-request-id"] not in (
                request_ids := {line["request_id"] for line in here.events("request")}
            ):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            log = "".join(here.running.log)
            secrets = [here.key, "sk-operators-secret", CANARY, CANARY.lower(), "4,711"]
            by_client = [line for line in here.events("request") if line.get("client_request_id") == "mine-7"]
    assert ready["passages"] == 1
    assert answered.headers["x-request-id"] in request_ids
    assert [line["route"] for line in by_client] == ["/v1/models"]
    for line in log.splitlines():
        entry = json.loads(line)
        assert {"at", "level", "logger", "event", "message"} <= set(entry), line
    assert [secret for secret in secrets if secret in log] == []


def test_an_answer_that_breaks_off_in_the_middle_is_logged_and_counted(service: RunningService, tmp_path: Path) -> None:
    with serving_upstream() as upstream:
        settings = PROVIDERS.format(dead_port=free_port(), url=upstream.url)
        with operated(service, tmp_path, settings=settings) as here:
            reply = here.ask("reset_midway", stream=True)
            assert reply.status_code == 200
            assert '"code":"upstream_error"' in reply.text
            (broken,) = here.wait_for("stream_failed")
            (cause,) = here.wait_for("upstream_error")
            metrics = here.metrics()
    assert broken["request_id"] == cause["request_id"] == reply.headers["x-request-id"]
    assert (broken["code"], broken["route"]) == ("upstream_error", "/v1/chat/completions")
    assert (cause["provider"], cause["reason"]) == ("alive", "disconnected")
    assert metrics["ragsvc_upstream_errors_total", "alive", "disconnected"] == 1
    assert metrics["ragsvc_chat_duration_seconds_count", "reset_midway", "error"] == 1


def test_slow_requests_are_logged_and_uploads_that_wait_are_not(service: RunningService, tmp_path: Path) -> None:
    with operated(service, tmp_path, RAGSVC_SLOW_REQUEST_S="0.000001") as here:
        assert here.upload(text_pdf([["A slow page."]]), "a.pdf").status_code == 201
        reply = here.http.post("/v1/rag/search", json={"query": "slow"})
        by_route: dict[str, dict] = {}
        while "/v1/rag/search" not in by_route:
            by_route = {line["route"]: line for line in here.wait_for("slow_request")}
    assert "/v1/rag/documents" not in by_route
    line = by_route["/v1/rag/search"]
    assert (line["level"], line["request_id"]) == ("warning", reply.headers["x-request-id"])
    assert line["tenant"] == "acme"
    assert line["answered_ms"] >= 0


def test_the_level_info_is_quiet_while_all_is_well(service: RunningService, tmp_path: Path) -> None:
    with operated(service, tmp_path) as here:
        for number in range(3):
            assert here.upload(text_pdf([[f"Page {number}."]]), f"{number}.pdf").status_code == 201
        for _ in range(20):
            assert here.http.post("/v1/rag/search", json={"query": "page"}).status_code == 200
            here.http.get("/v1/rag/documents/unknown")
        lines = [json.loads(line) for line in here.running.log]
    assert "ready" in {line["event"] for line in lines}
    assert [line for line in lines if line["level"] != "info"] == []
    assert len(lines) < 15, lines


@pytest.mark.parametrize("cause", ["setting", "locked", "port"])
def test_a_refused_start_is_one_line_of_the_log(service: RunningService, tmp_path: Path, cause: str) -> None:
    env = {"RAGSVC_LOG_FORMAT": "json"}
    data_dir, port = tmp_path / "data", "0"
    if cause == "setting":
        env["RAGSVC_PARSE_WORKERS"] = "many"
    elif cause == "locked":
        data_dir = service.data_dir
    else:
        port = str(httpx.URL(service.url).port)
    done = subprocess.run(
        [sys.executable, "-m", "ragsvc", "serve", "--port", port],
        cwd=ROOT,
        env=service_environment(data_dir, env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in {1, 2, 5}
    entries = [json.loads(line) for line in done.stderr.splitlines()]
    (refused,) = [entry for entry in entries if entry["event"] == "refused_start"]
    assert refused["level"] == "error"
    assert refused["exit_code"] == done.returncode
    codes = {"setting": "configuration_error", "locked": "data_directory_locked", "port": "address_unavailable"}
    assert refused["code"] == codes[cause]


def test_names_of_metrics_follow_the_conventions_of_prometheus(service: RunningService) -> None:
    """Counters end in ``_total``, other metrics do not; units are base units at the end of the name."""
    text = httpx.get(f"{service.url}/metrics").text
    families = [family for family in text_string_to_metric_families(text) if family.name.startswith("ragsvc_")]
    assert len(families) > 25
    for family in families:
        assert re.fullmatch(r"ragsvc(_[a-z0-9]+)+", family.name), family.name
        assert family.documentation.endswith("."), family.name
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket")), family.name  # without its suffix
        assert not re.search(r"_(ms|milliseconds|kb|mb|percent)(_|$)", family.name), family.name
        if family.type == "histogram":
            assert family.name.endswith("_seconds"), family.name
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples), family.name
        if "bytes" in family.name:
            assert family.name.endswith("_bytes"), family.name


class Collector:
    """A collector of OpenTelemetry over HTTP; ``spans`` are all that it has received."""

    def __init__(self) -> None:
        self.spans: list = []
        self.services: set[str] = set()
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.bodies.append(body)
                request = ExportTraceServiceRequest.FromString(body)
                for resource in request.resource_spans:
                    outer.services |= {
                        attribute.value.string_value
                        for attribute in resource.resource.attributes
                        if attribute.key == "service.name"
                    }
                    outer.spans += [span for scope in resource.scope_spans for span in scope.spans]
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Standard error is for the test."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/traces"

    def attributes(self, span) -> dict[str, str]:
        return {attribute.key: attribute.value.string_value for attribute in span.attributes}


def test_traces_show_the_stages_of_chats_and_ingests(service: RunningService, tmp_path: Path) -> None:
    collector = Collector()
    trace_id, parent_id = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    try:
        with serving_upstream() as upstream:
            settings = PROVIDERS.format(dead_port=free_port(), url=upstream.url)
            with operated(service, tmp_path, settings=settings, RAGSVC_OTEL_ENDPOINT=collector.url) as here:
                uploaded = here.upload(text_pdf([[f"The {CANARY} project costs 4,711 euros."]]), f"{CANARY}.pdf")
                here.http.headers["traceparent"] = f"00-{trace_id}-{parent_id}-01"
                answered = here.ask("real-model", use_rag=True, stream=True)
                assert answered.status_code == 200
                assert here.ask("dead-model").status_code == 503
            # the stop has sent the rest
    finally:
        collector.server.shutdown()
        collector.server.server_close()
    by_id = {span.span_id: span for span in collector.spans}

    def children(span) -> set[str]:
        return {other.name for other in collector.spans if other.parent_span_id == span.span_id}

    assert collector.services == {"ragsvc"}
    (ingest,) = [span for span in collector.spans if span.name == "ingest"]
    assert children(ingest) == {"ingest.parse", "ingest.embed", "ingest.index"}
    assert collector.attributes(ingest)["ragsvc.document_id"] == uploaded.json()["id"]
    chats = {collector.attributes(span)["ragsvc.model"]: span for span in collector.spans if span.name == "chat"}
    chat = chats["real-model"]
    assert children(chat) == {"chat.search", "chat.prompt", "chat.upstream"}
    assert (chat.trace_id.hex(), chat.parent_span_id.hex()) == (trace_id, parent_id)
    assert collector.attributes(chat)["ragsvc.request_id"] == answered.headers["x-request-id"]
    assert collector.attributes(chat)["ragsvc.outcome"] == "ok"
    (search,) = [span for span in collector.spans if span.name == "search"]
    assert by_id[search.parent_span_id].name == "chat.search"
    assert {"search.embed", "search.find"} <= children(search)
    for span in collector.spans:
        if span.parent_span_id in by_id:
            assert by_id[span.parent_span_id].start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= by_id[span.parent_span_id].end_time_unix_nano + 1_000_000
    dead = chats["dead-model"]
    assert dead.status.code == 2
    assert collector.attributes(dead)["ragsvc.outcome"] == "model_unavailable"
    sent = b"".join(collector.bodies)
    for secret in (CANARY, here.key, "sk-operators-secret", "4,711"):
        assert secret.encode() not in sent


def test_a_collector_that_does_not_answer_costs_no_request(service: RunningService, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}/v1/traces"
    with operated(service, tmp_path, RAGSVC_OTEL_ENDPOINT=endpoint) as here:
        assert here.upload(text_pdf([["A page."]]), "a.pdf").status_code == 201
        assert here.ask("local/chat-model", use_rag=True).status_code == 200
        started = time.monotonic()
    assert time.monotonic() - started < 30
