"""``GET /v1/usage``: tokens and requests by tenant, key, model, family and day."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get
from litestar.params import FromQuery, QueryParameter

from ragsvc.core.access.limits import DAY_S
from ragsvc.core.access.principal import Scope
from ragsvc.core.ids import END_OF_TEXT
from ragsvc.core.validation import invalid_value
from ragsvc.store.key_usage_rows import SummedUsage, UsageDimension, UsageFilter
from ragsvc.web.app_state import services_of
from ragsvc.web.tenant_reach import own_tenant, require_tenant

_DEFAULT_DAYS = 30
_EPOCH = datetime.date(1970, 1, 1)
_DATE = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}{END_OF_TEXT}"
_GROUPS = "tenant,key_id,model,family,day"

_Date = Annotated[str | None, QueryParameter(pattern=_DATE, description="A day in UTC, `2026-11-29`")]
_GroupBy = Annotated[
    str, QueryParameter(description="Columns to distinguish, separated by commas: tenant, key_id, model, family, day")
]


class UsageBody(msgspec.Struct, frozen=True, kw_only=True):
    """Usage summed over the columns that are ``null``; ``date`` is in UTC.

    ``family`` is a group of endpoints; ``search``, ``documents`` and ``files`` (uploads) use no tokens.
    """

    tenant: str | None
    key_id: str | None
    model: str | None
    family: str | None
    date: str | None
    prompt_tokens: int
    completion_tokens: int
    requests: int


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """Usage from ``since`` to ``until``, both included."""

    object: Literal["list"] = "list"
    since: str
    until: str
    data: list[UsageBody]


@get("/v1/usage", opt={"scope": Scope.TENANT_ADMIN, "tag": "keys"}, summary="Show the usage")
async def get_summed_usage(
    request: Request[Any, Any, Any],
    since: _Date = None,
    until: _Date = None,
    tenant: FromQuery[str | None] = None,
    key_id: FromQuery[str | None] = None,
    model: FromQuery[str | None] = None,
    family: FromQuery[str | None] = None,
    group_by: _GroupBy = "tenant,day",
) -> UsageReport:
    """Sum tokens and requests by tenant, key, model, family and day; a tenant administrator sees its own tenant.

    Without ``since``, the last 30 days.
    """
    own = own_tenant(request)
    if own is not None:
        require_tenant(request, tenant or own)
        tenant = own
    last = int(services_of(request).access.clock()) // DAY_S if until is None else _date_as_day("until", until)
    first = last - _DEFAULT_DAYS + 1 if since is None else _date_as_day("since", since)
    which = UsageFilter(since_day=first, until_day=last, tenant=tenant, key_id=key_id, model=model, family=family)
    summed = await services_of(request).keys.summed_usage(which, _dimensions(group_by))
    return UsageReport(since=day_as_date(first), until=day_as_date(last), data=[_body(entry) for entry in summed])


def day_as_date(day: int) -> str:
    """A day since 1970 as a date.

    >>> day_as_date(20_786)
    '2026-11-29'
    """
    return (_EPOCH + datetime.timedelta(days=day)).isoformat()


def _date_as_day(name: str, text: str) -> int:
    try:
        return (datetime.date.fromisoformat(text) - _EPOCH).days
    except ValueError as error:
        raise invalid_value(name, "Expected a date such as '2026-11-29'") from error


def _dimensions(text: str) -> list[UsageDimension]:
    try:
        return [UsageDimension(name.strip()) for name in dict.fromkeys(text.split(",")) if name.strip()]
    except ValueError as error:
        raise invalid_value("group_by", f"Expected some of {_GROUPS}") from error


def _body(entry: SummedUsage) -> UsageBody:
    fields = msgspec.structs.asdict(entry)
    day = fields.pop("day")
    return UsageBody(**fields, date=None if day is None else day_as_date(day))


route_handlers = [get_summed_usage]
