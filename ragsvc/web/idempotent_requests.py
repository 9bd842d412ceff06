"""Reads the header ``Idempotency-Key`` of a request."""

from __future__ import annotations

from typing import Any

from litestar import Request

from ragsvc.services.idempotency import IdempotentRequest, repeatable
from ragsvc.web.auth import credential_of
from ragsvc.web.context import context_of


def idempotent_request(request: Request[Any, Any, Any], *parts: bytes) -> IdempotentRequest | None:
    """The identity of a request; ``None`` without the header. ``parts`` is what a repetition has to repeat.

    Raises:
        InvalidRequest: the header is empty or too long.
    """
    context = context_of(request.scope)
    name = context.headers.get(b"idempotency-key")
    if name is None:
        return None
    return repeatable(
        owner=context.principal.key_id,
        name=name,
        credential=credential_of(context.headers) or context.session_token or b"",
        parts=[request.method.encode(), request.url.path.encode(), *parts],
    )
