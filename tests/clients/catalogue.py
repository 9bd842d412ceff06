"""The clients that the tests run against the service, and what each does with it.

The table of ``docs/reference/clients.md`` is generated from this list; a test exists for each entry of ``features``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent

COLUMNS = {
    "chat": "chat",
    "stream": "stream",
    "citations": "citations",
    "tools": "tools",
    "embeddings": "embeddings",
    "mcp": "MCP",
    "responses": "Responses with `file_search`",
    "vector stores": "files and vector stores",
}
"""Features that have a column in the table, with its heading."""

CHAT = ("chat", "stream", "tools")
RESPONSES = ("responses", "streamed responses")
CITATIONS = ("citations", "streamed citations")


class Client(NamedTuple):
    """A client, the program that uses it, and the features that the program tries."""

    name: str
    package: str
    environment: str
    program: str
    features: tuple[str, ...]
    recipe: str = ""
    """The anchor of the recipe in ``docs/howto/use-a-framework.md`` that shows citations with this client."""

    @property
    def version(self) -> str:
        """The version that ``requirements/`` or ``packages/`` pins."""
        if self.program.endswith(".mjs"):
            package = json.loads((HERE / "packages" / self.environment / "package.json").read_text(encoding="utf-8"))
            return package["dependencies"][self.package]
        pins = (HERE / "requirements" / f"{self.environment}.txt").read_text(encoding="utf-8")
        found = re.search(rf"^{re.escape(self.package)}(?:\[[\w,-]+\])?==(\S+)$", pins, re.MULTILINE)
        assert found is not None, f"{self.package} has no pin in {self.environment}.txt"
        return found[1]

    def has(self, feature: str) -> bool:
        """Whether the client is tried with ``feature``, by its program or by a recipe."""
        return feature in self.features or (feature == "citations" and self.recipe != "")


CLIENTS = [
    Client(
        "OpenAI for Python",
        "openai",
        "openai-3",
        "openai_python.py",
        (*CHAT, *CITATIONS, "embeddings", *RESPONSES, "vector stores"),
    ),
    Client(
        "OpenAI for Node",
        "openai",
        "clients",
        "openai_node.mjs",
        (*CHAT, *CITATIONS, "embeddings", *RESPONSES, "vector stores"),
    ),
    Client(
        "LiteLLM SDK",
        "litellm",
        "openai-3",
        "litellm_sdk.py",
        (*CHAT, *CITATIONS, "embeddings", *RESPONSES, "vector stores"),
    ),
    Client(
        "LiteLLM proxy",
        "litellm",
        "openai-2",
        "litellm_proxy.py",
        (*CHAT, *CITATIONS, "embeddings", *RESPONSES, "vector stores"),
    ),
    Client(
        "pydantic-ai",
        "pydantic-ai-slim",
        "openai-3",
        "pydantic_ai_agents.py",
        (*CHAT, *CITATIONS, "embeddings", *RESPONSES),
    ),
    Client(
        "AI SDK, `openai`",
        "@ai-sdk/openai",
        "clients",
        "ai_sdk_openai.mjs",
        (*CHAT, "embeddings", *RESPONSES),
    ),
    Client(
        "AI SDK, `openai.chat`",
        "@ai-sdk/openai",
        "clients",
        "ai_sdk_openai_chat.mjs",
        (*CHAT, *CITATIONS, "embeddings"),
        recipe="ai-sdk",
    ),
    Client(
        "AI SDK, `openai-compatible`",
        "@ai-sdk/openai-compatible",
        "clients",
        "ai_sdk_openai_compatible.mjs",
        (*CHAT, "cited text", "embeddings"),
        recipe="ai-sdk-openai-compatible",
    ),
    Client(
        "OpenAI Agents for Python",
        "openai-agents",
        "openai-3",
        "openai_agents_python.py",
        (*CHAT, *CITATIONS, "mcp", *RESPONSES),
    ),
    Client(
        "OpenAI Agents for JavaScript",
        "@openai/agents",
        "clients",
        "openai_agents_node.mjs",
        (*CHAT, *CITATIONS, "mcp", *RESPONSES),
    ),
    Client(
        "LangChain for Python",
        "langchain-openai",
        "openai-3",
        "langchain_python.py",
        (*CHAT, "embeddings", "token arrays", *RESPONSES),
        recipe="langchain",
    ),
    Client(
        "LangChain for JavaScript",
        "@langchain/openai",
        "clients",
        "langchain_node.mjs",
        (*CHAT, "embeddings", *RESPONSES),
    ),
    Client(
        "LlamaIndex",
        "llama-index-llms-openai-like",
        "openai-2",
        "llama_index_python.py",
        (*CHAT, "embeddings", *RESPONSES),
        recipe="llamaindex",
    ),
    Client(
        "Haystack",
        "haystack-ai",
        "openai-3",
        "haystack_components.py",
        (*CHAT, "embeddings", *RESPONSES),
        recipe="haystack",
    ),
    Client(
        "OGX (Llama Stack)",
        "ogx-client",
        "openai-3",
        "ogx_client_python.py",
        ("chat", "stream", "citations", "embeddings", "models", *RESPONSES, "vector stores"),
    ),
    Client(
        "Llama Stack",
        "llama-stack-client",
        "openai-3",
        "llama_stack_python.py",
        ("chat", "stream", "citations", "embeddings", *RESPONSES, "vector stores"),
    ),
    Client("fastmcp", "fastmcp", "openai-3", "fastmcp_client.py", ("mcp", "citations", "mcp resources")),
    Client(
        "MCP inspector, command line",
        "@modelcontextprotocol/inspector",
        "clients",
        "mcp_inspector.mjs",
        ("mcp", "citations", "mcp resources"),
    ),
]


def table() -> str:
    """A row for each client with its version and features."""
    rows = ["| client | version | " + " | ".join(COLUMNS.values()) + " |", "|---|---|" + "---|" * len(COLUMNS)]
    for client in CLIENTS:
        cells = []
        for feature in COLUMNS:
            by_recipe = f"[recipe](../howto/use-a-framework.md#{client.recipe})"
            cells.append("yes" if feature in client.features else by_recipe if client.has(feature) else "")
        rows.append(f"| {client.name} | {client.version} | " + " | ".join(cells) + " |")
    return "\n".join(rows)
