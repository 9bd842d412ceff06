"""Unmodified third-party clients against the real service: the document's samples, EHBP clients, JavaScript."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys

import ehbp
import httpx
import pytest

from ragsvc.testing.sample_pdfs import text_pdf
from tests.conftest import FIXTURES, NODE_FOLDER

pytestmark = pytest.mark.model

TEXT = "Oda Brand keeps the lighthouse of Cape Willow."
REPORT = text_pdf([[TEXT]])
CHAT = {
    "model": "local/chat-model",
    "messages": [{"role": "user", "content": "Who keeps the lighthouse?"}],
    "use_rag": True,
    "stream": True,
}


def said(events: str) -> str:
    """The text of a streamed chat, which must be complete."""
    payloads = [line.removeprefix("data: ") for line in events.splitlines() if line.startswith("data: ")]
    assert payloads[-1] == "[DONE]"
    choices = [choice for payload in payloads[:-1] for choice in json.loads(payload)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def run(command: list[str], **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return done.stdout


def adapted_sample(name: str, tenant) -> str:
    """A code sample of the Oryxen document with only host and key replaced."""
    text = (FIXTURES / "crypto" / name).read_text()
    assert text.count("https://api.oryxen.ai") == text.count("oryxen_your_key") == 1
    return text.replace("https://api.oryxen.ai", tenant.service.url).replace("oryxen_your_key", tenant.key)


def opened_as(tenant, dialect: str) -> float:
    pattern = rf'ragsvc_encrypted_requests_total\{{dialect="{dialect}",mode="hpke"\}} ([\d.]+)'
    found = re.search(pattern, tenant.http.get("/metrics").text)
    return float(found[1]) if found else 0.0


def test_the_documents_python_sample(tenant) -> None:
    before = opened_as(tenant, "sample-python")
    answer = run([sys.executable, "-c", adapted_sample("oryxen_sample.py.txt", tenant)])
    assert "'object': 'chat.completion'" in answer
    assert opened_as(tenant, "sample-python") == before + 1


def test_the_documents_javascript_sample(tenant, node, tmp_path) -> None:
    before = opened_as(tenant, "sample-javascript")
    sample = tmp_path / "sample.mjs"
    sample.write_text(adapted_sample("oryxen_sample.mjs.txt", tenant))
    assert "object: 'chat.completion'" in run([node, "--no-warnings", str(sample)])
    assert opened_as(tenant, "sample-javascript") == before + 1


def test_the_public_python_ehbp_client_uploads_lists_and_streams_a_chat(tenant) -> None:
    bearer = {"Authorization": f"Bearer {tenant.key}"}
    with ehbp.Client.discover(tenant.service.url) as client:
        headers = {**bearer, "Content-Type": "application/pdf"}
        uploaded = client.post("/v1/rag/documents", body=REPORT, headers=headers)
        assert uploaded.status_code == 201, uploaded.text()
        assert uploaded.headers["ehbp-response-nonce"]
        listed = client.get("/v1/rag/documents", headers=bearer).json()
        assert [one["id"] for one in listed["data"]] == [uploaded.json()["id"]]
        headers = {**bearer, "Content-Type": "application/json"}
        with client.stream("POST", "/v1/chat/completions", json_body=CHAT, headers=headers) as answer:
            events = b"".join(answer.iter_bytes()).decode()
        assert "Oda Brand" in said(events)
        wrong = client.post("/v1/chat/completions", json_body={**CHAT, "temperature": 9}, headers=headers)
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "temperature")


def test_the_public_python_ehbp_client_uploads_in_frames(tenant) -> None:
    frames = [TEXT.encode()[start : start + 7] for start in range(0, len(TEXT), 7)]
    headers = {"Authorization": f"Bearer {tenant.key}", "Content-Type": "text/plain"}
    with ehbp.Client.discover(tenant.service.url) as client:
        uploaded = client.post("/v1/rag/documents", body=iter(frames), headers=headers)
    assert uploaded.status_code == 201, uploaded.text()
    document = uploaded.json()
    assert document["bytes"] == len(TEXT)
    assert tenant.http.get(f"/v1/rag/documents/{document['id']}/content").text == TEXT


def test_the_public_python_ehbp_client_gets_status_422_after_a_key_change(tenant) -> None:
    stranger = ehbp.Client.with_public_key_hex(tenant.service.url, "09" + "00" * 31)
    with stranger as client, pytest.raises(ehbp.KeyConfigMismatchError):
        client.post("/v1/chat/completions", json_body=CHAT, headers={"Authorization": f"Bearer {tenant.key}"})


def test_an_ehbp_request_is_accepted_once(tenant) -> None:
    caught: list[httpx.Request] = []

    class Catching(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            kept = {name: value for name, value in request.headers.items() if name != "transfer-encoding"}
            caught.append(httpx.Request(request.method, request.url, headers=kept, content=request.read()))
            return super().handle_request(caught[-1])

    with ehbp.Client.discover(tenant.service.url, http_client=httpx.Client(transport=Catching())) as client:
        headers = {"Authorization": f"Bearer {tenant.key}", "Content-Type": "application/json"}
        assert client.post("/v1/chat/completions", json_body=CHAT, headers=headers).status_code == 200
    again = tenant.http.post("/v1/chat/completions", headers=dict(caught[-1].headers), content=caught[-1].content)
    assert (again.status_code, again.json()["error"]["code"]) == (400, "encryption_error")


def test_the_public_javascript_ehbp_client_uploads_lists_and_streams_a_chat(tenant, node) -> None:
    script = """
    import { Transport } from "ehbp";
    const [origin, key, pdf, chat] = process.argv.slice(1);
    const transport = await Transport.create(origin);
    const auth = { Authorization: `Bearer ${key}` };
    const upload = await transport.post(origin + "/v1/rag/documents", Buffer.from(pdf, "base64"),
      { headers: { ...auth, "Content-Type": "application/pdf" } });
    const document = await upload.json();
    const list = await (await transport.get(origin + "/v1/rag/documents", { headers: auth })).json();
    const answer = await transport.post(origin + "/v1/chat/completions", chat,
      { headers: { ...auth, "Content-Type": "application/json" } });
    let events = "", decoder = new TextDecoder();
    for await (const part of answer.body) events += decoder.decode(part, { stream: true });
    console.log(JSON.stringify({ status: upload.status, id: document.id, listed: list.data.map((d) => d.id), events }));
    """
    pdf = base64.b64encode(REPORT).decode()
    command = [node, "--input-type=module", "-e", script, tenant.service.url, tenant.key, pdf, json.dumps(CHAT)]
    result = json.loads(run(command, cwd=NODE_FOLDER))
    assert (result["status"], result["listed"]) == (201, [result["id"]])
    assert "Oda Brand" in said(result["events"])


def test_our_javascript_example_streams_an_encrypted_chat(tenant, node) -> None:
    tenant.add_text(TEXT)
    command = [node, "encrypted_chat.mjs", tenant.service.url, tenant.key, "Who keeps the lighthouse?"]
    assert "Oda Brand" in said(run(command, cwd=NODE_FOLDER))
