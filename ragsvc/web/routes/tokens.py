"""``GET /v1/tokens``: tokens and money that the key has left."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, get
from msgspec import UNSET, UnsetType

from ragsvc.core.access.money import to_amount
from ragsvc.web.app_state import services_of
from ragsvc.web.auth import AccessRequirement
from ragsvc.web.context import context_of


class TokenBalance(msgspec.Struct, frozen=True):
    """``tokens_remaining`` is the smaller of balance and daily budget; 999999999 if neither is set.

    ``money_remaining`` is the least of the money budgets of the key and its tenant; left out if they have none.
    """

    tokens_remaining: int
    money_remaining: float | UnsetType = UNSET


@get("/v1/tokens", opt={"scope": AccessRequirement.ANY_KEY, "tag": "keys"}, summary="Show the tokens left")
async def get_tokens(request: Request[Any, Any, Any]) -> TokenBalance:
    """Show how many tokens, and how much money, a request could use now."""
    principal = context_of(request.scope).principal
    access = services_of(request).access
    money = await access.remaining_money(principal)
    return TokenBalance(await access.remaining(principal), UNSET if money is None else to_amount(money))


route_handlers = [get_tokens]
