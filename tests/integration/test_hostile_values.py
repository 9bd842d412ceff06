"""Values that a client can send and that no layer must fail on: each was answered with 500, or routed elsewhere."""

import json

import httpx
import pytest

from ragsvc.testing.sample_pdfs import text_pdf

pytestmark = pytest.mark.model

REPORT = text_pdf([["The harbour handled 4,711 containers."], ["Outlook."]])
DEEP = 400


@pytest.fixture
def document(tenant):
    return tenant.upload(REPORT, filename="harbour.pdf").json()["id"]


def code_of(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("[" * DEEP + "]" * DEEP, id="deep arrays"),
        pytest.param('{"a":' * DEEP + "1" + "}" * DEEP, id="deep objects"),
        pytest.param("1" + "0" * 30, id="beyond 64 bits"),
        pytest.param("-" + "9" * 25, id="below 64 bits"),
    ],
)
def test_filters_and_metadata(tenant, document, value):
    filters = f'{{"type": "eq", "key": "k", "value": {value}}}'
    metadata = f'{{"k": {value}}}'
    chat = '{"model": "local/chat-model", "messages": [{"role": "user", "content": "x"}], "rag": {"filters": '
    replies = [
        tenant.http.get("/v1/rag/documents", params={"filters": filters}),
        tenant.http.post("/v1/rag/search", content=f'{{"query": "x", "filters": {filters}}}'),
        tenant.http.post("/v1/chat/completions", content=f"{chat}{filters}}}}}"),
        tenant.http.patch(f"/v1/rag/documents/{document}", content=f'{{"metadata": {metadata}}}'),
        tenant.http.post(
            "/v1/rag/documents",
            params={"metadata": metadata, "filename": "x.pdf"},
            content=REPORT,
            headers={"content-type": "application/pdf"},
        ),
    ]
    assert [code_of(reply) for reply in replies] == [(400, "invalid_request")] * len(replies)


def test_numbers_beyond_64_bits(tenant, document, service):
    page = tenant.http.get(f"/v1/rag/documents/{document}/pages/{2**63}")
    assert code_of(page) == (404, "document_not_found")
    assert code_of(tenant.http.get(f"/v1/rag/documents/{document}/pages/-{2**64}")) == (404, "document_not_found")
    assert tenant.http.get(f"/v1/rag/documents/{document}/pages/{'9' * 5000}").status_code in (400, 404)
    with service.client(service.admin_key) as admin:
        key = admin.get("/v1/keys").json()["data"][0]["id"]
        assert code_of(admin.get(f"/v1/keys/{key}/audit", params={"before": 2**63})) == (400, "invalid_request")
        assert admin.get(f"/v1/keys/{key}/audit", params={"before": 2**63 - 1}).status_code == 200


@pytest.mark.parametrize(
    "charset",
    [
        "punycode",
        "idna",
        "unicode_escape",
        "raw_unicode_escape",
        "undefined",
        "zip",
        "rot13",
        "hex",
        "utf-7",
        "x" * 300,
    ],
)
def test_odd_codecs(tenant, charset):
    for disposition in (
        f"attachment; filename*={charset}''a%80%ff-99999999.pdf",
        f'attachment; filename="=?{charset}?Q?a=80?="',
    ):
        reply = tenant.http.post(
            "/v1/rag/documents?wait_s=0",
            content=REPORT,
            headers={"content-type": "application/pdf", "content-disposition": disposition},
        )
        assert reply.status_code in (200, 201, 202), reply.text
    reply = tenant.http.post(
        "/v1/rag/documents?filename=a.txt",
        content=b"A plain text.",
        headers={"content-type": f"text/plain; charset={charset}"},
    )
    assert reply.status_code in (200, 201)


def test_an_encoded_slash_is_no_border_of_names(service, tenant):
    with service.client(service.admin_key) as admin:
        for method, path in (
            ("DELETE", "/v1/providers/p%2Fkey"),
            ("GET", "/v1/providers/p%2fkeys"),
            ("POST", "/v1/providers/p%2Ftest"),
            ("GET", "/v1/keys/key_1%2Faudit"),
        ):
            assert code_of(admin.request(method, path)) == (404, "unknown_url")
    assert code_of(tenant.http.post("/v1/rag%2Fsearch", json={"query": "x"})) == (404, "unknown_url")
    assert tenant.http.get("/v1/models/local%2Fchat-model").status_code == 200


