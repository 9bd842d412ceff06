"""The Model Context Protocol at /mcp, with the official SDK's client in its current and its previous version."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import httpx2
import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import ROOT, create_key, service_environment
from tests.support.command import at_data, ragsvc

pytestmark = [pytest.mark.model, pytest.mark.anyio]

REPORT = text_pdf([["The lighthouse lamp consumed 4,711 litres of oil in 1903."], ["The keeper was paid 12 pounds."]])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def session(url: str, key: str) -> AsyncIterator[ClientSession]:
    async with (
        httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=60) as http,
        streamable_http_client(f"{url}/mcp", http_client=http) as streams,
        ClientSession(*streams[:2]) as client,
    ):
        await client.initialize()
        yield client


@pytest.fixture
def report(tenant) -> str:
    return tenant.upload(REPORT, filename="lighthouse.pdf").json()["id"]


async def test_the_tools_are_those_of_the_key(tenant):
    async with session(tenant.service.url, tenant.key) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {"search", "fetch", "ask", "list_documents", "add_document"}
    assert tools["search"].input_schema["required"] == ["query"]
    assert tools["search"].input_schema["properties"]["query"]["type"] == "string"
    assert tools["search"].annotations.read_only_hint
    assert not tools["add_document"].annotations.read_only_hint

    reader = create_key(tenant.service.data_dir, tenant=tenant.name, extra=("--scope", "search"))
    async with session(tenant.service.url, reader) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["search"]
        refused = await client.call_tool("add_document", {"filename": "a.txt", "text": "a"})
        assert refused.is_error
        assert "lacks scope 'documents.write'" in refused.content[0].text


async def test_search_and_fetch_have_the_shape_of_connectors(tenant, report):
    async with session(tenant.service.url, tenant.key) as client:
        found = await client.call_tool("search", {"query": "How much oil did the lamp consume?"})
        assert json.loads(found.content[0].text) == found.structured_content
        best = found.structured_content["results"][0]
        assert best["id"] == f"{report}#page=1"
        assert best["title"] == "lighthouse.pdf, page 1"
        assert "4,711 litres" in best["text"]
        assert best["url"] == f"{tenant.service.url}/v1/rag/documents/{report}/content#page=1"

        page = (await client.call_tool("fetch", {"id": best["id"]})).structured_content
        assert {"id", "title", "text", "url", "metadata"} <= set(page)
        assert page["text"] == "The lighthouse lamp consumed 4,711 litres of oil in 1903."
        whole = (await client.call_tool("fetch", {"id": report})).structured_content
        assert whole["text"].startswith("[Page 1]\nThe lighthouse")
        assert "12 pounds" in whole["text"]
        assert (whole["metadata"]["first_page"], whole["metadata"]["last_page"]) == (1, 2)
        assert "next" not in whole["metadata"]


async def test_a_long_document_is_fetched_in_parts(tenant):
    text = "\f".join(f"Page {number} of the ledger. " + "The harbour is deep. " * 500 for number in range(1, 11))
    document = tenant.add_text(text, filename="ledger.txt")
    async with session(tenant.service.url, tenant.key) as client:
        seen, identifier = [], document
        while identifier:
            part = (await client.call_tool("fetch", {"id": identifier})).structured_content
            assert len(part["text"]) < 42_000
            seen += [number for number in range(1, 11) if f"Page {number} of the ledger" in part["text"]]
            identifier = part["metadata"].get("next")
            assert identifier is None or identifier in part["text"]
    assert seen == list(range(1, 11))


async def test_ask_answers_with_citations_and_reports_progress(tenant, report):
    reports: list[tuple[float, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        reports.append((done, message))

    async with session(tenant.service.url, tenant.key) as client:
        question = {"question": "How many litres of oil did the lighthouse lamp consume in 1903?"}
        answer = await client.call_tool("ask", question, progress_callback=progress)
    assert not answer.is_error
    assert "4,711 litres" in answer.structured_content["answer"]
    citation = answer.structured_content["citations"][0]
    assert (citation["id"], citation["title"]) == (f"{report}#page=1", "lighthouse.pdf, page 1")
    assert citation["quote"] in "The lighthouse lamp consumed 4,711 litres of oil in 1903."
    assert "[1] lighthouse.pdf, page 1" in answer.content[0].text
    assert reports[0][1] == "Asking local/chat-model"


async def test_documents_are_added_and_listed(tenant):
    async with session(tenant.service.url, tenant.key) as client:
        added = await client.call_tool("add_document", {"filename": "crane.txt", "text": "The crane lifts 11 tonnes."})
        assert added.structured_content["status"] == "ready", added.content
        encoded = base64.b64encode(REPORT).decode()
        pdf = await client.call_tool("add_document", {"filename": "lighthouse.pdf", "content_base64": encoded})
        assert pdf.structured_content["pages"] == 2
        listed = (await client.call_tool("list_documents", {"limit": 1})).structured_content
        assert [document["filename"] for document in listed["documents"]] == ["lighthouse.pdf"]
        after = await client.call_tool("list_documents", {"limit": 1, "after": listed["next"]})
        assert [document["filename"] for document in after.structured_content["documents"]] == ["crane.txt"]
        assert "next" not in after.structured_content
    assert tenant.search("What does the crane lift?")[0]["filename"] == "crane.txt"


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("search", {}, "'query' is required."),
        ("search", {"query": "x", "limit": 1000}, "'limit'"),
        ("search", {"query": "x", "colection": "y"}, "'colection' is not a known field."),
        ("search", {"query": "x", "collection": "nowhere"}, "There is no collection 'nowhere'."),
        ("fetch", {"id": "doc_unknown"}, "doc_unknown"),
        ("fetch", {"id": "not#an#id"}, "expected the id of a document"),
        ("ask", {"question": "x", "model": "nothing"}, "nothing"),
        ("add_document", {"filename": "a.txt"}, "either 'text' or 'content_base64'"),
        ("add_document", {"filename": "a.pdf", "content_base64": "%%%"}, "expected base64"),
        ("add_document", {"filename": "a.exe", "content_base64": "TVqQAAMAAAA="}, "cannot be read"),
        ("no_such_tool", {}, "There is no tool 'no_such_tool'"),
    ],
)
async def test_a_model_reads_what_is_wrong(tenant, report, tool, arguments, words):
    async with session(tenant.service.url, tenant.key) as client:
        refused = await client.call_tool(tool, arguments)
    assert refused.is_error
    assert words in refused.content[0].text


async def test_null_means_not_given(tenant, report):
    async with session(tenant.service.url, tenant.key) as client:
        found = await client.call_tool("search", {"query": "oil", "filters": None, "limit": None})
    assert not found.is_error


async def test_documents_and_pages_are_resources(tenant, new_tenant, report):
    async with session(tenant.service.url, tenant.key) as client:
        (resource,) = (await client.list_resources()).resources
        assert (resource.uri, resource.name) == (f"ragsvc://documents/{report}", "lighthouse.pdf")
        (template,) = (await client.list_resource_templates()).resource_templates
        page = await client.read_resource(template.uri_template.replace("{document}", report).replace("{page}", "2"))
        assert page.contents[0].text == "The keeper was paid 12 pounds."
        whole = await client.read_resource(resource.uri)
        assert "4,711" in whole.contents[0].text
        for missing in (f"ragsvc://documents/{report}/pages/3", "ragsvc://documents/doc_none", "file:///etc/passwd"):
            with pytest.raises(MCPError):
                await client.read_resource(missing)
    other = new_tenant()
    async with session(other.service.url, other.key) as client:
        assert (await client.list_resources()).resources == []
        with pytest.raises(MCPError):
            await client.read_resource(f"ragsvc://documents/{report}")
        foreign = await client.call_tool("fetch", {"id": report})
        assert foreign.is_error


async def test_a_key_for_collections_sees_no_others(tenant, report):
    kept = tenant.add_text("The crane lifts 11 tonnes.", filename="crane.txt", collection="harbour")
    limited = create_key(tenant.service.data_dir, tenant=tenant.name, extra=("--collection", "harbour"))
    async with session(tenant.service.url, limited) as client:
        assert [each.name for each in (await client.list_resources()).resources] == ["crane.txt"]
        assert (await client.call_tool("search", {"query": "oil"})).is_error
        assert (await client.call_tool("fetch", {"id": report})).is_error
        listed = (await client.call_tool("list_documents", {})).structured_content
        assert [document["id"] for document in listed["documents"]] == [kept]


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}
ACCEPT = {"accept": "application/json, text/event-stream"}


def test_the_previous_protocol_version_is_served(tenant):
    reply = tenant.http.post("/mcp", json=INITIALIZE, headers=ACCEPT)
    assert reply.status_code == 200
    event = json.loads(reply.text.partition("data: ")[2].splitlines()[0])
    assert event["result"]["protocolVersion"] == "2025-11-25"
    assert event["result"]["serverInfo"]["name"] == "ragsvc"
    headers = {**ACCEPT, "mcp-protocol-version": "2025-11-25"}
    listed = tenant.http.post("/mcp", json={"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, headers=headers)
    assert "list_documents" in listed.text


def test_requests_without_a_key_and_too_large_ones_are_refused(service, tenant):
    with httpx.Client(base_url=service.url) as http:
        assert http.post("/mcp", json=INITIALIZE, headers=ACCEPT).status_code == 401
    large = tenant.http.post("/mcp", content=b" " * (2 << 20), headers={**ACCEPT, "content-type": "application/json"})
    assert large.status_code == 413
    assert large.json()["error"]["code"] == "request_too_large"
    assert (
        tenant.http.post("/mcp", content=b"{", headers={**ACCEPT, "content-type": "application/json"}).status_code
        == 400
    )


@pytest.mark.parametrize("place", ["a running service", "a data directory"])
async def test_the_command_serves_standard_input_and_output(tenant, report, tmp_path, place):
    if place == "a running service":
        where = ["--url", tenant.service.url]
        env = {"RAGSVC_API_KEY": tenant.key}
    else:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "lighthouse.pdf").write_bytes(REPORT)
        assert ragsvc("ingest", str(tmp_path / "in"), env=at_data(tmp_path / "data")).code == 0
        where = ["--data-dir", str(tmp_path / "data")]
        env = {}
    command = StdioServerParameters(
        command=sys.executable,
        args=["-m", "ragsvc", "mcp", *where],
        env=service_environment(tmp_path / "data", env),
        cwd=str(ROOT),
    )
    async with stdio_client(command) as streams, ClientSession(*streams) as client:
        await client.initialize()
        assert "search" in {tool.name for tool in (await client.list_tools()).tools}
        found = await client.call_tool("search", {"query": "How much oil did the lamp consume?"})
        assert "4,711 litres" in found.structured_content["results"][0]["text"]
        wrong = await client.call_tool("fetch", {"id": "doc_unknown"})
        assert wrong.is_error


async def test_the_command_answers_every_request(tenant):
    process = await anyio.open_process(
        [sys.executable, "-m", "ragsvc", "mcp", "--url", tenant.service.url],
        env=service_environment(Path("unused"), {"RAGSVC_API_KEY": f"{tenant.key}x"}),
        cwd=ROOT,
    )
    async with process:
        await process.stdin.send(b"no json\n" + json.dumps(INITIALIZE).encode() + b"\n")
        await process.stdin.aclose()
        output = b"".join([chunk async for chunk in process.stdout])
    answers = {answer["id"]: answer["error"] for answer in map(json.loads, output.splitlines())}
    assert answers[None]["code"] == -32700
    assert "key" in answers[1]["message"]
