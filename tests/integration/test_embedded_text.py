"""``embedded_text``: what a passage's vector stands for, seen through the cosine of a question in the same words."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragsvc.testing.service_runner import RunningService, create_key
from tests.support.command import at_data, ragsvc

pytestmark = [pytest.mark.model, pytest.mark.timeout(120)]

TEXT = "The falcons (of the tower) are fed with $ 1,200 of meat; that is, by the city, not the church!"
CONDENSED = "falcons tower fed 1 200 meat city not church"


def cosine(service: RunningService, key: str, query: str, *, collection: str = "default") -> float:
    body = {"query": f"falcons\n{query}", "mode": "dense", "top_k": 1, "collection": collection}
    with service.client(key) as client:
        reply = client.post("/v1/rag/search", json=body)
    (hit,) = reply.json()["data"]
    return float(hit["score"])


@pytest.mark.parametrize(("setting", "same", "other"), [("condensed", CONDENSED, TEXT), ("whole", TEXT, CONDENSED)])
def test_passages_are_embedded_as_the_setting_says(tmp_path: Path, setting: str, same: str, other: str) -> None:
    data_dir = tmp_path / "data"
    key = create_key(data_dir)
    service = RunningService(data_dir, env={"RAGSVC_EMBEDDED_TEXT": setting})
    try:
        with service.client(key) as client:
            client.post(
                "/v1/rag/documents",
                params={"filename": "falcons.txt"},
                content=TEXT.encode(),
                headers={"content-type": "text/plain"},
            ).raise_for_status()
        assert cosine(service, key, same) > 0.995
        assert cosine(service, key, other) < 0.98
    finally:
        service.stop()

    changed = {"RAGSVC_EMBEDDED_TEXT": "whole" if setting == "condensed" else "condensed"}
    service = RunningService(data_dir, env=changed)
    try:
        assert cosine(service, key, same) > 0.995  # stored passages keep their vectors
        with service.client(key) as client:  # and a new passage of the same text gets a vector of its own
            client.post(
                "/v1/rag/documents",
                params={"filename": "falcons.txt", "collection": "new"},
                content=TEXT.encode() + b"\n",
                headers={"content-type": "text/plain"},
            ).raise_for_status()
        assert cosine(service, key, other, collection="new") > 0.995
        assert cosine(service, key, same, collection="new") < 0.98
    finally:
        service.stop()
    assert ragsvc("reindex", "--embeddings", env={**at_data(data_dir), **changed}).code == 0
    service = RunningService(data_dir, env=changed)
    try:
        assert cosine(service, key, other) > 0.995
    finally:
        service.stop()
