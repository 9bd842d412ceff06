"""The errors that people meet first: each is a line that names the fault and the way out, and nothing is created."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import ROOT
from tests.support.command import at_data, ragsvc

pytestmark = pytest.mark.model


def only_line(done) -> str:
    assert len(done.err.splitlines()) <= 5, done.err  # the line may be wrapped, after a line of progress
    _, found, line = " ".join(done.err.split()).rpartition("ragsvc: ")
    assert found, done.err
    return line


@pytest.mark.sqlite_file
@pytest.mark.parametrize(
    "command",
    [
        ("documents", "list"),
        ("documents", "show", "doc_1"),
        ("documents", "delete", "doc_1"),
        ("search", "x"),
        ("ask", "x"),
        ("keys", "list"),
        ("keys", "revoke", "key_1"),
        ("tenants", "list"),
        ("evaluate", ROOT / "fixtures/evaluation/questions.jsonl"),
    ],
    ids=lambda command: " ".join(map(str, command[:2])),
)
def test_a_command_that_reads_creates_no_data_directory(tmp_path: Path, command) -> None:
    done = ragsvc(*command, env=at_data(tmp_path / "absent"))
    assert done.code == 1
    assert only_line(done).startswith(
        f"the data directory '{tmp_path / 'absent'}' does not exist; 'ragsvc ingest FOLDER'"
    )
    assert not (tmp_path / "absent").exists()


def test_an_empty_tenant_is_told_apart_from_documents_without_an_answer(tmp_path: Path, service) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "models").symlink_to(service.data_dir / "models")
    env = at_data(data_dir)
    (tmp_path / "mill.pdf").write_bytes(text_pdf([["The mill was built in 1887."]]))
    assert ragsvc("ingest", tmp_path / "mill.pdf", "--tenant", "acme", env=env).code == 0
    told = "no documents in tenant default; tenants with documents: acme (select one with --tenant)"
    for command in (("ask", "When was the mill built?"), ("ask", "x", "--stream"), ("search", "mill")):
        done = ragsvc(*command, env=env)
        assert (done.code, only_line(done), done.out) == (1, told, "")
    listed = ragsvc("documents", "list", "--json", env=env)
    assert (listed.code, listed.json["data"]) == (0, [])
    assert told in " ".join(ragsvc("documents", "list", env=env).err.split())
    assert "1887" in ragsvc("ask", "When was the mill built?", "--tenant", "acme", env=env).out


@pytest.mark.parametrize(
    "command", [("serve", "--port", "0"), ("keys", "create", "--tenant", "a"), ("ingest", "README.md")]
)
def test_a_data_directory_that_cannot_be_created_is_a_line(tmp_path: Path, command) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/no-such-process")):
        done = ragsvc(*command, env=at_data(place))
        assert done.code == 1
        assert str(place) in only_line(done)


def obey_permissions() -> None:
    """Drop root's right to pass over permissions (CAP_DAC_OVERRIDE), for the program that is started."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="needs capabilities of Linux for tests that run as root")
@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("keys", "create", "--tenant", "a")])
def test_a_data_directory_that_is_not_writable_is_a_line(tmp_path: Path, command) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o555)
    done = subprocess.run(
        [sys.executable, "-m", "ragsvc", *command],
        preexec_fn=obey_permissions,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **at_data(data_dir)},
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 4, done.stderr
    assert list(data_dir.iterdir()) == []


@pytest.mark.sqlite_file
def test_a_file_that_is_no_database_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "ragsvc.sqlite").write_bytes(b"this is no database, but a text of some length" * 100)
    done = ragsvc("documents", "list", env=at_data(tmp_path))
    assert done.code == 1
    assert "database" in only_line(done)


@pytest.mark.sqlite_file
def test_a_full_disk_is_a_line(tmp_path: Path) -> None:
    """The limit on the size of a file stands for a full disk."""
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "sys.argv = ['ragsvc', 'keys', 'create', '--tenant', 'a']; from ragsvc.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **at_data(tmp_path / "data")},
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 4, done.stderr


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("LOG_LEVEL", "loud", "RAGSVC_LOG_LEVEL: expected 'debug', 'info', 'warning' or 'error', not 'loud'"),
        ("OCR", "maybe", "RAGSVC_OCR: expected 'auto' or 'off', not 'maybe'"),
        ("PORT", "abc", "RAGSVC_PORT: expected a whole number, not 'abc'"),
        ("PORT", "70000", "RAGSVC_PORT: expected a whole number <= 65535, not '70000'"),
        ("HEADER_TIMEOUT_S", "soon", "RAGSVC_HEADER_TIMEOUT_S: expected a number, not 'soon'"),
        ("COLOUR", "red", "RAGSVC_COLOUR: no such setting"),
    ],
)
def test_a_bad_setting_is_a_line_with_the_choices(tmp_path: Path, name, value, told) -> None:
    done = ragsvc("serve", "--port", "0", env={**at_data(tmp_path / "data"), f"RAGSVC_{name}": value})
    assert (done.code, only_line(done)) == (2, told)
    assert not (tmp_path / "data").exists()


def test_levels_may_be_in_upper_case(tmp_path: Path) -> None:
    assert ragsvc("keys", "create", "--tenant", "a", env=at_data(tmp_path)).code == 0
    done = ragsvc("keys", "list", env={**at_data(tmp_path), "RAGSVC_LOG_LEVEL": "INFO"})
    assert done.code == 0, done.err


def test_a_provider_added_by_the_api_takes_plain_names_of_models(service) -> None:
    with service.client(service.admin_key) as admin:
        body = {"name": "plain-names", "base_url": "http://127.0.0.1:9/v1", "models": ["small", {"id": "large"}]}
        reply = admin.post("/v1/providers", json=body)
        assert reply.status_code == 201, reply.text
        assert [model["id"] for model in reply.json()["models"]] == ["small", "large"]
        changed = admin.patch("/v1/providers/plain-names", json={"models": ["other"]})
        assert [model["id"] for model in changed.json()["models"]] == ["other"]
        refused = admin.post("/v1/providers", json=body | {"name": "b", "api_key_env": "SECRET"})
        assert refused.status_code == 400
        assert "settings file" in refused.json()["error"]["message"]
        assert admin.delete("/v1/providers/plain-names").is_success
