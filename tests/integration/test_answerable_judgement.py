"""Search and the built-in answerer share one judgement of whether the documents answer a question.

The answerer may withhold an answer in addition, where its sentences are about other years or names.
"""

import json

import pytest

from ragsvc.core.retrieval.answerability import ABSTAIN_BELOW
from ragsvc.core.retrieval.conversation_query import Turn, make_query
from ragsvc.providers.local_extractive import NO_ANSWER
from ragsvc.testing.service_runner import ROOT

pytestmark = pytest.mark.model

DOCUMENTS = ROOT / "fixtures" / "documents"
QUESTIONS = ROOT / "fixtures" / "evaluation" / "questions.jsonl"


def test_chat_gives_no_answer_exactly_where_search_finds_too_little_evidence(tenant) -> None:
    rows = [json.loads(line) for line in QUESTIONS.read_text("utf-8").splitlines()]
    for filename in sorted({row["document"] for row in rows if "document" in row}):
        created = tenant.upload((DOCUMENTS / filename).read_bytes(), filename=filename, wait_s=60)
        assert created.json()["status"] == "ready"
    differing: dict[str, tuple[float, str]] = {}
    refused: dict[bool, int] = {True: 0, False: 0}
    for row in rows:
        text = make_query([Turn("user", row["question"])]).text
        judged = tenant.http.post("/v1/rag/search", json={"query": text}).json()["answerable"]
        chat = {
            "model": "local/chat-model",
            "messages": [{"role": "user", "content": row["question"]}],
            "use_rag": True,
        }
        reply = tenant.http.post("/v1/chat/completions", json=chat).json()
        content = reply["choices"][0]["message"]["content"]
        withheld = content == NO_ANSWER and not row.get("answerable", True)  # sentences of other years or names
        if (content == NO_ANSWER) != (judged < ABSTAIN_BELOW) and not withheld:
            differing[row["id"]] = (judged, content)
        refused[row.get("answerable", True)] += content == NO_ANSWER
    assert differing == {}
    assert refused[False] == 9  # of 10 unanswerable questions; search judges 8
    assert refused[True] == 0
