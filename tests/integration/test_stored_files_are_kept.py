"""No command deletes a stored file because the database does not know it, and ``doctor`` changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ragsvc.testing.service_runner import RunningService
from tests.support.command import at_data, ragsvc
from tests.support.file_places import StoredFiles, stored_bytes

pytestmark = [pytest.mark.model, pytest.mark.timeout(240), pytest.mark.sqlite_file]


@pytest.fixture
def data_dir(service: RunningService, tmp_path: Path) -> Path:
    made = tmp_path / "data"
    shutil.copytree(service.data_dir / "models", made / "models")
    return made


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.txt").write_text(f"Turbine {number} was repaired in the spring of 200{number}.")
    return folder


def contents(root: Path) -> dict[str, bytes]:
    return {name: content for name, content in stored_bytes(root) if name != "ragsvc.pid"}


def test_doctor_changes_no_byte_of_the_directory(data_dir: Path, documents: Path) -> None:
    assert ragsvc("ingest", documents, "--json", env=at_data(data_dir)).code == 0
    StoredFiles(data_dir).write(f"blobs/default/ab/{'ab' * 32}", b"the database does not know this file")
    for leftover in (data_dir / "derived").rglob("vectors-*/manifest.json"):
        leftover.write_bytes(b"torn")  # the service would build this index again
    before = contents(data_dir)
    done = ragsvc("doctor", "--deep", "--json", env=at_data(data_dir))
    states = {check["name"]: check["state"] for check in done.json["checks"]}
    assert (states["stored files"], states["texts"], states["index default/default"]) == ("warn", "ok", "ok")
    assert contents(data_dir) == before


def test_a_database_that_was_moved_away_costs_no_file(data_dir: Path, documents: Path) -> None:
    env = at_data(data_dir)
    assert ragsvc("ingest", documents, "--json", env=env).code == 0
    files = StoredFiles(data_dir).names()
    assert len(files) == 4
    (data_dir / "ragsvc.sqlite").rename(data_dir / "moved")
    assert ragsvc("keys", "list", "--json", env=env).code == 1
    assert ragsvc("keys", "create", "--tenant", "a", env=env).code == 0  # makes an empty database
    listed = ragsvc("documents", "list", "--json", env=env)
    assert (listed.code, listed.json["data"]) == (0, [])
    assert "4 stored files belong to no document" in listed.err
    doctor = ragsvc("doctor", env=env)
    assert doctor.code == 1
    assert "may not be the database of these files" in doctor.out
    assert StoredFiles(data_dir).names() == files
    (data_dir / "ragsvc.sqlite").unlink()
    (data_dir / "moved").rename(data_dir / "ragsvc.sqlite")
    assert ragsvc("doctor", "--deep", env=env).code == 0
