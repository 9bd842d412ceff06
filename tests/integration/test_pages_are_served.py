"""How the web pages are served: headers, caching, prefixes, the setting that turns them off; and stored files."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest

from ragsvc.testing.service_runner import ROOT
from ragsvc.web.auth import AccessRequirement, requirement_of
from ragsvc.web.pages import routes as pages
from ragsvc.web.pages.files import PageFiles, load_page_files, page_file
from ragsvc.web.routes import sessions
from tests.support.keys_database import SmallDatabase, compose

INDEX = """<!doctype html>
<meta name="ragsvc-prefix" content="" />
<script type="module" src="./assets/index-1a2b.js"></script>
<link rel="stylesheet" href="./assets/index-3c4d.css" />
"""
PATHS = ["/", "/ask", "/documents", "/documents/doc_1", "/playground", "/keys", "/service", "/reference", "/sign-in"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A built folder: an index, an asset that compresses, and one that does not."""
    built = tmp_path / "static"
    (built / "assets").mkdir(parents=True)
    (built / "index.html").write_text(INDEX)
    (built / "assets" / "index-1a2b.js").write_text("console.log('ragsvc');\n" * 200)
    (built / "first.js").write_text("1")
    return built


def test_the_folder_is_read_and_compressed_once(folder: Path) -> None:
    files = load_page_files(folder)
    assert files is not None
    script = files.find("assets/index-1a2b.js")
    assert script is not None
    assert script.gzipped is not None
    assert gzip.decompress(script.gzipped) == script.content
    assert script.media_type == "text/javascript; charset=utf-8"
    assert script.immutable
    first = files.find("first.js")
    assert first is not None
    assert (first.immutable, first.gzipped) == (False, None)
    assert files.find("../../files.py") is None
    assert files.find("index.html") is None
    assert load_page_files(folder / "nothing") is None


def test_the_index_is_rendered_for_a_prefix() -> None:
    files = PageFiles(INDEX, {"a.js": page_file(b"", "text/javascript")})
    assert 'src="/static/pages/assets/index-1a2b.js"' in files.index("").content.decode()
    below = files.index("/team/rag").content.decode()
    assert 'href="/team/rag/static/pages/assets/index-3c4d.css"' in below
    assert '<meta name="ragsvc-prefix" content="/team/rag" />' in below
    assert files.index('/"><script>').content.count(b"<script>") == 0


@pytest.fixture(scope="module")
def served(service) -> httpx.Client:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


@pytest.mark.model
@pytest.mark.parametrize("path", PATHS)
def test_every_page_is_the_index_with_a_strict_policy(served: httpx.Client, path: str) -> None:
    reply = served.get(path)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    policy = reply.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "style-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy, "nothing of another host"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-cache"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", reply.text), "nothing inline"
    assert "set-cookie" not in reply.headers


