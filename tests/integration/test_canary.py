"""Encrypted text appears in plaintext nowhere: not in logs, metrics, network traffic or the data directory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import httpx
import openai
import pytest

from ragsvc.client import EncryptedTransport, HpkeStream
from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import RunningService, create_key
from tests.support.file_places import stored_bytes
from tests.support.sealing import SealedInference, fetch_rvenc_key, one_shot

pytestmark = pytest.mark.model

CANARY = "Xylophagouswidget"
CHAT = {
    "model": "local/chat-model",
    "use_rag": True,
    "messages": [{"role": "user", "content": f"What does {CANARY} cost?"}],
}


class Recorder(httpx.HTTPTransport):
    """Records every byte of requests and responses."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bytes] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.seen += [str(request.url).encode(), str(request.headers).encode(), request.read()]
        reply = super().handle_request(request)
        content = reply.read()
        self.seen += [str(reply.headers).encode(), content]
        headers = [pair for pair in reply.headers.multi_items() if pair[0] != "content-encoding"]
        return httpx.Response(reply.status_code, headers=headers, content=content)


def test_text_that_was_sent_encrypted_is_found_nowhere_in_plaintext(tmp_path: Path) -> None:
    data_dir, key_file = tmp_path / "data", tmp_path / "master.key"
    key_file.write_bytes(os.urandom(32))
    settings = {
        "RAGSVC_MASTER_KEY_FILE": str(key_file),
        "RAGSVC_MEMORY_DIR": str(tmp_path),
        "RAGSVC_LOG_LEVEL": "debug",
        "RAGSVC_ACCESS_LOG": "true",
        "RAGSVC_LOG_FORMAT": "json",
    }
    key = create_key(data_dir, settings=settings)
    running = RunningService(data_dir, env=settings)
    wire = Recorder()
    try:
        with running.client(key, transport=wire) as http:
            say_the_canary(http)
            transport = EncryptedTransport(running.url, HpkeStream(), inner=wire)
            client = openai.OpenAI(
                base_url=f"{running.url}/v1", api_key=key, max_retries=0, http_client=httpx.Client(transport=transport)
            )
            chunks = client.chat.completions.create(
                model=CHAT["model"], messages=CHAT["messages"], stream=True, extra_body={"use_rag": True}
            )
            assert CANARY in "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)
            metrics = http.get("/metrics").content
    finally:
        assert running.stop() == 0
    assert CANARY.encode() not in b"".join(wire.seen)
    assert CANARY.encode() not in metrics
    log = "".join(running.log)
    assert '"route"' in log  # the access log was on
    assert CANARY.lower() not in log.lower()
    stored = [name.encode() + content for name, content in stored_bytes(data_dir, rows=False)]
    assert len(stored) > 3
    assert not any(CANARY.lower().encode() in content.lower() for content in stored)


def say_the_canary(http: httpx.Client) -> None:
    """Send the canary as text, file name, metadata and question, and in requests whose errors quote it."""
    report = text_pdf([[f"The {CANARY} costs 4,711 euros."]])
    form = httpx.Request(
        "POST",
        "http://x",
        files={"file": (f"{CANARY}.pdf", report, "application/pdf")},
        data={"metadata": json.dumps({"about": CANARY})},
    )
    reply, body = one_shot(http, "POST", "/v1/rag/documents", form.read(), content_type=form.headers["content-type"])
    document = json.loads(body)
    assert (reply.status_code, document["filename"]) == (201, f"{CANARY}.pdf")
    assert CANARY in one_shot(http, "GET", "/v1/rag/documents")[1].decode()
    assert one_shot(http, "GET", f"/v1/rag/documents/{document['id']}/content")[1] == report
    _, found = one_shot(http, "POST", "/v1/rag/search", {"query": CANARY})
    assert CANARY in found.decode()
    _, answer = one_shot(http, "POST", "/v1/chat/completions", CHAT)
    assert CANARY in answer.decode()
    for wrong in (
        {**CHAT, "model": CANARY},
        {**CHAT, "rag": {CANARY: 1}},
        {**CHAT, "rag": {"collection": CANARY}},
        f'{{"broken {CANARY}'.encode(),
    ):
        reply, body = one_shot(http, "POST", "/v1/chat/completions", wrong)
        assert reply.status_code in (400, 404)
    damaged = b"%PDF-1.4\n" + CANARY.encode()
    one_shot(http, "POST", "/v1/rag/documents", damaged, content_type="application/pdf")
    inference = SealedInference(fetch_rvenc_key(http), json.dumps(CHAT).encode())
    events = inference.open(http.post("/rvenc/chat/completions", json=inference.body))
    assert any(CANARY.encode() in event.payload for event in events)
    failing = SealedInference(fetch_rvenc_key(http), json.dumps({**CHAT, "model": CANARY}).encode())
    (event,) = failing.open(http.post("/rvenc/chat/completions", json=failing.body))
    assert CANARY.encode() in event.payload
