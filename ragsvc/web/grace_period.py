"""The grace period of a shutdown: streams that outlast it end with an error event instead of a cut connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from ragsvc.core.errors import ShuttingDown

GRACE_KEY: Final = "grace_period"
"""Key of the server's ``GracePeriod`` in the state of an ASGI scope."""


class GracePeriod:
    """Whether the time that running requests had to end is over; the server then cancels them."""

    def __init__(self) -> None:
        self.is_over = False


def take_cancellation(scope: Mapping[str, Any]) -> ShuttingDown | None:
    """The error to send to the client of a request that was cancelled, if the end of the grace period cancelled it.

    The request then continues, in order to send the error; it has two seconds.
    """
    grace = (scope.get("state") or {}).get(GRACE_KEY)
    task = asyncio.current_task()
    if not isinstance(grace, GracePeriod) or not grace.is_over or task is None:
        return None
    task.uncancel()
    return ShuttingDown("The service is shutting down, and the answer was not complete in time.", retry_after_s=1)
