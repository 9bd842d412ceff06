"""Makes the report from outcomes: measures with intervals, comparisons with the first setting, and their resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from ragsvc.core.retrieval.answerability import ABSTAIN_BELOW
from ragsvc.evaluation.asking import EvaluationPlan, QuestionOutcome
from ragsvc.evaluation.gold import QuestionWithGold
from ragsvc.evaluation.measures.bootstrap import (
    RESAMPLES,
    Estimate,
    Judgement,
    PairedDifference,
    judge_areas,
    judge_means,
    percentiles,
)
from ragsvc.evaluation.measures.judging import HIT_DEPTHS, RECALL_DEPTHS
from ragsvc.evaluation.settings import SearchSetting

AUROC: Final = "abstention_auroc"
MEASURES: Final = (
    *(f"hit@{k}" for k in HIT_DEPTHS),
    "mrr",
    "ndcg@10",
    *(f"recall@{k}" for k in RECALL_DEPTHS),
    *(f"excerpt_{kind}@{k}" for k in RECALL_DEPTHS for kind in ("recall", "precision")),
    AUROC,
    "answer_f1",
    "answer_contains",
    "abstention_accuracy",
)
MAIN_MEASURES: Final = ("hit@1", "hit@5", "mrr", "ndcg@10", "recall@10", "excerpt_recall@5", AUROC, *MEASURES[-3:])
"""The measures that are compared between settings and drawn."""

MISSED_BELOW: Final = 5
"""A question whose first correct passage has a greater rank is listed as missed."""

_LEADING_MEASURE: Final = "hit@5"
_FEW_QUESTIONS: Final = 50


class QuestionCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of questions by kind; ``with_place`` have gold, ``left_out`` were skipped for unknown gold."""

    asked: int
    with_place: int
    unanswerable: int
    with_answer: int
    documents: int
    left_out: int


class SettingReport(msgspec.Struct, frozen=True, kw_only=True):
    """The results of a setting.

    ``latency_ms`` has p50, p95 and p99 of the ``timed`` searches. ``signal_reached`` is the share of answerable and
    unanswerable questions whose ``answerable`` reached the threshold of the built-in answerer.
    """

    setting: SearchSetting
    measures: dict[str, Estimate]
    latency_ms: dict[str, float]
    timed: int
    signal_reached: dict[str, float]


class SettingComparison(msgspec.Struct, frozen=True, kw_only=True):
    """The differences between a setting and the baseline, by measure."""

    setting: str
    against: str
    measures: dict[str, PairedDifference]


class QuestionReport(msgspec.Struct, frozen=True, kw_only=True):
    """A question and its outcomes by setting; contains no document text."""

    id: str
    line: int
    question: str
    answerable: bool
    document_id: str | None
    filename: str | None
    gold: list[dict[str, Any]]
    outcomes: dict[str, QuestionOutcome]


class EvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole evaluation, as ``--json`` prints it."""

    object: str = "evaluation"
    file: str
    collection: str
    within_document: bool
    model: str | None
    seed: int
    resamples: int = RESAMPLES
    created_at: int
    seconds: float
    counts: QuestionCounts
    settings: list[SettingReport]
    comparisons: list[SettingComparison]
    notes: list[str]
    problems: list[str]
    questions: list[QuestionReport]


def make_report(
    cases: Sequence[QuestionWithGold],
    outcomes: Sequence[Sequence[QuestionOutcome]],
    plan: EvaluationPlan,
    *,
    file: str,
    problems: list[str],
    left_out: int,
    created_at: int,
    seconds: float,
) -> EvaluationReport:
    """Judge all outcomes; ``outcomes`` are by question, then by setting."""
    judged = _judge_all(cases, outcomes, plan.seed)
    names = [setting.name for setting in plan.settings]
    counts = QuestionCounts(
        asked=len(cases),
        with_place=sum(case.gold is not None for case in cases),
        unanswerable=sum(not case.numbered.question.answerable for case in cases),
        with_answer=sum(case.numbered.question.answer is not None for case in cases),
        documents=len({document for case in cases for document in _documents(case)}),
        left_out=left_out,
    )
    return EvaluationReport(
        file=file,
        collection=plan.collection,
        within_document=plan.within_document,
        model=plan.model,
        seed=plan.seed,
        created_at=created_at,
        seconds=round(seconds, 2),
        counts=counts,
        settings=[
            _setting_report(setting, cases, [row[index] for row in outcomes], judged, index)
            for index, setting in enumerate(plan.settings)
        ],
        comparisons=[
            SettingComparison(
                setting=names[index],
                against=names[0],
                measures={name: judged[name].comparisons[index - 1] for name in MAIN_MEASURES if name in judged},
            )
            for index in range(1, len(names))
        ],
        notes=_notes(counts, judged),
        problems=problems,
        questions=[_question_report(case, row, names) for case, row in zip(cases, outcomes, strict=True)],
    )


def missed(question: QuestionReport, setting: str) -> bool:
    """Whether a setting has no correct passage among its first ``MISSED_BELOW``."""
    rank = question.outcomes[setting].rank
    return bool(question.gold) and (rank is None or rank > MISSED_BELOW)


def _judge_all(
    cases: Sequence[QuestionWithGold], outcomes: Sequence[Sequence[QuestionOutcome]], seed: int
) -> dict[str, Judgement]:
    judged: dict[str, Judgement] = {}
    for name in MEASURES:
        rows = [row for row in outcomes if all(name in outcome.measures for outcome in row)]
        if rows:
            judged[name] = judge_means(
                [[outcome.measures[name] for outcome in column] for column in zip(*rows, strict=True)], seed=seed
            )
    answerable = [case.numbered.question.answerable for case in cases]
    if len(set(answerable)) > 1:
        signals = [[outcome.answerable for outcome in column] for column in zip(*outcomes, strict=True)]
        judged[AUROC] = judge_areas(signals, answerable, seed=seed)
    return {name: judged[name] for name in MEASURES if name in judged}


def _setting_report(
    setting: SearchSetting,
    cases: Sequence[QuestionWithGold],
    column: Sequence[QuestionOutcome],
    judged: dict[str, Judgement],
    index: int,
) -> SettingReport:
    timed = [outcome.ms for outcome in column if outcome.timed]
    signal = np.array([outcome.answerable >= ABSTAIN_BELOW for outcome in column])
    answerable = np.array([case.numbered.question.answerable for case in cases])
    kinds = (("answerable", answerable), ("unanswerable", ~answerable))
    return SettingReport(
        setting=setting,
        measures={name: judgement.estimates[index] for name, judgement in judged.items()},
        latency_ms=percentiles(timed) if timed else {},
        timed=len(timed),
        signal_reached={kind: float(signal[mask].mean()) for kind, mask in kinds if mask.any()},
    )


def _question_report(case: QuestionWithGold, row: Sequence[QuestionOutcome], names: Sequence[str]) -> QuestionReport:
    items = sorted(case.gold.items, key=lambda item: (item[0], item[1] or 0)) if case.gold is not None else []
    return QuestionReport(
        id=case.numbered.id,
        line=case.numbered.line,
        question=case.numbered.question.question,
        answerable=case.numbered.question.answerable,
        document_id=case.document_id,
        filename=case.filename,
        gold=[{"document_id": document, "page": page} for document, page in items],
        outcomes=dict(zip(names, row, strict=True)),
    )


def _documents(case: QuestionWithGold) -> set[str]:
    named = set[str]() if case.document_id is None else {case.document_id}
    return named | ({document for document, _ in case.gold.items} if case.gold is not None else set())


def _notes(counts: QuestionCounts, judged: dict[str, Judgement]) -> list[str]:
    notes: list[str] = []
    leading = judged.get(_LEADING_MEASURE)
    if leading is None:
        notes.append("No question names a document, page or excerpt, so search is not evaluated.")
    else:
        notes.append(_resolution(leading, counts.with_place))
    if not counts.unanswerable:
        notes.append(
            'No question is marked "answerable": false, so abstention (recognising questions that the documents do '
            "not answer) is not evaluated."
        )
    elif AUROC not in judged:
        notes.append("No question has an answer, so abstention cannot be evaluated.")
    if counts.left_out:
        notes.append(
            f"{counts.left_out} questions were left out because the collection does not contain what they refer to."
        )
    return notes


def _resolution(leading: Judgement, questions: int) -> str:
    """The resolution of the leading measure with this number of questions."""
    few = f"{questions} questions are few: " if questions < _FEW_QUESTIONS else f"With {questions} questions, "
    detectable = [compared.detectable for compared in leading.comparisons if compared.detectable is not None]
    if not leading.comparisons:
        first = leading.estimates[0]
        return f"{few}{_LEADING_MEASURE} is known to about ±{50 * (first.high - first.low):.0f} points (95 %)."
    if not detectable:
        return f"{few}the settings do not differ in {_LEADING_MEASURE}."
    return (
        f"{few}a difference in {_LEADING_MEASURE} of less than about {100 * max(detectable):.0f} points is "
        "likely to be missed (a difference of this size is detected in four of five evaluations, at the 5 % level)."
    )
