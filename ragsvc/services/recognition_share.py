"""Text recognition has a share of its own, so that scans do not hold up documents with text.

A job first reads the text layers of its document, in a place among the jobs of all documents. If many pages are to be
recognised, it gives the place to another job and continues in the share, or waits in its queue while the share is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import anyio

from ragsvc.core.documents import Document, Stage
from ragsvc.core.ids import DocumentId
from ragsvc.core.ports.parsing import RecognitionTurn

FEW_PAGES: Final = 4
"""Documents with at most so many pages to recognise keep their place: a text with a picture is no scan."""


class JobPlace:
    """A place among the jobs that run at the same time; ``leave`` gives it to another job, once."""

    def __init__(self, places: anyio.Semaphore) -> None:
        self._places = places
        self._is_left = False

    def leave(self) -> None:
        if not self._is_left:
            self._is_left = True
            self._places.release()


class RecognitionShare:
    """At most ``limit`` documents whose pages are recognised. Belongs to one event loop."""

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limit = limit
        self._running: dict[DocumentId, tuple[float, int]] = {}
        self._deferred: dict[int, DocumentId] = {}

    @property
    def deferred(self) -> list[int]:
        """Ids of the jobs that must not run yet: those that wait for the share, except the next if it has room."""
        waiting = list(self._deferred)
        return waiting if len(self._running) >= self._limit else waiting[1:]

    def turn(self, document: Document, job_id: int, place: JobPlace, *, pages: int) -> RecognitionTurn:
        """How a job continues of whose document ``pages`` pages are to be recognised next."""
        if pages <= FEW_PAGES:
            return RecognitionTurn.STAY
        if len(self._running) >= self._limit:
            self._deferred[job_id] = document.id
            return RecognitionTurn.DEFER
        self._deferred.pop(job_id, None)
        self._running[document.id] = (self._clock(), pages)
        place.leave()
        return RecognitionTurn.MOVE

    def end(self, document_id: DocumentId, job_id: int, *, deferred: bool) -> bool:
        """End the run of a job, which was ``deferred`` or has left the share; returns whether others wait for it."""
        self._running.pop(document_id, None)
        if not deferred:
            self._deferred.pop(job_id, None)
        return bool(self._deferred)

    def forget(self, document_id: DocumentId) -> None:
        """Forget the job of a document that was deleted."""
        self._deferred = {job_id: waiting for job_id, waiting in self._deferred.items() if waiting != document_id}

    def eta_s(self, document: Document) -> float | None:
        """Seconds until the pages are recognised, by the time of those that are; ``None`` if unknown."""
        running = self._running.get(document.id)
        if running is None or document.stage is not Stage.PARSING:
            return None
        started, pages = running
        left = document.pages_total - document.pages_done
        done = pages - left
        return round(left * (self._clock() - started) / done, 1) if done > 0 else None
