"""The service while its PostgreSQL server is away: refusals with a time to come back, and recovery by itself."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ragsvc.testing.service_runner import ROOT, RunningService, create_key, service_environment
from tests.support.postgres_server import PostgresServer, server_binaries

TEXT = "The harbour master of Ystad keeps eleven lamps."


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    binaries = server_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    server = PostgresServer(binaries)
    yield server
    server.remove()


def upload(client: httpx.Client, text: str) -> httpx.Response:
    headers = {"content-type": "text/plain"}
    return client.post("/v1/rag/documents", params={"filename": "a.txt"}, content=text.encode(), headers=headers)


def find(client: httpx.Client, query: str) -> list[str]:
    reply = client.post("/v1/rag/search", json={"query": query})
    assert reply.status_code == 200, reply.text
    return [hit["quote"] for hit in reply.json()["data"]]


def wait_for_readiness(client: httpx.Client, status: int) -> dict[str, str]:
    """The reasons that ``/readyz`` gives once it answers with ``status``."""
    deadline = time.monotonic() + 60
    while (reply := client.get("/readyz?exclude=storage")).status_code != status:
        assert time.monotonic() < deadline, reply.text
        time.sleep(0.1)
    reasons: dict[str, str] = reply.json()["reasons"]
    return reasons


def ragsvc(data_dir: Path, settings: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ragsvc", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=service_environment(data_dir, settings),
        timeout=100,
    )


@pytest.mark.timeout(600)
def test_a_service_outlives_the_absence_of_its_database(server: PostgresServer, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    settings = {"RAGSVC_DATABASE_URL": server.new_database()}
    key = create_key(data_dir, settings=settings)
    service = RunningService(data_dir, env=settings)
    try:
        with service.client(key) as client:
            assert upload(client, TEXT).status_code == 201
            assert find(client, "How many lamps does the harbour master keep?") == [TEXT]
            assert not (data_dir / "ragsvc.sqlite").exists()

            second = ragsvc(tmp_path / "second", settings, "serve", "--port", "0")
            assert (second.returncode, "Another ragsvc service uses this database" in second.stderr) == (5, True)
            copied = ragsvc(data_dir, settings, "backup", str(tmp_path / "archive"))
            assert (copied.returncode, "pg_dump" in copied.stderr) == (2, True), copied.stderr
            healthy = ragsvc(data_dir, settings, "doctor")
            assert (healthy.returncode, "PostgreSQL 1" in healthy.stdout) == (0, True), healthy.stdout

            server.stop()
            for refused in (client.get("/v1/rag/documents"), upload(client, "Another text.")):
                assert refused.status_code == 503, refused.text
                assert refused.json()["error"]["code"] == "database_unavailable"
                assert int(refused.headers["retry-after"]) >= 1
            assert client.get("/livez").status_code == 200
            assert wait_for_readiness(client, 503) == {"database": "The database cannot be reached."}

            server.start()
            deadline = time.monotonic() + 60
            while (reply := upload(client, "Another text about a lighthouse.")).status_code != 201:
                assert time.monotonic() < deadline, reply.text
                time.sleep(0.2)
            assert wait_for_readiness(client, 200) == {}
            assert find(client, "How many lamps does the harbour master keep?")[0] == TEXT
            assert len(client.get("/v1/rag/documents").json()["data"]) == 2
    finally:
        assert service.stop() == 0
