"""``/v1/service``: state, settings without secrets, and findings; for operators only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from ragsvc import __version__
from ragsvc.testing.service_runner import ROOT, RunningService, create_key, service_environment
from tests.conftest import NO_LIMITS

pytestmark = pytest.mark.model

PATHS = ("/v1/service", "/v1/service/settings", "/v1/service/findings")


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory):
    """An encrypted data directory, settings with secrets, and a provider that does not exist."""
    folder = tmp_path_factory.mktemp("state")
    settings = folder / "settings.toml"
    settings.write_text(
        '[[providers]]\nname = "absent"\nbase_url = "http://user:basic-secret@127.0.0.1:9/v1"\n'
        'api_key = "sk-provider-secret"\nmodels = ["absent/model"]\nretries = 0\n'
        '[[providers]]\nname = "down"\nbase_url = "http://127.0.0.1:9/v1"\nmodels = ["down/model"]\nretries = 0\n'
    )
    environment = {
        "RAGSVC_CONFIG": str(settings),
        "RAGSVC_MASTER_KEY": "ab" * 32,
        "RAGSVC_OTEL_ENDPOINT": "http://user:trace-secret@127.0.0.1:9/v1/traces?token=query-secret",
    }
    data_dir = folder / "data"
    scopes = ("--scope", "admin", "--scope", "chat", "--scope", "documents.write")
    key = create_key(data_dir, tenant="operator", extra=scopes, settings=environment)
    service = RunningService(data_dir, env=environment, start_timeout_s=300)
    service.admin_key = key
    yield service, environment
    service.stop()


def test_only_operators_see_the_service(service: RunningService, new_tenant) -> None:
    administrator = new_tenant(scopes=["tenant.admin"], **NO_LIMITS)
    for path in PATHS:
        assert administrator.http.get(path).status_code == 403
        assert httpx.get(service.url + path).status_code == 401


def test_the_state_shows_queue_indexes_model_and_versions(service: RunningService, new_tenant) -> None:
    tenant = new_tenant()
    tenant.add_text("The harbour has seven piers.", collection="open", filename="harbour.txt")
    assert tenant.http.post("/v1/rag/search", json={"query": "piers", "collection": "open"}).json()["data"]
    with service.client(service.admin_key) as admin:
        state = admin.get("/v1/service").json()
    assert state["version"] == __version__
    assert state["not_ready"] == {}
    assert state["ingest"]["documents"]["ready"] >= 1
    assert state["ingest"]["documents_last_hour"] >= 1
    assert state["ingest"]["pages_last_hour"] >= 1
    assert (state["embedding"]["dimension"], state["embedding"]["change"]) == (384, None)
    loaded = {(index["tenant"], index["collection"]): index for index in state["indexes"]["loaded"]}
    assert loaded[tenant.name, "open"]["passages"] == 1
    assert state["indexes"]["memory_bytes"] >= sum(index["memory_bytes"] for index in loaded.values()) > 0
    assert state["storage"]["database_bytes"] > 0
    assert state["storage"]["memory_bytes"] is None or state["storage"]["memory_bytes"] > 10_000_000
    assert state["encryption"]["at_rest"] is False
    assert state["encryption"]["request_keys"]
    assert state["packages"]["litestar"]


def test_secrets_of_settings_are_hidden(sealed) -> None:
    service, _ = sealed
    with service.client(service.admin_key) as admin:
        answers = [admin.get(path) for path in PATHS]
        settings = {entry["name"]: entry for entry in answers[1].json()["data"]}
    for answer in answers:
        assert answer.status_code == 200, answer.text
        for secret in ("ab" * 32, "sk-provider-secret", "trace-secret", "basic-secret", "query-secret"):
            assert secret not in answer.text
    assert settings["master_key"] == {"name": "master_key", "value": "***", "is_default": False}
    assert settings["otel_endpoint"]["value"] == "http://***@127.0.0.1:9/v1/traces?***"
    assert settings["providers"]["value"][0]["base_url"] == "http://***@127.0.0.1:9/v1"
    assert settings["rag_top_k"]["is_default"] is True
    assert answers[0].json()["encryption"]["at_rest"] is True


def findings(admin: httpx.Client) -> dict[str, tuple[str, str]]:
    return {row["name"]: (row["state"], row["words"]) for row in admin.get(PATHS[2]).json()["data"]}


def test_findings_name_failed_providers_and_documents(sealed) -> None:
    service, _ = sealed
    with service.client(service.admin_key) as admin:
        before = findings(admin)
        assert before["encryption at rest"] == ("ok", "on: the master key opens the directory")
        assert "documents" not in before
        assert before["permissions"][0] == "ok"
        upload = admin.post(
            "/v1/rag/documents?filename=broken.pdf",
            content=b"%PDF-1.4 broken",
            headers={"content-type": "application/pdf"},
        )
        assert upload.status_code == 422
        chat = {"model": "down/model", "messages": [{"role": "user", "content": "Hello"}]}
        for _ in range(8):
            assert admin.post("/v1/chat/completions", json=chat).status_code in {502, 503, 504}
        after = findings(admin)
        assert after["documents"] == ("warn", "1 failed; the page Documents shows the reasons")
        assert after["provider down"][0] == "warn"


@pytest.mark.sqlite_file
def test_a_backup_ends_its_finding(sealed, tmp_path: Path) -> None:
    service, environment = sealed
    with service.client(service.admin_key) as admin:
        assert findings(admin)["backup"][0] == "warn"
        done = subprocess.run(
            [sys.executable, "-m", "ragsvc", "backup", str(tmp_path / "archive")],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=service_environment(service.data_dir, environment),
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        assert "backup" not in findings(admin)
        state = admin.get(PATHS[0]).json()
        last, documents = state["backups"]["last"], sum(state["ingest"]["documents"].values())
        assert (last["documents"], last["destination"]) == (documents, str(tmp_path / "archive"))
