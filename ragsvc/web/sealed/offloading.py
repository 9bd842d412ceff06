"""Runs ciphers over large bodies in a worker thread, so that they do not block the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import anyio.to_thread

T = TypeVar("T")

OFFLOAD_BYTES: Final = 1 << 20
"""Larger bodies are sealed and opened in a worker thread; a MiB takes about 1 ms."""


async def run_in_thread_if_large(function: Callable[[bytes], T], data: bytes, *, size_bytes: int | None = None) -> T:
    """Run ``function(data)``, in a worker thread from ``OFFLOAD_BYTES`` on.

    ``size_bytes`` is the amount of work when it is not the length of ``data``.
    """
    if (len(data) if size_bytes is None else size_bytes) < OFFLOAD_BYTES:
        return function(data)
    return await anyio.to_thread.run_sync(function, data)
