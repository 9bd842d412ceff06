"""A file that a client attaches to a chat is cited, and clients with strict types return the source."""

import base64
import json
from typing import Any

import pytest

from ragsvc.testing.sample_pdfs import text_pdf
from tests.clients.catalogue import HERE
from tests.clients.conftest import run_program

QUESTION = "Which city hosts the archive?"
TEXT = "The archive is in the city of Porto. It holds nine thousand maps."

pytestmark = pytest.mark.timeout(700)  # the first run installs the clients


def answer_of(program: str, environment: str, tenant) -> Any:
    """What a program prints, which asks about a PDF."""
    variables = {
        "BASE_URL": f"{tenant.service.url}/v1",
        "API_KEY": tenant.key,
        "QUESTION": QUESTION,
        "FILE": base64.b64encode(text_pdf([[TEXT]])).decode(),
    }
    return json.loads(run_program(environment, HERE / "programs" / program, variables).splitlines()[-1])


def test_the_ai_sdk_sends_a_file_and_returns_the_source(tenant):
    answers = answer_of("ai_sdk_file_chat.mjs", "clients", tenant)
    assert answers["failures"] == []
    for answer in (answers["whole"], answers["stream"]):
        assert "Porto" in answer["text"]
        (source,) = answer["sources"]
        assert (source["sourceType"], source["title"]) == ("url", "archive.pdf, page 1")
        assert source["url"].startswith("ni:///sha-256-96;")
        assert source["url"].endswith("#page=1")


def test_pydantic_ai_sends_a_file_and_returns_the_source(tenant):
    answer = answer_of("pydantic_ai_file_chat.py", "openai-3", tenant)
    assert "Porto" in answer["text"]
    ((url, excerpts),) = answer["sources"]
    assert url.startswith("ni:///sha-256-96;")
    assert all(excerpt in TEXT for excerpt in excerpts)
