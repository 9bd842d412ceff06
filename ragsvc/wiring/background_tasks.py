"""Background tasks of the service: if one fails, the process ends with a message instead of serving without it."""

from __future__ import annotations

import logging
import signal
import traceback
from collections.abc import Awaitable, Callable

import anyio

from ragsvc.core.errors import BackgroundTaskFailed

logger = logging.getLogger(__name__)

STUCK_AFTER_S = 60


async def run_background_task(
    name: str, work: Callable[[], Awaitable[None]], *, stuck_after_s: int = STUCK_AFTER_S
) -> None:
    """Run a task that has to live as long as the service.

    Its failure ends the task group and with it the service. If the shutdown does not finish within ``stuck_after_s``
    (a native thread may hang after a panic), the kernel ends the process: SIGALRM needs no free thread.

    Raises:
        BackgroundTaskFailed: the task failed; the log has the stack, without the message, which may contain text.
    """
    try:
        await work()
    except anyio.get_cancelled_exc_class():
        raise
    except BaseException as error:  # noqa: BLE001 - also panics of native code, which are no Exceptions
        stack = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)))
        logger.critical("background task '%s' failed with %s; the service stops\n%s", name, type(error).__name__, stack)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(stuck_after_s)
        message = (
            f"The background task '{name}' failed with {type(error).__name__}. The service stopped; start it again."
        )
        raise BackgroundTaskFailed(message) from None


def shutdown_finished() -> None:
    """Cancel the end of the process that a failed task has scheduled."""
    signal.alarm(0)
