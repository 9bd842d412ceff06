"""``GET /v1/key``: the key of the request, with its limits and what is left of them, and its usage. For every key."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.params import FromQuery

from ragsvc.core.access.limits import UNLIMITED, TokenLedger
from ragsvc.core.access.money import to_amount
from ragsvc.services.access_control import LiveKey
from ragsvc.store.key_usage_rows import UsageFilter
from ragsvc.web.app_state import services_of
from ragsvc.web.auth import AccessRequirement
from ragsvc.web.context import context_of
from ragsvc.web.csv_answers import json_or_csv
from ragsvc.web.routes.keys import KeyBody, fields_of_key
from ragsvc.web.routes.usage import Date, Format, GroupBy, UsageReport, answer_usage, days_of

AnyRequest = Request[Any, Any, Any]
_OPT = {"scope": AccessRequirement.ANY_KEY, "tag": "keys"}


class OwnKeyBody(KeyBody, frozen=True, kw_only=True):
    """The key of the request. ``…_granted`` is the balance that was last set, ``…_used_today`` counts the day in UTC.

    ``tokens_remaining`` and ``money_remaining`` are what a request could use now, ``null`` without a limit;
    ``money_remaining`` also counts the budget of the tenant.
    ``requests_remaining`` is what is left of the window that ends first, ``null`` without a limit.
    """

    tokens_granted: int | None
    tokens_used_today: int
    tokens_remaining: int | None
    money_granted: float | None
    money_used_today: float
    money_remaining: float | None
    requests_remaining: int | None


@get("/v1/key", opt=_OPT, summary="Show the key in use")
async def get_own_key(request: AnyRequest) -> OwnKeyBody:
    """Show the key of this request: its permissions, its limits, and what is left of them."""
    live = _live(request)
    access = services_of(request).access
    left = await access.remaining(live.principal)
    money_left = await access.remaining_money(live.principal)
    limits = msgspec.structs.replace(
        live.key.limits, token_balance=_balance(live.ledger), money_balance=_balance(live.money)
    )
    key = msgspec.structs.replace(live.key, limits=limits)
    window = live.gate.view(time.monotonic())
    live.money.turn(live.ledger.day)  # ``remaining`` has turned the other one
    return OwnKeyBody(
        **fields_of_key(key, access.clock()),
        tokens_granted=key.token_grant,
        tokens_used_today=live.ledger.used_today,
        tokens_remaining=left if live.ledger.limited else None,
        money_granted=None if key.money_grant is None else to_amount(key.money_grant),
        money_used_today=to_amount(live.money.used_today),
        money_remaining=None if money_left is None else to_amount(money_left),
        requests_remaining=None if window.limit == UNLIMITED else window.remaining,
    )


@get(
    "/v1/key/usage",
    opt={**_OPT, **json_or_csv("Usage of the key, a row for each combination of the columns.", UsageReport)},
    summary="Show the usage of the key in use",
)
async def get_own_usage(
    request: AnyRequest,
    since: Date = None,
    until: Date = None,
    model: FromQuery[str | None] = None,
    family: FromQuery[str | None] = None,
    group_by: GroupBy = "day",
    format: Format = None,  # noqa: A002 - the name of the query parameter
) -> Response[UsageReport] | Response[bytes]:
    """Sum the usage of the key of this request, as ``GET /v1/usage`` does for administrators."""
    key = _live(request).key
    first, last = days_of(request, since, until)
    which = UsageFilter(since_day=first, until_day=last, tenant=key.tenant, key_id=key.id, model=model, family=family)
    return await answer_usage(request, which, group_by, format)


def _live(request: AnyRequest) -> LiveKey:
    live = context_of(request.scope).live
    assert live is not None  # noqa: S101 - the route requires a key
    return live


def _balance(ledger: TokenLedger) -> int | None:
    """The balance without what is used and not written yet."""
    return None if ledger.balance is None else ledger.balance - ledger.unwritten


route_handlers = [get_own_key, get_own_usage]
"""All routes of this module."""
