"""Each feature of each client does with the service what its users expect, down to the text of the answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.clients.catalogue import CLIENTS, Client
from tests.clients.conftest import CRANE, SENTENCE, Outcome

pytestmark = pytest.mark.timeout(900)  # the first test of an environment installs its packages

Result = dict[str, Any]
GREETING = "Hello from the provider."
TEXTS = ["The lighthouse is tall.", "Ships carry oil."]
FILE_CITATIONS = {"file_citation", "citation", "document", "DocumentCitationSource"}
TOOLS = ["search", "fetch", "ask", "list_documents", "add_document"]


def check_chat(result: Result, outcome: Outcome) -> None:
    assert result["text"] == GREETING


def check_stream(result: Result, outcome: Outcome) -> None:
    assert result["pieces"] == ["Hello", " from", " the", " provider", "."]


def check_citations(result: Result, outcome: Outcome) -> None:
    """The source is the page with the answer, in the types of the client."""
    check_cited_text(result, outcome)
    (source,) = result["sources"]
    assert source["type"] in {"Annotation", "AnnotationURLCitation", "Citation", "citation", "url", "url_citation"}
    assert (source["url"], source["title"]) == (outcome.workplace.page_url, "lighthouse.pdf, page 2")
    assert source.get("quote", SENTENCE) == SENTENCE
    if "marker" in source:
        start, end = source["marker"]
        assert result["text"][start:end] == "[1]"


def check_cited_text(result: Result, outcome: Outcome) -> None:
    assert result["text"] == f"{SENTENCE} [1]"


def check_embeddings(result: Result, outcome: Outcome) -> None:
    """The vectors are those that the service gives as plain numbers."""
    with outcome.workplace.service.running.client(outcome.workplace.key) as http:
        body = {"model": "local/embedding-model", "input": TEXTS, "encoding_format": "float"}
        data = http.post("/v1/embeddings", json=body).json()["data"]
    assert [len(vector) for vector in result["vectors"]] == [384, 384]
    for vector, item in zip(result["vectors"], data, strict=True):
        assert vector == pytest.approx(item["embedding"], abs=1e-5)


def check_token_arrays(result: Result, outcome: Outcome) -> None:
    assert "check_embedding_ctx_length=False" in result["error"]


def check_tools(result: Result, outcome: Outcome) -> None:
    """The client runs the function that the model calls, and sends its result to the model."""
    ((name, arguments),) = [(call["name"], json.loads(call["arguments"])) for call in result["calls"]]
    assert (name, arguments) == ("get_weather", {"city": "Paris"})
    assert result["text"] == GREETING
    sent = [message for request in outcome.workplace.service.upstream.requests for message in request["messages"]]
    results = [json.dumps(message["content"]) for message in sent if message["role"] == "tool"]
    assert any(outcome.weather in text for text in results)


def check_mcp(result: Result, outcome: Outcome) -> None:
    assert result["tools"] == TOOLS
    best = result["results"][0]
    assert (best["url"], best["title"]) == (outcome.workplace.page_url, "lighthouse.pdf, page 2")
    assert best["text"] == SENTENCE


def check_mcp_resources(result: Result, outcome: Outcome) -> None:
    assert result["listed"] == ["lighthouse.pdf"]
    assert result.get("page", SENTENCE) == SENTENCE


def check_models(result: Result, outcome: Outcome) -> None:
    assert {"backend-model", "local/chat-model", "local/embedding-model"} <= set(result["ids"])


def check_responses(result: Result, outcome: Outcome) -> None:
    """The annotation names the file of the vector store, and the results of the search are its passages."""
    check_cited_text(result, outcome)
    for source in result.get("sources", []):
        assert source["type"] in FILE_CITATIONS or source["type"].endswith("AnnotationFileCitation")
        assert source["file_id"] == outcome.workplace.file_id
        assert source.get("filename", "lighthouse.pdf") == "lighthouse.pdf"
        assert source.get("page", 2) == 2
    assert len(result.get("sources", [""])) == 1
    if "found" in result:
        best = {"file_id": outcome.workplace.file_id, "filename": "lighthouse.pdf", "text": SENTENCE}
        assert result["found"][0] == best


def check_streamed_responses(result: Result, outcome: Outcome) -> None:
    check_responses(result, outcome)
    assert "".join(result["pieces"]) == result["text"]


def check_vector_stores(result: Result, outcome: Outcome) -> None:
    """A file is uploaded, indexed, found by its attribute, read and deleted."""
    assert result["status"] == "completed"
    assert result["counts"] == {"in_progress": 0, "completed": 1, "failed": 0, "cancelled": 0, "total": 1}
    assert result["found"] == [{"file_id": result["file_id"], "filename": "crane.txt", "text": CRANE}]
    assert result.get("content", CRANE) == CRANE
    assert result["deleted"] == [True, True, True]


CHECKS: dict[str, Callable[[Result, Outcome], None]] = {
    "chat": check_chat,
    "stream": check_stream,
    "citations": check_citations,
    "streamed citations": check_citations,
    "cited text": check_cited_text,
    "embeddings": check_embeddings,
    "token arrays": check_token_arrays,
    "tools": check_tools,
    "mcp": check_mcp,
    "mcp resources": check_mcp_resources,
    "models": check_models,
    "responses": check_responses,
    "streamed responses": check_streamed_responses,
    "vector stores": check_vector_stores,
}

TRIED = [
    pytest.param(client, feature, id=f"{client.name}: {feature}") for client in CLIENTS for feature in client.features
]


@pytest.mark.parametrize(("client", "feature"), TRIED)
def test_a_feature_of_a_client_works(
    client: Client,
    feature: str,
    outcome_of: Callable[[Client], Outcome],
    record_property: Callable[[str, object], None],
) -> None:
    record_property("client", client.name)
    record_property("feature", feature)
    outcome = outcome_of(client)
    assert outcome.version == client.version
    assert set(outcome.features) == set(client.features), "the program and the list of features differ"
    result = outcome.features[feature]
    assert "failure" not in result, result["failure"]
    CHECKS[feature](result, outcome)
