"""Sources of a cited chat, as clients with strict types hand them to their callers."""

import pytest

QUESTION = "Which city hosts the archive?"
TEXT = "The archive is in the city of Porto. It holds nine thousand maps."

pytestmark = pytest.mark.timeout(700)  # the first run installs the clients


@pytest.fixture
def asked(tenant):
    document_id = tenant.add_text(TEXT, filename="archive.txt")
    variables = {"BASE_URL": f"{tenant.service.url}/v1", "API_KEY": tenant.key, "QUESTION": QUESTION}
    return variables, f"{tenant.service.url}/v1/rag/documents/{document_id}/content#page=1"


def check(answer, url):
    """Check an answer with the annotations that the client returned."""
    assert "Porto" in answer["text"]
    (annotation,) = answer["annotations"]
    assert annotation["type"] == "url_citation"
    cited = annotation["url_citation"]
    assert (cited["url"], cited["title"]) == (url, "archive.txt, page 1")
    assert answer["text"][cited["start_index"] : cited["end_index"]] == "[1]"


def test_litellm_returns_the_sources(asked, run_program):
    variables, url = asked
    answers = run_program("litellm", "litellm_cited_chat", **variables)
    for answer in (answers["whole"], answers["stream"]):
        check(answer, url)


def test_pydantic_ai_returns_the_sources(asked, run_program):
    variables, url = asked
    answers = run_program("pydantic-ai", "pydantic_ai_cited_chat", **variables)
    for answer in (answers["whole"], answers["stream"]):
        assert "Porto" in answer["text"]
        (source,) = answer["sources"]
        assert (source["url"], source["title"]) == (url, "archive.txt, page 1")
        (excerpt,) = source["excerpts"]
        assert excerpt in TEXT


def test_the_ai_sdk_returns_the_sources(asked, run_node_program):
    variables, url = asked
    answers = run_node_program("ai-sdk", "ai_sdk_cited_chat", **variables)
    assert answers["failures"] == []
    for answer in (answers["whole"], answers["stream"]):
        assert "Porto" in answer["text"]
        (source,) = answer["sources"]
        assert (source["sourceType"], source["url"], source["title"]) == ("url", url, "archive.txt, page 1")
