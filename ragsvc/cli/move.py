"""``ragsvc migrate-to``: rows into another database, files to another place; no service may be running."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import anyio.to_thread
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ragsvc.cli.failures import usage_error
from ragsvc.cli.output import Output
from ragsvc.cli.target import Target, keep_private
from ragsvc.config import Settings
from ragsvc.core.byte_sizes import size
from ragsvc.wiring.move import MoveResult, Show, move

OWN = "directory"
"""The word for the data directory itself: its file ``ragsvc.sqlite``, or its folder ``blobs``."""


async def migrate(
    target: Target, output: Output, *, database: str | None, files: str | None, from_scratch: bool
) -> None:
    """Move rows to ``database`` and files to ``files``; ``None`` leaves them where they are."""
    keep_private()
    present = target.settings()
    environment: dict[str, str] = {}
    if database is not None and database != OWN:
        environment["RAGSVC_DATABASE_URL"] = database
    if files is not None and files != OWN:
        environment["RAGSVC_FILES_URL"] = files
    named = Settings.from_env(environment)  # reports a URL that is none
    future = msgspec.structs.replace(
        present,
        database_url=present.database_url if database is None else named.database_url,
        files_url=present.files_url if files is None else named.files_url,
    )
    if (future.database_url, future.files_url) == (present.database_url, present.files_url):
        raise usage_error("everything is there already: name another database, or another place with --files")
    with _bars(output) as show:
        result = await anyio.to_thread.run_sync(lambda: move(present, future, from_scratch=from_scratch, show=show))
    output.result(_document(result, future), lambda console: _print(result, future, console))


@contextmanager
def _bars(output: Output) -> Generator[Show]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=output.err, disable=output.as_json, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done)

        yield show


def _document(result: MoveResult, future: Settings) -> dict[str, Any]:
    return {
        "object": "migration",
        "database_url": future.redacted()["database_url"],
        "files_url": future.files_url,
        "rows": None if result.tables is None else {table.name: table.rows for table in result.tables},
        "files": result.files,
    }


def _print(result: MoveResult, future: Settings, console: Console) -> None:
    if result.files is not None:
        files = result.files
        console.print(f"{files.files} files ({size(files.size_bytes)}) are in the new place, compared by SHA-256.")
        if files.others:
            console.print(
                f"{files.others} more files in the new place belong to no document: the start quarantines them."
            )
        console.print(_setting("RAGSVC_FILES_URL", future.files_url))
    if result.tables is not None:
        rows = sum(table.rows for table in result.tables)
        console.print(f"{rows} rows of {len(result.tables)} tables are in the new database, compared by SHA-256.")
        console.print(_setting("RAGSVC_DATABASE_URL", future.database_url))


def _setting(name: str, url: str | None) -> str:
    """The URL is not shown: it may have a password."""
    return f"{'Unset' if url is None else 'Set'} {name}{'' if url is None else ' to this place'} before the next start."
