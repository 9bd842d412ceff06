"""The report as one HTML file that needs nothing else: no network, no script, light and dark."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from ragsvc.core.retrieval.answerability import ABSTAIN_BELOW
from ragsvc.evaluation.charts import interval_bars, latency_curves, rank_class, rank_strip, series
from ragsvc.evaluation.elements import Child, Element, element, to_html
from ragsvc.evaluation.measures.bootstrap import Estimate
from ragsvc.evaluation.report import MAIN, SEEN, EvaluationReport, QuestionReport, SettingReport, missed
from ragsvc.evaluation.tables import TITLES, comparison_cells, first_found, place_of, rank_of, summary

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_SERIES = (
    ("#2a78c6", "#5aa7ee"),
    ("#c4591c", "#ee8f52"),
    ("#1d8a62", "#45bd90"),
    ("#8a57b8", "#b98ae4"),
    ("#a88408", "#dab83c"),
    ("#b3476f", "#e57fa5"),
)
"""Colours of settings in light and in dark."""

_RANKS = {"1": "#1f5f9e", "3": "#4b8ac6", "5": "#86b3dd", "10": "#e8b04a", "more": "#dd8a3a", "none": "#c0392b"}
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2228; --soft: #5b6570; --line: #d9dee4; --back: #fff; --panel: #f6f8fa;
  --better: #17734c; --worse: #b3261e; %(light)s }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #a0aab5; --line: #363d46; --back: #15191e;
  --panel: #1d2329; --better: #5fcf9b; --worse: #ff8f84; %(dark)s } }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 1020px; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; } p { margin: .4rem 0; max-width: 75ch; }
.soft, caption { color: var(--soft); } .notes { background: var(--panel); border-left: 3px solid var(--line);
  padding: .5rem 1rem; margin: 1rem 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
th { font-weight: 600; white-space: nowrap; } .number { text-align: right; white-space: nowrap; }
.better { color: var(--better); font-weight: 600; } .worse { color: var(--worse); font-weight: 600; }
svg { max-width: 100%%; height: auto; display: block; } .wide svg { max-width: none; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; } svg text.label { fill: var(--ink); font-size: 12px; }
.grid { stroke: var(--line); } .whisker { stroke: var(--ink); stroke-width: 1.2; } .curve { fill: none !important; }
.key { display: inline-block; margin: 0 1rem .4rem 0; white-space: nowrap; }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em; }
%(rules)s
"""


def render_page(report: EvaluationReport) -> str:
    """The whole page."""
    title = f"Retrieval on {report.file}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", _style()),
    )
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(report.created_at))
    body = element("body", element("h1", title), element("p", f"{summary(report)} · {made}", class_="soft"))
    notes = [element("p", line) for line in (*report.notes, *report.problems)]
    body.append(element("div", *notes, class_="notes"))
    for section in (_measures, _comparisons, _abstention, _latency, _ranks, _misses):
        body.extend(section(report))
    return to_html(element("html", head, body, lang="en"))


def _style() -> str:
    light = " ".join(f"--series-{n}: {one};" for n, (one, _) in enumerate(_SERIES))
    dark = " ".join(f"--series-{n}: {one};" for n, (_, one) in enumerate(_SERIES))
    rules = [
        f".series-{n} {{ fill: var(--series-{n}); stroke: none; background: var(--series-{n}); }} "
        f".curve.series-{n} {{ stroke: var(--series-{n}); stroke-width: 2; }}"
        for n in range(len(_SERIES))
    ]
    rules += [f".rank-{name} {{ fill: {colour}; background: {colour}; }}" for name, colour in _RANKS.items()]
    return _STYLE % {"light": light, "dark": dark, "rules": "\n".join(rules)}


def _measures(report: EvaluationReport) -> list[Element]:
    names = list(report.settings[0].measures)
    groups: list[tuple[str, Sequence[Estimate]]] = [
        (TITLES.get(name, name), [one.measures[name] for one in report.settings]) for name in names if name in MAIN
    ]
    if not groups:
        return []
    rows = [
        [
            TITLES.get(name, name),
            *(f"{_percent(one.measures[name].value)} ({_interval(one.measures[name])})" for one in report.settings),
            str(report.settings[0].measures[name].questions),
        ]
        for name in names
    ]
    settings = [one.setting.name for one in report.settings]
    return [
        element("h2", "Measures"),
        _legend([(series(index), name) for index, name in enumerate(settings)]),
        interval_bars(groups, settings),
        element(
            "p",
            "Out of 100; lines and brackets are 95 % intervals: Wilson's for shares of questions, else by bootstrap.",
            class_="soft",
        ),
        _table(["measure", *settings, "questions"], rows, numbers=range(1, len(settings) + 2)),
    ]


def _comparisons(report: EvaluationReport) -> list[Element]:
    if not report.comparisons:
        return []
    made = [element("h2", f"Against {report.comparisons[0].against}")]
    made.append(
        element(
            "p",
            f"In points, by the paired bootstrap ({report.resamples:,} draws, seed {report.seed}). Each comparison is "
            "judged by itself at the 5 % level: of twenty that differ by nothing, one may look like something.",
            class_="soft",
        )
    )
    for compared in report.comparisons:
        rows: list[list[Child]] = [
            [
                TITLES.get(name, name),
                *comparison_cells(one),
                element("span", one.verdict.value, class_=one.verdict.name.lower()),
            ]
            for name, one in compared.measures.items()
        ]
        made.append(element("h3", compared.setting))
        made.append(
            _table(
                ["measure", "difference", "95 % interval", "p", "questions that differ", ""], rows, numbers=range(1, 5)
            )
        )
    return made


