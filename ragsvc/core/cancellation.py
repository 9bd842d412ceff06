"""Work in threads that stops when the task that waits for it is cancelled, for example because its client has left."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

_MOST_THREADS: Final = 40
_THREADS: Final = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="work")
"""Begins no thread before the first work."""

_COUNTED_CHARACTERS: Final = 100_000
"""About 20 ms of work for a tokenizer."""


class WorkCancelled(Exception):
    """Nobody waits for the result any more."""


class Cancellation:
    """Whether somebody still waits for the result; work in a thread calls ``check`` every few milliseconds."""

    def __init__(self) -> None:
        self._is_cancelled = False

    def cancel(self) -> None:
        self._is_cancelled = True

    def check(self) -> None:
        """Raise ``WorkCancelled`` if nobody waits any more."""
        if self._is_cancelled:
            raise WorkCancelled


async def run_in_thread(work: Callable[[Cancellation], T], *, threads: Executor = _THREADS) -> T:
    """Run ``work`` in one of ``threads``. If the caller is cancelled, the work is told and the caller goes on at once.

    ``anyio.to_thread`` gives way to the event loop twice before the work begins: a tenth of the time of a small chat.
    """
    cancellation = Cancellation()
    context = contextvars.copy_context()
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, lambda: context.run(work, cancellation))
    finally:
        cancellation.cancel()


def count_in_parts(count_tokens: Callable[[str], int], cancellation: Cancellation) -> Callable[[str], int]:
    """Count the tokens of texts in parts, between which a cancelled count stops. May count a token more for a part."""

    def count(text: str) -> int:
        tokens = 0
        for begin in range(0, len(text), _COUNTED_CHARACTERS):
            cancellation.check()
            tokens += count_tokens(text[begin : begin + _COUNTED_CHARACTERS])
        return tokens

    return count
