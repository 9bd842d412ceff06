"""The client of fastmcp."""

from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from reporting import API_KEY, DOCUMENT_ID, MCP_URL, QUESTION, report


def connected() -> Client:
    return Client(StreamableHttpTransport(MCP_URL, headers={"authorization": f"Bearer {API_KEY}"}))


async def mcp() -> dict:
    async with connected() as client:
        names = [tool.name for tool in await client.list_tools()]
        found = await client.call_tool("search", {"query": QUESTION})
    return {"tools": names, "results": found.structured_content["results"]}


async def mcp_citations() -> dict:
    async with connected() as client:
        answer = (await client.call_tool("ask", {"question": QUESTION})).structured_content
    sources = [{**citation, "type": "citation"} for citation in answer["citations"]]
    return {"text": answer["answer"], "sources": sources}


async def mcp_resources() -> dict:
    async with connected() as client:
        (page,) = await client.read_resource(f"ragsvc://documents/{DOCUMENT_ID}/pages/2")
        listed = [resource.name for resource in await client.list_resources()]
    return {"listed": listed, "page": page.text}


report("fastmcp", {"mcp": mcp, "citations": mcp_citations, "mcp resources": mcp_resources})
