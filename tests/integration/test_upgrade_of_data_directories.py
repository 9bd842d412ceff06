"""The real service opens data directories that the last commit before schema migrations wrote."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from ragsvc.store.migrations import revisions
from ragsvc.store.schema import read_revision
from ragsvc.store.sqlite_database import SqliteDatabase, connect_raw
from ragsvc.testing.service_runner import ROOT, RunningService, service_environment
from tests.support.command import at_data, ragsvc
from tests.support.old_data_directories import KINDS, OldDirectory

pytestmark = [pytest.mark.model, pytest.mark.sqlite_file, pytest.mark.local_files]


@pytest.fixture(params=KINDS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> OldDirectory:
    return OldDirectory(request.param, tmp_path / "data")


def status(http: httpx.Client, document: str) -> str:
    return http.get(f"/v1/rag/documents/{document}").json()["status"]


def wait_until_ready(http: httpx.Client, document: str) -> None:
    deadline = time.monotonic() + 60
    while status(http, document) != "ready":
        assert time.monotonic() < deadline, http.get(f"/v1/rag/documents/{document}").text
        time.sleep(0.05)


def search(http: httpx.Client, query: str, **options: object) -> dict:
    reply = http.post("/v1/rag/search", json={"query": query, **options})
    assert reply.status_code == 200, reply.text
    return reply.json()["data"][0]


def check_documents(http: httpx.Client, documents: dict[str, str]) -> None:
    listed = http.get("/v1/rag/documents").json()["data"]
    assert {document["id"] for document in listed} >= set(documents.values())
    assert status(http, documents["failed"]) == "failed"
    wait_until_ready(http, documents["unfinished"])
    hit = search(http, "How much oil did the lighthouse lamp consume?")
    assert (hit["document_id"], hit["page"]) == (documents["pdf"], 1)
    assert "4,711 litres" in hit["quote"]
    hit = search(http, "What was painted green?", collection="harbour")
    assert hit["document_id"] == documents["text"]
    hit = search(http, "What is page 6 of the unfinished ledger?")
    assert hit["document_id"] == documents["unfinished"]


def check_chat(http: httpx.Client, documents: dict[str, str]) -> None:
    question = "How many litres of oil did the lighthouse lamp consume in 1903?"
    body = {"model": "local/chat-model", "use_rag": True, "messages": [{"role": "user", "content": question}]}
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    assert "4,711 litres" in reply.json()["choices"][0]["message"]["content"]
    assert documents["pdf"] in {citation["file_id"] for citation in reply.json()["citations"]}


def check_upload(http: httpx.Client) -> None:
    reply = http.post(
        "/v1/rag/documents",
        params={"filename": "new.txt"},
        content=b"The new ferry is called Albatross.",
        headers={"content-type": "text/plain"},
    )
    assert reply.status_code == 201, reply.text
    assert search(http, "What is the ferry called?")["document_id"] == reply.json()["id"]


def test_a_directory_from_before_migrations_is_served_whole(old: OldDirectory) -> None:
    running = RunningService(old.path, env=old.settings)
    with running.client(old.key) as http:
        check_documents(http, old.documents)
        check_chat(http, old.documents)
        check_upload(http)
        content = http.get(f"/v1/rag/documents/{old.documents['text']}/content")
        assert content.content == b"The harbour crane was painted green in April.\nIt lifts eleven tonnes.\n"
    with running.client(old.admin_key) as admin:
        assert admin.get("/v1/providers/added").json()["models"][0]["upstream"] == "real"
    assert running.stop() == 0
    backup = old.backup.stat()

    again = RunningService(old.path, env=old.settings)
    with again.client(old.key) as http:
        check_documents(http, old.documents)
        assert search(http, "What is the ferry called?")["quote"] == "The new ferry is called Albatross."
    assert again.stop() == 0
    assert [file.name for file in old.path.glob("*before*")] == [old.backup.name]
    assert (old.backup.stat().st_ino, old.backup.stat().st_mtime_ns) == (backup.st_ino, backup.st_mtime_ns)


def test_encryption_of_an_upgraded_directory_removes_its_plain_backup(tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    SqliteDatabase(old.database).close()
    assert old.backup.exists()
    done = subprocess.run(
        [sys.executable, "-m", "ragsvc", "encrypt"],
        env=service_environment(old.path, {"RAGSVC_MASTER_KEY": "5a" * 32}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(old.path.glob("*before*")) == []
    old.master_key = "5a" * 32
    SqliteDatabase(old.database, key=old.database_key).close()


def revision(old: OldDirectory) -> str | None:
    with closing(connect_raw(old.database, key=old.database_key)) as connection:
        return read_revision(connection)


def test_doctor_reports_an_older_schema_and_does_not_upgrade_it(old: OldDirectory) -> None:
    env = {**at_data(old.path), **old.settings}
    content = old.database.read_bytes()
    done = ragsvc("doctor", "--json", env=env)
    assert done.code == 0, done.out
    checks = {check["name"]: (check["state"], check["words"]) for check in done.json["checks"]}
    state, words = checks["database"]
    assert state == "warn"
    assert words.endswith("schema 0001; the next start upgrades it")
    assert checks["indexes"] == ("warn", "not compared: the comparison would upgrade the database")
    assert old.database.read_bytes() == content
    assert not old.backup.exists()
    assert not (old.path / "derived").exists()


def test_key_commands_report_an_upgrade_on_standard_error(old: OldDirectory) -> None:
    env = {**at_data(old.path), **old.settings}
    done = ragsvc("keys", "list", "--json", env=env)
    assert done.code == 0, done.err
    assert done.json["data"]
    assert f"upgrading ragsvc.sqlite from schema 0001 to {revisions()[-1]}" in done.err
    assert old.backup.name in done.err
    assert revision(old) == revisions()[-1]
    again = ragsvc("keys", "list", "--json", env=env)
    assert (again.code, again.err) == (0, "")
