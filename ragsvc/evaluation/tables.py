"""The report for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from ragsvc.cli.output import shortened, table
from ragsvc.evaluation.measures.bootstrap import Estimate, PairedDifference, Verdict
from ragsvc.evaluation.report import AUROC, MAIN, SEEN, Counts, EvaluationReport, QuestionReport, missed

TITLES = {
    "mrr": "MRR",
    "ndcg@10": "nDCG@10",
    "excerpt_recall@5": "excerpts@5",
    "excerpt_recall@10": "excerpts@10",
    "excerpt_precision@5": "excerpt share@5",
    "excerpt_precision@10": "excerpt share@10",
    AUROC: "abstention",
    "answer_f1": "answer F1",
    "answer_contains": "answer held",
    "abstention_accuracy": "right to answer",
}
"""How measures are called in tables; the others by their own name."""

_QUESTION_WIDTH = 90
_SHOWN_MISSES = 10
_STYLES = {Verdict.BETTER: "green", Verdict.WORSE: "red", Verdict.NOISE: "dim"}


def show(report: EvaluationReport, console: Console) -> None:
    """Print measures, comparisons, what was missed, and what all this can tell."""
    console.print(escape(summary(report)))
    console.print()
    names = [name for name in report.settings[0].measures if name in (*MAIN, "hit@3", "hit@10")]
    rows = [
        (
            one.setting.name,
            *(number(one.measures[name]) for name in names),
            *(f"{one.latency_ms[key]:.1f}" if one.latency_ms else "-" for key in ("p50", "p95", "p99")),
        )
        for one in report.settings
    ]
    titles = [TITLES.get(name, name) for name in names]
    columns = [*titles, "p50 ms", "p95", "p99"]
    console.print(table("setting", *columns, rows=rows, right=columns))
    for compared in report.comparisons:
        console.print()
        console.print(f"[bold]{escape(compared.setting)}[/] against {escape(compared.against)}, in points:")
        columns = ["difference", "95 % interval", "p", "differing"]
        made = table("", *columns, "", rows=[], right=columns)
        for name, one in compared.measures.items():
            style = _STYLES[one.verdict]
            cells = (TITLES.get(name, name), *comparison_cells(one), one.verdict.value)
            made.add_row(*(escape(cell) for cell in cells), style=style)
        console.print(made)
    _show_misses(report, console)
    console.print()
    for line in (*report.notes, *report.problems):
        console.print(escape(line), style="yellow" if line in report.problems else None)


def summary(report: EvaluationReport) -> str:
    """One line on what was asked of what."""
    counts = report.counts
    kinds = f"{counts.with_place} with a place to find, {counts.unanswerable} without an answer"
    where = "each in its own document" if report.within_document else f"in collection '{report.collection}'"
    return f"{counts.asked} questions ({kinds}) on {_plural(counts)}, {where}; {report.seconds:.1f} s"


def number(estimate: Estimate) -> str:
    """A measure out of 100."""
    return f"{100 * estimate.value:.1f}"


def comparison_cells(one: PairedDifference) -> tuple[str, str, str, str]:
    """Difference, interval, p-value and how many questions differ."""
    p_value = "<.001" if one.p_value < 0.001 else f"{one.p_value:.3f}".lstrip("0")
    return (
        f"{100 * one.difference:+.1f}",
        f"{100 * one.low:+.1f} to {100 * one.high:+.1f}",
        p_value,
        str(one.differing),
    )


def place_of(question: QuestionReport) -> str:
    """Where the answer stands: file and pages."""
    pages = sorted({one["page"] for one in question.gold if one["page"] is not None})
    name = question.filename or "several documents"
    return f"{name} p. {', '.join(map(str, pages))}" if pages else name


def first_found(question: QuestionReport, setting: str) -> str:
    """What a setting put first instead."""
    found = question.outcomes[setting].found
    return f"{found[0].filename} p. {found[0].page}" if found else "nothing"


def rank_of(question: QuestionReport, setting: str) -> str:
    """The place of the first right passage."""
    rank = question.outcomes[setting].rank
    return "-" if rank is None else str(rank)


def _show_misses(report: EvaluationReport, console: Console) -> None:
    setting = report.settings[0].setting.name
    misses = [one for one in report.questions if missed(one, setting)]
    if not misses:
        return
    console.print()
    console.print(f"missed by [bold]{escape(setting)}[/] (no right passage among its first {SEEN}):")
    rows = [
        (
            one.line,
            shortened(one.question, _QUESTION_WIDTH),
            place_of(one),
            rank_of(one, setting),
            first_found(one, setting),
        )
        for one in misses[:_SHOWN_MISSES]
    ]
    console.print(table("line", "question", "stands in", "rank", "first found", rows=rows, right=("line", "rank")))
    if len(misses) > _SHOWN_MISSES:
        console.print(f"… and {len(misses) - _SHOWN_MISSES} more (--report FILE.html has all, of every setting)")


def _plural(counts: Counts) -> str:
    return f"{counts.documents} document{'s' if counts.documents != 1 else ''}"
