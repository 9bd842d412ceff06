"""The real service on a really full disk: nothing acknowledged is lost, reads answer, work resumes by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from ragsvc.store.response_rows import ResponseRow
from ragsvc.store.tables import table_of
from ragsvc.testing.service_runner import RunningService, create_key
from tests.support.engines import stored_rows
from tests.support.full_disk import fill, small_disk

# the full disk is that of SQLite's file, its reserve and the stored files
pytestmark = [pytest.mark.model, pytest.mark.timeout(300), pytest.mark.sqlite_file, pytest.mark.local_files]


class Disk:
    """A small disk with a data directory."""

    def __init__(self, root: Path, models: Path) -> None:
        self.root = root
        self.data_dir = root / "data"
        self.data_dir.mkdir()
        (self.data_dir / "models").symlink_to(models)
        self.key = create_key(self.data_dir)

    def fill(self) -> None:
        fill(self.root)

    def free(self) -> None:
        (self.root / "filler").unlink(missing_ok=True)


@pytest.fixture
def disk(service: RunningService, tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", megabytes=64) as root:
        yield Disk(root, service.data_dir / "models")


def until(condition: Callable[[], bool], *, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def upload(http: httpx.Client, word: str, *, wait_s: int = 60) -> httpx.Response:
    return http.post(
        "/v1/rag/documents",
        params={"filename": f"{word}.txt", "wait_s": wait_s},
        content=f"The code word of this report is {word}. " + "The harbour crane was painted green in April. " * 30,
        headers={"content-type": "text/plain"},
    )


def found(http: httpx.Client, word: str, *, mode: str = "hybrid") -> set[str]:
    reply = http.post("/v1/rag/search", json={"query": f"code word {word}", "mode": mode, "top_k": 20})
    assert reply.status_code == 200, reply.text
    return {hit["document_id"] for hit in reply.json()["data"]}


def says_full(http: httpx.Client) -> bool:
    reply = http.get("/readyz")
    return reply.status_code == 503 and "disk is full" in reply.json()["reasons"].get("storage", "")


def test_reads_and_deletes_answer_on_a_full_disk_and_uploads_when_there_is_room(disk: Disk) -> None:
    running = RunningService(disk.data_dir)
    try:
        with running.client(disk.key) as http:
            kept, deleted = (upload(http, word).json()["id"] for word in ("walrus", "meadow"))
            disk.fill()
            until(lambda: says_full(http))
            assert http.get("/readyz", params={"exclude": "storage"}).status_code == 200
            refused = upload(http, "copper")
            assert (refused.status_code, refused.json()["error"]["code"]) == (507, "storage_full")
            assert kept in found(http, "walrus")
            asked = http.post(
                "/v1/chat/completions",
                json={
                    "model": "local/chat-model",
                    "use_rag": True,
                    "messages": [{"role": "user", "content": "When was the harbour crane painted green?"}],
                },
            )
            assert (asked.status_code, "April" in asked.text) == (200, True)
            assert b"walrus" in http.get(f"/v1/rag/documents/{kept}/content").content
            assert http.delete(f"/v1/rag/documents/{deleted}").status_code == 200
            assert http.get(f"/v1/rag/documents/{deleted}").status_code == 404
            assert deleted not in found(http, "meadow") | found(http, "meadow", mode="lexical")
            disk.free()
            until(lambda: http.get("/readyz").status_code == 200)
            added = upload(http, "copper")
            assert added.status_code == 201
            assert added.json()["id"] in found(http, "copper", mode="lexical")
        assert running.stop() == 0
    finally:
        running.kill()
    assert not [line for line in running.log if "Traceback" in line]


def test_no_acknowledged_upload_fails_while_the_disk_is_full(disk: Disk) -> None:
    running = RunningService(disk.data_dir)
    acknowledged: dict[str, str] = {}
    stop = threading.Event()

    def fill_again_and_again() -> None:
        while not stop.wait(0.01):
            disk.fill()

    try:
        with running.client(disk.key) as http:
            filling = threading.Thread(target=fill_again_and_again)
            ready = upload(http, "walrus").json()["id"]
            acknowledged[ready] = "walrus"
            for number in range(60):
                word = f"zq{number:04}x"
                reply = upload(http, word, wait_s=0)
                assert reply.status_code in (202, 507), reply.text
                if reply.status_code == 202:
                    acknowledged[reply.json()["id"]] = word
                if number == 20:
                    filling.start()
            assert len(acknowledged) > 20
            time.sleep(8)  # jobs are begun and put back
            listed = http.get("/v1/rag/documents", params={"limit": 100}).json()["data"]
            assert {document["id"] for document in listed} == acknowledged.keys()
            assert not [document["error"] for document in listed if document["status"] == "failed"]
            for mode in ("hybrid", "dense", "lexical"):
                assert ready in found(http, "walrus", mode=mode)
            stop.set()
            filling.join()
            disk.free()

            def all_ready() -> bool:
                listed = http.get("/v1/rag/documents", params={"limit": 100}).json()["data"]
                assert not [document["error"] for document in listed if document["status"] == "failed"]
                return all(document["status"] == "ready" for document in listed)

            until(all_ready, timeout_s=120)
            for document_id, word in acknowledged.items():
                assert document_id in found(http, word, mode="lexical")
    finally:
        stop.set()
        running.kill()


@pytest.mark.parametrize("end", ["stopped", "killed", "without a reserve"])
def test_a_start_on_a_full_disk_serves_reads(disk: Disk, end: str) -> None:
    running = RunningService(disk.data_dir)
    with running.client(disk.key) as http:
        document = upload(http, "walrus").json()["id"]
    if end == "killed":
        running.kill()
    else:
        assert running.stop() == 0
    if end == "without a reserve":
        (disk.data_dir / "ragsvc.reserve").unlink()
    disk.fill()
    running = RunningService(disk.data_dir)
    try:
        with running.client(disk.key) as http:
            assert document in found(http, "walrus")
            assert document in found(http, "walrus", mode="lexical")
            assert b"walrus" in http.get(f"/v1/rag/documents/{document}/content").content
            assert says_full(http)
            assert upload(http, "copper").status_code == 507
            disk.free()
            until(lambda: http.get("/readyz").status_code == 200)
            until(lambda: upload(http, "copper").status_code == 201)
            assert found(http, "copper", mode="lexical")
    finally:
        running.kill()


def test_interrupted_responses_are_ended_when_there_is_room_again(disk: Disk) -> None:
    running = RunningService(disk.data_dir)
    with running.client(disk.key) as http:
        made = http.post("/v1/responses", json={"model": "local/chat-model", "input": "Hello"}).json()
    assert running.stop() == 0
    with stored_rows(disk.data_dir) as connection:
        connection.execute(update(table_of(ResponseRow)).values(status="in_progress"))
    (disk.data_dir / "ragsvc.reserve").unlink()
    disk.fill()
    running = RunningService(disk.data_dir)
    try:
        with running.client(disk.key) as http:
            path = f"/v1/responses/{made['id']}"
            assert http.get(path).status_code == 200
            disk.free()
            until(lambda: http.get(path).json()["status"] == "failed")
            assert http.get(path).json()["error"]["code"] == "server_error"
    finally:
        running.kill()
