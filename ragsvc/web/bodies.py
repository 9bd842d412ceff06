"""Reads request bodies: as bytes, or as JSON that is strictly decoded into a struct, without Litestar's conversions."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final, Self, TypeVar

import msgspec
from litestar import Request
from litestar.types import Receive

from ragsvc.core.errors import Overloaded
from ragsvc.core.validation import decode_json
from ragsvc.web.auth import body_too_large
from ragsvc.web.context import context_of

T = TypeVar("T")

UNCOUNTED_BYTES: Final = 1 << 20
"""Bodies up to this size do not count against the memory for large bodies."""


LARGE_BODIES_BYTES: Final = 128 << 20
"""Memory for large bodies that are being received and checked, of all requests together."""

LARGE_BODIES_KEY: Final = "large_bodies"
"""Key of this budget in the state of the application."""


CHAT_FILES_KEY: Final = "chat_files"
"""Key of the rules for files in chats, in the state of the application."""


class ChatFileRules(msgspec.Struct, frozen=True, kw_only=True):
    """The largest size of the files in a chat; ``pass_on``: providers get inline files unchanged."""

    max_bytes: int
    pass_on: bool


class MemoryBudget:
    """A number of bytes that all requests share."""

    def __init__(self, size_bytes: int, *, what: str) -> None:
        """``what`` names the requests in the error for a budget that is used up."""
        self._free_bytes = size_bytes
        self._what = what

    def share(self) -> BudgetShare:
        """A share that takes bytes from the budget when it is called; the end of its ``with`` block returns them."""
        return BudgetShare(self)

    def take(self, size_bytes: int) -> None:
        """Take bytes. Raises ``Overloaded`` when the budget has too few left."""
        if size_bytes > self._free_bytes:
            raise Overloaded(f"Too many {self._what} are being received.", retry_after_s=1)
        self._free_bytes -= size_bytes

    def give_back(self, size_bytes: int) -> None:
        self._free_bytes += size_bytes


class BudgetShare:
    """The bytes that a request has taken from a budget."""

    __slots__ = ("_budget", "_taken")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._taken = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.give_back(self._taken)

    def __call__(self, size_bytes: int) -> None:
        """Take more bytes. Raises ``Overloaded``."""
        self._budget.take(size_bytes)
        self._taken += size_bytes


async def read_json(request: Request[Any, Any, Any], decoder: msgspec.json.Decoder[T]) -> T:
    """Read and validate a JSON body, regardless of its ``Content-Type``. Raises as ``decode_json`` does."""
    body = await request.body()
    limit = context_of(request.scope).body_limit
    if len(body) > limit:  # a body that was sent without Content-Length
        raise body_too_large(limit)
    return decode_json(body, decoder)


async def read_body(receive: Receive, limit: float, take: Callable[[int], None] | None = None) -> bytes | None:
    """Read the whole body; ``None`` if the client disconnects before its end.

    ``take`` is called with the bytes of a body beyond ``UNCOUNTED_BYTES`` (see ``MemoryBudget.share``).

    Raises:
        TooLarge: more than ``limit`` bytes; for bodies sent without ``Content-Length``.
        Overloaded: the budget is used up.
    """
    message = await receive()
    if message["type"] != "http.request":
        return None
    first = message["body"]
    if len(first) > limit:
        raise body_too_large(limit)
    if not message["more_body"]:
        return first
    parts = io.BytesIO()  # returns its bytes without a copy, which would block the event loop: 10 ms for 28 MB
    size = parts.write(first)
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part = message["body"]
        if size + len(part) > limit:
            raise body_too_large(limit)
        if take is not None and size + len(part) > UNCOUNTED_BYTES:
            take(len(part))
        size += parts.write(part)
        if not message["more_body"]:
            return parts.getvalue()
