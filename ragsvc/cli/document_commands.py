"""``ragsvc documents``: list, show, delete, retry."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from ragsvc.cli.failures import CommandFailed
from ragsvc.cli.output import Output, shortened, table
from ragsvc.cli.service_client import Json
from ragsvc.cli.target import Target, connect, require_documents
from ragsvc.core.byte_sizes import size


async def list_some(target: Target, asked: Mapping[str, Any], limit: int, output: Output) -> None:
    """Print at most ``limit`` documents, newest first."""
    found: list[Json] = []
    async with connect(target, reads=True) as client:
        async for document in client.pages("/v1/rag/documents", {**asked, "limit": min(limit, 100)}):
            found.append(document)
            if len(found) >= limit:
                break
        if not found and target.url is None:
            try:
                await require_documents(client, target)
            except CommandFailed as failure:
                output.note(failure.message)

    def show(console: Console) -> None:
        rows = [
            (
                document["id"],
                _status(document),
                document["pages"],
                document["passages"],
                size(document["bytes"]),
                document["filename"],
                _remark(document),
            )
            for document in found
        ]
        columns = ("id", "status", "pages", "passages", "size", "file", "remark")
        console.print(table(*columns, rows=rows, right=("pages", "passages", "size")))

    output.result({"object": "list", "data": found}, show)


async def show(target: Target, document_id: str, output: Output) -> None:
    """Print the details of a document."""
    async with connect(target, reads=True) as client:
        document = await client.get(f"/v1/rag/documents/{document_id}")
    output.result(document, lambda console: _show(document, console))


async def delete(target: Target, document_ids: Sequence[str], output: Output) -> None:
    """Delete documents. Unknown ids do not stop the others; the first failure is raised at the end."""
    deleted: list[str] = []
    failures: list[CommandFailed] = []
    async with connect(target, reads=True) as client:
        for document_id in document_ids:
            try:
                await client.delete(f"/v1/rag/documents/{document_id}")
                deleted.append(document_id)
            except CommandFailed as failure:
                if failure.status != 404:
                    raise
                failures.append(failure)
    report = {"object": "list", "deleted": deleted, "failed": [failure.message for failure in failures]}

    def show_deleted(console: Console) -> None:
        for document_id in deleted:
            console.print(escape(f"deleted {document_id}"))

    output.result(report, show_deleted)
    if failures:
        raise failures[0]


async def retry(target: Target, document_id: str, password: str | None, output: Output) -> None:
    """Retry a failed document, and follow it until it is ready or failed."""
    async with connect(target, reads=True) as client:
        path = f"/v1/rag/documents/{document_id}"
        queued = await client.post(f"{path}/retry", {} if password is None else {"password": password})
        document = await client.follow(queued)
    output.result(document, lambda console: _show(document, console))
    if document["status"] != "ready":
        raise CommandFailed(_remark(document) or "the document is not ready", code="document_failed")


def _status(document: Json) -> str:
    if document["status"] in ("ready", "failed", "queued"):
        return str(document["status"])
    return f"{document['stage']} {document['progress']:.0%}"


def _remark(document: Json) -> str:
    if document["error"] is not None:
        return shortened(document["error"]["message"], 100)
    problems = len(document["problems"])
    return f"{problems} page problem{'s' if problems > 1 else ''}" if problems else ""


def _show(document: Json, console: Console) -> None:
    lines: list[tuple[str, object]] = [
        ("id", document["id"]),
        ("file", document["filename"]),
        ("title", document["title"] or "-"),
        ("collection", document["collection"]),
        ("status", _status(document)),
        ("size", f"{size(document['bytes'])}, sha256 {document['sha256']}"),
        ("pages", f"{document['pages_done']} of {document['pages']}"),
        ("passages", f"{document['passages_done']} of {document['passages']}"),
        ("model", document["embedding_model"] or "-"),
        ("added", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(document["created_at"]))),
    ]
    lines += [(f"  {name}", f"{seconds:.2f} s") for name, seconds in document["timings"].items()]
    lines += [(f"  {key}", value) for key, value in document["metadata"].items()]
    if document["error"] is not None:
        lines.append(("failed", f"{document['error']['message']} ({document['error']['code']})"))
    for name, value in lines:
        console.print(escape(f"{name:<11} {value}"))
    for problem in document["problems"]:
        console.print(escape(f"{'problem':<12}{problem['message']}"), style="yellow")
