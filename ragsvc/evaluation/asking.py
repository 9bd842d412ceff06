"""Searches every question with every setting, one request at a time, and keeps the outcomes for the measures."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ragsvc.evaluation.errors import QuestionFailed
from ragsvc.evaluation.gold import QuestionWithGold
from ragsvc.evaluation.measures.judging import Span, judge
from ragsvc.evaluation.measures.scores import contains, token_f1
from ragsvc.evaluation.service import EvaluatedService, Json
from ragsvc.evaluation.settings import SearchSetting

_ANSWER_TIMEOUT_S = 600.0
_CITATION_MARKER = re.compile(r"\[\d+\]")
_MIN_EMBEDDING_MS = 0.1
"""A shorter embedding time means that the service took the embedding from its cache."""

_WARM_UP_QUERY = "Is the service awake?"


class FoundPassage(msgspec.Struct, frozen=True):
    """A passage that a search returned, without its text."""

    document_id: str
    filename: str
    page: int
    score: float


class QuestionOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a question with one setting.

    ``timed`` is ``False`` if ``ms`` does not represent a search: the service had cached the question's embedding, or a
    rate limit delayed the request.
    """

    measures: dict[str, float]
    rank: int | None
    found: list[FoundPassage]
    answerable: float
    ms: float
    timed: bool
    abstained: bool | None = None


class EvaluationPlan(msgspec.Struct, frozen=True, kw_only=True):
    """``model`` also answers each question; with ``None`` only search is evaluated."""

    settings: Sequence[SearchSetting]
    collection: str
    within_document: bool
    model: str | None
    seed: int


async def ask_all(
    client: EvaluatedService, cases: Sequence[QuestionWithGold], plan: EvaluationPlan, done: Callable[[], None]
) -> list[list[QuestionOutcome]]:
    """Outcomes of each question, in the order of the settings; ``done`` is called after each question.

    The order of the settings is drawn for each question, so that other load on the machine and the service's caches
    affect all settings alike.

    Raises:
        QuestionFailed: a request failed.
    """
    clock = _Clock()
    listener, client.on_pause = client.on_pause, clock.pause_listener(client.on_pause)
    order = random.Random(plan.seed)  # noqa: S311 - an order, not a secret
    embedded: set[str] = set()
    outcomes: list[list[QuestionOutcome]] = []
    try:
        for setting in plan.settings:
            await client.post("/v1/rag/search", _search_body(_WARM_UP_QUERY, setting, plan.collection, None))
        for case in cases:
            by_setting: dict[int, QuestionOutcome] = {}
            for index in order.sample(range(len(plan.settings)), len(plan.settings)):
                by_setting[index] = await _ask(client, case, plan.settings[index], plan, clock=clock, embedded=embedded)
            outcomes.append([by_setting[index] for index in range(len(plan.settings))])
            done()
    finally:
        client.on_pause = listener
    return outcomes


async def _ask(
    client: EvaluatedService,
    case: QuestionWithGold,
    setting: SearchSetting,
    plan: EvaluationPlan,
    *,
    clock: _Clock,
    embedded: set[str],
) -> QuestionOutcome:
    text = case.numbered.question.question
    documents = [case.document_id] if plan.within_document and case.document_id is not None else None
    first_embedding = not (setting.embeds and text in embedded)
    if setting.embeds:
        embedded.add(text)
    clock.start()
    try:
        found = await client.post("/v1/rag/search", _search_body(text, setting, plan.collection, documents))
        ms, paused = clock.ms(), clock.paused
        message = await _answer(client, text, setting, plan, documents)
    except Exception as error:
        raise QuestionFailed(f"question '{case.numbered.id}', setting '{setting.name}'") from error
    measures, rank = _judge(case, found["data"])
    abstained = None
    if message is not None:
        abstained = not message.get("annotations")
        measures |= _judge_answer(case, message.get("content") or "", abstained=abstained)
    return QuestionOutcome(
        measures=measures,
        rank=rank,
        found=[
            FoundPassage(document_id=hit["document_id"], filename=hit["filename"], page=hit["page"], score=hit["score"])
            for hit in found["data"]
        ],
        answerable=found["answerable"],
        ms=round(ms, 3),
        timed=first_embedding and not paused and not (setting.embeds and _embedding_was_cached(found)),
        abstained=abstained,
    )


def _embedding_was_cached(found: Json) -> bool:
    """Whether the service had the question's embedding from an earlier search, possibly of another evaluation."""
    return float(found.get("timings_ms", {}).get("embed", 1.0)) < _MIN_EMBEDDING_MS


async def _answer(
    client: EvaluatedService, text: str, setting: SearchSetting, plan: EvaluationPlan, documents: Sequence[str] | None
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


def _search_body(text: str, setting: SearchSetting, collection: str, documents: Sequence[str] | None) -> dict[str, Any]:
    return {"query": text, **setting.body(collection, documents), "rerank": setting.rerank}


def _judge(case: QuestionWithGold, hits: Sequence[Json]) -> tuple[dict[str, float], int | None]:
    """The measures of a search, and the rank of the first correct passage."""
    if case.gold is None:
        return {}, None
    spans = [Span(hit["document_id"], hit["page"], hit["start"], hit["end"]) for hit in hits]
    measures = judge(spans, case.gold)
    return measures, round(1 / measures["mrr"]) if measures["mrr"] else None


def _judge_answer(case: QuestionWithGold, text: str, *, abstained: bool) -> dict[str, float]:
    """An answer without citations counts as an abstention: its content is not taken from the documents."""
    question = case.numbered.question
    measures = {"abstention_accuracy": float(abstained != question.answerable)}
    if question.answer is not None:
        plain = _CITATION_MARKER.sub(" ", text)
        measures["answer_f1"] = 0.0 if abstained else token_f1(plain, question.answer)
        measures["answer_contains"] = float(not abstained and contains(plain, question.answer))
    return measures


class _Clock:
    """Times the last attempt of a request, without the pauses that a rate limit imposes."""

    def __init__(self) -> None:
        self._started = 0.0
        self.paused = False

    def start(self) -> None:
        self._started = time.perf_counter()
        self.paused = False

    def ms(self) -> float:
        return max(0.0, 1000 * (time.perf_counter() - self._started))

    def pause_listener(self, next_listener: Callable[[float, str], None] | None) -> Callable[[float, str], None]:
        """A listener that excludes pauses from the time and then calls ``next_listener``."""

        def pause(pause_s: float, reason: str) -> None:
            self._started = time.perf_counter() + pause_s
            self.paused = True
            if next_listener is not None:
                next_listener(pause_s, reason)

        return pause
