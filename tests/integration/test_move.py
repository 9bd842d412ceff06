"""``ragsvc migrate-to``: a data directory's rows and files in PostgreSQL and S3, and back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ragsvc.testing.service_runner import ROOT, RunningService, create_key, service_environment
from tests.support.command import Done, at_data, ragsvc
from tests.support.postgres_server import PostgresServer
from tests.support.s3_server import S3Server

pytestmark = [pytest.mark.model, pytest.mark.timeout(400), pytest.mark.sqlite_file, pytest.mark.local_files]

REPORT = ROOT / "fixtures" / "documents" / "apple-10-q-2022-12-31.pdf"
NOTES = [f"Turbine {number} was repaired in the spring of 20{number:02}." for number in range(12)]
QUESTIONS = ("What were total net sales?", "When was turbine 7 repaired?", "Who repaired the roof?")


_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


class Directory:
    """A data directory, and the settings that say where its rows and files are."""

    def __init__(self, path: Path, settings: dict[str, str]) -> None:
        self.path = path
        self.settings = settings
        self.key = create_key(path, settings=settings)

    def command(self, *words: object) -> Done:
        return ragsvc(*words, env={**at_data(self.path), **self.settings}, timeout_s=200)

    def fill(self) -> None:
        with Serving(self) as client:
            for number, text in enumerate(NOTES):
                name = {"filename": f"{number}.txt"}
                stored = client.post(
                    "/v1/rag/documents", params=name, content=text.encode(), headers={"content-type": "text/plain"}
                )
                assert stored.status_code == 201, stored.text
            stored = client.post(
                "/v1/rag/documents",
                params={"filename": "report.pdf", "wait_s": 120},
                content=REPORT.read_bytes(),
                headers={"content-type": "application/pdf"},
            )
            assert stored.status_code == 201, stored.text
            gone = client.post("/v1/rag/documents", content=b"Deleted soon.", headers={"content-type": "text/plain"})
            assert client.delete(f"/v1/rag/documents/{gone.json()['id']}").status_code in (200, 204)
            conversation = client.post("/v1/conversations", json={"metadata": {"topic": "turbines"}})
            assert conversation.status_code == 200, conversation.text

    def answers(self) -> dict[str, Any]:
        """What the service finds, answers and cites, and the bytes of every file."""
        found: dict[str, Any] = {}
        with Serving(self) as client:
            for question in QUESTIONS:
                hits = client.post("/v1/rag/search", json={"query": question, "top_k": 20})
                assert hits.status_code == 200, hits.text
                found[f"search {question}"] = hits.json()["data"]
                body = {
                    "model": "local/chat-model",
                    "messages": [{"role": "user", "content": question}],
                    "use_rag": True,
                }
                reply = client.post("/v1/chat/completions", json=body)
                assert reply.status_code == 200, reply.text
                message = json.dumps(reply.json()["choices"][0]["message"])
                found[f"answer {question}"] = _ADDRESS.sub("", message)
            documents = client.get("/v1/rag/documents", params={"limit": 100}).json()["data"]
            found["documents"] = documents
            for document in documents:
                content = client.get(f"/v1/rag/documents/{document['id']}/content")
                assert content.status_code == 200, content.text
                found[f"content {document['id']}"] = content.content
        return found


class Serving:
    """A service on a directory inside a ``with`` block, as a client with its key."""

    def __init__(self, directory: Directory) -> None:
        self._service = RunningService(directory.path, env=directory.settings)
        self._client = self._service.client(directory.key)

    def __enter__(self) -> Any:
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()
        assert self._service.stop() == 0


@pytest.mark.parametrize("kind", ["plain", "encrypted"])
def test_rows_and_files_are_moved_there_and_back(
    kind: str, tmp_path: Path, postgres_server: PostgresServer, s3_server: S3Server
) -> None:
    own: dict[str, str] = {}
    if kind == "encrypted":
        own = {"RAGSVC_MASTER_KEY": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}
    directory = Directory(tmp_path / "data", own)
    directory.fill()
    before = directory.answers()
    assert "2007" in str(before["answer When was turbine 7 repaired?"])
    blobs = {path.name: path.read_bytes() for path in (directory.path / "blobs").rglob("*") if path.is_file()}

    database = postgres_server.new_database(empty=True)
    place = {"RAGSVC_FILES_URL": f"s3://{s3_server.new_bucket()}/moved", "RAGSVC_FILES_ENDPOINT": s3_server.endpoint}
    directory.settings = {**own, "RAGSVC_FILES_ENDPOINT": s3_server.endpoint}
    moved = directory.command("migrate-to", database, "--files", place["RAGSVC_FILES_URL"], "--json")
    assert moved.code == 0, moved.err
    assert (moved.json["rows"]["documents"], moved.json["files"]["files"]) == (13, 13)

    refused = directory.command("keys", "list")
    assert (refused.code, "were moved to another one" in refused.err) == (2, True), refused.err
    directory.settings = {**own, **place, "RAGSVC_DATABASE_URL": database}
    assert directory.answers() == before
    with Serving(directory) as client:  # rows of the new database have ids that were never used
        added = client.post(
            "/v1/rag/documents", content=b"The roof was repaired by Ada.", headers={"content-type": "text/plain"}
        )
        assert added.status_code == 201, added.text
    after = directory.answers()
    assert "Ada" in str(after["answer Who repaired the roof?"])

    back = directory.command("migrate-to", "directory", "--files", "directory", "--json")
    assert back.code == 0, back.err
    assert back.json["rows"]["documents"] == 14
    directory.settings = own
    assert directory.answers() == after
    present = {path.name: path.read_bytes() for path in (directory.path / "blobs").rglob("*") if path.is_file()}
    assert {name: present[name] for name in blobs} == blobs
    assert directory.command("doctor", "--deep").code == 0


KILLED = """
import os, sys
import msgspec
from ragsvc.config import Settings
from ragsvc.wiring.move import move
def show(what, done, total):
    if what == sys.argv[2] and done:
        os._exit(9)
present = Settings.from_env(os.environ)
move(present, msgspec.structs.replace(present, database_url=sys.argv[1]), from_scratch=False, show=show)
"""


def test_an_interrupted_move_goes_on_and_no_service_starts_before(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    directory = Directory(tmp_path / "data", {})
    directory.fill()
    before = directory.answers()
    database = postgres_server.new_database(empty=True)
    for table in ("documents", "passages", "embeddings"):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, database, table], env=service_environment(directory.path), check=False
        )
        assert killed.returncode == 9
        early = ragsvc("keys", "list", env={**at_data(directory.path), "RAGSVC_DATABASE_URL": database})
        assert (early.code, "a move was interrupted" in early.err) == (2, True), early.err
    other = Directory(tmp_path / "other", {})
    refused = other.command("migrate-to", database)
    assert (refused.code, "of another data directory" in refused.err) == (2, True), refused.err
    with Serving(directory) as client:  # the rows are still those of the directory
        changed = client.patch(f"/v1/rag/documents/{before['documents'][0]['id']}", json={"filename": "renamed.txt"})
        assert changed.status_code == 200, changed.text
    before = directory.answers()
    differs = directory.command("migrate-to", database)
    assert (differs.code, "--from-scratch" in differs.err) == (2, True), differs.err
    assert directory.command("migrate-to", database, "--from-scratch").code == 0
    again = directory.command("migrate-to", database)
    assert (again.code, "were moved to another one already" in again.err) == (2, True), again.err
    directory.settings = {"RAGSVC_DATABASE_URL": database}
    assert directory.answers() == before
