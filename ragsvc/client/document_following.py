"""Follows a document until it is ready, failed or deleted, without I/O: which streams to open, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from ragsvc.client.calls import SILENCE_S, Call, decoder_of
from ragsvc.client.event_decoding import Json
from ragsvc.client.service_errors import AnswerInterrupted, DocumentUnfinished, ServiceError, StatusError

ENDED: Final = frozenset({"ready", "failed"})
_TRIES = 5
_FIRST_PAUSE_S = 0.5


class Following:
    """The states of a document. A stream that breaks off is opened again, up to five times in all."""

    def __init__(
        self,
        document_path: str,
        document_id: str,
        *,
        timeout_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.look: Call[Json] = Call(method="GET", path=document_path, decode=decoder_of(Json))
        self.ended = False
        self._path = document_path
        self._document_id = document_id
        self._tries = 0
        self._clock = clock
        self._timeout_s = timeout_s
        self._deadline = None if timeout_s is None else clock() + timeout_s

    @property
    def stream(self) -> Call[Any]:
        """The call for the events of the document."""
        silence_s = SILENCE_S if self._deadline is None else min(SILENCE_S, max(self._deadline - self._clock(), 0.1))
        return Call(method="GET", path=f"{self._path}/events", decode=decoder_of(Json), timeout_s=silence_s)

    def check_time(self) -> None:
        """Raise ``DocumentUnfinished`` if the time is up."""
        if self._deadline is not None and self._clock() >= self._deadline:
            raise DocumentUnfinished(
                f"The document was not ready within {self._timeout_s:g} s; the service continues to process it.",
                code="timeout",
                document_id=self._document_id,
            )

    def take(self, state: Json) -> Json:
        """Take a state of the document. Raises ``DocumentUnfinished`` for a deletion."""
        if state.get("deleted"):
            raise DocumentUnfinished(
                "The document was deleted in the meantime.", code="document_not_found", document_id=self._document_id
            )
        self.ended = state.get("status") in ENDED
        return state

    def after_break(self, error: ServiceError) -> float:
        """Seconds until the stream is opened again. Raises ``error`` when that is useless."""
        self._tries += 1
        absent = isinstance(error, DocumentUnfinished) or (isinstance(error, StatusError) and error.status == 404)
        if absent or self._tries >= _TRIES:
            raise error
        self.check_time()
        given = error.retry_after_s if isinstance(error, StatusError) else None
        return given or _FIRST_PAUSE_S * 2 ** (self._tries - 1)

    def after_end(self) -> None:
        """Count a stream that ended before the document did. Raises ``AnswerInterrupted`` after the last one."""
        self._tries += 1
        if self._tries >= _TRIES:
            raise AnswerInterrupted(
                "The event streams of the service ended before the document was ready or failed.",
                code="upstream_error",
            )
