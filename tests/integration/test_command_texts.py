"""What the commands print for people: complete, aligned and without internal forms."""

from __future__ import annotations

import re
import shutil
import socket
import time
from pathlib import Path

import pytest

from ragsvc.store.directory_lock import DataDirectoryLock
from ragsvc.testing.service_runner import ROOT, RunningService
from tests.support.command import at_data, at_service, ragsvc
from tests.support.old_data_directories import OldDirectory

pytestmark = pytest.mark.model


def test_the_list_of_keys_shows_what_each_may_do(tmp_path: Path) -> None:
    env = at_data(tmp_path / "data")
    wish = ("--scope", "search", "--scope", "chat", "--collection", "reports", "--requests-per-minute", "7")
    made = ragsvc("keys", "create", "--tenant", "acme", "--label", "first", *wish, "--json", env=env)
    assert made.code == 0, made.err
    (line,) = ragsvc("keys", "list", env=env).out.splitlines()[1:]
    for words in (made.json["id"], "chat, search", "reports", "7 requests/min"):
        assert words in line
    changed = ragsvc("keys", "update", made.json["id"], "--expires-in-days", "2", env=env)
    shown = {line[:22].strip(): line[22:] for line in changed.out.splitlines()}
    assert (shown["tokens_per_day"], shown["allowed_models"]) == ("-", "all")
    created = time.strptime(shown["created_at"], "%Y-%m-%d %H:%M:%S")
    assert abs(time.mktime(created) - time.time()) < 600
    assert time.mktime(time.strptime(shown["expires_at"], "%Y-%m-%d %H:%M:%S")) - time.time() > 86_400
    assert "None" not in changed.out


def test_names_and_values_of_a_document_are_apart_and_a_failed_deletion_prints_no_line(
    service: RunningService, new_tenant, tmp_path: Path
) -> None:
    tenant = new_tenant()
    env = at_service(service.url, tenant.key)
    (tmp_path / "notes.txt").write_text("The harbour is blue.")
    assert ragsvc("ingest", tmp_path / "notes.txt", env=env).code == 0
    (document,) = ragsvc("documents", "list", "--json", env=env).json["data"]
    shown = ragsvc("documents", "show", document["id"], env=env).out
    assert f"source_root {tmp_path}\n" in shown
    assert "source_path notes.txt\n" in shown
    unknown = ragsvc("documents", "delete", "doc_000000000000000000000000", env=env)
    assert (unknown.code, unknown.out) == (1, "")
    shutil.move(tmp_path / "notes.txt", tmp_path / "renamed.txt")
    again = ragsvc("ingest", tmp_path, env=env)
    assert "1 unchanged (1 renamed)" in again.out


def test_a_refused_start_does_not_say_that_the_service_listens(tmp_path: Path) -> None:
    lock = DataDirectoryLock(tmp_path / "data")
    lock.acquire()
    try:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        refused = ragsvc("serve", "--port", port, env=at_data(tmp_path / "data"))
    finally:
        lock.release()
    assert refused.code == 5
    assert "in use" in refused.err
    assert "listens" not in refused.out + refused.err


def test_a_failure_names_the_fault_and_the_command_that_mends_it(
    service: RunningService, new_tenant, tmp_path: Path
) -> None:
    tenant = new_tenant()
    env = at_service(service.url, tenant.key)
    shutil.copy(ROOT / "fixtures" / "dirty" / "password-asdfzxcv.pdf", tmp_path / "locked.pdf")
    locked = ragsvc("ingest", tmp_path / "locked.pdf", "--json", env=env)
    (document,) = ragsvc("documents", "list", "--json", env=env).json["data"]
    assert f"ragsvc documents retry {document['id']} --password-stdin" in locked.out
    empty = ragsvc("ask", " ", env=env)
    assert (empty.code, "question is empty" in empty.err) == (2, True)
    greeting = ragsvc("ask", "hi", env=env)
    assert (greeting.code, "built-in extractive model" in greeting.out) == (0, True)
    for option, value in (("--collection", "nope"), ("--document", "doc_000000000000000000000000")):
        wrong = ragsvc("ask", "hi", option, value, env=env)
        assert (wrong.code, value in wrong.err) == (1, True), wrong.err
    limited = at_service(service.url, new_tenant(requests_per_minute=1).key)
    assert ragsvc("documents", "list", env=limited).code == 0
    refused = ragsvc("documents", "list", env=limited)
    assert refused.code == 6
    assert re.search(r"requests per minute reached; try again in \d+ s$", refused.err.strip()), refused.err
    backup = ragsvc("backup", tmp_path / "archive", env=env)
    assert (backup.code, "--data-dir" in backup.err, "RAGSVC_URL" in backup.err) == (2, True, True)


@pytest.mark.sqlite_file
@pytest.mark.local_files
def test_encrypt_says_what_it_did_and_warns_of_a_key_that_others_can_read(tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    key_file = tmp_path / "master.key"
    key_file.write_text("5a" * 32)
    key_file.chmod(0o644)
    env = {**at_data(old.path), "RAGSVC_MASTER_KEY_FILE": str(key_file)}
    plain = {check["name"]: check for check in ragsvc("doctor", "--json", env=at_data(old.path)).json["checks"]}
    assert plain["encryption at rest"]["words"].startswith("off")
    first = ragsvc("encrypt", env=env)
    assert (first.code, "encrypted" in first.out, "already" in first.out) == (0, True, False)
    assert f"other users can read the master key in {key_file}" in first.err
    warned = {check["name"]: check for check in ragsvc("doctor", "--json", env=env).json["checks"]}
    assert warned["encryption at rest"]["state"] == "warn"
    key_file.chmod(0o600)
    again = ragsvc("encrypt", env=env)
    assert (again.code, "is already encrypted" in again.out, again.err) == (0, True, "")
    quiet = {check["name"]: check for check in ragsvc("doctor", "--json", env=env).json["checks"]}
    assert quiet["encryption at rest"]["state"] == "ok"
    assert quiet["encryption at rest"]["words"].startswith("on")
