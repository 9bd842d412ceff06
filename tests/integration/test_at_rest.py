"""Encryption at rest on the real service: nothing of documents is readable in any byte of the data directory."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from ragsvc.core.errors import ConfigurationError
from ragsvc.crypto.at_rest import HEADER_BYTES, MasterKey
from ragsvc.store.data_keys import is_plain_database, open_data_keys
from ragsvc.store.sqlite_database import connect_raw
from ragsvc.store.tables import EmbeddingRow, table_of
from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import ROOT, RunningService, create_key, service_environment
from tests.support.engines import SQLITE, engine, stored_rows
from tests.support.file_places import stored_bytes

pytestmark = pytest.mark.model

CANARY = "Quetzalmarmot"
TENANT = "wombatworks"
REPORT = text_pdf([[f"The {CANARY} project costs 4,711 euros.", "It ends in 2031."]])


def plain_traces(data_dir: Path) -> list[str]:
    """Files in which the canary, the tenant, or the file's hash stands in any form we would write; names count too."""
    words = [CANARY, TENANT, sha256(REPORT).hexdigest(), "4,711 euros", "costs"]
    forms = [form for word in words for form in (word.encode(), word.lower().encode(), word.encode("utf-16-le"))]
    found = []
    for name, content in stored_bytes(data_dir, rows=False):
        found += [f"{name}: {form!r}" for form in forms if form in name.encode() or form in content]
    return found


def environment(data_dir: Path, key_file: Path | None) -> dict[str, str]:
    """Settings with a key; what is for memory goes to a folder that the test can look into."""
    memory = data_dir.parent / "memory"
    memory.mkdir(exist_ok=True)
    return {} if key_file is None else {"RAGSVC_MASTER_KEY_FILE": str(key_file), "RAGSVC_MEMORY_DIR": str(memory)}


