"""Search over look-alike reports: the right report by its company and period, the right page by the other words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ragsvc.testing.service_runner import ROOT, RunningService, create_key
from tests.models.test_inference_runtimes import make_tiny_transformer

pytestmark = pytest.mark.model

DOCUMENTS = ROOT / "fixtures" / "documents"
LABELS = ROOT / "fixtures" / "evaluation"
REPORTS = {
    "2023 Q1 AAPL.pdf": "apple-10-q-2022-12-31.pdf",
    "2023 Q3 AAPL.pdf": "apple-10-q-2023-07-01.pdf",
    "2023 Q3 NVDA.pdf": "nvidia-10-q-2023-10-29.pdf",
}


def labelled() -> list[tuple[str, str, set[int]]]:
    """Questions about the three reports with the report and the pages that answer them."""
    found = []
    for file in ("sec10q_pages.jsonl", "sec10q_statements.jsonl"):
        for line in (LABELS / file).read_text("utf-8").splitlines():
            row = json.loads(line)
            if (report := row["pages"][0]["document"]) in REPORTS:
                found.append((row["question"], report, {page["page"] for page in row["pages"]}))
    return found


def put(http: httpx.Client, filename: str, content: bytes, kind: str = "text/plain") -> str:
    parameters = {"filename": filename, "wait_s": 120}
    headers = {"content-type": kind}
    created = http.post("/v1/rag/documents", params=parameters, content=content, headers=headers, timeout=150)
    assert created.json()["status"] == "ready", created.text
    return created.json()["id"]


def upload(http: httpx.Client, names: dict[str, str]) -> dict[str, str]:
    """Upload the reports under other names; returns the public id of each report."""
    ids = {}
    for report, file in REPORTS.items():
        ids[report] = put(http, names.get(report, report), (DOCUMENTS / file).read_bytes(), "application/pdf")
    return ids


def pages(http: httpx.Client, question: str, count: int, **body: object) -> list[tuple[str, int]]:
    found = http.post("/v1/rag/search", json={"query": question, "top_k": 40, **body}, timeout=60).json()["data"]
    scores = [hit["score"] for hit in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    return list(dict.fromkeys((hit["document_id"], hit["page"]) for hit in found))[:count]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("opaque", [False, True])
def test_the_page_of_the_named_report_is_among_the_first(tenant, opaque: bool) -> None:
    names = {report: f"{number}f3a9c{number}.pdf" for number, report in enumerate(REPORTS)} if opaque else {}
    ids = upload(tenant.http, names)
    questions = labelled()
    assert len(questions) >= 30
    questions = questions[::2]
    hits = reports = 0
    for question, report, gold in questions:
        first = pages(tenant.http, question, 5)
        hits += any(document == ids[report] and page in gold for document, page in first)
        reports += first[0][0] == ids[report]
    assert (hits / len(questions) >= 0.7, reports / len(questions) >= 0.8) == (True, True), (hits, reports)


@pytest.mark.timeout(400)
def test_filters_and_deletions_apply_to_the_choice_of_the_report(tenant) -> None:
    ids = upload(tenant.http, {})
    question = "How much D&A did Apple report in the quarter ended July 1, 2023?"
    named, other = ids["2023 Q3 AAPL.pdf"], ids["2023 Q1 AAPL.pdf"]
    assert pages(tenant.http, question, 1)[0][0] == named
    assert {document for document, _ in pages(tenant.http, question, 40, document_ids=[other])} == {other}
    assert pages(tenant.http, "Compare the revenue of Apple and NVIDIA", 1)
    both = pages(tenant.http, "Compare the research and development expense of Apple and NVIDIA in 2023", 6)
    assert ids["2023 Q3 NVDA.pdf"] in {document for document, _ in both}
    assert {named, other} & {document for document, _ in both}
    assert tenant.http.delete(f"/v1/rag/documents/{named}").status_code in (200, 204)
    left = pages(tenant.http, question, 40)
    assert named not in {document for document, _ in left}
    assert left[0][0] == other


@pytest.fixture
def tiny_reranker(tmp_path: Path) -> Path:
    import transformers  # noqa: PLC0415 - imports torch: seconds

    make_tiny_transformer(tmp_path / "cross", model_type="bert", labels=1)
    model = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "cross")
    for weights in model.parameters():
        weights.data *= 5  # random weights near zero score all texts alike
    model.save_pretrained(tmp_path / "cross")
    config = tmp_path / "cross" / "tokenizer_config.json"
    settings = json.loads(config.read_text("utf-8"))
    config.write_text(json.dumps({**settings, "model_max_length": 64}), encoding="utf-8")
    return tmp_path / "cross"


def serve(data_dir: Path, **settings: str) -> Iterator[tuple[RunningService, httpx.Client]]:
    key = create_key(data_dir)
    running = RunningService(data_dir, env=settings)
    try:
        with running.client(key) as http:
            yield running, http
    finally:
        assert running.stop() == 0


def test_a_configured_cross_encoder_orders_searches(tmp_path: Path, tiny_reranker: Path) -> None:
    settings = {"RAGSVC_RERANKER_MODEL": str(tiny_reranker), "RAGSVC_RERANK_BUDGET_MS": "60000"}
    for _, http in serve(tmp_path / "data", **settings):
        texts = [
            f"The turbine number {number} has {number % 7} blades of steel." * (number % 5 + 1) for number in range(12)
        ]
        for number, text in enumerate(texts):
            put(http, f"{number}.txt", text.encode())
        query = "turbine blades"
        found = http.post("/v1/rag/search", json={"query": query, "top_k": 12}).json()["data"]
        asked = {"model": "local/reranker", "query": query, "documents": [hit["quote"] for hit in found]}
        scored = http.post("/v1/rerank", json=asked).json()["results"]
        score_of = {result["index"]: result["relevance_score"] for result in scored}
        scores = [hit["score"] for hit in found]
        assert scores == sorted(scores, reverse=True)
        assert scores == pytest.approx([score_of[index] for index in range(len(found))], abs=1e-4)
        assert len(set(scores)) > 3
        lexical = http.post("/v1/rag/search", json={"query": query, "mode": "lexical"}).json()["data"]
        assert lexical[0]["score"] == 1.0  # other modes are not reordered


def test_what_the_cross_encoder_does_not_score_in_time_keeps_its_order(tmp_path: Path, tiny_reranker: Path) -> None:
    texts = [f"The turbine number {number} has blades of steel. " * (number + 1) for number in range(12)]
    orders = []
    for settings in ({}, {"RAGSVC_RERANKER_MODEL": str(tiny_reranker), "RAGSVC_RERANK_BUDGET_MS": "1"}):
        for _, http in serve(tmp_path / f"data{len(orders)}", **settings):
            for number, text in enumerate(texts):
                put(http, f"{number}.txt", text.encode())
            found = http.post("/v1/rag/search", json={"query": "turbine number 3", "top_k": 12}).json()["data"]
            orders.append([hit["filename"] for hit in found])
            scores = [hit["score"] for hit in found]
            assert scores == sorted(scores, reverse=True)
    plain, limited = orders
    assert sorted(plain) == sorted(limited)
    assert plain[8:] == limited[8:]  # at most the first two batches of four were scored
