"""Renders the report as a self-contained HTML file: no network access, no scripts, light and dark colours.

The file is rendered from ``templates/report.html.jinja``; Jinja escapes all values.
"""

from __future__ import annotations

import time

from jinja2 import Environment, PackageLoader, StrictUndefined

from ragsvc.core.retrieval.answerability import ABSTAIN_BELOW
from ragsvc.evaluation import formatting
from ragsvc.evaluation.charts import (
    IntervalChart,
    LatencyChart,
    RankStrip,
    interval_chart,
    latency_chart,
    rank_class,
    rank_strip,
    series_class,
)
from ragsvc.evaluation.report import MAIN_MEASURES, MISSED_BELOW, EvaluationReport, QuestionReport, missed


def render_html(report: EvaluationReport) -> str:
    names = [result.setting.name for result in report.settings]
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            names=names,
            created=time.strftime("%Y-%m-%d %H:%M", time.localtime(report.created_at)),
            interval_chart=_interval_chart(report, names),
            latency_chart=_latency_chart(report, names),
            rank_strip=_rank_strip(report, names),
            deceptive=_deceptive_questions(report, names),
            misses={name: [question for question in report.questions if missed(question, name)] for name in names},
            abstain_below=ABSTAIN_BELOW,
            missed_below=MISSED_BELOW,
            text=formatting,
            rank_class=rank_class,
            series_class=series_class,
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ragsvc.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["short"] = _short
    return environment


def _short(number: float) -> str:
    """A coordinate with at most two decimals.

    >>> _short(13.0), _short(2 / 3)
    ('13', '0.67')
    """
    return f"{number:.2f}".rstrip("0").rstrip(".")


def _interval_chart(report: EvaluationReport, names: list[str]) -> IntervalChart | None:
    groups = [
        (formatting.measure_title(measure), [result.measures[measure] for result in report.settings])
        for measure in report.settings[0].measures
        if measure in MAIN_MEASURES
    ]
    return interval_chart(groups, names) if groups else None


def _latency_chart(report: EvaluationReport, names: list[str]) -> LatencyChart:
    outcomes = [[question.outcomes[name] for question in report.questions] for name in names]
    return latency_chart([[outcome.ms for outcome in column if outcome.timed] for column in outcomes], names)


def _rank_strip(report: EvaluationReport, names: list[str]) -> RankStrip | None:
    judged = [question for question in report.questions if question.gold]
    rows = [
        [(question.outcomes[name].rank, f"line {question.line}, {question.question}") for question in judged]
        for name in names
    ]
    return rank_strip(rows, names) if judged else None


def _deceptive_questions(report: EvaluationReport, names: list[str]) -> list[QuestionReport]:
    """The unanswerable questions that some setting takes for answerable."""
    return [
        question
        for question in report.questions
        if not question.answerable and any(question.outcomes[name].answerable >= ABSTAIN_BELOW for name in names)
    ]
