"""Our TypeScript package on a real service, with the official OpenAI SDK: three modes of encryption, and our routes."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from ragsvc.client import fingerprint
from ragsvc.crypto.sealed_headers import decode_base64
from ragsvc.store.replay_claims import CLAIMS_FILE_NAME, SqliteClaims
from ragsvc.testing.service_runner import ROOT, RunningService, create_key
from tests.support.crypto import Clock, EncryptedServer, RunningServer, in_memory_keyring
from tests.support.documentation_pages import FENCE
from tests.support.typescript_package import PROGRAMS, TypescriptPackage, build_typescript_package
from tests.support.upstream_server import serving

QUESTION = "Which city hosts the archive?"
TEXT = "The archive is in the city of Porto. It holds nine thousand maps."
QUOTE = "The archive is in the city of Porto."
HPKE_MODES = ["hpke", "hpke-stream"]

pytestmark = pytest.mark.timeout(700)  # the first run installs and builds the package


@pytest.fixture(scope="module")
def package() -> TypescriptPackage:
    return build_typescript_package()


def test_the_tests_of_the_package_pass(package) -> None:
    done = package.npm("test")
    assert done.returncode == 0, done.stdout
    assert "# fail 0" in done.stdout
    assert int(done.stdout.rpartition("# pass ")[2].split()[0]) >= 60


def test_the_published_package_has_the_build_and_types_only(package) -> None:
    (packed,) = json.loads(package.npm("pack", "--dry-run", "--json", "--ignore-scripts").stdout)
    paths = {file["path"] for file in packed["files"]}
    assert {"dist/index.js", "dist/index.d.ts", "package.json", "README.md", "LICENSE"} <= paths
    assert [path for path in paths if path.startswith(("src/", "tests/", "build/", "node_modules/"))] == []
    manifest = json.loads((package.folder / "package.json").read_text())
    assert all(name.startswith("@noble/") for name in manifest["dependencies"])


@pytest.mark.parametrize("mode", [*HPKE_MODES, "rvenc"])
def test_the_openai_sdk_chats_with_documents_in_each_mode(tenant, package, mode) -> None:
    if mode == "rvenc":
        tenant.add_text(TEXT, filename="archive.txt")
    address = {"SERVER_URL": tenant.service.url, "API_KEY": tenant.key}
    results = package.run("typescript_openai", MODE=mode, QUESTION=QUESTION, TEXT=TEXT, **address)
    for name in ("whole", "ownWhole"):
        assert "Porto" in results[name]["text"], results
        assert (results[name]["quotes"], results[name]["usage"]) == ([QUOTE], True)
    if mode == "hpke":
        for name in ("stream", "ownStream"):
            assert results[name]["failed"] in ("Error", "ApiError"), results
            assert "Streaming is not supported with HPKE encryption" in results[name]["message"]
    else:
        for name in ("stream", "ownStream"):
            assert "Porto" in results[name]["text"], results
            assert results[name]["quotes"] == [QUOTE]
    assert results["wrong"]["status"] == 400
    assert all(encrypted for _, encrypted in results["responses"])
    if mode == "rvenc":
        for name in ("upload", "documents", "embeddings", "models"):
            assert results[name]["failed"] == "ConfigurationError"
            assert "would be plaintext" in results[name]["message"]
        return
    assert results["upload"] == {"filename": "archive.txt", "status": "ready", "bytes": len(TEXT)}
    gone = results["documents"].pop("gone")
    assert (gone["failed"], gone["status"], gone["code"]) == ("ApiError", 404, "document_not_found")
    assert results["documents"] == {
        "created": True,
        "status": "ready",
        "filename": "keeper é.txt",
        "metadata": {"year": 1906},
        "listed": [True],
        "all": ["archive.txt", "keeper é.txt"],
        "content": True,
        "renamed": "keeper.txt",
        "found": ["keeper.txt"],
        "deleted": True,
    }
    assert results["embeddings"] == [384, 384]
    assert "local/chat-model" in results["models"]


class TamperingProxy:
    """Forwards to a service, below the prefixes ``/changed``, ``/cut`` and ``/untouched``: what is done to answers."""

    def __init__(self, service_url: str) -> None:
        self._service_url = service_url

    async def __call__(self, scope, receive, send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        _, deed, path = scope["raw_path"].decode().split("/", 2)
        headers = [(name, value) for name, value in scope["headers"] if name not in (b"host", b"content-length")]
        async with httpx.AsyncClient(base_url=self._service_url, timeout=60) as http:
            answer = await http.request(scope["method"], f"/{path}", headers=headers, content=body)
        content = answer.content
        if scope["method"] == "POST":
            content = {"changed": _changed, "cut": _cut, "untouched": bytes}[deed](content)
        kept = [(name, value) for name, value in answer.headers.raw if name.lower() != b"content-length"]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
        await send({"type": "http.response.body", "body": content})


def _changed(content: bytes) -> bytes:
    at = len(content) * 2 // 3
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _cut(content: bytes) -> bytes:
    """Without its end; RVENC at the border of an event."""
    end = content.rfind(b"event: done")
    return content[:end] if end >= 0 else content[:-10]


def test_wrong_keys_and_tampered_answers_are_refused(tenant, package) -> None:
    tenant.add_text(TEXT, filename="archive.txt")
    hpke = decode_base64(tenant.http.get("/v1/hpke/key").json()["public_key"])
    xwing = bytes.fromhex(tenant.http.get("/rvenc/key").json()["public_key"])
    pins = {**dict.fromkeys(HPKE_MODES, fingerprint(hpke)), "rvenc": fingerprint(xwing)}
    with serving(TamperingProxy(tenant.service.url)) as (tampering_url, _):
        results = package.run(
            "typescript_refusals",
            SERVER_URL=tenant.service.url,
            TAMPERING_URL=tampering_url,
            API_KEY=tenant.key,
            PINNED=json.dumps(pins),
        )
    streams = ["hpke-stream stream", "rvenc stream"]
    assert sorted(results) == sorted(["hpke whole", "hpke-stream whole", "rvenc whole", *streams])
    for name, result in results.items():
        assert "Porto" in result["pinned"]["said"], (name, result)
        assert "Porto" in result["untouched"]["said"], (name, result)
        assert result["wrong pin"]["failed"] == "EncryptionError"
        assert "not among the pinned keys" in result["wrong pin"]["message"]
        for deed in ("changed", "cut"):
            assert result[deed].get("failed") == "EncryptionError", (name, deed, result)


@pytest.fixture
def rotating(tmp_path) -> Iterator[tuple[RunningServer, Clock]]:
    """A server whose keys change when the clock does."""
    clock = Clock()
    with closing(SqliteClaims(tmp_path / CLAIMS_FILE_NAME, outlives_process=False)) as claims:
        server = RunningServer(EncryptedServer(in_memory_keyring(clock), claims))
        yield server, clock
        server.close()


def test_a_change_of_keys_costs_one_more_request(rotating, package) -> None:
    server, clock = rotating
    with package.conversation("typescript_key_change", SERVER_URL=server.origin, API_KEY="ragsvc_test-key") as program:
        assert program.read() == ["echo: round 0"] * 3
        fetched = server.application.fetched_keys
        clock.now += 26 * 3600  # longer than a key and its overlap
        program.proceed()
        assert program.read() == ["echo: round 1"] * 3
        program.proceed()
    assert (fetched, server.application.fetched_keys) == (3, 6)
    chats = [path for method, path, *_ in server.application.seen if method == "POST"]
    assert len(chats) == 9  # three, and three that were refused and sealed again
    assert len(server.application.decrypted) == 6
    encapsulated = [headers["x-hpke-enc"] for *_, headers, _ in server.application.seen if "x-hpke-enc" in headers]
    assert len(set(encapsulated)) == len(encapsulated) == 6  # never used twice, also when a request is sealed again


def test_streams_arrive_while_the_provider_pauses(gateway, package) -> None:
    upstream = gateway.upstream
    with package.conversation("typescript_held_streams", SERVER_URL=gateway.url, API_KEY=gateway.key) as program:
        assert program.read() == ["Hello", "Hello"]
        upstream.loop.call_soon_threadsafe(upstream.released.set)
        program.proceed()
        assert program.read() == [" world", " world"]
    upstream.loop.call_soon_threadsafe(upstream.released.clear)


PAGE = ROOT / "docs" / "howto" / "encrypt-from-typescript.md"


def test_the_snippets_of_the_page_compile_and_print_what_the_page_says(tenant, package) -> None:
    blocks = [(match["language"], match["code"]) for match in FENCE.finditer(PAGE.read_text(encoding="utf-8"))]
    snippets = [code for language, code in blocks if language == "typescript"]
    expected = "".join(code.lstrip("\n") for language, code in blocks if language == "text")
    assert len(snippets) == 4
    done = package.run_typescript("\n".join(snippets), RAGSVC_URL=tenant.service.url, RAGSVC_API_KEY=tenant.key)
    assert done == expected


class PageServer:
    """Serves the page and the package's files, and keeps the results that the page reports."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.results: queue.Queue[dict[str, Any]] = queue.Queue()

    async def __call__(self, scope, receive, send) -> None:
        path = scope["path"]
        content, media_type, status = b"", "text/html", 200
        if scope["method"] == "POST":
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
            self.results.put(json.loads(body))
        elif path == "/":
            content = (PROGRAMS / "typescript_page.html").read_bytes()
        elif path.endswith(".js") and ".." not in path:
            content, media_type = (self._folder / path[1:]).read_bytes(), "text/javascript"
        else:
            status = 404
        headers = [(b"content-type", media_type.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def test_a_page_of_another_origin_encrypts_in_a_browser(package, tmp_path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    page = PageServer(package.folder)
    data_dir = tmp_path / "data"
    key = create_key(data_dir, tenant="page")
    with serving(page) as (origin, _):
        service = RunningService(data_dir, env={"RAGSVC_CORS_ORIGINS": origin})
        address = f"{origin}/?{urlencode({'server': service.url, 'key': key})}"
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        process = subprocess.Popen([browser, *options, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            results = page.results.get(timeout=120)
        finally:
            process.terminate()
            process.wait(20)
            assert service.stop() == 0
    quotes = ["The archive is in the city of Porto."]
    assert results == {
        "hpke": {"quotes": quotes, "encrypted": [True, True]},
        "hpke-stream": {"quotes": quotes, "encrypted": [True]},
        "rvenc": {"quotes": quotes, "encrypted": [True]},
    }
