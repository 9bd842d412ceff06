"""Who may do what: tenant administrators, keys limited to collections, plain chats, imported secrets, and the usage."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import tarfile
import time
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from ragsvc.testing.service_runner import ROOT, RunningService, create_key, service_environment
from tests.conftest import NO_LIMITS
from tests.support.old_data_directories import OldDirectory

pytestmark = pytest.mark.model


def code_of(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def key_of(reply: httpx.Response) -> str:
    assert reply.status_code == 201, reply.text
    return str(reply.json()["key"])


# -- tenant administrators -------------------------------------------------------------------------------------


def test_a_tenant_administrator_manages_the_keys_of_its_own_tenant_only(service: RunningService, new_tenant) -> None:
    administrator = new_tenant(scopes=["tenant.admin"], requests_per_minute=500, token_balance=1000)
    other = new_tenant()
    keys = administrator.http
    limits = {"requests_per_minute": 100, "requests_per_hour": None, "token_balance": 1000}
    made = keys.post("/v1/keys", json={"label": "app", **limits})
    assert (made.status_code, made.json()["tenant"]) == (201, administrator.name)
    with service.client(made.json()["key"]) as client:
        assert client.get("/v1/rag/documents").status_code == 200
    for refused in (
        {"label": "x", **limits, "tenant": other.name},
        {"label": "x", **limits, "scopes": ["admin"]},
        {"label": "x", **limits, "requests_per_minute": None},
        {"label": "x", **limits, "token_balance": 1001},
        {"label": "x", "requests_per_minute": 100, "requests_per_hour": None},
    ):
        assert code_of(keys.post("/v1/keys", json=refused)) == (403, "policy_denied"), refused
    listed = keys.get("/v1/keys").json()["data"]
    assert {key["tenant"] for key in listed} == {administrator.name}
    assert code_of(keys.get("/v1/keys", params={"tenant": other.name})) == (403, "policy_denied")
    with service.client(service.admin_key) as admin:
        (foreign,) = admin.get("/v1/keys", params={"tenant": other.name}).json()["data"]
        powerful = admin.post("/v1/keys", json={"tenant": administrator.name, "label": "root", "scopes": ["admin"]})
    for path, method in (("", "GET"), ("", "PATCH"), ("/revoke", "POST"), ("", "DELETE"), ("/usage", "GET")):
        body = {"json": {"label": "y"}} if method == "PATCH" else {}
        reply = keys.request(method, f"/v1/keys/{foreign['id']}{path}", **body)
        assert code_of(reply) == (404, "key_not_found"), (method, path)
    assert code_of(keys.post(f"/v1/keys/{powerful.json()['id']}/rotate")) == (403, "policy_denied")
    raised = keys.patch(f"/v1/keys/{made.json()['id']}", json={"token_balance": None})
    assert code_of(raised) == (403, "policy_denied")
    assert keys.patch(f"/v1/keys/{made.json()['id']}", json={"label": "renamed"}).json()["label"] == "renamed"
    assert keys.get(f"/v1/tenants/{administrator.name}").json()["keys"] == 3
    for method, path in (
        ("GET", "/v1/tenants"),
        ("GET", f"/v1/tenants/{other.name}"),
        ("GET", f"/v1/tenants/{other.name}/export"),
        ("DELETE", f"/v1/tenants/{administrator.name}"),
        ("GET", "/v1/providers"),
        ("GET", f"/v1/usage?tenant={other.name}"),
    ):
        assert code_of(keys.request(method, path)) == (403, "policy_denied"), path


def test_a_tenant_administrator_gets_no_secret_of_a_key_that_reaches_more(service: RunningService, new_tenant) -> None:
    """A rotation returns a secret, so it is a grant like a creation; models are limited like collections."""
    granted = {"allowed_collections": ["branch"], "allowed_models": ["m1", "small/*"], "token_balance": 10}
    administrator = new_tenant(scopes=["tenant.admin"], **granted)
    keys = administrator.http
    with service.client(service.admin_key) as admin:
        wide = [
            admin.post("/v1/keys", json={"tenant": administrator.name, "label": "w", **NO_LIMITS, **granted, **more})
            for more in (
                {"allowed_collections": []},
                {"allowed_collections": ["branch", "head"]},
                {"allowed_models": []},
                {"allowed_models": ["m2"]},
                {"token_balance": None},
                {"token_balance": 11},
            )
        ]
        for reply in wide:
            path = f"/v1/keys/{reply.json()['id']}"
            old = key_of(reply)
            assert code_of(keys.post(f"{path}/rotate")) == (403, "policy_denied"), reply.json()
            assert code_of(keys.patch(path, json={"label": "x"})) == (403, "policy_denied"), reply.json()
            with service.client(old) as client:
                assert client.get("/v1/rag/documents").status_code == 200  # its secret was not replaced
            assert keys.post(f"{path}/revoke").json()["state"] == "revoked"  # this grants nothing
    for models, status in (
        ([], 403),
        (["m2"], 403),
        (["m1", "*"], 403),
        (["small*"], 403),
        (["m1", "small/7b", "small/*", "small/q?-*"], 201),
    ):
        body = {"label": "x", **NO_LIMITS, **granted, "allowed_models": models}
        assert keys.post("/v1/keys", json=body).status_code == status, models
    narrow = keys.post("/v1/keys", json={"label": "x", **NO_LIMITS, **granted}).json()
    path = f"/v1/keys/{narrow['id']}"
    assert code_of(keys.patch(path, json={"allowed_models": []})) == (403, "policy_denied")
    rotated = keys.post(f"{path}/rotate", json={"overlap_s": 0}).json()
    assert rotated["key"] != narrow["key"]
    with service.client(rotated["key"]) as client:
        assert client.get("/v1/rag/documents").status_code == 200


# -- keys limited to collections -------------------------------------------------------------------------------


def test_a_key_limited_to_collections_reaches_no_other(service: RunningService, new_tenant) -> None:
    tenant = new_tenant()
    open_id = tenant.add_text("The harbour has seven piers.", collection="open", filename="harbour.txt")
    closed_id = tenant.add_text("The lighthouse is red.", collection="closed", filename="lighthouse.txt")
    with service.client(service.admin_key) as admin:
        body = {"tenant": tenant.name, "label": "limited", "allowed_collections": ["open"], **NO_LIMITS}
        limited = key_of(admin.post("/v1/keys", json=body))
    with service.client(limited) as client:
        listed = client.get("/v1/rag/documents").json()["data"]
        assert [document["id"] for document in listed] == [open_id]
        assert client.get(f"/v1/rag/documents/{open_id}").status_code == 200
        for method, path in (
            ("GET", ""),
            ("GET", "/content"),
            ("GET", "/passages"),
            ("GET", "/pages/1"),
            ("GET", "/events"),
            ("POST", "/retry"),
            ("PATCH", ""),
            ("DELETE", ""),
            ("POST", "/delete"),
        ):
            body = {"json": {"filename": "x.txt"}} if method == "PATCH" else {}
            reply = client.request(method, f"/v1/rag/documents/{closed_id}{path}", **body)
            assert code_of(reply) == (404, "document_not_found"), (method, path)
        assert code_of(client.get("/v1/rag/documents?collection=closed")) == (403, "policy_denied")
        assert code_of(client.delete("/v1/rag/collections/closed")) == (404, "collection_not_found")
        assert [entry["name"] for entry in client.get("/v1/rag/collections").json()["data"]] == ["open"]
        headers = {"content-type": "text/plain"}
        upload = client.post("/v1/rag/documents?collection=closed", content=b"Text.", headers=headers)
        assert code_of(upload) == (403, "policy_denied")
        search = {"query": "lighthouse", "collection": "closed"}
        assert code_of(client.post("/v1/rag/search", json=search)) == (403, "policy_denied")
        assert code_of(client.post("/v1/rag/search", json={"query": "lighthouse"})) == (403, "policy_denied")
        question = [{"role": "user", "content": "Which colour has the lighthouse?"}]
        chat = {"model": "local/chat-model", "messages": question, "use_rag": True}
        for refused in ({**chat, "rag": {"collection": "closed"}}, chat):
            assert code_of(client.post("/v1/chat/completions", json=refused)) == (403, "policy_denied")
        allowed = client.post("/v1/chat/completions", json={**chat, "rag": {"collection": "open"}})
        assert allowed.status_code == 200
        assert client.post("/v1/rag/search", json={"query": "piers", "collection": "open"}).json()["data"]
    assert tenant.http.get(f"/v1/rag/documents/{closed_id}").status_code == 200


def test_the_scope_chat_plain_allows_chats_without_documents_only(gateway) -> None:
    key = gateway.new_key(scopes=["chat.plain"])
    body = {"model": "local-name", "messages": [{"role": "user", "content": "Hello"}]}
    with gateway.service.client(key) as client:
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        for path in ("/v1/chat/completions", "/chat/completions"):
            assert code_of(client.post(path, json={**body, "use_rag": True})) == (403, "policy_denied")
        assert code_of(client.post("/v1/rag/search", json={"query": "x"})) == (403, "policy_denied")
    with gateway.service.client(gateway.new_key(scopes=["search"])) as client:
        assert code_of(client.post("/v1/chat/completions", json=body)) == (403, "policy_denied")


# -- imported secrets ------------------------------------------------------------------------------------------


def test_an_existing_secret_works_after_its_hash_is_imported(service: RunningService, new_tenant) -> None:
    tenant = new_tenant()
    secret = "sk-legacy-" + sha256(tenant.name.encode()).hexdigest()
    digest = sha256(secret.encode()).hexdigest()
    body = {"tenant": tenant.name, "label": "moved", "secret_sha256": digest, **NO_LIMITS}
    with service.client(secret) as client, service.client(service.admin_key) as admin:
        assert client.get("/v1/tokens").status_code == 401
        made = admin.post("/v1/keys", json=body)
        assert (made.status_code, made.json()["key"]) == (201, None)
        assert client.get("/v1/tokens").status_code == 200
        assert code_of(admin.post("/v1/keys", json=body)) == (409, "conflict")
        audit = admin.get(f"/v1/keys/{made.json()['id']}/audit")
        assert [entry["action"] for entry in audit.json()["data"]] == ["import"]
        assert digest not in audit.text
        rotated = admin.post(f"/v1/keys/{made.json()['id']}/rotate", json={"overlap_s": 0}).json()["key"]
        assert client.get("/v1/tokens").status_code == 401
        with service.client(rotated) as moved:
            assert moved.get("/v1/tokens").status_code == 200
        for malformed in ("x" * 64, digest[:-1], digest.upper()):
            assert admin.post("/v1/keys", json={**body, "secret_sha256": malformed}).status_code == 400


# -- usage -----------------------------------------------------------------------------------------------------


def test_usage_is_counted_by_tenant_key_model_family_and_day_and_searches_count(gateway) -> None:
    name = f"usage-{time.monotonic_ns()}"
    key = gateway.new_key(tenant=name)
    with gateway.service.client(key) as client, gateway.service.client(gateway.admin_key) as admin:
        chat = {"model": "local-name", "messages": [{"role": "user", "content": "Hello"}]}
        assert client.post("/v1/chat/completions", json=chat).status_code == 200
        assert client.post("/v1/embeddings", json={"model": "local/embedding-model", "input": "x"}).status_code in (
            200,
            404,
        )
        headers = {"content-type": "text/plain"}
        assert client.post("/v1/rag/documents?filename=a.txt", content=b"A text.", headers=headers).status_code == 201
        for _ in range(3):
            assert client.post("/v1/rag/search", json={"query": "text"}).status_code == 200
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        asked = {"tenant": name, "group_by": "tenant,key_id,model,family,day"}
        deadline = time.monotonic() + 5
        found: dict[str, dict] = {}
        while time.monotonic() < deadline and found.get("search", {}).get("requests") != 3:
            data = admin.get("/v1/usage", params=asked).json()["data"]
            found = {entry["family"]: entry for entry in data}
        assert {"chat", "search", "documents"} <= set(found)
        assert (found["search"]["requests"], found["documents"]["requests"], found["chat"]["requests"]) == (3, 1, 1)
        assert found["chat"]["model"] == "local-name"
        assert found["chat"]["prompt_tokens"] > 0
        assert {entry["date"] for entry in found.values()} == {today}
        assert {entry["tenant"] for entry in found.values()} == {name}
        (total,) = admin.get("/v1/usage", params={"tenant": name, "group_by": ""}).json()["data"]
        assert (total["date"], total["tenant"]) == (None, None)
        assert total["requests"] == sum(entry["requests"] for entry in found.values())
        assert admin.get("/v1/usage", params={**asked, "until": "2020-01-31"}).json()["data"] == []
        assert code_of(admin.get("/v1/usage?since=2026-02-31")) == (400, "invalid_request")
        assert code_of(admin.get("/v1/usage?group_by=colour")) == (400, "invalid_request")
        key_id = found["chat"]["key_id"]
        per_key = admin.get(f"/v1/keys/{key_id}/usage").json()["data"]
        assert {entry["family"] for entry in per_key} == set(found)
        assert {entry["date"] for entry in per_key} == {today}


# -- command line ----------------------------------------------------------------------------------------------


def ragsvc(data_dir: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ragsvc", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=service_environment(data_dir),
        timeout=120,
    )


def ok(data_dir: Path, *arguments: str, stdin: str = "") -> dict:
    done = ragsvc(data_dir, *arguments, "--json", stdin=stdin)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_keys_are_changed_rotated_imported_and_counted_from_the_command_line(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    create_key(data_dir, tenant="acme")
    (key,) = ok(data_dir, "keys", "list")["data"]
    changed = ok(
        data_dir, "keys", "update", key["id"], "--label", "new", "--inactive", "--collection", "a", "--collection",
        "b", "--requests-per-minute", "7", "--token-balance", "500", "--expires-in-days", "2",
        "--money-balance", "12.5", "--money-per-day", "0.000001",
    )  # fmt: skip
    assert (changed["money_balance"], changed["money_per_day"]) == (12.5, 0.000001)
    assert "12.5 money left" in " ".join(ragsvc(data_dir, "keys", "list").stdout.split())
    tenant = ok(data_dir, "tenants", "update", "acme", "--money-balance", "7.25", "--max-documents", "9")
    assert (tenant["limits"]["money_balance"], tenant["limits"]["max_documents"]) == (7.25, 9)
    assert (changed["label"], changed["state"], changed["allowed_collections"]) == ("new", "inactive", ["a", "b"])
    assert (changed["requests_per_minute"], changed["token_balance"]) == (7, 500)
    assert abs(changed["expires_at"] - time.time() - 2 * 86_400) < 100
    back = ok(
        data_dir, "keys", "update", key["id"], "--active", "--all-collections", "--requests-per-minute", "0",
        "--token-balance", "-1", "--expires-in-days", "-1",
    )  # fmt: skip
    assert (back["state"], back["allowed_collections"], back["requests_per_minute"]) == ("active", [], None)
    assert (back["token_balance"], back["expires_at"]) == (None, None)
    nothing = ragsvc(data_dir, "keys", "update", key["id"])
    assert (nothing.returncode, nothing.stdout) == (2, "")
    rotated = ok(data_dir, "keys", "rotate", key["id"], "--overlap-s", "0")
    assert rotated["key"].startswith("rag_")
    imported = ok(
        data_dir, "keys", "create", "--tenant", "acme", "--import-secret-stdin", stdin="sk-0123456789abcdef\n"
    )
    assert imported["key"] is None
    short = ragsvc(data_dir, "keys", "create", "--tenant", "acme", "--import-secret-stdin", stdin="secret\n")
    assert short.returncode == 2
    usage = ok(data_dir, "keys", "usage", "--by", "tenant,day", "--since", "2026-01-01")
    assert (usage["since"], usage["data"]) == ("2026-01-01", [])
    printed = ragsvc(data_dir, "keys", "usage")
    assert printed.returncode == 0
    assert (
        printed.stdout.split() == "tenant key model family date prompt tokens completion tokens requests cost".split()
    )


def test_tenants_and_collections_from_the_command_line(service: RunningService, new_tenant, tmp_path: Path) -> None:
    tenant = new_tenant()
    tenant.add_text("The harbour is blue.", collection="a/b")
    tenant.add_text("The lighthouse is red.", collection="c")
    environment = {"RAGSVC_URL": service.url, "RAGSVC_API_KEY": service.admin_key}

    def run(*arguments: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ragsvc", *arguments],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env=service_environment(tmp_path, {**environment, **({"RAGSVC_API_KEY": key} if key else {})}),
            timeout=60,
        )

    assert tenant.name in run("tenants", "list").stdout
    updated = run("tenants", "update", tenant.name, "--max-documents", "5", "--json")
    assert json.loads(updated.stdout)["limits"]["max_documents"] == 5
    shown = run("tenants", "show", tenant.name)
    assert "documents    2 of 5" in shown.stdout
    listed = run("collections", "list", key=tenant.key)
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == ["a/b", "c"]
    archive = tmp_path / "tenant.tar"
    assert run("tenants", "export", tenant.name, str(archive)).returncode == 0
    with tarfile.open(archive) as opened:
        assert len([name for name in opened.getnames() if name.startswith("files/")]) == 2
    again = run("tenants", "export", tenant.name, str(archive))
    assert again.returncode == 1
    assert "File exists" in again.stderr
    unconfirmed = run("collections", "delete", "a/b", key=tenant.key)
    assert unconfirmed.returncode == 2
    deleted = run("collections", "delete", "a/b", "--yes", key=tenant.key)
    assert deleted.returncode == 0, deleted.stderr
    assert "documents      1" in deleted.stdout
    gone = run("tenants", "delete", tenant.name, "--yes", "--json")
    assert json.loads(gone.stdout)["removed"]["documents"] == 1
    assert run("tenants", "show", tenant.name).returncode == 1


@pytest.mark.sqlite_file
@pytest.mark.local_files
def test_copies_from_before_an_upgrade_can_be_removed_after_their_tenant(tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    (tenant,) = (entry["name"] for entry in ok(old.path, "tenants", "list", "--json")["data"] if entry["documents"])
    assert old.backup.exists()
    deleted = ragsvc(old.path, "tenants", "delete", tenant, "--yes")
    assert deleted.returncode == 0, deleted.stderr
    hint = f"ragsvc tenants delete {tenant} --remove-copies"
    assert f"{old.backup.name}, a copy" in deleted.stdout
    assert hint in deleted.stdout
    misspelt = ragsvc(old.path, "tenants", "delete", f"{tenant}x", "--remove-copies", "--yes")
    assert (misspelt.returncode, old.backup.exists()) == (1, True)
    removed = ragsvc(old.path, *hint.split()[1:], "--yes")
    assert removed.returncode == 0, removed.stderr
    assert f"removed {old.backup.name}" in removed.stdout
    assert not old.backup.exists()
    assert ragsvc(old.path, *hint.split()[1:], "--yes").returncode == 1