def test_validators_and_ranges_of_stored_files(tenant, document):
    url = f"/v1/rag/documents/{document}/content"
    whole = tenant.http.get(url)
    tag = whole.headers["etag"]
    assert (whole.content, whole.headers["accept-ranges"]) == (REPORT, "bytes")
    head = tenant.http.head(url)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "content-disposition", "etag"):
        assert head.headers[name] == whole.headers[name]
    unchanged = tenant.http.get(url, headers={"if-none-match": f'"other", W/{tag}'})
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", tag)
    size = len(REPORT)
    for asked, begin, end in (("bytes=0-9", 0, 10), ("bytes=10-", 10, size), ("bytes=-7", size - 7, size)):
        part = tenant.http.get(url, headers={"range": asked})
        assert (part.status_code, part.content) == (206, REPORT[begin:end])
        assert part.headers["content-range"] == f"bytes {begin}-{end - 1}/{size}"
    beyond = tenant.http.get(url, headers={"range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    changed = tenant.http.get(url, headers={"range": "bytes=0-9", "if-range": '"other"'})
    assert (changed.status_code, changed.content) == (200, REPORT)


def test_failed_authentications_are_limited_by_address(tmp_path):
    from ragsvc.testing.service_runner import RunningService, create_key  # noqa: PLC0415 - its own service

    key, unused = create_key(tmp_path), create_key(tmp_path, label="unused")
    env = {"RAGSVC_FAILED_LOGINS_PER_MINUTE": "5", "RAGSVC_TRUSTED_PROXIES": "127.0.0.1"}
    running = RunningService(tmp_path, env=env, start_timeout_s=120)
    try:
        with httpx.Client(base_url=running.url, timeout=30) as client:

            def status(secret, address):
                headers = {"authorization": f"Bearer {secret}", "x-forwarded-for": address}
                return client.get("/v1/models", headers=headers)

            assert status(key, "192.0.2.1").status_code == 200
            wrong = [status(f"rag_{number}_wrong", "192.0.2.1").status_code for number in range(8)]
            assert wrong == [401] * 5 + [429] * 3
            refused = status(unused, "192.0.2.1")
            assert refused.json()["error"]["code"] == "rate_limited"
            assert 0 < int(refused.headers["retry-after"]) <= 60
            assert status(key, "192.0.2.1").status_code == 200
            assert status(unused, "192.0.2.2").status_code == 200
        assert any("192.0.2.1" in line for line in running.log)
    finally:
        running.stop()


def test_labels_of_metrics_are_no_texts_of_clients(gateway):
    with gateway.service.client(gateway.key) as client:
        for number in range(5):
            body = {"model": f"invented-{number}", "messages": [{"role": "user", "content": "x"}]}
            client.post("/v1/chat/completions", json=body)
            client.request("BREW", f"/pot/{number}")
        metrics = client.get("/metrics").text
    assert "invented-" not in metrics
    assert "BREW" not in metrics
    assert "/pot/" not in metrics


def test_prompts_have_a_maximum_of_characters(tmp_path):
    from ragsvc.testing.service_runner import RunningService, create_key  # noqa: PLC0415 - its own service

    config = tmp_path / "ragsvc.toml"
    config.write_text(
        'max_prompt_characters = 300000\n[[providers]]\nname = "p"\nbase_url = "http://127.0.0.1:9/v1"\n'
        'models = [{ id = "short", max_prompt_characters = 100 }]\n'
    )
    key = create_key(tmp_path / "data", settings={"RAGSVC_CONFIG": str(config)})
    running = RunningService(tmp_path / "data", env={"RAGSVC_CONFIG": str(config)}, start_timeout_s=120)
    try:
        with running.client(key) as client:

            def ask(model, characters):
                messages = [{"role": "user", "content": "x" * characters}]
                return client.post("/v1/chat/completions", content=json.dumps({"model": model, "messages": messages}))

            assert ask("local/chat-model", 300_000).status_code == 200
            for model, characters in (("local/chat-model", 300_001), ("short", 101), ("short", 3_000_000)):
                assert code_of(ask(model, characters)) == (400, "string_above_max_length")
            texts = json.dumps({"model": "local/embedding-model", "input": ["x" * 300_001]})
            assert code_of(client.post("/v1/embeddings", content=texts)) == (400, "string_above_max_length")
    finally:
        running.stop()


def test_a_line_feed_at_the_end_is_a_part_of_a_value(tenant, document, service):
    with service.client(service.admin_key) as admin:
        replies = [
            admin.post("/v1/keys", json={"tenant": "line\n", "label": "short"}),
            admin.post("/v1/keys", json={"tenant": "line", "label": "short\n"}),
            admin.post("/v1/keys", json={"tenant": "line", "label": "short", "secret_sha256": "0" * 64 + "\n"}),
            admin.get("/v1/usage", params={"since": "2026-11-29\n"}),
            admin.get("/v1/attestation/report", params={"nonce": "0" * 64 + "\n"}),
        ]
    chunk = tenant.http.get(f"/v1/rag/documents/{document}/passages").json()["data"][0]["id"]
    replies.append(tenant.http.get(f"/v1/rag/documents/{document}/passages", params={"after": f"{chunk}\n"}))
    assert [code_of(reply) for reply in replies] == [(400, "invalid_request")] * len(replies)
