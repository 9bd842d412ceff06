"""Feedback on answers: stored, listed, deleted, and exported as questions for ``ragsvc evaluate``.

A key sees its own feedback; an administrator sees that of the whole tenant.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from typing import Final

import msgspec
from sqlalchemy import Connection

from ragsvc.core.access.principal import Principal
from ragsvc.core.errors import QuotaExceeded
from ragsvc.core.feedback import Feedback, FeedbackDraft, Rating, as_question
from ragsvc.core.ids import KeyId
from ragsvc.services.access_control import write_to_the_end
from ragsvc.store import feedback_rows as rows
from ragsvc.store.database import Database
from ragsvc.store.feedback_rows import FeedbackReach

_AT_ONCE: Final = 100


class FeedbackService:
    """Stores, shows and removes feedback."""

    def __init__(
        self,
        database: Database,
        *,
        require_key: Callable[[Connection, KeyId], None],
        max_per_tenant: int | None = None,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], str] = lambda: secrets.token_hex(12),
    ) -> None:
        """``require_key`` raises if the key was deleted. ``draw`` makes the random part of an id."""
        self._database = database
        self._require_key = require_key
        self._max_per_tenant = max_per_tenant
        self._clock = clock
        self._draw = draw

    async def add(self, principal: Principal, draft: FeedbackDraft) -> Feedback:
        """Store feedback; earlier feedback of the key on the same answer is replaced and keeps its id.

        Raises:
            QuotaExceeded: the tenant may have no more feedback.
        """
        now = int(self._clock())

        def write(connection: Connection) -> Feedback:
            self._require_key(connection, principal.key_id)
            public_id = f"fb_{self._draw()}"
            stored = rows.insert_feedback(connection, principal.tenant, principal.key_id, public_id, draft, now=now)
            self._check_quota(connection, principal, added=stored.public_id == public_id)
            return stored

        return await write_to_the_end(self._database, write)

    def _check_quota(self, connection: Connection, principal: Principal, *, added: bool) -> None:
        """Raise if there is one piece too many now, which undoes the transaction; replaced feedback adds none."""
        most = self._max_per_tenant
        if most is not None and added and rows.count_feedback(connection, principal.tenant) > most:
            raise QuotaExceeded(
                f"The tenant '{principal.tenant}' may have {most} pieces of feedback and has them. Delete feedback, "
                "or ask the operator for a higher limit."
            )

    async def get(self, reach: FeedbackReach, public_id: str) -> Feedback:
        """Raises ``FeedbackNotFound``."""
        return await self._database.read(lambda connection: rows.find_feedback(connection, reach, public_id))

    async def delete(self, reach: FeedbackReach, public_id: str) -> None:
        """Raises ``FeedbackNotFound``."""
        await write_to_the_end(self._database, lambda connection: rows.delete_feedback(connection, reach, public_id))

    async def page(
        self, reach: FeedbackReach, *, limit: int, after: str | None, rating: Rating | None
    ) -> tuple[list[Feedback], bool]:
        """A page, newest first, and whether more follows. Raises ``FeedbackNotFound``."""

        def read(connection: Connection) -> tuple[list[Feedback], bool]:
            before = None if after is None else rows.find_feedback(connection, reach, after).id
            return rows.feedback_page(connection, reach, limit=limit, before=before, rating=rating)

        return await self._database.read(read)

    async def questions(self, reach: FeedbackReach, *, rating: Rating | None) -> AsyncGenerator[bytes]:
        """Lines of a questions file, newest first; a question that was rated several times is in it once."""
        seen: set[bytes] = set()
        async for feedback in self.all(reach, rating=rating):
            question = " ".join(feedback.draft.question.split())
            digest = hashlib.sha256(question.encode()).digest()[:16]
            if question and digest not in seen:
                seen.add(digest)
                yield msgspec.json.encode(as_question(feedback)) + b"\n"

    async def all(self, reach: FeedbackReach, *, rating: Rating | None) -> AsyncGenerator[Feedback]:
        """All feedback in reach, newest first."""
        before: int | None = None
        while True:
            found, more = await self._database.read(
                lambda connection, before=before: rows.feedback_page(  # type: ignore[misc]
                    connection, reach, limit=_AT_ONCE, before=before, rating=rating
                )
            )
            for feedback in found:
                yield feedback
            if not more:
                return
            before = found[-1].id
