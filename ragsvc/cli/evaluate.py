"""``ragsvc evaluate``: how good search is on one's own documents, by questions whose answers are known."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import anyio.to_thread
import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ragsvc.cli.failures import CommandFailed, usage_error
from ragsvc.cli.output import Output
from ragsvc.cli.target import Target, connect
from ragsvc.evaluation.asking import EvaluationPlan, ask_all
from ragsvc.evaluation.gold import find_gold
from ragsvc.evaluation.page import render_page
from ragsvc.evaluation.questions import read_questions
from ragsvc.evaluation.report import EvaluationReport, make_report
from ragsvc.evaluation.settings import Setting
from ragsvc.evaluation.tables import show

_PATIENCE_S = 3600.0


class EvaluateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asked for. ``model`` answers the questions as well; ``None``: only search is judged."""

    questions: Path
    settings: Sequence[Setting]
    collection: str = "default"
    within_document: bool = False
    skip_unknown: bool = False
    model: str | None = None
    seed: int = 0
    report: Path | None = None


async def evaluate(target: Target, options: EvaluateOptions, output: Output) -> None:
    """Run the command.

    Raises:
        CommandFailed: the questions are wrong or name what is not there, the report cannot be written, or the service
            refused a request.
    """
    if options.model is not None and any(setting.rerank for setting in options.settings):
        raise usage_error("answers are made without rerank: leave out --answers or rerank")
    asked = read_questions(options.questions)
    _check_report(options.report, options.questions)
    plan = EvaluationPlan(
        settings=options.settings,
        collection=options.collection,
        within_document=options.within_document,
        model=options.model,
        seed=options.seed,
    )
    created_at, started = int(time.time()), time.monotonic()
    async with connect(target, patience_s=_PATIENCE_S) as client:
        client.on_pause = lambda pause_s, why: output.note(f"waiting {pause_s:.0f} s: {why}")
        cases, problems = await find_gold(
            client,
            asked,
            collection=options.collection,
            within_document=options.within_document,
            skip_unknown=options.skip_unknown,
        )
        with _progress(output, len(cases)) as progress:
            outcomes = await ask_all(client, cases, plan, done=lambda: progress.advance(progress.task_ids[0]))
    report = await anyio.to_thread.run_sync(
        lambda: make_report(
            cases,
            outcomes,
            plan,
            file=os.fsencode(options.questions.name).decode(errors="replace"),
            problems=problems,
            left_out=len(asked) - len(cases),
            created_at=created_at,
            seconds=time.monotonic() - started,
        )
    )
    if options.report is not None:
        _write(options.report, report)
        output.note(f"report: {options.report}")
    output.result(report, lambda console: show(report, console))


@contextmanager
def _progress(output: Output, cases: int) -> Generator[Progress]:
    """A bar on a terminal, nothing elsewhere; pauses are told above it."""
    hidden = output.as_json or not output.err.is_terminal
    columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=output.err, transient=True, disable=hidden) as progress:
        progress.add_task("", total=cases)
        yield progress


def _check_report(path: Path | None, questions: Path) -> None:
    """Before the work, not after it."""
    if path is None:
        return
    if path.is_dir():
        raise usage_error(f"--report takes a file, and '{path}' is a folder")
    if path.exists() and path.samefile(questions):
        raise usage_error("--report would replace the questions; give it another name")
    if path.exists() and not os.access(path, os.W_OK):
        raise usage_error(f"the report cannot be written to {path}: it is read-only")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise usage_error(f"the report cannot be written to {path}: {error.strerror}") from error


def _write(path: Path, report: EvaluationReport) -> None:
    try:
        path.write_text(render_page(report), encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"the report cannot be written to {path}: {error.strerror}", code="report") from error
