"""``ragsvc evaluate``: measures search on the user's own documents, by questions whose answers are known."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ragsvc.cli.evaluation_tables import print_report
from ragsvc.cli.failures import CommandFailed, ExitCode, usage_error
from ragsvc.cli.output import Output
from ragsvc.cli.target import Target, connect
from ragsvc.evaluation.asking import EvaluationPlan, ask_all
from ragsvc.evaluation.errors import EvaluationError, InvalidEvaluation, QuestionFailed
from ragsvc.evaluation.gold import find_gold
from ragsvc.evaluation.html_report import render_html
from ragsvc.evaluation.questions import read_questions
from ragsvc.evaluation.report import EvaluationReport, make_report
from ragsvc.evaluation.settings import choose_settings

_PATIENCE_S = 3600.0


class EvaluateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command line.

    ``model`` also answers the questions; with ``None`` only search is evaluated.
    """

    questions: Path
    modes: Sequence[str]
    settings: Sequence[str]
    top_k: int
    filters: dict[str, Any] | None
    collection: str
    within_document: bool
    skip_unknown: bool
    model: str | None
    seed: int
    report: Path | None


async def evaluate(target: Target, options: EvaluateOptions, output: Output) -> None:
    """Run the command.

    Raises:
        CommandFailed: options or questions are invalid, the collection lacks what questions refer to, the report cannot
            be written, or the service refused a request.
    """
    with evaluation_failures():
        report = await _evaluate(target, options, output)
    if options.report is not None:
        _write(options.report, report)
        output.note(f"report: {options.report}")
    output.result(report, lambda console: print_report(report, console))


async def _evaluate(target: Target, options: EvaluateOptions, output: Output) -> EvaluationReport:
    settings = choose_settings(options.modes, options.settings, top_k=options.top_k, filters=options.filters)
    if options.model is not None and any(setting.rerank for setting in settings):
        raise usage_error("--answers cannot be combined with rerank, which chat requests do not support")
    questions = read_questions(options.questions)
    _check_report(options.report, options.questions)
    plan = EvaluationPlan(
        settings=settings,
        collection=options.collection,
        within_document=options.within_document,
        model=options.model,
        seed=options.seed,
    )
    created_at, started = int(time.time()), time.monotonic()
    async with connect(target, patience_s=_PATIENCE_S, reads=True) as client:
        client.on_pause = lambda pause_s, reason: output.note(f"waiting {pause_s:.0f} s: {reason}")
        cases, problems = await find_gold(
            client,
            questions,
            collection=options.collection,
            within_document=options.within_document,
            skip_unknown=options.skip_unknown,
        )
        with _progress(output, len(cases)) as progress:
            outcomes = await ask_all(client, cases, plan, done=lambda: progress.advance(progress.task_ids[0]))
    return await anyio.to_thread.run_sync(
        lambda: make_report(
            cases,
            outcomes,
            plan,
            file=os.fsencode(options.questions.name).decode(errors="replace"),
            problems=problems,
            left_out=len(questions) - len(cases),
            created_at=created_at,
            seconds=time.monotonic() - started,
        )
    )


@contextmanager
def evaluation_failures() -> Generator[None]:
    """Turn errors of the evaluation into failures of the command.

    A failed question keeps the code and the exit code of the request's failure; other causes are bugs and pass through.
    """
    try:
        yield
    except EvaluationError as error:
        cause = error.__cause__
        if isinstance(cause, CommandFailed):
            raise CommandFailed(
                f"{error.message}: {cause.message}",
                code=cause.code,
                exit_code=cause.exit_code,
                status=cause.status,
                retry_after_s=cause.retry_after_s,
            ) from error
        if isinstance(error, QuestionFailed):
            raise
        exit_code = ExitCode.USAGE if isinstance(error, InvalidEvaluation) else ExitCode.FAILED
        raise CommandFailed(error.message, code=error.code, exit_code=exit_code) from error


@contextmanager
def _progress(output: Output, questions: int) -> Generator[Progress]:
    """A progress bar on a terminal; nothing elsewhere."""
    hidden = output.as_json or not output.err.is_terminal
    columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=output.err, transient=True, disable=hidden) as progress:
        progress.add_task("", total=questions)
        yield progress


def _check_report(path: Path | None, questions: Path) -> None:
    """Check that the report can be written, before the evaluation runs."""
    if path is None:
        return
    if path.is_dir():
        raise usage_error(f"--report takes a file, and '{path}' is a folder")
    if path.exists() and path.samefile(questions):
        raise usage_error("--report would replace the questions; choose another file name")
    if path.exists() and not os.access(path, os.W_OK):
        raise usage_error(f"the report cannot be written to {path}: the file is read-only")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise usage_error(f"the report cannot be written to {path}: {error.strerror}") from error


def _write(path: Path, report: EvaluationReport) -> None:
    try:
        path.write_text(render_html(report), encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"the report cannot be written to {path}: {error.strerror}", code="report") from error
