"""Asks the service every question under every setting, one request at a time, and keeps what the measures need."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ragsvc.cli.failures import CommandFailed
from ragsvc.cli.service_client import Json, ServiceClient
from ragsvc.evaluation.gold import QuestionWithGold
from ragsvc.evaluation.measures.judging import Span, judge
from ragsvc.evaluation.measures.scores import contains, token_f1
from ragsvc.evaluation.settings import Setting

_ANSWER_TIMEOUT_S = 600.0
_MARKER = re.compile(r"\[\d+\]")
_LEAST_EMBEDDING_MS = 0.1
_WARM_UP = "Is the service awake?"


class FoundPassage(msgspec.Struct, frozen=True):
    """A passage that was found, without its text."""

    document_id: str
    filename: str
    page: int
    score: float


class QuestionOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """A question under one setting.

    ``timed`` unless its time says little of a search: the service remembered the question's embedding from another
    setting, or a limit made it wait.
    """

    measures: dict[str, float]
    rank: int | None
    found: list[FoundPassage]
    answerable: float
    ms: float
    timed: bool
    abstained: bool | None = None


class EvaluationPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked. ``model`` also answers each question; ``None``: only search."""

    settings: Sequence[Setting]
    collection: str
    within_document: bool
    model: str | None
    seed: int


async def ask_all(
    client: ServiceClient, cases: Sequence[QuestionWithGold], plan: EvaluationPlan, done: Callable[[], None]
) -> list[list[QuestionOutcome]]:
    """Outcomes of each case in the order of the settings; ``done`` is called after each case.

    The settings take turns in an order drawn for each question, so that what else the machine does, and what the
    service remembers, hits all alike.
    """
    clock = _Clock()
    told, client.on_pause = client.on_pause, clock.told_by(client.on_pause)
    order = random.Random(plan.seed)  # noqa: S311 - an order, not a secret
    embedded: set[str] = set()
    outcomes: list[list[QuestionOutcome]] = []
    try:
        for setting in plan.settings:
            await client.post("/v1/rag/search", _search_body(_WARM_UP, setting, plan.collection, None))
        for case in cases:
            by_setting: dict[int, QuestionOutcome] = {}
            for index in order.sample(range(len(plan.settings)), len(plan.settings)):
                by_setting[index] = await _ask(client, case, plan.settings[index], plan, clock=clock, embedded=embedded)
            outcomes.append([by_setting[index] for index in range(len(plan.settings))])
            done()
    finally:
        client.on_pause = told
    return outcomes


async def _ask(
    client: ServiceClient,
    case: QuestionWithGold,
    setting: Setting,
    plan: EvaluationPlan,
    *,
    clock: _Clock,
    embedded: set[str],
) -> QuestionOutcome:
    text = case.asked.question.question
    documents = [case.document_id] if plan.within_document and case.document_id is not None else None
    fresh = not (setting.embeds and text in embedded)
    if setting.embeds:
        embedded.add(text)
    clock.start()
    try:
        answer = await client.post("/v1/rag/search", _search_body(text, setting, plan.collection, documents))
        ms, paused = clock.ms(), clock.paused
        message = await _answer(client, text, setting, plan, documents)
    except CommandFailed as failure:
        raise CommandFailed(
            f"question '{case.asked.id}', setting '{setting.name}': {failure.message}",
            code=failure.code,
            exit_code=failure.exit_code,
            status=failure.status,
            retry_after_s=failure.retry_after_s,
        ) from failure
    measures, rank = _judge(case, answer["data"])
    abstained = None
    if message is not None:
        abstained = not message.get("annotations")
        measures |= _judge_answer(case, message.get("content") or "", abstained=abstained)
    return QuestionOutcome(
        measures=measures,
        rank=rank,
        found=[
            FoundPassage(document_id=hit["document_id"], filename=hit["filename"], page=hit["page"], score=hit["score"])
            for hit in answer["data"]
        ],
        answerable=answer["answerable"],
        ms=round(ms, 3),
        timed=fresh and not paused and not (setting.embeds and _was_remembered(answer)),
        abstained=abstained,
    )


def _was_remembered(answer: Json) -> bool:
    """Whether the service had the question's embedding from an earlier search, of another run say."""
    return float(answer.get("timings_ms", {}).get("embed", 1.0)) < _LEAST_EMBEDDING_MS


async def _answer(
    client: ServiceClient, text: str, setting: Setting, plan: EvaluationPlan, documents: Sequence[str] | None
) -> Json | None:
    if plan.model is None:
        return None
    body = {
        "model": plan.model,
        "messages": [{"role": "user", "content": text}],
        "use_rag": True,
        "rag": setting.body(plan.collection, documents),
    }
    reply = await client.post("/v1/chat/completions", body, timeout_s=_ANSWER_TIMEOUT_S)
    message: Json = reply["choices"][0]["message"]
    return message


def _search_body(text: str, setting: Setting, collection: str, documents: Sequence[str] | None) -> dict[str, Any]:
    return {"query": text, **setting.body(collection, documents), "rerank": setting.rerank}


def _judge(case: QuestionWithGold, hits: Sequence[Json]) -> tuple[dict[str, float], int | None]:
    if case.gold is None:
        return {}, None
    spans = [Span(hit["document_id"], hit["page"], hit["start"], hit["end"]) for hit in hits]
    measures = judge(spans, case.gold)
    return measures, round(1 / measures["mrr"]) if measures["mrr"] else None


def _judge_answer(case: QuestionWithGold, text: str, *, abstained: bool) -> dict[str, float]:
    """An answer that cites nothing abstains: whatever it says, it does not say it of the documents."""
    question = case.asked.question
    judged = {"abstention_accuracy": float(abstained != question.answerable)}
    if question.answer is not None:
        plain = _MARKER.sub(" ", text)
        judged["answer_f1"] = 0.0 if abstained else token_f1(plain, question.answer)
        judged["answer_contains"] = float(not abstained and contains(plain, question.answer))
    return judged


class _Clock:
    """Times a request's last attempt: pauses that a limit asks for are not the search's."""

    def __init__(self) -> None:
        self._started = 0.0
        self.paused = False

    def start(self) -> None:
        self._started = time.perf_counter()
        self.paused = False

    def ms(self) -> float:
        return max(0.0, 1000 * (time.perf_counter() - self._started))

    def told_by(self, next_listener: Callable[[float, str], None] | None) -> Callable[[float, str], None]:
        """A listener for pauses that also tells ``next_listener``."""

        def pause(pause_s: float, why: str) -> None:
            self._started = time.perf_counter() + pause_s
            self.paused = True
            if next_listener is not None:
                next_listener(pause_s, why)

        return pause
