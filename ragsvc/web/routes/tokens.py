"""``GET /v1/tokens``: tokens that the key has left."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, get

from ragsvc.web.app_state import services_of
from ragsvc.web.auth import AccessRequirement
from ragsvc.web.context import context_of


class TokenBalance(msgspec.Struct, frozen=True):
    """``tokens_remaining`` is the smaller of balance and daily budget; 999999999 if neither is set."""

    tokens_remaining: int


@get("/v1/tokens", opt={"scope": AccessRequirement.ANY_KEY, "tag": "keys"}, summary="Show the tokens left")
async def get_tokens(request: Request[Any, Any, Any]) -> TokenBalance:
    """Show how many tokens a request could use now."""
    principal = context_of(request.scope).principal
    return TokenBalance(await services_of(request).access.remaining(principal))


route_handlers = [get_tokens]
