"""Asking, on a service that is an httpx transport: turns, pauses, and the report that comes of it."""

import doctest
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import anyio
import httpx
import pytest

from ragsvc.cli.evaluate import evaluation_failures
from ragsvc.cli.failures import CommandFailed
from ragsvc.cli.service_client import ServiceClient
from ragsvc.evaluation import charts, html_report
from ragsvc.evaluation.asking import EvaluationPlan, ask_all
from ragsvc.evaluation.gold import find_gold, page_texts
from ragsvc.evaluation.html_report import render_html
from ragsvc.evaluation.questions import read_questions
from ragsvc.evaluation.report import EvaluationReport, make_report
from ragsvc.evaluation.settings import choose_settings

EVIL = "<script>alert(1)</script> & \"why\" 'not'?"


class Service:
    """One document of three pages; dense search finds the page that the question's last word names, lexical never."""

    def __init__(self, *, refusals: int = 0) -> None:
        self.searches: list[tuple[str, str]] = []
        self._refusals = refusals

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            document = {
                "id": "doc_1", "sha256": "ab" * 32, "filename": "<b>.pdf", "status": "ready", "pages": 3, "metadata": {}
            }  # fmt: skip
            return httpx.Response(200, json={"data": [document], "has_more": False})
        if self._refusals and len(self.searches) == 2:  # after one each to warm up
            self._refusals -= 1
            headers = {"retry-after-ms": "300"}
            return httpx.Response(429, json={"error": {"message": "slowly", "code": "rate_limited"}}, headers=headers)
        body = json.loads(request.content)
        if body["query"] == "odd":
            return httpx.Response(400, json={"error": {"message": "the query is odd", "code": "invalid_request"}})
        self.searches.append((body["query"], body["mode"]))
        last = body["query"].split()[-1]
        page = int(last) if body["mode"] == "dense" and last.isdigit() else 99
        hit = {"document_id": "doc_1", "filename": "<b>.pdf", "page": page, "start": 0, "end": 9, "score": 0.5}
        return httpx.Response(200, json={"data": [hit], "answerable": 0.9 if last.isdigit() else 0.1})


def evaluate(service: Service, tmp_path: Path, lines: list[dict], *, seed: int = 3) -> EvaluationReport:
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    settings = choose_settings(["dense", "lexical"], [], top_k=10, filters=None)
    plan = EvaluationPlan(settings=settings, collection="default", within_document=False, model=None, seed=seed)

    async def run() -> EvaluationReport:
        transport = httpx.MockTransport(service)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            client = ServiceClient(http, patience_s=5)
            asked = read_questions(path)
            cases, problems = await find_gold(
                client, asked, collection="default", within_document=False, skip_unknown=False
            )
            outcomes = await ask_all(client, cases, plan, lambda: None)
        return make_report(
            cases, outcomes, plan, file=path.name, problems=problems, left_out=0, created_at=0, seconds=1
        )

    return anyio.run(run)


def questions(count: int) -> list[dict]:
    return [{"question": f"{n} stands on 2", "document": "<b>.pdf", "pages": [2]} for n in range(count)]


def test_settings_take_turns_on_every_question(tmp_path: Path) -> None:
    service = Service()
    report = evaluate(service, tmp_path, questions(40))
    asked = service.searches[2:]  # after one each to warm up
    turns = [tuple(asked[n : n + 2]) for n in range(0, len(asked), 2)]
    assert all(one[0] == other[0] and {one[1], other[1]} == {"dense", "lexical"} for one, other in turns)
    first = Counter(one[1] for one, _ in turns)
    assert min(first.values()) > 8
    assert [one.outcomes["dense"].rank for one in report.questions] == [1] * 40
    assert report.settings[0].measures["mrr"].value == 1
    compared = report.comparisons[0].measures["hit@5"]
    assert (compared.difference, compared.differing, compared.verdict.value) == (-1, 40, "worse")


def test_pauses_that_a_limit_asks_for_are_not_the_searches(tmp_path: Path) -> None:
    service = Service(refusals=2)
    report = evaluate(service, tmp_path, questions(1))
    assert len(service.searches) == 4
    outcomes = report.questions[0].outcomes.values()
    assert all(one.ms < 150 for one in outcomes)
    assert sorted(one.timed for one in outcomes) == [False, True]


def test_a_refusal_names_its_question(tmp_path: Path) -> None:
    service = Service()
    said = r"question 'broken', setting '(dense|lexical)': the query is odd"
    with pytest.raises(CommandFailed, match=said), evaluation_failures():
        evaluate(service, tmp_path, [*questions(2), {"question": "odd", "id": "broken"}])
    assert len(service.searches) == 2 + 2 * 2


def test_questions_without_an_answer_are_judged_by_the_signal_and_their_lack_is_told(tmp_path: Path) -> None:
    report = evaluate(Service(), tmp_path, [*questions(3), {"question": "nothing", "answerable": False}])
    assert report.settings[0].measures["abstention_auroc"].value == 1
    assert report.settings[0].signal_reached == {"answerable": 1.0, "unanswerable": 0.0}
    assert "yet with evidence" not in render_html(report)
    deceived = evaluate(Service(), tmp_path, [*questions(3), {"question": "nothing but 5", "answerable": False}])
    assert "yet with evidence" in render_html(deceived)
    without = evaluate(Service(), tmp_path, questions(3))
    assert "abstention_auroc" not in without.settings[0].measures
    assert any("answerable" in note for note in without.notes)
    assert any("3 questions are few" in note for note in without.notes)


def test_the_page_is_whole_and_says_nothing_it_was_not_meant_to(tmp_path: Path) -> None:
    lines = [*questions(7), {"question": f"{EVIL} 1", "document": "doc_1", "pages": [3]}]
    page = render_html(evaluate(Service(), tmp_path, lines))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp;" in page
    assert "<b>" not in page
    assert "&lt;b&gt;.pdf p. 3" in page
    assert not re.search(r"src=|href=|url\(|@import|https?:", page)
    assert "dense: 1 of 8" in page
    assert "lexical: 8 of 8" in page
    body = page.partition("<body>")[2].partition("</body>")[0].replace("<br>", "<br/>")
    drawn = ElementTree.fromstring(f"<body>{body}</body>")  # noqa: S314 - our own
    strips = [svg for svg in drawn.iter("svg") if "question by question" in svg.get("aria-label", "")]
    assert [len(list(svg.iter("rect"))) for svg in strips] == [2 * 8]
    assert {one.get("class") for one in strips[0].iter("rect")} == {"rank-1", "rank-none"}


def test_texts_of_pages_are_put_together_from_their_passages() -> None:
    passages = [
        {"page": 1, "start": 2, "end": 5, "text": "abc"},
        {"page": 1, "start": 4, "end": 7, "text": "cde"},
        {"page": 3, "start": 0, "end": 1, "text": "x"},
    ]
    assert page_texts(passages, "text") == {1: "  abcde", 3: "x"}


def test_examples_hold() -> None:
    for module in (charts, html_report):
        outcome = doctest.testmod(module)
        assert outcome.attempted
        assert not outcome.failed


def test_statistics_libraries_are_imported_by_the_evaluation_only() -> None:
    """They take a second to import, which no other command and no start of the service should cost."""
    modules = "ragsvc.cli.commands, ragsvc.cli.serve, ragsvc.wiring.services"
    code = f"import sys, {modules}; print({{'scipy', 'sklearn'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
