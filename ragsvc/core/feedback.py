"""Feedback of people on answers: values, and the line of a questions file that a piece of feedback becomes."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

import msgspec

from ragsvc.core.defaults import MAX_QUERY_LENGTH
from ragsvc.core.ids import KeyId, TenantId

MAX_ANSWER_CHARACTERS: Final = 200_000
MAX_NOTE_CHARACTERS: Final = 4_000
MAX_CITED_PLACES: Final = 100
_LEAST_LETTERS: Final = 4
"""Letters and digits of the shortest quote that can be found again."""


class Rating(StrEnum):
    """What a person thinks of an answer."""

    UP = "up"
    DOWN = "down"


class CitedPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A place that an answer cited. ``page`` counts from 1; ``quote`` is exact text of the page."""

    document_id: str
    page: int | None = None
    quote: str | None = None
    filename: str | None = None
    chunk_id: str | None = None


class FeedbackDraft(msgspec.Struct, frozen=True, kw_only=True):
    """Feedback to store.

    ``answer_id`` is the id of the response or of the chat completion. ``not_in_documents``: the answer states that the
    documents do not contain it.
    """

    question: str
    answer: str
    rating: Rating
    note: str | None = None
    citations: tuple[CitedPlace, ...] = ()
    not_in_documents: bool = False
    model: str | None = None
    collections: tuple[str, ...] = ()
    answer_id: str | None = None
    conversation_id: str | None = None


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """Stored feedback. ``id`` is the row id."""

    id: int
    public_id: str
    tenant: TenantId
    key_id: KeyId
    draft: FeedbackDraft
    created_at: int


def as_question(feedback: Feedback) -> dict[str, Any]:
    """The line of a questions file for ``ragsvc evaluate``.

    The place is known if the answer was rated as good. For other answers a person has to add it, or to state that the
    documents do not contain one.

    >>> place = CitedPlace(document_id="doc_1", page=3, quote="The fee is 40 euros.")
    >>> draft = FeedbackDraft(question="What is the fee?", answer="40 [1]", rating=Rating.UP, citations=(place,))
    >>> stored = Feedback(id=1, public_id="fb_1", tenant=TenantId("a"), key_id=KeyId("k"), draft=draft, created_at=0)
    >>> as_question(stored)["document"], as_question(stored)["pages"], as_question(stored)["excerpts"]
    ('doc_1', [3], ['The fee is 40 euros.'])
    """
    draft = feedback.draft
    line: dict[str, Any] = {"id": feedback.public_id, "question": draft.question[:MAX_QUERY_LENGTH]}
    if draft.rating is Rating.DOWN:
        return line
    if draft.not_in_documents:
        return {**line, "answerable": False}
    documents = {place.document_id for place in draft.citations}
    excerpts = [place.quote for place in draft.citations if place.quote and _can_be_found(place.quote)]
    if len(documents) == 1:
        line["document"] = documents.pop()
        line["pages"] = sorted({place.page for place in draft.citations if place.page is not None})
    if excerpts:
        line["excerpts"] = list(dict.fromkeys(excerpts))
    return line


def _can_be_found(quote: str) -> bool:
    return sum(character.isalnum() for character in quote) >= _LEAST_LETTERS
