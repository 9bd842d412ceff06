"""Backups of the real service: made while it works, restored elsewhere, and served there."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import ROOT, RunningService, create_key
from tests.support.command import at_data, ragsvc
from tests.support.old_data_directories import KINDS, OldDirectory

pytestmark = [pytest.mark.model, pytest.mark.timeout(300), pytest.mark.sqlite_file, pytest.mark.local_files]

_FILES = 50
_PAGES = 25
PROVIDER = {"name": "added", "base_url": "http://127.0.0.1:9/v1", "api_key": "sk-added", "models": [{"id": "m"}]}


def report(number: int, *, pages: int = 2) -> bytes:
    lines = [f"Line {line} of the logbook of lighthouse {number} names a ship and its harbour." for line in range(30)]
    return text_pdf([[f"Lighthouse {number} was built by keeper Arvid{number}."], *[lines] * (pages - 1)])


def upload(http: httpx.Client, number: int, *, pages: int = 2) -> str:
    reply = http.post(
        "/v1/rag/documents",
        params={"filename": f"lighthouse {number}.pdf", "wait_s": "0"},
        content=report(number, pages=pages),
        headers={"content-type": "application/pdf"},
    )
    assert reply.status_code in {201, 202}, reply.text
    return str(reply.json()["id"])


def documents(http: httpx.Client) -> dict[str, dict]:
    listed = http.get("/v1/rag/documents", params={"limit": 100}).json()["data"]
    return {document["id"]: document for document in listed}


def wait_until_ready(http: httpx.Client) -> dict[str, dict]:
    deadline = time.monotonic() + 120
    while True:
        found = documents(http)
        if all(document["status"] == "ready" for document in found.values()):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, service: RunningService, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A new data directory, plain or encrypted, and its settings."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "models").symlink_to(service.data_dir / "models")  # the export of the model takes a while
    settings = {}
    if request.param == "encrypted":
        (tmp_path / "master").write_text("5a" * 32)
        settings["RAGSVC_MASTER_KEY_FILE"] = str(tmp_path / "master")
    return data_dir, settings


def test_a_backup_while_fifty_files_are_ingested_restores_on_another_path(
    place: tuple[Path, dict[str, str]], service: RunningService, tmp_path: Path
) -> None:
    data_dir, settings = place
    key = create_key(data_dir, settings=settings)
    admin = create_key(data_dir, tenant="operator", extra=("--scope", "admin"), settings=settings)
    running = RunningService(data_dir, env=settings)
    backup = tmp_path / "backup"
    environment = {**at_data(data_dir), **settings}
    acknowledged: dict[str, int] = {}
    deleted: set[str] = set()
    begun = threading.Event()
    try:
        with running.client(admin) as http:
            assert http.post("/v1/providers", json=PROVIDER).status_code == 201
        with running.client(key) as http:

            def add(number: int) -> None:
                acknowledged[upload(http, number, pages=_PAGES)] = number
                if len(acknowledged) >= 10:
                    begun.set()

            with ThreadPoolExecutor(4) as pool:
                uploads = [pool.submit(add, number) for number in range(_FILES)]
                assert begun.wait(60)
                before = dict(acknowledged)
                victims = list(before)[:3]
                remover = threading.Thread(
                    target=lambda: [http.delete(f"/v1/rag/documents/{victim}") for victim in victims]
                )
                remover.start()
                first = ragsvc("backup", backup, "--json", env=environment)
                statuses = {document["status"] for document in documents(http).values()}
                remover.join()
                deleted.update(victims)
                for future in uploads:
                    future.result()
            assert first.code == 0, first.err
            assert first.json["documents"] >= len(before) - len(victims)
            assert first.json["missing"] == []
            second = ragsvc("backup", backup, "--json", env=environment)
            assert second.code == 0, second.err
            assert second.json["missing"] == []
            assert second.json["documents"] == _FILES - len(deleted)
    finally:
        assert running.stop() == 0
    assert statuses & {"queued", "processing"}, "the ingest ended before the first backup did"
    shutil.rmtree(data_dir)  # nothing may be read from the old path

    for snapshot, at_least in ((first, set(before) - deleted), (second, set(acknowledged) - deleted)):
        restored = tmp_path / "elsewhere" / snapshot.json["snapshot"]
        where = {**at_data(restored), **settings}
        done = ragsvc("restore", backup, "--snapshot", snapshot.json["snapshot"], "--json", env=where)
        assert (done.code, done.json["documents"]) == (0, snapshot.json["documents"]), done.err
        (restored / "models").symlink_to(service.data_dir / "models")
        again = RunningService(restored, env=settings)
        try:
            with again.client(key) as http:
                found = wait_until_ready(http)
                assert set(found) >= at_least
                assert set(found) <= set(acknowledged)
                for document_id in found:
                    content = http.get(f"/v1/rag/documents/{document_id}/content")
                    assert content.content == report(acknowledged[document_id], pages=_PAGES)
                some = max(found, key=lambda found_id: acknowledged[found_id])
                query = f"Who built lighthouse {acknowledged[some]}? Arvid{acknowledged[some]}"
                hits = http.post("/v1/rag/search", json={"query": query}).json()["data"]
                assert hits[0]["document_id"] == some
            with again.client(admin) as http:
                listed = http.get("/v1/providers").json()
                assert [provider["name"] for provider in listed["data"]] == ["added"]
                assert listed["disabled"] == []
        finally:
            assert again.stop() == 0


def needed_paths() -> list[str]:
    """The paths that the list of the data directory marks as needed in every directory."""
    rows = re.findall(r"^\| (.+?) \| .+? \| yes \| .+ \|$", (ROOT / "indexes" / "README.md").read_text(), re.MULTILINE)
    return [path.rstrip("/") for row in rows for path in re.findall(r"`([^`]+)`", row) if not path.startswith("-")]


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_list_of_the_data_directory_calls_needed_restores_everything(kind: str, tmp_path: Path) -> None:
    old = OldDirectory(kind, tmp_path / "data")
    paths = needed_paths()
    assert {"ragsvc.sqlite", "blobs"} <= set(paths)
    copied = tmp_path / "copied"
    copied.mkdir()
    for name in paths:
        if (old.path / name).is_dir():
            shutil.copytree(old.path / name, copied / name)
        elif (old.path / name).exists():
            shutil.copy(old.path / name, copied / name)
    running = RunningService(copied, env=old.settings)
    try:
        with running.client(old.admin_key) as http:
            listed = http.get("/v1/providers").json()
        with running.client(old.key) as http:
            content = http.get(f"/v1/rag/documents/{old.documents['text']}/content")
    finally:
        assert running.stop() == 0
    assert [provider["name"] for provider in listed["data"]] == ["added"]
    assert listed["disabled"] == []
    assert content.content.startswith(b"The harbour crane was painted green")


def test_a_service_without_its_sealing_key_starts_and_says_which_provider_is_disabled(tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    (old.path / "master.key").unlink()
    running = RunningService(old.path)
    try:
        with running.client(old.admin_key) as http:
            listed = http.get("/v1/providers").json()
            assert http.get("/v1/providers/added").status_code == 404
            assert http.delete("/v1/providers/added").status_code == 200
            after = http.get("/v1/providers").json()
    finally:
        assert running.stop() == 0
    assert [provider["name"] for provider in listed["disabled"]] == ["added"]
    assert (listed["data"], after["disabled"]) == ([], [])
    assert "provider added is disabled" in "".join(running.log)


def test_commands_of_a_backup_say_what_is_wrong_in_a_line(tmp_path: Path) -> None:
    env = at_data(tmp_path / "nothing")
    done = ragsvc("backup", tmp_path / "backup", env=env)
    assert done.code == 2
    assert "holds no database" in done.err
    assert not (tmp_path / "nothing").exists()
    done = ragsvc("restore", tmp_path / "backup", env=env)
    assert done.code == 2
    assert "holds no backup" in done.err
    assert not (tmp_path / "nothing").exists()
    old = OldDirectory("plain", tmp_path / "data")
    assert ragsvc("backup", tmp_path / "backup", env=at_data(old.path)).code == 0
    listed = ragsvc("restore", tmp_path / "backup", "--list", "--json", env=env)
    assert [snapshot["documents"] for snapshot in listed.json["data"]] == [4]
    assert not (tmp_path / "nothing").exists()


def sources_of_the_commit_before(target: Path) -> Path | None:
    """The package of the commit before the newest one, or ``None`` outside a repository or in a shallow clone."""
    done = subprocess.run(["git", "archive", "HEAD~1", "ragsvc"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        return None
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as packed:
        packed.extractall(target, filter="data")
    return target


def test_a_directory_of_the_commit_before_is_backed_up_by_this_one_and_served(
    service: RunningService, tmp_path: Path
) -> None:
    """The upgrade of an operator: back up with the new release, start it, and it has everything."""
    root = sources_of_the_commit_before(tmp_path / "before")
    if root is None:
        pytest.skip("needs a git repository with the commit before")
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "models").symlink_to(service.data_dir / "models")
    key = create_key(data_dir, root=root)
    admin = create_key(data_dir, tenant="operator", extra=("--scope", "admin"), root=root)
    older = RunningService(data_dir, root=root)
    with older.client(admin) as http:
        assert http.post("/v1/providers", json=PROVIDER).status_code == 201
    with older.client(key) as http:
        uploaded = {upload(http, number): number for number in range(4)}
        done = ragsvc("backup", tmp_path / "backup", "--json", env=at_data(data_dir))
        assert (done.code, done.json["documents"]) == (0, 4), done.err
    older.kill()  # an upgrade after a crash is the harder case

    restored = tmp_path / "restored"
    assert ragsvc("restore", tmp_path / "backup", env=at_data(restored)).code == 0
    (restored / "models").symlink_to(service.data_dir / "models")
    for directory in (data_dir, restored):
        newer = RunningService(directory)
        try:
            with newer.client(key) as http:
                assert set(wait_until_ready(http)) == set(uploaded)
                for document_id, number in uploaded.items():
                    content = http.get(f"/v1/rag/documents/{document_id}/content")
                    assert content.content == report(number)
                hits = http.post("/v1/rag/search", json={"query": "Who built lighthouse 2? Arvid2"}).json()["data"]
                assert uploaded[hits[0]["document_id"]] == 2
            with newer.client(admin) as http:
                assert [provider["name"] for provider in http.get("/v1/providers").json()["data"]] == ["added"]
        finally:
            assert newer.stop() == 0
