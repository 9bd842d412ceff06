"""Scans in front of the queue hold up neither documents with text nor their own text pages."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from pypdf import PdfReader, PdfWriter

from ragsvc.core.access.principal import Scope
from ragsvc.testing.pdf_builder import make_scan
from ragsvc.testing.sample_pdfs import text_pdf
from tests.support.service_in_process import ServiceInProcess

REPORT = Path(__file__).parents[2] / "fixtures/documents/apple-10-q-2023-07-01.pdf"
SCANNED_PAGES = 8
DECKS = 3
PDF = {"content-type": "application/pdf"}


def deck(word: str) -> bytes:
    """A page of text with a word of its own, and scanned pages."""
    writer = PdfWriter()
    for page in PdfReader(io.BytesIO(text_pdf([[f"The code word of this deck is {word}."]]))).pages:
        writer.add_page(page)
    for number in range(SCANNED_PAGES):
        writer.append(io.BytesIO(make_scan(REPORT, 4 + number)))
    content = io.BytesIO()
    writer.write(content)
    return content.getvalue()


@pytest.mark.timeout(240)
def test_a_text_behind_scans_is_ready_before_them(tmp_path: Path) -> None:
    with ServiceInProcess(tmp_path, parse_workers="1", ingest_workers="1") as service:
        key = service.new_key("acme", Scope.DOCUMENTS_READ, Scope.DOCUMENTS_WRITE, Scope.SEARCH)

        def upload(name: str, content: bytes, *, wait_s: int) -> dict:
            path = f"/v1/rag/documents?filename={name}&wait_s={wait_s}"
            return service.request("POST", path, key=key, content=content, headers=PDF).json()

        decks = [upload(f"deck{number}.pdf", deck(f"zebra{number}"), wait_s=0) for number in range(DECKS)]
        text = upload("text.pdf", text_pdf([["The walrus sleeps on the ice."]]), wait_s=120)
        states = [service.request("GET", f"/v1/rag/documents/{each['id']}", key=key).json() for each in decks]
        assert text["status"] == "ready"
        assert [state["status"] for state in states] == ["processing"] * DECKS
        for number in range(DECKS):  # one is recognised, the others wait; their text pages are read
            body = {"query": f"zebra{number}", "mode": "lexical"}
            found = service.request("POST", "/v1/rag/search", key=key, json=body).json()["data"]
            assert [hit["filename"] for hit in found] == [f"deck{number}.pdf"]
        for each in decks:
            service.request("DELETE", f"/v1/rag/documents/{each['id']}", key=key)
        body = {"query": "code word zebra0 zebra1 zebra2", "mode": "lexical"}
        assert service.request("POST", "/v1/rag/search", key=key, json=body).json()["data"] == []
