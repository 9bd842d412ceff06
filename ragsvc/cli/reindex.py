"""``ragsvc reindex``: deletes the indexes, rebuilds them from the database, and compares the two."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import anyio
import anyio.to_thread
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ragsvc.cli.failures import CommandFailed
from ragsvc.cli.logs import log_to_standard_error
from ragsvc.cli.output import Output, table
from ragsvc.cli.target import Target, keep_private
from ragsvc.config import Settings
from ragsvc.store.data_keys import DATABASE_FILE_NAME
from ragsvc.store.directory_lock import DataDirectoryLock
from ragsvc.store.document_rows import count_by_status, list_collections
from ragsvc.store.reingest import forget_embeddings, unfinished_jobs
from ragsvc.wiring.open_database import open_database
from ragsvc.wiring.services import Services, open_services

_POLL_S = 0.3


class CollectionResult(msgspec.Struct, frozen=True):
    """A collection after the rebuild; ``ok`` if both indexes agree with the database."""

    tenant: str
    collection: str
    passages: int
    kind: str
    ok: bool


class ReindexReport(msgspec.Struct, frozen=True, kw_only=True):
    object: str = "reindex.report"
    embeddings: bool
    documents_failed: int
    seconds: float
    collections: list[CollectionResult]


async def reindex(target: Target, output: Output, *, embeddings: bool) -> None:
    """Rebuild all indexes.

    Raises:
        DataDirectoryLocked: a service is running.
        CommandFailed: a document failed, or an index still differs from the database.
    """
    keep_private()
    settings = target.settings()
    if settings.database_url is None and not (settings.data_dir / DATABASE_FILE_NAME).is_file():
        raise CommandFailed(f"{settings.data_dir} is not a data directory of ragsvc", code="no_data")
    log_to_standard_error("warning")
    started = time.monotonic()
    await anyio.to_thread.run_sync(_drop, settings, embeddings)
    async with open_services(settings) as services:
        failed_before = await _failed(services)
        await _wait_for_jobs(services, output)
        results = [
            await anyio.to_thread.run_sync(_rebuild, services, collection.id, collection.tenant, collection.name)
            for collection in await services.database.read(list_collections)
        ]
        failed = await _failed(services) - failed_before
    report = ReindexReport(
        embeddings=embeddings,
        documents_failed=failed,
        seconds=round(time.monotonic() - started, 2),
        collections=results,
    )
    output.result(report, lambda console: _show(report, console))
    if failed or not all(result.ok for result in results):
        raise CommandFailed("not everything could be rebuilt; see 'ragsvc doctor'", code="reindex_incomplete")


def _drop(settings: Settings, embeddings: bool) -> None:
    data_dir = settings.data_dir
    lock = DataDirectoryLock(data_dir)
    lock.acquire()
    try:
        shutil.rmtree(data_dir / "derived", ignore_errors=True)
        if embeddings:
            database = open_database(settings, settings.open_data_keys())
            try:
                database.write_sync(lambda connection: forget_embeddings(connection, now=int(time.time())))
            finally:
                database.close()
    finally:
        lock.release()


async def _wait_for_jobs(services: Services, output: Output) -> None:
    """Wait until every queued document has its vectors."""
    jobs, total = await services.database.read(unfinished_jobs)
    if not jobs:
        return
    with _bar(output, "embedding passages", total) as show:
        while jobs:
            await anyio.sleep(_POLL_S)
            jobs, left = await services.database.read(unfinished_jobs)
            show(total - left)


@contextmanager
def _bar(output: Output, words: str, total: int) -> Generator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=output.err, disable=output.as_json, transient=True) as progress:
        task = progress.add_task(words, total=total)
        yield lambda done: progress.update(task, completed=done)


async def _failed(services: Services) -> int:
    return (await services.database.read(count_by_status)).get("failed", 0)


def _rebuild(services: Services, collection_id: int, tenant: str, name: str) -> CollectionResult:
    services.indexes.catch_up(collection_id)
    report = services.indexes.verify(collection_id)
    return CollectionResult(tenant, name, report.passages, report.kind, report.ok)


def _show(report: ReindexReport, console: Console) -> None:
    rows = [
        (result.tenant, result.collection, result.passages, result.kind, "ok" if result.ok else "DIFFERS")
        for result in report.collections
    ]
    console.print(table("tenant", "collection", "passages", "kind", "indexes", rows=rows, right=("passages",)))
    console.print(f"rebuilt in {report.seconds:.1f} s")
