"""The command line on a data directory that no service holds: the same commands, and what repairs it."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select, update

from ragsvc.core.ports.file_storage import last_part
from ragsvc.store.tables import EmbeddingRow, table_of
from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import ROOT, RunningService, service_environment
from tests.support.command import at_data, ragsvc
from tests.support.engines import SQLITE, engine, stored_rows
from tests.support.file_places import StoredFiles
from tests.support.full_disk import fill, small_disk

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    for number in range(4):
        pages = [[f"Turbine {number} stands near the river."], [f"Turbine {number} cost {number + 2} million euros."]]
        (folder / f"report {number}.pdf").write_bytes(text_pdf(pages))
    return folder


@pytest.fixture
def data_dir(service: RunningService, tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir(mode=0o755)
    (made / "models").symlink_to(service.data_dir / "models")  # the export of the model takes a while
    return made


def test_ingest_search_and_ask_need_no_service(data_dir: Path, documents: Path) -> None:
    env = at_data(data_dir)
    done = ragsvc("ingest", documents, "--tenant", "acme", "--json", env=env)
    assert (done.code, done.json["counts"], done.json["pages"]) == (0, {"added": 4}, 8)
    assert len(ragsvc("documents", "list", "--tenant", "acme", "--json", env=env).json["data"]) == 4
    assert ragsvc("documents", "list", "--json", env=env).json["data"] == []  # another tenant sees nothing
    asked = ragsvc("ask", "How many million euros did turbine 2 cost?", "--stream", "--tenant", "acme", env=env)
    assert asked.code == 0
    assert "4 million euros" in asked.out

    for name in {"ragsvc.sqlite", "blobs"} & {path.name for path in data_dir.iterdir()}:
        assert not (data_dir / name).stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), f"others may read {name}"

    well = ragsvc("doctor", "--deep", "--json", env=env)
    assert well.code == 0, well.json
    states = {check["name"]: check["state"] for check in well.json["checks"]}
    assert states["database"] == "ok"
    if engine.name == SQLITE:  # doctor reads no rows of PostgreSQL
        assert (states["index acme/default"], states["file contents"]) == ("ok", "ok")


def test_reindex_mends_what_is_derived(data_dir: Path, documents: Path) -> None:
    env = at_data(data_dir)
    assert ragsvc("ingest", documents, "--json", env=env).code == 0
    before = ragsvc("search", "turbine 3", "--json", env=env).json["data"]

    for file in (data_dir / "derived").rglob("*"):
        if file.is_file():
            file.write_bytes(b"torn")
    mended = ragsvc("reindex", "--json", env=env)
    assert (mended.code, [one["ok"] for one in mended.json["collections"]]) == (0, [True])
    after = ragsvc("search", "turbine 3", "--json", env=env).json["data"]
    assert after[0] == before[0]
    assert {hit["chunk_id"] for hit in after} == {hit["chunk_id"] for hit in before}

    rows = table_of(EmbeddingRow)
    with stored_rows(data_dir) as connection:
        vector = connection.scalars(select(rows.c.vector)).first()
        connection.execute(update(rows).values(vector=bytes(len(vector))))
    again = ragsvc("reindex", "--embeddings", "--json", env=env)
    assert (again.code, again.json["documents_failed"]) == (0, 0)
    found = ragsvc("search", "turbine 3", "--mode", "dense", "--json", env=env).json["data"]
    assert found[0]["filename"] == "report 3.pdf"


@pytest.mark.sqlite_file
def test_doctor_finds_damaged_and_lost_files(data_dir: Path, documents: Path) -> None:
    env = at_data(data_dir)
    assert ragsvc("ingest", documents, "--json", env=env).code == 0
    files = StoredFiles(data_dir)
    name = files.names()[0]
    files.write(name, files.read(name)[:-1] + b"!")
    changed = ragsvc("doctor", "--deep", env=env)
    assert changed.code == 1
    assert last_part(name) in changed.out
    files.delete(name)
    lost = ragsvc("doctor", env=env)
    assert lost.code == 1
    assert "have no stored file" in lost.out


@pytest.mark.sqlite_file
def test_doctor_tells_a_damaged_database(data_dir: Path) -> None:
    env = at_data(data_dir)
    assert ragsvc("keys", "create", "--tenant", "t", env=env).code == 0
    assert ragsvc("doctor", env=env).code == 0
    database = data_dir / "ragsvc.sqlite"
    content = bytearray(database.read_bytes())
    content[4096:12288] = os.urandom(8192)
    database.write_bytes(content)
    assert ragsvc("doctor", "--json", env=env).json["ok"] is False


@pytest.mark.sqlite_file
def test_doctor_compares_the_indexes_although_the_disk_is_full(service: RunningService, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=16) as disk:
        data_dir = disk / "data"
        data_dir.mkdir()
        (data_dir / "models").symlink_to(service.data_dir / "models")
        env = at_data(data_dir)
        assert ragsvc("keys", "create", "--tenant", "t", env=env).code == 0
        small = ragsvc("doctor", "--json", env=env)
        assert (small.code, {check["name"]: check["state"] for check in small.json["checks"]}["disk"]) == (0, "ok")
        fill(disk)
        full = ragsvc("doctor", "--json", env=env)
    checks = {check["name"]: check for check in full.json["checks"]}
    assert [name for name, check in checks.items() if check["state"] == "fail"] == ["disk"], full.json
    assert "uploads are refused" in checks["disk"]["words"]
    assert checks["embedding"]["state"] == "ok"
    assert "damaged" not in full.out


def hear_interrupts() -> None:
    """A shell's background jobs ignore SIGINT, and so would their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_ingest_goes_on_where_it_stopped(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:02}.txt").write_text(
            f"Entry {number}: " + f"the pump of station {number} was repaired. " * 40
        )
    report = tmp_path / "report.json"
    running = subprocess.Popen(
        [sys.executable, "-m", "ragsvc", "ingest", str(folder), "--report", str(report)],
        cwd=ROOT,
        env=service_environment(data_dir),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,  # noqa: PLW1509 - one call, before any thread of the child
    )
    deadline = time.monotonic() + 60
    files = StoredFiles(data_dir)
    while len(files.names()) < 5:
        assert time.monotonic() < deadline
        assert running.poll() is None, running.stderr and running.stderr.read()
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, words = running.communicate(timeout=60)
    assert running.returncode == 130, words
    assert "Traceback" not in words
    assert b'"complete": false' in report.read_bytes()

    done = ragsvc("ingest", folder, "--json", env=at_data(data_dir))
    assert done.code == 0
    assert sum(done.json["counts"].values()) == 60
    listed = ragsvc("documents", "list", "--limit", 1000, "--json", env=at_data(data_dir)).json["data"]
    assert len(listed) == 60
    assert {one["status"] for one in listed} == {"ready"}
