"""Sealed requests against the real service: routes, modes, refusals and limits."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from ragsvc.client import EncryptedTransport, HpkeStream
from ragsvc.crypto import sealed_headers
from ragsvc.crypto.framing import decode_varint
from ragsvc.testing.sample_pdfs import text_pdf
from tests.support.sealing import OneShot, SealedInference, fetch_hpke_key, fetch_rvenc_key, one_shot

pytestmark = pytest.mark.model

REPORT = text_pdf([["Annual report of the Lighthouse Company.", "The lighthouse keeper is called Oda Brand."]])
CHAT = {"model": "local/chat-model", "messages": [{"role": "user", "content": "Who keeps the lighthouse?"}]}
RAG_CHAT = {**CHAT, "use_rag": True}


def test_the_key_routes_name_algorithms_and_expiry(anonymous) -> None:
    key = anonymous.get("/v1/hpke/key").json()
    assert (key["info"], key["kem"], key["kdf"], key["aead"]) == (
        "oryxen-hpke-e2ee-v1",
        "DHKEM(X25519, HKDF-SHA256)",
        "HKDF-SHA256",
        "AES-256-GCM",
    )
    config = anonymous.get("/.well-known/hpke-keys")
    assert config.headers["content-type"] == "application/ohttp-keys"
    assert config.content[3:35] == sealed_headers.decode_base64(key["public_key"])
    assert len(config.content) == 41
    rvenc = anonymous.get("/rvenc/key").json()
    assert (len(rvenc["public_key"]), rvenc["kem"], rvenc["answers"]) == (2432, "X-Wing", "ragsvc-rvenc-v1")
    assert rvenc["key_id"] == key["key_id"]
    assert rvenc["expires_at"] == key["expires_at"]


def test_every_documented_route_works_sealed_in_one_shot(tenant) -> None:
    http = tenant.http
    reply, body = one_shot(http, "POST", "/v1/rag/documents", REPORT)
    assert reply.status_code == 201, body
    document = json.loads(body)
    assert document["status"] == "ready"
    assert json.loads(one_shot(http, "GET", "/v1/rag/documents")[1])["data"][0]["id"] == document["id"]
    assert one_shot(http, "GET", f"/v1/rag/documents/{document['id']}/content")[1] == REPORT
    _, found = one_shot(http, "POST", "/v1/rag/search", {"query": "lighthouse keeper"})
    assert "Oda Brand" in json.loads(found)["data"][0]["quote"]
    _, answer = one_shot(http, "POST", "/v1/chat/completions", RAG_CHAT)
    assert "Oda Brand" in json.loads(answer)["choices"][0]["message"]["content"]
    assert "local/chat-model" in one_shot(http, "GET", "/v1/models")[1].decode()
    assert json.loads(one_shot(http, "GET", "/v1/tokens")[1])["tokens_remaining"] > 0
    reply, body = one_shot(http, "POST", f"/v1/rag/documents/{document['id']}/delete")
    assert (reply.status_code, json.loads(body)["deleted"]) == (200, True)
    assert http.get("/v1/rag/documents").json()["data"] == []


def test_a_sealed_response_reveals_nothing_of_the_content(tenant) -> None:
    form = httpx.Request("POST", "http://x", files={"file": ("oda-brand.pdf", REPORT, "application/pdf")})
    content_type = form.headers["content-type"]
    reply, body = one_shot(tenant.http, "POST", "/v1/rag/documents", form.read(), content_type=content_type)
    document = json.loads(body)
    assert document["filename"] == "oda-brand.pdf"
    plain = tenant.http.get(f"/v1/rag/documents/{document['id']}/content")
    assert "oda-brand" in plain.headers["content-disposition"]
    reply, _ = one_shot(tenant.http, "GET", f"/v1/rag/documents/{document['id']}/content")
    shown = str(reply.headers).lower()
    assert "oda" not in shown
    assert reply.headers["x-hpke-content-type"] == "application/pdf"
    assert reply.headers["cache-control"] == "no-store"


def test_request_ids_and_limits_are_those_of_plain_routes(new_tenant) -> None:
    limited = new_tenant(requests_per_minute=2, requests_per_hour=None)
    key = fetch_hpke_key(limited.http)
    first = OneShot(key, json.dumps(CHAT).encode())
    reply = limited.http.post(
        "/v1/chat/completions", headers={**first.headers, "x-request-id": "mine-1"}, content=first.body
    )
    assert reply.headers["x-request-id"] == "mine-1"
    assert reply.headers["x-ratelimit-remaining"] == "1"
    first.open(reply)
    second = OneShot(key, json.dumps(CHAT).encode())
    limited.http.post("/v1/chat/completions", headers=second.headers, content=second.body)
    third = OneShot(key, json.dumps(CHAT).encode())
    refused = limited.http.post("/v1/chat/completions", headers=third.headers, content=third.body)
    assert refused.status_code == 429  # refused before it was opened: in plaintext, and it may be sent again
    assert refused.json()["error"]["code"] == "rate_limited"
    assert int(refused.headers["retry-after"]) > 0


def test_tokens_are_metered(new_tenant) -> None:
    paying = new_tenant(token_balance=1_000_000)
    paying.http.post("/v1/chat/completions", json=CHAT)
    cost = 1_000_000 - paying.http.get("/v1/tokens").json()["tokens_remaining"]
    assert cost > 0
    one_shot(paying.http, "POST", "/v1/chat/completions", CHAT)
    assert paying.http.get("/v1/tokens").json()["tokens_remaining"] == 1_000_000 - 2 * cost


def test_errors_of_an_opened_request_are_sealed(tenant) -> None:
    reply, body = one_shot(tenant.http, "POST", "/v1/chat/completions", {**CHAT, "temperature": 9})
    assert reply.status_code == 400
    assert json.loads(body)["error"]["param"] == "temperature"
    assert json.loads(body)["error"]["request_id"] == reply.headers["x-request-id"]
    reply, body = one_shot(tenant.http, "POST", "/v1/no/such/route", {})
    assert (reply.status_code, json.loads(body)["error"]["code"]) == (404, "unknown_url")
    reply, body = one_shot(tenant.http, "POST", "/v1/chat/completions", b"{broken")
    assert (reply.status_code, json.loads(body)["error"]["code"]) == (400, "invalid_request")


def test_the_error_for_a_missing_scope_is_sealed(new_tenant) -> None:
    reader = new_tenant(scopes=["documents.read"])
    reply, body = one_shot(reader.http, "POST", "/v1/chat/completions", CHAT)
    assert (reply.status_code, json.loads(body)["error"]["code"]) == (403, "policy_denied")


def test_stream_true_gets_the_error_of_the_document(tenant) -> None:
    reply, body = one_shot(tenant.http, "POST", "/v1/chat/completions", {**CHAT, "stream": True})
    assert reply.status_code == 400
    message = "Streaming is not supported with HPKE encryption. Set stream: false."
    assert json.loads(body) == {"error": {"message": message, "type": "proxy_error", "code": 400}}


def test_an_event_stream_of_another_route_gets_the_same_error(tenant) -> None:
    document = tenant.add_text("Oda Brand keeps the lighthouse.")
    reply, body = one_shot(tenant.http, "GET", f"/v1/rag/documents/{document}/events")
    assert (reply.status_code, json.loads(body)["error"]["type"]) == (400, "proxy_error")


def test_every_failure_to_open_looks_the_same(tenant) -> None:
    http = tenant.http
    good = OneShot(fetch_hpke_key(http), json.dumps(CHAT).encode())
    flipped = bytes([good.body[0] ^ 1]) + good.body[1:]
    stranger = OneShot(sealed_headers.decode_base64("CQ" + "A" * 41 + "="), b"{}")  # a key that is not the server's
    low_order = {**good.headers, "X-HPKE-Enc": sealed_headers.encode_base64(bytes(32))}
    attempts = [
        (good.headers, flipped),
        (good.headers, b""),
        (good.headers, good.body[:10]),
        (stranger.headers, stranger.body),
        (low_order, good.body),
        ({**good.headers, "X-HPKE-Enc": "no base64"}, good.body),
        ({**good.headers, "X-HPKE-Enc": good.headers["X-HPKE-Enc"][:-1]}, good.body),
        ({"Content-Type": good.headers["Content-Type"]}, good.body),
        ({**good.headers, "Accept": sealed_headers.STREAM_MEDIA_TYPE}, good.body),  # sealed without the binding
    ]
    seen = set()
    for headers, body in attempts:
        reply = http.post("/v1/chat/completions", headers=headers, content=body)
        error = {name: value for name, value in reply.json()["error"].items() if name != "request_id"}
        seen.add((reply.status_code, json.dumps(error)))
    assert len(seen) == 1
    assert json.loads(next(iter(seen))[1])["code"] == "encryption_error"
    assert next(iter(seen))[0] == 400
    answered = http.post("/v1/chat/completions", headers=good.headers, content=good.body)
    assert answered.status_code == 200  # failed attempts do not use a request up
    replayed = http.post("/v1/chat/completions", headers=good.headers, content=good.body)
    assert replayed.json()["error"]["code"] == "encryption_error"


def test_without_a_key_nothing_is_opened(tenant, anonymous) -> None:
    sealed = OneShot(fetch_hpke_key(anonymous), json.dumps(CHAT).encode())
    assert anonymous.post("/v1/chat/completions", headers=sealed.headers, content=sealed.body).status_code == 401
    reply = tenant.http.post("/v1/chat/completions", headers=sealed.headers, content=sealed.body)
    assert reply.status_code == 200  # the request was not used up


def test_of_64_copies_at_once_one_is_accepted(tenant) -> None:
    key = fetch_hpke_key(tenant.http)
    sealed = OneShot(key, b"Oda Brand keeps the lighthouse.", content_type="text/plain")
    inference = SealedInference(fetch_rvenc_key(tenant.http), json.dumps(CHAT).encode())
    start = threading.Barrier(64)

    def send(number: int) -> tuple[bool, int]:
        is_rvenc = bool(number % 2)
        with tenant.service.client(tenant.key) as http:
            http.get("/livez")
            start.wait(30)
            if is_rvenc:
                return is_rvenc, http.post("/rvenc/chat/completions", json=inference.body).status_code
            reply = http.post("/v1/rag/documents?filename=o.txt", headers=sealed.headers, content=sealed.body)
            return is_rvenc, reply.status_code

    def send_all(is_rvenc: bool) -> list[int]:
        with ThreadPoolExecutor(64) as pool:
            return sorted(status for _, status in pool.map(send, [2 * n + is_rvenc for n in range(64)]))

    assert send_all(False) == [201] + [400] * 63
    assert send_all(True) == [200] + [400] * 63
    assert len(tenant.http.get("/v1/rag/documents").json()["data"]) == 1


def test_the_streaming_mode_binds_method_path_and_key(tenant, new_tenant) -> None:
    caught: list[httpx.Request] = []

    class Catching(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            caught.append(request)
            return super().handle_request(request)

    transport = EncryptedTransport(tenant.service.url, HpkeStream(), inner=Catching())
    with tenant.service.client(tenant.key, transport=transport) as http:
        answer = http.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert "data: [DONE]" in answer.text.splitlines()
    sent = caught[-1]
    body = sent.read()
    other = new_tenant()
    changed = [
        (tenant, "/v1/rag/search", sent.headers),
        (tenant, "/v1/chat/completions?x=1", sent.headers),
        (tenant, "/v1/chat/completions", {**sent.headers, "x-hpke-content-type": "text/plain"}),
        (other, "/v1/chat/completions", {**sent.headers, "authorization": f"Bearer {other.key}"}),
    ]
    for whose, path, headers in changed:
        reply = whose.http.post(path, headers=dict(headers), content=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "encryption_error")


def test_streams_hide_the_length_of_tokens(tenant) -> None:
    sizes: list[int] = []

    class Watching(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            reply = super().handle_request(request)
            if request.url.path.endswith("completions"):
                content = reply.read()
                sizes.extend(frame_lengths(content))
                return httpx.Response(reply.status_code, headers=reply.headers, content=content)
            return reply

    tenant.add_text("Oda Brand keeps the lighthouse of Cape Willow since the spring of 1987.")
    transport = EncryptedTransport(tenant.service.url, HpkeStream(), inner=Watching())
    with tenant.service.client(tenant.key, transport=transport) as http:
        text = http.post("/v1/chat/completions", json={**RAG_CHAT, "stream": True}).text
    assert "Oda" in text
    assert len(sizes) > 1
    assert all((size - 16) % 512 == 0 for size in sizes)


def frame_lengths(content: bytes) -> list[int]:
    """Lengths of the chunks of an encrypted stream, except the last."""
    rest, lengths = content[32:], []
    while header := decode_varint(rest):
        length, used = header
        if not length:
            return lengths
        lengths.append(length)
        rest = rest[used + length :]
    raise AssertionError("no final chunk")


def test_rvenc_answers_with_sealed_events(tenant) -> None:
    key = fetch_rvenc_key(tenant.http)
    inference = SealedInference(key, json.dumps({**CHAT, "stream": True}).encode())
    reply = tenant.http.post("/rvenc/chat/completions", json=inference.body)
    events = inference.open(reply)
    assert [str(event.name) for event in events[-2:]] == ["data", "done"]
    first = json.loads(events[0].payload)
    assert (first["object"], first["choices"][0]["delta"]["role"]) == ("chat.completion.chunk", "assistant")
    assert not re.search("lighthouse|assistant", reply.text)
    failing = SealedInference(key, json.dumps({**CHAT, "model": "no-such-model"}).encode())
    reply = tenant.http.post("/rvenc/chat/completions", json=failing.body)
    (event,) = failing.open(reply)
    assert (reply.status_code, str(event.name)) == (404, "error")
    assert json.loads(event.payload)["error"]["code"] == "model_not_found"
    again = tenant.http.post("/rvenc/chat/completions", json=failing.body)
    assert (again.status_code, again.json()["error"]["code"]) == (400, "encryption_error")


def test_sealed_uploads_are_bounded_like_plain_ones(tenant) -> None:
    big = b"x" * 50_300_000
    reply = tenant.http.post(
        "/v1/rag/documents",
        headers={"X-HPKE-Enc": "A" * 43 + "=", "Content-Type": sealed_headers.ONE_SHOT_MEDIA_TYPE},
        content=big + b"y" * 1_000_000,
    )
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")
    for path, content in (
        ("/v1/embeddings", big),
        ("/v1/chat/completions", big + big[:30_000_000]),
    ):  # chats take files
        reply = tenant.http.post(
            path,
            headers={"X-HPKE-Enc": "A" * 43 + "=", "Content-Type": sealed_headers.ONE_SHOT_MEDIA_TYPE},
            content=content,
        )
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large"), path


def test_opened_requests_are_counted_by_format(tenant) -> None:
    def count() -> float:
        text = tenant.http.get("/metrics").text
        found = re.search(r'ragsvc_encrypted_requests_total\{dialect="rfc9180",mode="hpke"\} ([\d.]+)', text)
        return float(found[1]) if found else 0.0

    before = count()
    one_shot(tenant.http, "GET", "/v1/models")
    assert count() == before + 1


def test_attestation_is_unavailable_outside_a_trusted_execution_environment(anonymous) -> None:
    reply = anonymous.get("/v1/attestation/report", params={"nonce": "ab" * 32})
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "attestation_unavailable")
    assert reply.headers["x-should-retry"] == "false"
    assert anonymous.get("/v1/attestation/report", params={"nonce": "short"}).status_code == 400
