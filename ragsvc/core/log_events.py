"""Structured log events: a name and fields besides the message, and the id of the request that caused them.

An event never carries secrets, document text, prompts or messages of providers: fields are ids, names that the operator
chose, codes, counts and durations.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("ragsvc_request_id", default=None)
"""The id of the request that this task or thread works for."""

TRACE_PARENT: Final[ContextVar[str | None]] = ContextVar("ragsvc_trace_parent", default=None)
"""The header ``traceparent`` of the request (W3C Trace Context), so that its spans continue the caller's trace."""

Field = str | int | float | bool | None


def log_event(
    logger: logging.Logger,
    level: int,
    event: str,
    message: str,
    *,
    error: BaseException | None = None,
    **fields: Field,
) -> None:
    """Log ``message`` under the stable name ``event``; of ``error`` only type and stack are written."""
    if logger.isEnabledFor(level):
        given = {name: value for name, value in fields.items() if value is not None}
        logger.log(level, "%s", message, exc_info=error, extra={"event": event, "fields": given})


class RepetitionLimit:
    """Lets the first event of a kind through, then one per ``every_s``, which says how many were left out.

    >>> now = [0.0]
    >>> limit = RepetitionLimit(every_s=10, clock=lambda: now[0])
    >>> limit.admit("slow"), limit.admit("slow"), limit.admit("other")
    (0, None, 0)
    >>> now[0] = 11; limit.admit("slow")
    1
    """

    def __init__(self, *, every_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._kinds: dict[object, tuple[float, int]] = {}

    def admit(self, kind: object) -> int | None:
        """How many events of this kind were left out since the last one, or ``None`` if this one is left out too."""
        now = self._clock()
        last, left_out = self._kinds.get(kind, (-self._every_s, 0))
        if now - last < self._every_s:
            self._kinds[kind] = (last, left_out + 1)
            return None
        self._kinds[kind] = (now, 0)
        return left_out
