"""Refuses query parameters that a route does not know: a misspelt filter would otherwise be ignored silently."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl

from litestar.handlers import HTTPRouteHandler

from ragsvc.core.errors import InvalidRequest
from ragsvc.core.gateway.retrieval_fields import refuse_retrieval_parameters
from ragsvc.core.near_misses import near_miss

_MAX_NAME = 64
_PATH_PARAMETER = re.compile(r"\{(\w+)")


def known_parameters(handler: HTTPRouteHandler) -> frozenset[str] | None:
    """The query parameters of a handler, also those it reads itself; ``None`` if it passes a query on to a provider."""
    if handler.opt.get("passes_query"):
        return None
    documented = {entry["name"] for entry in handler.opt.get("parameters", ()) if entry["in"] == "query"}
    model = handler.create_kwargs_model(path_parameters={})
    declared = {parameter.field_alias for parameter in model.expected_query_params}
    in_path = {name for path in handler.paths for name in _PATH_PARAMETER.findall(path)}
    return frozenset(documented | (declared - in_path))


def check_parameters(query: bytes, known: Iterable[str] | None) -> None:
    """Refuse unknown query parameters. Raises ``InvalidRequest`` naming the first one, and the one probably meant.

    If ``known`` is ``None``, every parameter is accepted except those that are fields of a chat's body.
    """
    if known is None:
        refuse_retrieval_parameters(query)
        return
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in known:
            continue
        if len(name) > _MAX_NAME:
            raise InvalidRequest("A query parameter has an unknown name.")
        meant = near_miss(name, known)
        accepted = f"'{meant}' was probably meant" if meant else _listed(known)
        raise InvalidRequest(f"'{name}' is not a query parameter of this route; {accepted}.", param=name)


def _listed(known: Iterable[str]) -> str:
    names = ", ".join(sorted(known))
    return f"it takes {names}" if names else "it takes none"
