"""``embedded_text``: what of a passage its vector stands for, seen through the cosine of a question with the same words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service import RunningService, create_key

pytestmark = [pytest.mark.model, pytest.mark.timeout(120)]

TEXT = "The falcons (of the tower) are fed with $ 1,200 of meat; that is, by the city, not the church!"
CONDENSED = "falcons tower fed 1 200 meat city not church"


@pytest.mark.parametrize(("setting", "same", "other"), [("condensed", CONDENSED, TEXT), ("whole", TEXT, CONDENSED)])
def test_passages_are_embedded_as_the_setting_says(tmp_path: Path, setting: str, same: str, other: str) -> None:
    key = create_key(tmp_path / "data")
    service = RunningService(tmp_path / "data", env={"RAGSVC_EMBEDDED_TEXT": setting})

    def score(query: str) -> float:
        reply = client.post("/v1/rag/search", json={"query": query, "mode": "dense", "top_k": 1})
        (hit,) = reply.json()["data"]
        return float(hit["score"])

    try:
        with service.client(key) as client:
            client.post(
                "/v1/rag/documents",
                params={"filename": "falcons.txt"},
                content=TEXT.encode(),
                headers={"content-type": "text/plain"},
            ).raise_for_status()
            assert score(f"falcons\n{same}") > 0.995
            assert score(f"falcons\n{other}") < 0.98
    finally:
        service.stop()