@pytest.mark.model
def test_files_are_kept_by_browsers_and_sent_compressed(served: httpx.Client) -> None:
    index = served.get("/ask")
    again = served.get("/ask", headers={"if-none-match": index.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for name in re.findall(r'(?:src|href)="([^"]+)"', index.text):
        plain = served.get(name, headers={"accept-encoding": "identity"})
        assert plain.status_code == 200, name
        packed = served.get(name, headers={"accept-encoding": "br, gzip"})
        assert packed.content == plain.content
        if "/assets/" in name:
            assert plain.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert packed.headers["content-encoding"] == "gzip"
            assert "accept-encoding" in packed.headers["vary"].lower()
    missing = served.get("/static/pages/assets/nothing.js")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_url")
    assert served.get("/static/pages/%2e%2e/files.py").status_code == 404


@pytest.mark.model
def test_the_first_load_is_small(served: httpx.Client) -> None:
    """At most 150 kB compressed: the index, what it names, and the page that is shown first."""
    sent = 0
    names = ["/ask", *re.findall(r'(?:src|href)="([^"]+)"', served.get("/ask").text)]
    for name in names:
        with served.stream("GET", name, headers={"accept-encoding": "gzip"}) as reply:
            sent += sum(len(part) for part in reply.iter_raw())
    assert sent <= 150_000


@pytest.mark.model
def test_a_session_reaches_the_routes_with_most_traffic(service, new_tenant) -> None:
    """Chats are answered beside the framework, with the same access control."""
    tenant = new_tenant()
    tenant.add_text("The harbour has seven piers.")
    with httpx.Client(base_url=service.url, timeout=60, headers={"sec-fetch-site": "same-origin"}) as page:
        csrf = page.post("/v1/session", json={"key": tenant.key}).json()["csrf_token"]
        body = {
            "model": "local/chat-model",
            "use_rag": True,
            "messages": [{"role": "user", "content": "How many piers has the harbour?"}],
        }
        assert page.post("/v1/chat/completions", json=body).status_code == 403
        answer = page.post("/v1/chat/completions", json=body, headers={"x-csrf-token": csrf})
        assert "seven piers" in answer.json()["choices"][0]["message"]["content"]
        upload = page.post(
            "/v1/rag/documents",
            params={"filename": "more.txt"},
            content=b"The lighthouse is red.",
            headers={"content-type": "text/plain", "x-csrf-token": csrf},
        )
        assert upload.status_code == 201
        assert page.get("/v1/usage").status_code in {200, 403}


@pytest.mark.model
def test_sessions_end_with_their_tenant(service, new_tenant) -> None:
    tenant = new_tenant()
    with httpx.Client(base_url=service.url, timeout=60, headers={"sec-fetch-site": "same-origin"}) as page:
        csrf = page.post("/v1/session", json={"key": tenant.key}).json()["csrf_token"]
        link = page.post("/v1/session/links", headers={"x-csrf-token": csrf}).json()
        with service.client(service.admin_key) as admin:
            assert admin.delete(f"/v1/tenants/{tenant.name}").status_code == 200
        assert page.get("/v1/models").status_code == 401
        assert page.get("/v1/session").json()["key"] is None
        assert page.post("/v1/session", json={"code": link["code"]}).status_code == 401


HOSTILE = {
    "page.html": ("text/html", b"<!doctype html><script>fetch('/v1/session')</script><p>Harbour.</p>"),
    "picture.svg": ("image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'),
    "page.xhtml": ("application/xhtml+xml", b'<html xmlns="http://www.w3.org/1999/xhtml"><script>1</script></html>'),
    "words.txt": ("text/plain", b"<script>alert(1)</script> Harbour."),
}


@pytest.mark.model
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("claimed", ["own", "text/html"])
def test_a_stored_file_cannot_run_script(new_tenant, name: str, claimed: str) -> None:
    """A browser that opens its address stores it, guesses no type, and gives it no rights."""
    tenant = new_tenant()
    media_type, content = HOSTILE[name]
    kind = media_type if claimed == "own" else claimed
    paths = []
    document = tenant.upload(content, filename=name, kind=kind)
    if document.status_code in {200, 201, 202}:
        paths.append(f"/v1/rag/documents/{document.json()['id']}/content")
    file = tenant.http.post("/v1/files", files={"file": (name, content, kind)}, data={"purpose": "user_data"})
    assert file.status_code in {200, 201}, file.text
    paths.append(f"/v1/files/{file.json()['id']}/content")
    for path in paths:
        reply = tenant.http.get(path)
        assert reply.status_code == 200, (path, reply.text)
        assert reply.headers["content-disposition"].startswith("attachment"), path
        assert reply.headers["x-content-type-options"] == "nosniff", path
        assert reply.headers["content-security-policy"] == "sandbox", path


@pytest.mark.anyio
async def test_without_the_setting_there_are_no_pages_and_no_sessions(tmp_path: Path) -> None:
    """As ``create_service`` composes the routes; ``/`` is the JSON 404 of a service without pages."""
    from ragsvc.web.app import create_app  # noqa: PLC0415 - after the fixtures
    from ragsvc.web.service_app import ROUTES, routes_of  # noqa: PLC0415 - heavy

    off = routes_of(pages=False)
    assert not set(off) & {*pages.route_handlers, *sessions.route_handlers}
    on = routes_of(pages=True)
    assert {*ROUTES, *pages.route_handlers} == set(on)
    database = SmallDatabase(tmp_path / "keys.sqlite")
    app = create_app(compose(database))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://rag.test") as client:
        reply = await client.get("/")
    database.close()
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_url")


def test_pages_need_no_key_and_are_not_part_of_the_api() -> None:
    for handler in pages.route_handlers:
        assert requirement_of(handler.opt) is AccessRequirement.PUBLIC
        assert handler.include_in_schema is False


def test_the_wheel_has_the_built_pages_and_not_their_sources(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "ragsvc", checkout / "ragsvc", ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout / name)
    package = checkout / "ragsvc" / "web" / "pages" / "source" / "node_modules" / "package"
    package.mkdir(parents=True)
    (package / "index.py").touch()
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path, checkout],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("ragsvc-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "ragsvc/web/pages/static/index.html" in names
    assert any(re.fullmatch(r"ragsvc/web/pages/static/assets/index-[\w-]+\.js", name) for name in names)
    assert not [name for name in names if "pages/source" in name or "node_modules" in name]