def _abstention(report: EvaluationReport) -> list[Element]:
    if not report.counts.unanswerable:
        return []
    rows = [[one.setting.name, _reached(one, "answerable"), _reached(one, "unanswerable")] for one in report.settings]
    return [
        element("h2", "Questions without an answer"),
        element(
            "p",
            f"Share of questions whose evidence reached {ABSTAIN_BELOW}, from which the built-in answerer answers. "
            "“abstention” above is the chance that an answerable question has more evidence than an unanswerable one.",
            class_="soft",
        ),
        _table(["setting", "answerable", "unanswerable"], rows, numbers=(1, 2)),
        *_deceived(report),
    ]


def _deceived(report: EvaluationReport) -> list[Element]:
    """The unanswerable questions that look answerable."""
    names = [one.setting.name for one in report.settings]
    rows = [
        [str(one.line), one.question, *(f"{one.outcomes[name].answerable:.2f}" for name in names)]
        for one in report.questions
        if not one.answerable and any(one.outcomes[name].answerable >= ABSTAIN_BELOW for name in names)
    ]
    if not rows:
        return []
    columns = ["line", "question", *names]
    return [
        element("h3", "Without an answer, and yet with evidence"),
        _table(columns, rows, numbers=(0, *range(2, len(columns)))),
    ]


def _reached(one: SettingReport, kind: str) -> str:
    return f"{100 * one.signal_reached[kind]:.0f} %" if kind in one.signal_reached else "-"


def _latency(report: EvaluationReport) -> list[Element]:
    names = [one.setting.name for one in report.settings]
    columns = [[row.outcomes[name].ms for row in report.questions if row.outcomes[name].timed] for name in names]
    rows = [
        [
            one.setting.name,
            *(f"{one.latency_ms[key]:.1f}" if one.latency_ms else "-" for key in ("p50", "p95", "p99")),
            str(one.timed),
        ]
        for one in report.settings
    ]
    return [
        element("h2", "Time of a search"),
        _legend([(series(index), name) for index, name in enumerate(names)]),
        latency_curves(columns, names),
        element(
            "p",
            "As seen by this command, one search at a time, settings in turns. Searches count whose question the "
            "service did not yet remember from another setting, and that no limit held up.",
            class_="soft",
        ),
        _table(["setting", "p50 ms", "p95 ms", "p99 ms", "searches"], rows, numbers=range(1, 5)),
    ]


def _ranks(report: EvaluationReport) -> list[Element]:
    placed = [one for one in report.questions if one.gold]
    if not placed:
        return []
    names = [one.setting.name for one in report.settings]
    rows = [[(one.outcomes[name].rank, f"line {one.line}, {one.question}") for one in placed] for name in names]
    words = {"1": "first", "3": "2–3", "5": "4–5", "10": "6–10", "more": "further down", "none": "not found"}  # noqa: RUF001 - ranges
    return [
        element("h2", "Place of the first right passage"),
        _legend([(f"rank-{key}", words[key]) for key in _RANKS]),
        element("div", rank_strip(rows, names), class_="wide"),
        element("p", "One column per question, in the order of the file.", class_="soft"),
    ]


def _misses(report: EvaluationReport) -> list[Element]:
    made: list[Element] = []
    for one in report.settings:
        name = one.setting.name
        missing = [question for question in report.questions if missed(question, name)]
        made.append(element("h3", f"{name}: {len(missing)} of {report.counts.with_place}"))
        if missing:
            made.append(
                _table(
                    ["line", "question", "stands in", "place", "first found"],
                    [_miss(q, name) for q in missing],
                    numbers=(0, 3),
                )
            )
    if not report.counts.with_place:
        return []
    return [element("h2", f"Missed: no right passage among the first {SEEN}"), *made]


def _miss(question: QuestionReport, name: str) -> list[Child]:
    place = element(
        "span", element("i", class_=rank_class(question.outcomes[name].rank)), rank_of(question, name), class_="key"
    )
    return [str(question.line), question.question, place_of(question), place, first_found(question, name)]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(one: Estimate) -> str:
    return f"{_percent(one.low)} to {_percent(one.high)}"


def _legend(keys: Iterable[tuple[str, str]]) -> Element:
    return element("p", *(element("span", element("i", class_=kind), name, class_="key") for kind, name in keys))


def _table(columns: Sequence[str], rows: Iterable[Sequence[Child]], *, numbers: Iterable[int]) -> Element:
    flush_right = set(numbers)
    kinds = ["number" if index in flush_right else "words" for index in range(len(columns))]
    head = element("tr", *(element("th", name, class_=kind) for name, kind in zip(columns, kinds, strict=True)))
    lines = [
        element("tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)))
        for row in rows
    ]
    return element("div", element("table", element("thead", head), element("tbody", *lines)), class_="wide")