def command(data_dir: Path, key_file: Path | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ragsvc", *arguments],
        env=service_environment(data_dir, environment(data_dir, key_file)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def add_report(http: httpx.Client, *, status: int = 201) -> str:
    reply = http.post(
        "/v1/rag/documents",
        params={"filename": f"{CANARY}.pdf", "metadata": json.dumps({"project": CANARY})},
        content=REPORT,
        headers={"content-type": "application/pdf"},
    )
    assert reply.status_code == status, reply.text
    return reply.json()["id"]


def check_report(http: httpx.Client, document: str) -> None:
    """The service still knows everything."""
    assert http.get(f"/v1/rag/documents/{document}").json()["filename"] == f"{CANARY}.pdf"
    content = http.get(f"/v1/rag/documents/{document}/content")
    assert (content.content, content.headers["content-length"]) == (REPORT, str(len(REPORT)))
    hits = http.post("/v1/rag/search", json={"query": f"What does {CANARY} cost?"}).json()["data"]
    assert "4,711 euros" in hits[0]["quote"]


@pytest.fixture
def places(tmp_path: Path) -> Iterator[tuple[Path, Path, Path]]:
    """A data directory's place and two master keys."""
    keys = tmp_path / "first.key", tmp_path / "second.key"
    for key in keys:
        key.write_text(os.urandom(32).hex() + "\n")
    yield tmp_path / "data", *keys
    assert not list((tmp_path / "memory").iterdir()), "indexes were left in memory"


def new_key(data_dir: Path, key_file: Path | None) -> str:
    done = command(data_dir, key_file, "keys", "create", "--tenant", TENANT, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["key"]


def stored_vector(data_dir: Path, key_file: Path) -> bytes:
    """A vector of the rows, which only SQLite encrypts."""
    if engine.name != SQLITE:
        with stored_rows(data_dir) as rows:
            return rows.scalars(select(table_of(EmbeddingRow).c.vector)).first()
    keys = open_data_keys(data_dir, MasterKey.from_bytes(key_file.read_bytes()))
    with closing(connect_raw(data_dir / "ragsvc.sqlite", key=keys.database_key)) as rows:
        return rows.execute("SELECT vector FROM embeddings").fetchone()[0]


def test_a_new_data_directory_shows_nothing_also_after_a_kill(places) -> None:
    data_dir, first, second = places
    key = new_key(data_dir, first)
    running = RunningService(data_dir, env=environment(data_dir, first))
    with running.client(key) as http:
        document = add_report(http)
        check_report(http, document)
        again = http.post(
            "/v1/rag/documents",
            params={"filename": f"{CANARY} renamed.pdf", "metadata": json.dumps({"owner": CANARY})},
            content=REPORT,
            headers={"content-type": "application/pdf"},
        ).json()
        assert (again["id"], again["updated"]) == (document, ["filename", "metadata"])
        assert again["metadata"] == {"project": CANARY, "owner": CANARY}
        assert add_report(http, status=200) == document  # the first name again
        check_report(http, document)
        assert plain_traces(data_dir) == []  # while it runs, write-ahead log included
    running.kill()
    assert plain_traces(data_dir) == []
    running = RunningService(data_dir, env=environment(data_dir, first))
    with running.client(key) as http:
        check_report(http, document)
    assert running.stop() == 0
    assert plain_traces(data_dir) == []
    vector = stored_vector(data_dir, first)
    files = [content for _, content in stored_bytes(data_dir, rows=False)]
    assert len(vector) > 500
    assert not any(vector[start : start + 32] in content for content in files for start in range(0, len(vector), 32))
    for wrong in (None, second):
        done = command(data_dir, wrong, "serve", "--port", "0")
        assert done.returncode == 2, done.stderr
    doctor = command(data_dir, first, "doctor", "--deep")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr


def test_conversations_and_files_of_chats_show_nothing_also_after_a_kill(places) -> None:
    data_dir, first, _ = places
    key = new_key(data_dir, first)
    running = RunningService(data_dir, env=environment(data_dir, first))
    item = {"type": "message", "role": "user", "content": f"What does {CANARY} cost?"}
    file = {"filename": f"{CANARY}.pdf", "file_data": base64.b64encode(REPORT).decode()}
    question = [{"type": "file", "file": file}, {"type": "text", "text": f"What does {CANARY} cost?"}]
    with running.client(key) as http:
        made = http.post("/v1/conversations", json={"items": [item], "metadata": {"project": CANARY}}).json()
        body = {"model": "local/chat-model", "messages": [{"role": "user", "content": question}]}
        answer = http.post("/v1/chat/completions", json=body).json()
        assert "4,711 euros" in answer["choices"][0]["message"]["content"]
        rating = {"question": CANARY, "answer": CANARY, "note": CANARY, "rating": "up"}
        assert http.post("/v1/rag/feedback", json=rating).status_code == 201
        assert plain_traces(data_dir) == []
    running.kill()
    assert plain_traces(data_dir) == []
    running = RunningService(data_dir, env=environment(data_dir, first))
    with running.client(key) as http:
        (kept,) = http.get(f"/v1/conversations/{made['id']}/items").json()["data"]
        assert kept["content"][0]["text"] == item["content"]
        assert http.get(f"/v1/conversations/{made['id']}").json()["metadata"] == {"project": CANARY}
    assert running.stop() == 0
    assert plain_traces(data_dir) == []


@pytest.mark.timeout(240)
def test_stored_responses_show_nothing_also_after_a_kill(places) -> None:
    data_dir, first, _ = places
    key = new_key(data_dir, first)
    running = RunningService(data_dir, env=environment(data_dir, first))
    with running.client(key) as http:
        body = {"model": "local/chat-model", "input": f"What does {CANARY} cost?", "metadata": {"project": CANARY}}
        made = http.post("/v1/responses", json=body).json()
        later = http.post("/v1/responses", json={**body, "background": True}).json()
        assert plain_traces(data_dir) == []
    running.kill()
    assert plain_traces(data_dir) == []
    running = RunningService(data_dir, env=environment(data_dir, first))
    with running.client(key) as http:
        assert http.get(f"/v1/responses/{made['id']}").json() == made
        (kept,) = http.get(f"/v1/responses/{made['id']}/input_items").json()["data"]
        assert kept["content"][0]["text"] == body["input"]
        assert http.get(f"/v1/responses/{later['id']}").json()["status"] in ("completed", "failed")
    assert running.stop() == 0
    assert plain_traces(data_dir) == []


@pytest.mark.sqlite_file
@pytest.mark.local_files
def test_a_plain_data_directory_is_migrated_and_its_key_exchanged(places) -> None:
    data_dir, first, second = places
    key = create_key(data_dir, tenant=TENANT)
    running = RunningService(data_dir)
    with running.client(key) as http:
        document = add_report(http)
    assert running.stop() == 0
    assert plain_traces(data_dir)  # the search for traces works
    refused = command(data_dir, first, "serve", "--port", "0")
    assert refused.returncode == 2
    assert "ragsvc encrypt" in refused.stderr
    done = command(data_dir, first, "encrypt", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"] == 1
    assert plain_traces(data_dir) == []
    assert command(data_dir, first, "encrypt").returncode == 0  # again changes nothing
    done = command(data_dir, first, "rotate-key", "--new-key-file", str(second))
    assert done.returncode == 0, done.stderr
    assert command(data_dir, first, "serve", "--port", "0").returncode == 2
    running = RunningService(data_dir, env=environment(data_dir, second))
    with running.client(key) as http:
        check_report(http, document)
        assert http.post(f"/v1/rag/documents/{document}/delete").status_code == 200
        assert add_report(http) != document  # ids are not used again
    assert running.stop() == 0
    assert plain_traces(data_dir) == []


KILLED = """
import os, runpy, signal, sys, threading, time
folder, event_name, ending, count, delay_s = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
sys.argv[1:] = sys.argv[6:]

def kill():
    time.sleep(delay_s)
    os.kill(os.getpid(), signal.SIGKILL)

def watch(event, arguments):
    global count
    if event in ("open", "os.rename", "os.remove") and event_name in ("any", event):
        path = str(arguments[0])
        if path.startswith(folder) and path.endswith(ending):
            count -= 1
            if count == 0:
                threading.Thread(target=kill, daemon=True).start() if delay_s else kill()

sys.addaudithook(watch)
runpy.run_module("ragsvc", run_name="__main__")
"""
"""The real command; SIGKILL some time after its n-th open, rename or removal of a file in the data directory."""


def killed(data_dir: Path, key_file: Path, moment: tuple[str, str, int, float], *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(data_dir), *map(str, moment), *arguments],
        env=service_environment(data_dir, environment(data_dir, key_file)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, (moment, done.stdout, done.stderr)


def check_all(data_dir: Path, key_file: Path, key: str, contents: dict[str, bytes]) -> None:
    running = RunningService(data_dir, env=environment(data_dir, key_file))
    with running.client(key) as http:
        for document, content in contents.items():
            assert http.get(f"/v1/rag/documents/{document}/content").content == content
        found = http.post("/v1/rag/search", json={"query": f"What does {CANARY} cost?", "top_k": 100}).json()["data"]
    assert {hit["document_id"] for hit in found} == set(contents)
    assert running.stop() == 0
    assert plain_traces(data_dir) == []


@pytest.mark.sqlite_file
@pytest.mark.local_files
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_migration_and_rotation_go_on_after_kills(places) -> None:
    data_dir, first, second = places
    seed = random.randrange(2**32)  # noqa: S311 - moments, not secrets
    print("seed", seed)  # noqa: T201 - pytest shows it when the test fails
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    key = create_key(data_dir, tenant=TENANT)
    running = RunningService(data_dir)
    with running.client(key) as http:
        contents = {add_report(http): REPORT}
        for number in range(8):
            text = f"The {CANARY} project number {number} costs 4,711 euros.".encode()
            query = {"filename": f"{CANARY}-{number}.txt", "wait_s": 60}
            added = http.post("/v1/rag/documents", params=query, content=text, headers={"content-type": "text/plain"})
            assert added.json()["status"] == "ready", added.text
            contents[added.json()["id"]] = text
    assert running.stop() == 0
    keys = [MasterKey.from_bytes(file.read_bytes()) for file in (first, second)]

    stored = {file.name for file in (data_dir / "blobs").rglob("*") if file.is_file()}
    for steps in (range(1, 20), range(18, 26)):  # nine at most before the first file, then six for each of nine files
        killed(data_dir, first, ("any", "", chance.choice(steps), chance.choice((0, 0.001))), "encrypt")
        for master in (keys[0], None) if (data_dir / "data.key").exists() else (keys[0],):
            with pytest.raises(ConfigurationError):
                open_data_keys(data_dir, master)
    left = {file.name for file in (data_dir / "blobs").rglob("*") if file.is_file()} & stored
    assert 0 < len(left) < len(stored)
    database = "ragsvc.sqlite.new"
    killed(data_dir, first, ("os.remove", database, 1, chance.uniform(0.001, 0.01)), "encrypt")  # while rows are copied
    killed(data_dir, first, ("os.rename", database, 1, 0), "encrypt")  # all is copied, nothing in its place
    assert is_plain_database(data_dir / "ragsvc.sqlite")
    killed(data_dir, first, ("os.rename", database, 1, 0.0005), "encrypt")  # among the leftovers
    done = command(data_dir, first, "encrypt", "--json")
    assert done.returncode == 0, done.stderr
    assert plain_traces(data_dir) == []

    rotate = ("rotate-key", "--new-key-file", str(second))
    for _ in range(2):
        killed(data_dir, first, ("any", "", chance.randrange(3, 12), chance.uniform(0, 0.002)), *rotate)
    done = command(data_dir, first, *rotate)
    assert done.returncode == 0, done.stderr
    with pytest.raises(ConfigurationError):
        open_data_keys(data_dir, keys[0])
    files = [data_dir / "data.key", *(file for file in (data_dir / "blobs").rglob("*") if file.is_file())]
    assert len(files) == 1 + len(contents)
    for file in files:
        header = file.read_bytes()[:HEADER_BYTES]
        assert keys[0].key_id not in header
        assert keys[1].key_id in header
    check_all(data_dir, second, key, contents)
