"""Formats the report's values as short texts, for the terminal and for HTML."""

from __future__ import annotations

from ragsvc.evaluation.measures.bootstrap import Estimate, PairedDifference
from ragsvc.evaluation.report import AUROC, EvaluationReport, QuestionReport, SettingReport

_TITLES = {
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


def measure_title(name: str) -> str:
    """A measure's name in tables and charts."""
    return _TITLES.get(name, name)


def summary(report: EvaluationReport) -> str:
    """A line about the questions and the documents."""
    counts = report.counts
    kinds = f"{counts.with_place} with a place to find, {counts.unanswerable} without an answer"
    documents = f"{counts.documents} document{'s' if counts.documents != 1 else ''}"
    where = "each in its own document" if report.within_document else f"in collection '{report.collection}'"
    return f"{counts.asked} questions ({kinds}) on {documents}, {where}; {report.seconds:.1f} s"


def percent(share: float) -> str:
    """A measure out of 100, with a decimal."""
    return f"{100 * share:.1f}"


def interval(estimate: Estimate) -> str:
    return f"{percent(estimate.low)} to {percent(estimate.high)}"


def comparison_cells(compared: PairedDifference) -> tuple[str, str, str, str]:
    """Difference, confidence interval, p-value, and the number of questions that differ."""
    p_value = "<.001" if compared.p_value < 0.001 else f"{compared.p_value:.3f}".lstrip("0")
    return (
        f"{100 * compared.difference:+.1f}",
        f"{100 * compared.low:+.1f} to {100 * compared.high:+.1f}",
        p_value,
        str(compared.differing),
    )


def latency_cells(setting: SettingReport) -> tuple[str, str, str]:
    """Milliseconds at the 50th, 95th and 99th percentile."""
    p50, p95, p99 = (f"{setting.latency_ms[key]:.1f}" if setting.latency_ms else "-" for key in ("p50", "p95", "p99"))
    return p50, p95, p99


def gold_place(question: QuestionReport) -> str:
    """The file and the pages with the answer."""
    pages = sorted({item["page"] for item in question.gold if item["page"] is not None})
    name = question.filename or "several documents"
    return f"{name} p. {', '.join(map(str, pages))}" if pages else name


def first_found(question: QuestionReport, setting: str) -> str:
    """The file and page of the first passage that a setting found."""
    found = question.outcomes[setting].found
    return f"{found[0].filename} p. {found[0].page}" if found else "nothing"


def rank_text(question: QuestionReport, setting: str) -> str:
    """The rank of the first correct passage."""
    rank = question.outcomes[setting].rank
    return "-" if rank is None else str(rank)
