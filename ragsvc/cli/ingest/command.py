"""``ragsvc ingest``: ingests folders of files. A repeated run processes only new and changed files."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
from rich.console import Console
from rich.markup import escape

from ragsvc.cli.failures import CommandFailed, ExitCode, usage_error
from ragsvc.cli.ingest.folders import FileSelection, Scan, ScanProblem, SourceFile, has_vanished, scan
from ragsvc.cli.ingest.plan import IngestAction, IngestPlan, IngestStep, KnownDocument, known_document, make_plan
from ragsvc.cli.ingest.progress import Display, IngestProgress, shown
from ragsvc.cli.ingest.transfer import FileOutcome, FileResult, Transfer, delete_document, each_file, hash_all
from ragsvc.cli.output import Output, shortened, table
from ragsvc.cli.service_client import ServiceClient
from ragsvc.cli.target import Target, connect
from ragsvc.core.byte_sizes import size
from ragsvc.core.defaults import DEFAULT_COLLECTION
from ragsvc.core.file_types import READABLE

_PATIENCE_S = 3600.0
_SHOWN_PROBLEMS = 20
_ATTACHMENTS_POLL_S = 0.5
_WORK = frozenset({IngestAction.ADD, IngestAction.REPLACE, IngestAction.RESUME, IngestAction.RETRY})


class IngestCommandOptions(msgspec.Struct, frozen=True, kw_only=True):
    sources: tuple[Path, ...]
    selection: FileSelection = FileSelection()
    collection: str = DEFAULT_COLLECTION
    metadata: Mapping[str, Any] = {}
    parallel: int = 4
    dry_run: bool = False
    prune: bool = False
    prune_all: bool = False
    retry_failed: bool = False
    report: Path | None = None


class IngestReport(msgspec.Struct, kw_only=True):
    """The result, for ``--json`` and ``--report``. ``pruned`` are the deleted documents.

    ``passed_over`` counts files of types that cannot be read, by suffix.
    """

    object: str = "ingest.report"
    collection: str
    dry_run: bool
    complete: bool = False
    started_at: int
    seconds: float = 0.0
    pages: int = 0
    pages_per_second: float = 0.0
    counts: dict[str, int] = {}
    files: list[FileOutcome] = []
    planned: dict[str, int] = {}
    pruned: list[dict[str, str]] = []
    problems: list[ScanProblem] = []
    links_passed_over: int = 0
    passed_over: dict[str, int] = {}


async def ingest(target: Target, options: IngestCommandOptions, output: Output) -> None:
    """Run the command. Raises ``CommandFailed`` (exit code 1) if a file failed."""
    found = await _scan(options)
    report = IngestReport(
        collection=options.collection,
        dry_run=options.dry_run,
        started_at=int(time.time()),
        problems=found.problems,
        links_passed_over=found.links_passed_over,
        passed_over=found.passed_over,
    )
    if not found.files and not options.prune:
        listed = f"; passed over: {passed_over_text(found.passed_over)}" if found.passed_over else ""
        raise CommandFailed(
            f"no file to ingest was found (see --include){listed}; can be read: {READABLE}", code="nothing_found"
        )
    output.note(f"{len(found.files)} files, {size(sum(file.size_bytes for file in found.files))}")
    started = time.monotonic()
    try:
        async with connect(target, patience_s=_PATIENCE_S) as client:
            await _Run(client, options, output, report).all(found)
        report.complete = True
    finally:
        report.seconds = round(time.monotonic() - started, 2)
        report.counts = dict(sorted(Counter(outcome.result.value for outcome in report.files).items()))
        if report.seconds:
            report.pages_per_second = round(report.pages / report.seconds, 1)
        _write_report(options.report, report)
    output.result(report, lambda console: _show(report, console))
    failed = report.counts.get("failed", 0)
    if failed or report.problems:
        raise CommandFailed(
            f"{failed} of {len(report.files)} files failed"
            + (f", {len(report.problems)} could not be read" if report.problems else ""),
            code="ingest_failed",
        )


async def _scan(options: IngestCommandOptions) -> Scan:
    try:
        return await anyio.to_thread.run_sync(scan, options.sources, options.selection)
    except FileNotFoundError as error:
        raise usage_error(f"'{error.filename}' does not exist") from error
    except OSError as error:
        raise usage_error(f"'{error.filename}': {error.strerror}") from error


class _Run:
    """One run. Fills the report as it goes, so that an interrupted run has a report as well."""

    def __init__(
        self, client: ServiceClient, options: IngestCommandOptions, output: Output, report: IngestReport
    ) -> None:
        self._client = client
        self._options = options
        self._output = output
        self._report = report

    async def all(self, found: Scan) -> None:
        known = await self._known()
        hashed, failures = await hash_all(found.files, parallel=self._options.parallel, done=lambda _: None)
        self._report.files += failures
        plan = make_plan(
            hashed,
            known,
            folders=found.folders,
            retry_failed=self._options.retry_failed,
            vanished=has_vanished,
        )
        self._report.planned = dict(sorted(Counter(step.action.value for step in plan.steps).items()))
        vanished = plan.vanished if self._options.prune else []
        self._check_prune(plan, vanished, known)
        if self._options.dry_run:
            self._report.files += [_dry(step) for step in plan.steps]
            self._report.pruned = [{"id": document.id, "path": document.source or ""} for document in vanished]
            return
        await self._carry_out(plan)
        await self._wait_for_attachments()
        for document in vanished:
            await delete_document(self._client, document.id)
            self._report.pruned.append({"id": document.id, "path": document.source or ""})

    async def _wait_for_attachments(self) -> None:
        """Wait for the files attached to the ingested ones: a service in this process stops with the command."""
        results = (FileResult.ADDED, FileResult.REPLACED)
        ingested = {outcome.document_id for outcome in self._report.files if outcome.result in results}
        params = {"collection": self._options.collection, "status": "queued,processing"}
        # an attachment can be ready, and its own attachments unfinished, before it is first listed
        parents: dict[str, str | None] = {}

        async def belongs(document: str | None) -> bool:
            while document is not None and document not in ingested:
                if document not in parents:
                    parents[document] = await self._parent(document)
                document = parents[document]
            return document is not None

        while ingested:
            unfinished = [
                entry["id"]
                async for entry in self._client.pages("/v1/rag/documents", params)
                if await belongs(entry.get("parent_id"))
            ]
            if not unfinished:
                return
            await anyio.sleep(_ATTACHMENTS_POLL_S)

    async def _parent(self, document: str) -> str | None:
        """The document that ``document`` is attached to, ``None`` if there is none (any more)."""
        try:
            return (await self._client.get(f"/v1/rag/documents/{document}")).get("parent_id")
        except CommandFailed as failure:
            if failure.code == "document_not_found":
                return None
            raise

    async def _known(self) -> list[KnownDocument]:
        params = {"collection": self._options.collection}
        try:
            return [known_document(entry) async for entry in self._client.pages("/v1/rag/documents", params)]
        except CommandFailed as failure:
            if failure.code == "collection_not_found":
                return []
            raise

    def _check_prune(self, plan: IngestPlan, vanished: list[KnownDocument], known: list[KnownDocument]) -> None:
        """Refuse to delete everything: an unmounted folder looks as if all its files had been deleted."""
        kept = [document for document in known if document.source is not None]
        if vanished and not plan.steps and len(vanished) == len(kept) and not self._options.prune_all:
            raise CommandFailed(
                f"all {len(vanished)} files are missing; if the folder is not just unmounted, use --prune-all",
                code="prune_refused",
            )

    async def _carry_out(self, plan: IngestPlan) -> None:
        # unchanged files last, so that the estimate covers the files to process
        steps = sorted(plan.steps, key=lambda step: step.action not in _WORK)
        work = [step for step in steps if step.action in _WORK]
        state = IngestProgress(total_files=len(work), total_bytes=sum(step.file.size_bytes for step in work))
        reached: set[str] = set()
        with shown(state, self._output.err, quiet=self._output.as_json or not work) as display:
            self._client.on_pause = display.pause
            transfer = Transfer(
                self._client,
                collection=self._options.collection,
                metadata=self._options.metadata,
                watch=display.watch,
                parallel=self._options.parallel,
            )

            async def perform(step: IngestStep) -> None:
                outcome = await transfer.perform(step)
                reached.add(step.file.key)
                self._report.files.append(outcome)
                self._report.pages += outcome.pages
                _finish(display, step, outcome)

            try:
                await each_file(steps, perform, parallel=self._options.parallel)
            finally:
                self._client.on_pause = None
                self._report.files += [_not_reached(step) for step in steps if step.file.key not in reached]


def _finish(display: Display, step: IngestStep, outcome: FileOutcome) -> None:
    if step.action in _WORK:
        display.finish(step.file, failed=outcome.result is FileResult.FAILED)


def _dry(step: IngestStep) -> FileOutcome:
    document_id = step.document.id if step.document is not None else None
    return _line(step, FileResult.UNCHANGED if step.action not in _WORK else FileResult.NOT_REACHED, document_id)


def _not_reached(step: IngestStep) -> FileOutcome:
    return _line(step, FileResult.NOT_REACHED, None)


def _line(step: IngestStep, result: FileResult, document_id: str | None) -> FileOutcome:
    return FileOutcome(
        path=step.file.key,
        action=step.action,
        result=result,
        sha256=step.sha256,
        bytes=step.file.size_bytes,
        document_id=document_id,
    )


def _write_report(path: Path | None, report: IngestReport) -> None:
    if path is None:
        return
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    except OSError as error:
        raise CommandFailed(f"the report cannot be written to {path}: {error.strerror}", code="report") from error


def passed_over_text(counts: Mapping[str, int]) -> str:
    """The files that were passed over, by type.

    >>> passed_over_text({".zip": 3, "no suffix": 1})
    '3 .zip, 1 no suffix'
    """
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.items())


def _show(report: IngestReport, console: Console) -> None:
    if report.dry_run:
        rows = [(outcome.action, size(outcome.bytes), outcome.path) for outcome in report.files]
        console.print(table("action", "size", "file", rows=rows, right=("size",)))
        for document in report.pruned:
            console.print(escape(f"prune   {document['path']}"))
        return
    incomplete = [(outcome.path, problem) for outcome in report.files for problem in outcome.problems]
    if incomplete:
        console.print("[yellow]ingested with problems:[/]")
        console.print(table("file", "problem", rows=incomplete[:_SHOWN_PROBLEMS]))
        if len(incomplete) > _SHOWN_PROBLEMS:
            console.print(f"… and {len(incomplete) - _SHOWN_PROBLEMS} more (all with --report FILE)")
    failures = [
        (outcome.path, shortened(outcome.reason or "", 200))
        for outcome in report.files
        if outcome.result is FileResult.FAILED
    ]
    failures += [(problem.path, problem.reason) for problem in report.problems]
    if failures:
        console.print("[red]failed:[/]")
        console.print(table("file", "reason", rows=failures))
    if report.passed_over:
        console.print(escape(f"passed over, type cannot be read: {passed_over_text(report.passed_over)}"))
    if report.links_passed_over:
        console.print(f"{report.links_passed_over} symbolic links not followed (see --follow-symlinks)")
    renamed = sum(outcome.action in (IngestAction.MOVED, IngestAction.NAMED) for outcome in report.files)
    remarks = {"unchanged": f" ({renamed} renamed)"} if renamed else {}
    counts = ", ".join(
        f"{count} {name.replace('_', ' ')}{remarks.get(name, '')}" for name, count in report.counts.items()
    )
    counts = counts or "nothing to do"
    pruned = f", {len(report.pruned)} pruned" if report.pruned else ""
    pages = f"; {report.pages} pages, {report.pages_per_second:.1f} pages/s" if report.pages else ""
    console.print(f"{counts}{pruned} in {report.seconds:.1f} s{pages}")


__all__ = ["ExitCode", "IngestCommandOptions", "IngestReport", "SourceFile", "ingest"]
