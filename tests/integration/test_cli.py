"""The command line as a person or a script uses it, on a running service."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import ROOT, RunningService, create_key
from tests.support.command import at_data, at_service, ragsvc

pytestmark = pytest.mark.model

SOLAR = text_pdf([["Welcome to the yearly report."], ["The solar plant in Almeria produces 42 megawatts of power."]])
FERRY = "# Ships\n\nThe ferry Aurora carries 300 passengers between Turku and Stockholm.\n"


@pytest.fixture
def env(tenant) -> dict[str, str]:
    return at_service(tenant.service.url, tenant.key)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "Berichte und отчёты"
    (root / "sub").mkdir(parents=True)
    (root / "solar.pdf").write_bytes(SOLAR)
    (root / "sub" / "ferry.md").write_text(FERRY)
    return root


def test_importing_the_command_line_takes_less_than_150_ms() -> None:
    code = "import time; t = time.perf_counter(); import ragsvc.cli; print(time.perf_counter() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout)
        for _ in range(3)
    ]
    assert min(times) < 0.15


def test_a_folder_is_ingested_once_and_answers_questions_with_pages(folder: Path, env: dict[str, str]) -> None:
    first = ragsvc("ingest", folder, "--json", env=env)
    assert (first.code, first.json["counts"], first.json["pages"]) == (0, {"added": 2}, 3)
    again = ragsvc("ingest", folder, "--json", env=env)
    assert (again.code, again.json["counts"]) == (0, {"unchanged": 2})

    asked = ragsvc("ask", "How many megawatts does the solar plant produce?", "--json", env=env)
    message = asked.json["choices"][0]["message"]
    assert "42 megawatts" in message["content"]
    first_citation = message["annotations"][0]
    assert (first_citation["filename"], first_citation["page"]) == ("solar.pdf", 2)
    assert first_citation["quote"] == "The solar plant in Almeria produces 42 megawatts of power."

    shown = ragsvc("ask", "How many passengers does the ferry carry?", "--stream", env=env)
    assert shown.code == 0
    assert "300 passengers" in shown.out
    assert "ferry.md" in shown.out

    found = ragsvc("search", "solar plant", "--top-k", 1, "--json", env=env)
    assert [(hit["filename"], hit["page"]) for hit in found.json["data"]] == [("solar.pdf", 2)]
    assert "solar.pdf" in ragsvc("search", "solar plant", env=env).out


def test_one_bad_file_never_stops_the_rest(folder: Path, env: dict[str, str], tmp_path: Path) -> None:
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4\nthis is none")
    (folder / "empty.pdf").touch()
    (folder / "copy of solar.pdf").write_bytes(SOLAR)
    os.mkfifo(folder / "pipe.pdf")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    odd = os.fsencode(folder) + b"/caf\xe9.txt"
    Path(os.fsdecode(odd)).write_text("The old lighthouse was painted white in 1987.")
    report = tmp_path / "report.json"

    done = ragsvc("ingest", folder, "--follow-symlinks", "--report", report, "--json", env=env)
    assert done.code == 1
    assert done.json == json.loads(report.read_text())
    assert done.json["counts"] == {"added": 3, "failed": 2, "unchanged": 1}
    failed = {Path(one["path"]).name: one["reason"] for one in done.json["files"] if one["result"] == "failed"}
    assert set(failed) == {"broken.pdf", "empty.pdf"}
    assert all(len(reason) > 10 for reason in failed.values())
    assert [(Path(one["path"]).name, one["reason"]) for one in done.json["problems"]] == [
        ("pipe.pdf", "is not a regular file")
    ]
    assert len(done.err.splitlines()) == 1
    lighthouse = ragsvc("search", "lighthouse", "--json", env=env).json["data"][0]
    assert lighthouse["filename"] == "caf\N{REPLACEMENT CHARACTER}.txt"

    again = ragsvc("ingest", folder, "--json", env=env)
    assert again.json["planned"] == {"failed_before": 2, "unchanged": 4}
    listed = ragsvc("documents", "list", "--status", "failed", env=env)
    assert "broken.pdf" in listed.out
    human = ragsvc("ingest", folder, "--retry-failed", env=env)
    assert human.code == 1
    assert "broken.pdf" in human.out


def test_a_failure_within_the_wait_is_reported_with_its_document(env: dict[str, str], tmp_path: Path, tenant) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"this is no PDF at all")
    done = ragsvc("ingest", tmp_path, "--json", env=env)
    assert done.code == 1
    (outcome,) = done.json["files"]
    document = tenant.http.get(f"/v1/rag/documents/{outcome['document_id']}").json()
    assert (document["status"], document["error"]["code"]) == ("failed", "not_a_pdf")
    assert outcome["reason"] == document["error"]["message"]


def test_a_file_gives_its_name_and_metadata_to_a_document_that_was_uploaded(folder: Path, env, tenant) -> None:
    document = tenant.upload(SOLAR, filename="scan0001.pdf", metadata=json.dumps({"year": 2022})).json()
    done = ragsvc("ingest", folder, "--metadata", "year=2023", "--json", env=env)
    assert (done.code, done.json["planned"]) == (0, {"add": 1, "named": 1})
    named = tenant.http.get(f"/v1/rag/documents/{document['id']}").json()
    assert (named["filename"], named["metadata"]["year"]) == ("solar.pdf", "2023")
    assert tenant.search("scan0001", mode="lexical") == []
    tenant.http.patch(f"/v1/rag/documents/{document['id']}", json={"filename": "Almeria.pdf"})
    again = ragsvc("ingest", folder, "--metadata", "year=2024", "--json", env=env)
    assert (again.code, again.json["planned"]) == (0, {"unchanged": 2})
    changed = tenant.http.get(f"/v1/rag/documents/{document['id']}").json()
    assert (changed["filename"], changed["metadata"]["year"]) == ("Almeria.pdf", "2024")


def test_changed_moved_and_vanished_files_are_followed(folder: Path, env: dict[str, str], tenant) -> None:
    gone = folder / "gone.txt"
    gone.write_text("The harbour crane lifts ninety tonnes.")
    first = ragsvc("ingest", folder, "--json", env=env).json
    ids = {Path(one["path"]).name: one["document_id"] for one in first["files"]}

    (folder / "solar.pdf").write_bytes(text_pdf([["The solar plant now produces 77 megawatts of power."]]))
    (folder / "sub" / "ferry.md").rename(folder / "ferry renamed.md")
    gone.unlink()
    dry = ragsvc("ingest", folder, "--prune", "--dry-run", "--json", env=env).json
    assert dry["planned"] == {"moved": 1, "replace": 1}
    assert [one["id"] for one in dry["pruned"]] == [ids["gone.txt"]]
    assert tenant.http.get(f"/v1/rag/documents/{ids['gone.txt']}").status_code == 200

    done = ragsvc("ingest", folder, "--prune", "--json", env=env).json
    assert done["counts"] == {"replaced": 1, "unchanged": 1}
    assert tenant.http.get(f"/v1/rag/documents/{ids['gone.txt']}").status_code == 404
    assert tenant.http.get(f"/v1/rag/documents/{ids['solar.pdf']}").status_code == 404
    moved = tenant.http.get(f"/v1/rag/documents/{ids['ferry.md']}").json()
    assert (moved["filename"], moved["metadata"]["source_path"]) == ("ferry renamed.md", "ferry renamed.md")
    renamed = tenant.search("renamed", mode="lexical")
    assert {hit["document_id"] for hit in renamed} == {ids["ferry.md"]}
    quotes = [hit["quote"] for hit in tenant.search("solar plant megawatts crane")]
    assert any("77 megawatts" in quote for quote in quotes)
    assert not any("42 megawatts" in quote or "crane" in quote for quote in quotes)


def test_pruning_spares_other_documents_and_an_empty_mount_point(folder: Path, env: dict[str, str], tenant) -> None:
    by_hand = tenant.add_text("Uploaded by hand, from no folder.")
    ragsvc("ingest", folder, "--json", env=env)
    for file in (folder / "solar.pdf", folder / "sub" / "ferry.md"):
        file.unlink()
    refused = ragsvc("ingest", folder, "--prune", "--json", env=env)
    assert refused.code == 1
    assert "--prune-all" in refused.err
    assert len(ragsvc("documents", "list", "--json", env=env).json["data"]) == 3
    allowed = ragsvc("ingest", folder, "--prune-all", "--json", env=env)
    assert (allowed.code, len(allowed.json["pruned"])) == (0, 2)
    assert [one["id"] for one in ragsvc("documents", "list", "--json", env=env).json["data"]] == [by_hand]


def test_ingest_waits_out_the_limit_of_its_key(folder: Path, new_tenant) -> None:
    tenant = new_tenant(requests_per_minute=1000, max_parallel_requests=1)
    for number in range(6):
        (folder / f"note {number}.txt").write_text(f"Note number {number} speaks of apples.")
    done = ragsvc("ingest", folder, "--parallel", 6, "--json", env=at_service(tenant.service.url, tenant.key))
    assert (done.code, done.json["counts"]) == (0, {"added": 8})


def test_globs_choose_files(folder: Path, env: dict[str, str]) -> None:
    (folder / ".hidden.txt").write_text("A hidden note.")
    dry = ragsvc("ingest", folder, "--dry-run", "--include", "*.md", "--include", "*.txt", "--json", env=env)
    assert [Path(one["path"]).name for one in dry.json["files"]] == ["ferry.md"]
    dry = ragsvc("ingest", folder, "--dry-run", "--exclude", "sub", "--hidden", "--json", env=env)
    assert [Path(one["path"]).name for one in dry.json["files"]] == [".hidden.txt", "solar.pdf"]


def test_documents_are_shown_retried_and_deleted(env: dict[str, str], tenant) -> None:
    locked = (ROOT / "fixtures" / "dirty" / "password-asdfzxcv.pdf").read_bytes()
    refused = tenant.upload(locked, filename="locked.pdf")
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "password_required")
    document_id = refused.headers["location"].rsplit("/", 1)[-1]
    shown = ragsvc("documents", "show", document_id, env=env)
    assert "password_required" in shown.out
    wrong = ragsvc("documents", "retry", document_id, "--password-stdin", env=env, stdin="guess\n")
    assert wrong.code == 1
    right = ragsvc("documents", "retry", document_id, "--password-stdin", "--json", env=env, stdin="asdfzxcv\n")
    assert (right.code, right.json["status"]) == (0, "ready")
    mixed = ragsvc("documents", "delete", document_id, "doc_000000000000000000000000", "--json", env=env)
    assert (mixed.code, mixed.json["deleted"], len(mixed.json["failed"])) == (1, [document_id], 1)
    assert ragsvc("documents", "list", "--json", env=env).json["data"] == []


def test_keys_are_made_and_revoked_beside_a_running_service(service: RunningService) -> None:
    env = at_data(service.data_dir)
    made = ragsvc(
        "keys", "create", "--tenant", "beside", "--label", "lent", "--requests-per-minute", 0, "--json", env=env
    )
    assert made.json["requests_per_minute"] is None
    assert made.json["tenant"] == "beside"
    headers = {"authorization": f"Bearer {made.json['key']}"}
    assert httpx.get(f"{service.url}/v1/models", headers=headers).status_code == 200
    assert made.json["id"] in ragsvc("keys", "list", "--tenant", "beside", env=env).out
    assert made.json["key"] not in ragsvc("keys", "list", "--json", env=env).out
    assert ragsvc("keys", "revoke", made.json["id"], "--json", env=env).json["state"] == "revoked"
    deadline = time.monotonic() + 10
    while httpx.get(f"{service.url}/v1/models", headers=headers).status_code != 401:
        assert time.monotonic() < deadline, "a revoked key still works"
        time.sleep(0.2)


def test_exit_codes_tell_what_went_wrong(service: RunningService, env: dict[str, str], tmp_path: Path) -> None:
    url = {"RAGSVC_URL": service.url}
    missing = ragsvc("documents", "show", "doc_nothing", "--json", env=env)
    assert (missing.code, missing.json["error"]["code"]) == (1, "document_not_found")
    assert len(missing.err.splitlines()) == 1
    assert ragsvc("ask", "x", "--stream", "--json", env=env).code == 2
    assert ragsvc("ingest", tmp_path / "nowhere", env=env).code == 2
    assert ragsvc("ingest", tmp_path, env={**env, "RAGSVC_URL": "nonsense"}).code == 1
    (tmp_path / "a.txt").write_text("a")
    assert ragsvc("ingest", tmp_path, env={**env, "RAGSVC_URL": "nonsense"}).code == 2
    assert ragsvc("search", env=env).code == 2
    assert ragsvc("documents", "list", env={"RAGSVC_PORTT": "1"}).code == 2
    assert ragsvc("documents", "list", env={**env, "RAGSVC_URL": f"http://127.0.0.1:{_free_port()}"}).code == 3
    assert ragsvc("documents", "list", env=url).code == 4
    assert ragsvc("documents", "list", env={**url, "RAGSVC_API_KEY": "rag_000000000000_wrong"}).code == 4
    assert ragsvc("keys", "list", env=env).code == 4
    locked = at_data(service.data_dir)
    for command in (["serve", "--port", "0"], ["search", "x"]):
        done = ragsvc(*command, env=locked)
        assert done.code == 5
        assert str(service.process.pid) in done.err


def test_requests_over_the_limit_are_told_apart(new_tenant) -> None:
    tenant = new_tenant(requests_per_minute=1)
    env = at_service(tenant.service.url, tenant.key)
    assert ragsvc("documents", "list", env=env).code == 0
    assert ragsvc("documents", "list", env=env).code == 6


def test_doctor_examines_a_running_service_from_afar_and_beside_it(
    service: RunningService, env: dict[str, str]
) -> None:
    afar = ragsvc("doctor", "--json", env=env)
    assert (afar.code, afar.json["ok"]) == (0, True)
    assert {"service", "ready", "key"} <= {check["name"] for check in afar.json["checks"]}
    beside = ragsvc("doctor", env=at_data(service.data_dir))
    assert beside.code == 0, beside.out
    assert "is in use by another ragsvc process" in beside.out
    assert "Stop it" not in beside.out
    assert "not compared" in beside.out


def test_a_signal_ends_the_service_cleanly_while_streams_and_uploads_run(
    service: RunningService, tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "models").symlink_to(service.data_dir / "models")
    key = create_key(data_dir)
    second = RunningService(data_dir)
    with second.client(key) as client:
        report = (ROOT / "fixtures" / "documents" / "nvidia-10-q-2023-10-29.pdf").read_bytes()
        sent = client.post(
            "/v1/rag/documents", content=report, headers={"content-type": "application/pdf"}, params={"wait_s": 0}
        )
        assert sent.status_code == 202
        with client.stream("GET", f"/v1/rag/documents/{sent.json()['id']}/events") as events:
            lines = events.iter_lines()
            assert next(lines).startswith("event:")
            began = time.monotonic()
            second.process.send_signal(signal.SIGTERM)
            for _ in lines:  # the stream is ended properly, not cut
                pass
    assert second.stop() == 0
    assert time.monotonic() - began < 10
    third = RunningService(data_dir)
    try:
        with (
            third.client(key) as client,
            client.stream("GET", f"/v1/rag/documents/{sent.json()['id']}/events") as events,
        ):
            assert [line for line in events.iter_lines() if line.startswith("event:")][-1] == "event: ready"
    finally:
        assert third.stop() == 0


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = ragsvc("serve", "--port", port, env=at_data(tmp_path))
    assert done.code == 1
    assert str(port) in done.err


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
