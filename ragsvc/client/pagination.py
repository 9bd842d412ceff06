"""Lists of the service, page by page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from ragsvc.client.calls import Call

T = TypeVar("T")


class ListPage(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A page of a list; the next page begins after ``last_id``."""

    data: list[T]
    last_id: str | None = None
    has_more: bool = False


class PagedCall(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A list of which a call reads one page.

    ``cursor`` names the parameter that continues the list, and ``position`` returns its value after a page.
    """

    path: str
    params: Mapping[str, Any]
    decode: Callable[[bytes], ListPage[T]]
    cursor: str = "after"
    position: Callable[[ListPage[T]], object]

    def first(self) -> Call[ListPage[T]]:
        return self._call(self.params)

    def next(self, page: ListPage[T]) -> Call[ListPage[T]] | None:
        """The call for the page after ``page``; ``None`` after the last page."""
        if not page.has_more or not page.data:
            return None
        return self._call({**self.params, self.cursor: self.position(page)})

    def _call(self, params: Mapping[str, Any]) -> Call[ListPage[T]]:
        return Call(method="GET", path=self.path, params=params, decode=self.decode)


def last_id(page: ListPage[Any]) -> str | None:
    return page.last_id
