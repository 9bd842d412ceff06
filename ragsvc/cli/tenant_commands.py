"""``ragsvc tenants`` and ``ragsvc collections``: call the API of a service, or of this process on a data directory."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.markup import escape

from ragsvc.cli.failures import CommandFailed
from ragsvc.cli.output import Output, table
from ragsvc.cli.service_client import Json
from ragsvc.cli.target import Target, connect
from ragsvc.core.byte_sizes import size

_NUMBERS = ("keys", "collections", "documents", "size")


async def list_all(target: Target, output: Output) -> None:
    async with connect(target, reads=True) as client:
        found = await client.get("/v1/tenants")

    def show(console: Console) -> None:
        rows = [
            (tenant["name"], tenant["keys"], tenant["collections"], tenant["documents"], size(tenant["bytes"]))
            for tenant in found["data"]
        ]
        console.print(table("tenant", *_NUMBERS, rows=rows, right=_NUMBERS))

    output.result(found, show)


async def show(target: Target, tenant: str, output: Output) -> None:
    async with connect(target, reads=True) as client:
        found = await client.get(_path(tenant))
    output.result(found, lambda console: _show(found, console))


async def update(target: Target, tenant: str, limits: dict[str, float | None], output: Output) -> None:
    async with connect(target, reads=True) as client:
        changed = await client.patch(_path(tenant), limits)
    output.result(changed, lambda console: _show(changed, console))


async def delete(target: Target, tenant: str, output: Output, *, remove_copies: bool) -> None:
    """Delete a tenant, and print what was removed."""
    async with connect(target, reads=True) as client:
        response = await client.request(
            "DELETE", _path(tenant), params={"remove_copies": remove_copies}, timeout_s=_LONG_S
        )
    deleted: Json = response.json()
    again = f"ragsvc tenants delete {shlex.quote(tenant)} --remove-copies"
    output.result(
        deleted, lambda console: _show_removed(f"tenant '{tenant}'", deleted["removed"], console, again=again)
    )


async def export(target: Target, tenant: str, file: Path, output: Output) -> None:
    """Write the archive of a tenant; an incomplete file is removed.

    Raises:
        CommandFailed: the file exists already, or cannot be written.
    """
    written = 0
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CommandFailed(f"cannot write {file}: {error.strerror}", code="file_unwritable") from error
    try:
        with os.fdopen(descriptor, "wb") as archive:
            async with connect(target, reads=True) as client, client.download(f"{_path(tenant)}/export") as chunks:
                async for chunk in chunks:
                    written += archive.write(chunk)
    except BaseException:
        os.unlink(file)  # noqa: PTH108 - the counterpart of os.open
        raise
    output.result(
        {"tenant": tenant, "file": str(file), "bytes": written},
        lambda console: console.print(escape(f"wrote {size(written)} to {file}")),
    )


async def list_collections(target: Target, output: Output) -> None:
    async with connect(target, reads=True) as client:
        found = await client.get("/v1/rag/collections")

    def show(console: Console) -> None:
        rows = [
            (entry["name"], entry["documents"], entry["ready"], entry["passages"], size(entry["bytes"]))
            for entry in found["data"]
        ]
        columns = ("documents", "ready", "passages", "size")
        console.print(table("collection", *columns, rows=rows, right=columns))

    output.result(found, show)


async def delete_collection(target: Target, name: str, output: Output, *, only_if_empty: bool) -> None:
    """Delete a collection, and print what was removed."""
    async with connect(target, reads=True) as client:
        response = await client.request(
            "DELETE",
            f"/v1/rag/collections/{quote(name)}",
            params={"only_if_empty": only_if_empty},
            timeout_s=_LONG_S,
        )
    deleted: Json = response.json()
    output.result(deleted, lambda console: _show_removed(f"collection '{name}'", deleted["removed"], console))


_LONG_S = 3600.0
"""A large deletion takes minutes, and its answer comes at the end."""


def _path(tenant: str) -> str:
    return f"/v1/tenants/{quote(tenant, safe='')}"


def _show(tenant: Json, console: Console) -> None:
    limits = tenant["limits"]
    lines: list[tuple[str, object]] = [
        ("tenant", tenant["name"]),
        ("keys", tenant["keys"]),
        ("collections", f"{tenant['collections']} of {_limit(limits['max_collections'])}"),
        ("documents", f"{tenant['documents']} of {_limit(limits['max_documents'])}"),
        ("stored", f"{tenant['bytes']} bytes of {_limit(limits['max_bytes'])}"),
        ("money left", _limit(limits["money_balance"])),
        ("money a day", _limit(limits["money_per_day"])),
    ]
    for name, value in lines:
        console.print(escape(f"{name:<13}{value}"))


def _limit(value: float | None) -> str:
    return "any number" if value is None else str(value)


def _show_removed(what: str, removed: dict[str, Any], console: Console, *, again: str = "") -> None:
    console.print(escape(f"deleted {what}"))
    for name, value in removed.items():
        if isinstance(value, int) and not isinstance(value, bool) and value:
            console.print(escape(f"  {name.replace('_', ' '):<15}{value}"))
    if not removed["log_emptied"]:
        console.print("  the database still holds deleted bytes: a file for a minute at most, PostgreSQL until VACUUM")
    for copy in removed["kept_copies"]:
        hint = f"'{again}' removes it" if again else "remove it if you no longer need it"
        console.print(escape(f"  {copy}, a copy from before an upgrade, still holds the data; {hint}"))
    for copy in removed["removed_copies"]:
        console.print(escape(f"  removed {copy}"))
