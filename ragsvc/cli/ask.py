"""``ragsvc search`` and ``ragsvc ask``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from ragsvc.cli.failures import CommandFailed
from ragsvc.cli.output import Output, shortened, table
from ragsvc.cli.service_client import Json, ServiceClient
from ragsvc.cli.target import Target, connect, require_documents

_QUOTE_WIDTH = 240


async def search(target: Target, body: Json, output: Output) -> None:
    """Search, and print passages in descending order of score."""
    async with connect(target, reads=True) as client:
        if target.url is None:
            await require_documents(client, target)
        answer = await client.post("/v1/rag/search", body)
    output.result(answer, lambda console: _show_hits(answer, console))


def _show_hits(answer: Json, console: Console) -> None:
    hits = answer["data"]
    if not hits:
        console.print("no passages found")
        return
    rows = [(f"{hit['score']:.3f}", hit["filename"], _page(hit), shortened(hit["quote"], _QUOTE_WIDTH)) for hit in hits]
    console.print(table("score", "file", "page", "passage", rows=rows, right=("score", "page")))


async def ask(target: Target, body: Json, output: Output, *, stream: bool) -> None:
    """Ask a chat model with RAG, and print the answer with its citations."""
    async with connect(target, reads=True) as client:
        if target.url is None:
            await require_documents(client, target)
        if stream:
            citations = await stream_answer(client, body, output.out)
            show_citations(citations, output.out)
            return
        answer = await client.post("/v1/chat/completions", body, timeout_s=600)
    output.result(answer, lambda console: _show_answer(answer, console))


def _show_answer(answer: Json, console: Console) -> None:
    message = answer["choices"][0]["message"]
    console.print(escape(message.get("content") or ""))
    show_citations(message.get("annotations") or [], console)


async def stream_answer(client: ServiceClient, body: Json, console: Console) -> list[Json]:
    """Print the answer as it arrives; returns its citations.

    Raises:
        CommandFailed: the answer ended with an error. The line of the text before it is complete.
    """
    citations: list[Json] = []
    begun = False
    try:
        async with client.events("POST", "/v1/chat/completions", {**body, "stream": True}, silence_s=600) as events:
            async for event in events:
                if "error" in event:
                    raise CommandFailed(
                        event["error"].get("message") or "the answer ended early",
                        code=event["error"].get("code") or "error",
                    )
                for choice in event.get("choices", ()):
                    delta: dict[str, Any] = choice.get("delta") or {}
                    citations += delta.get("annotations") or []
                    text = delta.get("content") or ""
                    begun = begun or bool(text)
                    console.print(escape(text), end="")
                    console.file.flush()
    finally:
        if begun:
            console.print()  # also before an error message
    return citations


def show_citations(citations: Sequence[Json], console: Console) -> None:
    """Print a table of the quotes."""
    if not citations:
        return
    console.print()
    rows = [
        (
            f"[{citation['index']}]",
            citation["filename"],
            _page(citation),
            f"“{shortened(citation['quote'], _QUOTE_WIDTH)}”",
        )
        for citation in _distinct(citations)
    ]
    console.print(table("", "file", "page", "quote", rows=rows, right=("page",)))


def _distinct(citations: Sequence[Json]) -> list[Json]:
    """A citation for each quote: several quotes of a passage have the number of the passage."""
    return list({(entry["index"], entry["page"], entry["quote"]): entry for entry in citations}.values())


def _page(place: Json) -> str:
    """The page number, and the printed page label where it differs."""
    label = place.get("page_label")
    return str(place["page"]) if label in (None, str(place["page"])) else f"{place['page']} ({label})"
