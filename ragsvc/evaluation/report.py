"""From outcomes to the report: measures with intervals, comparisons with the first setting, and what both can show."""

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
from ragsvc.evaluation.measures.judging import DEPTHS, PLACES
from ragsvc.evaluation.settings import Setting

AUROC: Final = "abstention_auroc"
MEASURES: Final = (
    *(f"hit@{k}" for k in PLACES),
    "mrr",
    "ndcg@10",
    *(f"recall@{k}" for k in DEPTHS),
    *(f"excerpt_{what}@{k}" for k in DEPTHS for what in ("recall", "precision")),
    AUROC,
    "answer_f1",
    "answer_contains",
    "abstention_accuracy",
)
MAIN: Final = ("hit@1", "hit@5", "mrr", "ndcg@10", "recall@10", "excerpt_recall@5", AUROC, *MEASURES[-3:])
"""What is compared and drawn."""

SEEN: Final = 5
"""A right passage below this place counts as missed in the lists of misses."""

_LEADING: Final = "hit@5"
_FEW: Final = 50


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many questions there are of which kind."""

    asked: int
    with_place: int
    unanswerable: int
    with_answer: int
    documents: int
    left_out: int


class SettingReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one setting.

    ``latency_ms`` has p50, p95 and p99 of ``timed`` searches. ``signal_reached`` is the share of answerable and
    unanswerable questions whose ``answerable`` reached the built-in answerer's threshold.
    """

    setting: Setting
    measures: dict[str, Estimate]
    latency_ms: dict[str, float]
    timed: int
    signal_reached: dict[str, float]


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A setting against the first one, measure by measure."""

    setting: str
    against: str
    measures: dict[str, PairedDifference]


class QuestionReport(msgspec.Struct, frozen=True, kw_only=True):
    """One question with what each setting found; never a document's text."""

    id: str
    line: int
    question: str
    answerable: bool
    document_id: str | None
    filename: str | None
    gold: list[dict[str, Any]]
    outcomes: dict[str, QuestionOutcome]


class EvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole evaluation; ``--json`` prints it."""

    object: str = "evaluation"
    file: str
    collection: str
    within_document: bool
    model: str | None
    seed: int
    resamples: int = RESAMPLES
    created_at: int
    seconds: float
    counts: Counts
    settings: list[SettingReport]
    comparisons: list[Compared]
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
    """Judge all that was asked; ``outcomes`` are by case, then by setting."""
    judged = _judge_all(cases, outcomes, plan.seed)
    names = [setting.name for setting in plan.settings]
    counts = Counts(
        asked=len(cases),
        with_place=sum(case.gold is not None for case in cases),
        unanswerable=sum(not case.asked.question.answerable for case in cases),
        with_answer=sum(case.asked.question.answer is not None for case in cases),
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
            Compared(
                setting=names[index],
                against=names[0],
                measures={name: judged[name].comparisons[index - 1] for name in MAIN if name in judged},
            )
            for index in range(1, len(names))
        ],
        notes=_notes(counts, judged),
        problems=problems,
        questions=[_question_report(case, row, names) for case, row in zip(cases, outcomes, strict=True)],
    )


def missed(question: QuestionReport, setting: str) -> bool:
    """Whether a setting did not bring a right passage among its first ``SEEN``."""
    rank = question.outcomes[setting].rank
    return bool(question.gold) and (rank is None or rank > SEEN)


def _judge_all(
    cases: Sequence[QuestionWithGold], outcomes: Sequence[Sequence[QuestionOutcome]], seed: int
) -> dict[str, Judgement]:
    judged: dict[str, Judgement] = {}
    for name in MEASURES:
        rows = [row for row in outcomes if all(name in one.measures for one in row)]
        if rows:
            judged[name] = judge_means(
                [[one.measures[name] for one in row] for row in zip(*rows, strict=True)], seed=seed
            )
    answerable = [case.asked.question.answerable for case in cases]
    if len(set(answerable)) > 1:
        signals = [[one.answerable for one in column] for column in zip(*outcomes, strict=True)]
        judged[AUROC] = judge_areas(signals, answerable, seed=seed)
    return {name: judged[name] for name in MEASURES if name in judged}


def _setting_report(
    setting: Setting,
    cases: Sequence[QuestionWithGold],
    column: Sequence[QuestionOutcome],
    judged: dict[str, Judgement],
    index: int,
) -> SettingReport:
    timed = [one.ms for one in column if one.timed]
    signal = np.array([one.answerable >= ABSTAIN_BELOW for one in column])
    answerable = np.array([case.asked.question.answerable for case in cases])
    kinds = (("answerable", answerable), ("unanswerable", ~answerable))
    return SettingReport(
        setting=setting,
        measures={name: judgement.estimates[index] for name, judgement in judged.items()},
        latency_ms=percentiles(timed) if timed else {},
        timed=len(timed),
        signal_reached={kind: float(signal[which].mean()) for kind, which in kinds if which.any()},
    )


def _question_report(case: QuestionWithGold, row: Sequence[QuestionOutcome], names: Sequence[str]) -> QuestionReport:
    items = sorted(case.gold.items, key=lambda item: (item[0], item[1] or 0)) if case.gold is not None else []
    return QuestionReport(
        id=case.asked.id,
        line=case.asked.line,
        question=case.asked.question.question,
        answerable=case.asked.question.answerable,
        document_id=case.document_id,
        filename=case.filename,
        gold=[{"document_id": document, "page": page} for document, page in items],
        outcomes=dict(zip(names, row, strict=True)),
    )


def _documents(case: QuestionWithGold) -> set[str]:
    named = set[str]() if case.document_id is None else {case.document_id}
    return named | ({document for document, _ in case.gold.items} if case.gold is not None else set())


def _notes(counts: Counts, judged: dict[str, Judgement]) -> list[str]:
    notes: list[str] = []
    leading = judged.get(_LEADING)
    if leading is None:
        notes.append("No question names a document, page or excerpt, so search itself is not judged.")
    else:
        notes.append(_resolution(leading, counts.with_place))
    if not counts.unanswerable:
        notes.append(
            'No question is marked "answerable": false, so it is not judged whether the service knows '
            "when it has no answer."
        )
    elif AUROC not in judged:
        notes.append("No question has an answer, so abstention cannot be judged against anything.")
    if counts.left_out:
        notes.append(f"{counts.left_out} questions were left out, since they name what is not there.")
    return notes


def _resolution(leading: Judgement, questions: int) -> str:
    """What so many questions can show."""
    few = f"{questions} questions are few: " if questions < _FEW else f"With {questions} questions, "
    seen = [one.detectable for one in leading.comparisons if one.detectable is not None]
    if not leading.comparisons:
        first = leading.estimates[0]
        return f"{few}{_LEADING} is known to about ±{50 * (first.high - first.low):.0f} points (95 %)."
    if not seen:
        return f"{few}no difference in {_LEADING} was there to be told from noise."
    return (
        f"{few}a difference in {_LEADING} of less than about {100 * max(seen):.0f} points is likely to be missed "
        "(found four times out of five at that size, at the 5 % level)."
    )
