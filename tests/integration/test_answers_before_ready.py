"""Chat requests cite a document whose words are searchable and whose vectors are not stored yet."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from ragsvc.core.access.principal import Scope
from ragsvc.services.embedding_spaces import EmbeddingSpace
from ragsvc.testing.sample_pdfs import text_pdf
from tests.support.service_in_process import ServiceInProcess

PAGES = 80
PDF = {"content-type": "application/pdf"}
QUESTION = "When was the lighthouse of Warnemünde built?"


class HeldBatcher:
    """The batcher of a space, of which passages wait until ``go``."""

    def __init__(self, space: EmbeddingSpace) -> None:
        self._batcher = space.batcher
        self.go = anyio.Event()

    async def embed_passages(self, texts):
        await self.go.wait()
        return await self._batcher.embed_passages(texts)

    async def embed_query(self, text):
        return await self._batcher.embed_query(text)

    async def with_queries(self, texts, work):
        return await self._batcher.with_queries(texts, work)


def report() -> bytes:
    pages = [[f"Chapter {number} describes the harbour basin number {number}."] for number in range(PAGES)]
    pages[60].append("The lighthouse of Warnemünde was built in 1897.")
    return text_pdf(pages)


@pytest.mark.timeout(120)
def test_an_answer_cites_a_searchable_document(tmp_path: Path) -> None:
    with ServiceInProcess(tmp_path) as service:
        space = service.services.search._spaces.serving
        held = HeldBatcher(space)
        space.batcher = held
        scopes = (Scope.DOCUMENTS_READ, Scope.DOCUMENTS_WRITE, Scope.SEARCH, Scope.CHAT)
        key = service.new_key("acme", *scopes)
        path = "/v1/rag/documents?filename=harbour.pdf&wait_s=0"
        document = service.request("POST", path, key=key, content=report(), headers=PDF).json()

        async def until_searchable() -> list[str]:
            stages: list[str] = []
            async for state in service.services.documents.follow("acme", document["id"], every_s=30):
                if state is not None:
                    stages.append(state.stage.value)
                    if state.stage.value == "searchable":
                        break
            return stages

        assert service.portal.call(until_searchable)[-1] == "searchable"
        state = service.request("GET", f"/v1/rag/documents/{document['id']}", key=key).json()
        assert (state["status"], state["stage"], state["passages_done"]) == ("processing", "searchable", 0)
        body = {
            "model": "local/chat-model",
            "use_rag": True,
            "messages": [{"role": "user", "content": QUESTION}],
        }
        reply = service.request("POST", "/v1/chat/completions", key=key, json=body).json()
        message = reply["choices"][0]["message"]
        assert "1897" in message["content"]
        assert "harbour.pdf" in json.dumps(reply["citations"])
        assert {citation["page"] for citation in reply["citations"]} == {61}

        async def finish() -> str:
            held.go.set()
            return (await service.services.documents.wait("acme", document["id"], timeout_s=90)).status.value

        assert service.portal.call(finish) == "ready"
        again = service.request("POST", "/v1/chat/completions", key=key, json=body).json()
        assert "1897" in again["choices"][0]["message"]["content"]
