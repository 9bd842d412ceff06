"""Errors of requests are counted below one endpoint family, whichever of its paths a client uses."""

from __future__ import annotations

import pytest
from litestar.handlers import HTTPRouteHandler

from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.web.service_app import ROUTES
from ragsvc.web.usage_families import family_of_route

ENDS = {"chat/completions": Family.CHAT, "rerank": Family.RERANK, "embeddings": Family.EMBEDDINGS}
PATHS = sorted(
    path
    for handler in ROUTES
    if isinstance(handler, HTTPRouteHandler) and "POST" in map(str, handler.http_methods)
    for path in handler.paths
    if path.endswith(tuple(f"/{end}" for end in ENDS))
)


def test_there_are_several_paths_of_chats() -> None:
    assert {"/chat/completions", "/api/chat/completions", "/v1/chat/completions", "/v2/rerank"} <= set(PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_each_path_of_a_family_counts_as_the_family(path: str) -> None:
    expected = next(family for end, family in ENDS.items() if path.endswith(f"/{end}"))
    assert family_of_route("POST", path) == expected
