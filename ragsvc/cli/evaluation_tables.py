"""Prints an evaluation report in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from ragsvc.cli.output import shortened, table
from ragsvc.evaluation.formatting import (
    comparison_cells,
    first_found,
    gold_place,
    latency_cells,
    measure_title,
    percent,
    rank_text,
    summary,
)
from ragsvc.evaluation.measures.bootstrap import Verdict
from ragsvc.evaluation.report import MAIN_MEASURES, MISSED_BELOW, EvaluationReport, missed

_QUESTION_WIDTH = 90
_SHOWN_MISSES = 10
_SHOWN_MEASURES = (*MAIN_MEASURES, "hit@3", "hit@10")
_STYLES = {Verdict.BETTER: "green", Verdict.WORSE: "red", Verdict.NOISE: "dim"}


def print_report(report: EvaluationReport, console: Console) -> None:
    """Print measures, comparisons, misses of the first setting, notes and problems."""
    console.print(escape(summary(report)))
    console.print()
    names = [name for name in report.settings[0].measures if name in _SHOWN_MEASURES]
    rows = [
        (result.setting.name, *(percent(result.measures[name].value) for name in names), *latency_cells(result))
        for result in report.settings
    ]
    columns = [*map(measure_title, names), "p50 ms", "p95", "p99"]
    console.print(table("setting", *columns, rows=rows, right=columns))
    _print_comparisons(report, console)
    _print_misses(report, console)
    console.print()
    for line in (*report.notes, *report.problems):
        console.print(escape(line), style="yellow" if line in report.problems else None)


def _print_comparisons(report: EvaluationReport, console: Console) -> None:
    columns = ["difference", "95 % interval", "p", "differing"]
    for comparison in report.comparisons:
        console.print()
        console.print(f"[bold]{escape(comparison.setting)}[/] against {escape(comparison.against)}, in points:")
        rendered = table("", *columns, "", rows=[], right=columns)
        for name, difference in comparison.measures.items():
            cells = (measure_title(name), *comparison_cells(difference), difference.verdict.value)
            rendered.add_row(*(escape(cell) for cell in cells), style=_STYLES[difference.verdict])
        console.print(rendered)


def _print_misses(report: EvaluationReport, console: Console) -> None:
    setting = report.settings[0].setting.name
    misses = [question for question in report.questions if missed(question, setting)]
    if not misses:
        return
    console.print()
    console.print(f"missed by [bold]{escape(setting)}[/] (no correct passage among the first {MISSED_BELOW}):")
    rows = [
        (
            question.line,
            shortened(question.question, _QUESTION_WIDTH),
            gold_place(question),
            rank_text(question, setting),
            first_found(question, setting),
        )
        for question in misses[:_SHOWN_MISSES]
    ]
    console.print(table("line", "question", "answer in", "rank", "first found", rows=rows, right=("line", "rank")))
    if len(misses) > _SHOWN_MISSES:
        console.print(f"… and {len(misses) - _SHOWN_MISSES} more (--report FILE.html lists all, for every setting)")
