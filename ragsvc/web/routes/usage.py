"""``GET /v1/usage``: tokens, requests, errors and durations by tenant, key, model, family and day."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

import anyio.to_thread
import msgspec
from litestar import MediaType, Request, Response, get
from litestar.params import FromQuery, QueryParameter

from ragsvc.core.access.limits import DAY_S
from ragsvc.core.access.money import to_amount
from ragsvc.core.access.principal import Scope
from ragsvc.core.ids import END_OF_TEXT
from ragsvc.core.validation import invalid_value
from ragsvc.store.key_usage_rows import KeyUsage, SummedUsage, UsageDimension, UsageFilter
from ragsvc.web.app_state import services_of
from ragsvc.web.csv_answers import TableFormat, csv_response, json_or_csv, wants_csv
from ragsvc.web.tenant_reach import own_tenant, require_tenant

_DEFAULT_DAYS = 30
_EPOCH = datetime.date(1970, 1, 1)
_FIRST_DAY = (datetime.date.min - _EPOCH).days
_ENCODED_AT_ONCE: Final = 500
_DATE = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}{END_OF_TEXT}"
_GROUPS = "tenant,key_id,model,family,day"
USAGE_COLUMNS = ("requests", "errors", "prompt_tokens", "completion_tokens", "cost", "latency_ms")
"""The columns of numbers in a table."""

T = TypeVar("T")

Date = Annotated[str | None, QueryParameter(pattern=_DATE, description="A day in UTC, `2026-11-29`")]
GroupBy = Annotated[
    str, QueryParameter(description="Columns to distinguish, separated by commas: tenant, key_id, model, family, day")
]


class UsageBody(msgspec.Struct, frozen=True, kw_only=True):
    """Usage summed over the columns that are ``null``; ``date`` is in UTC, ``cost`` in the currency of the prices.

    ``family`` is a group of endpoints; ``search``, ``documents`` and ``files`` (uploads) use no tokens. ``errors``
    counts requests that were answered with an error, also before their model was known (``model`` is ``""``);
    ``requests`` counts the others, and failed ones that used tokens. ``latency_ms`` is the mean time until the end of
    an answer without an error, ``null`` if none was measured.
    """

    tenant: str | None
    key_id: str | None
    model: str | None
    family: str | None
    date: str | None
    prompt_tokens: int
    completion_tokens: int
    requests: int
    cost: float
    errors: int
    latency_ms: float | None


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """Usage from ``since`` to ``until``, both included."""

    object: Literal["list"] = "list"
    since: str
    until: str
    data: list[UsageBody]


_REPORT = json_or_csv("Usage, a row for each combination of the columns.", UsageReport)
Format = Annotated[
    TableFormat | None, QueryParameter(description="`csv` for a table; without it, the header `Accept` decides")
]


@get("/v1/usage", opt={"scope": Scope.TENANT_ADMIN, "tag": "keys", **_REPORT}, summary="Show the usage")
async def get_summed_usage(
    request: Request[Any, Any, Any],
    since: Date = None,
    until: Date = None,
    tenant: FromQuery[str | None] = None,
    key_id: FromQuery[str | None] = None,
    model: FromQuery[str | None] = None,
    family: FromQuery[str | None] = None,
    group_by: GroupBy = "tenant,day",
    format: Format = None,  # noqa: A002 - the name of the query parameter
) -> Response[UsageReport] | Response[bytes]:
    """Sum tokens, requests, errors and durations by tenant, key, model, family and day, in JSON or as a table (CSV).

    A tenant administrator sees its own tenant. Without ``since``, the last 30 days.
    """
    own = own_tenant(request)
    if own is not None:
        require_tenant(request, tenant or own)
        tenant = own
    first, last = days_of(request, since, until)
    which = UsageFilter(since_day=first, until_day=last, tenant=tenant, key_id=key_id, model=model, family=family)
    return await answer_usage(request, which, group_by, format)


def days_of(request: Request[Any, Any, Any], since: str | None, until: str | None) -> tuple[int, int]:
    """The first and the last day of a report. Raises ``InvalidRequest``."""
    last = int(services_of(request).access.clock()) // DAY_S if until is None else _date_as_day("until", until)
    first = max(last - _DEFAULT_DAYS + 1, _FIRST_DAY) if since is None else _date_as_day("since", since)
    return first, last


async def answer_usage(
    request: Request[Any, Any, Any], which: UsageFilter, group_by: str, wanted: TableFormat | None
) -> Response[UsageReport] | Response[bytes]:
    """Usage summed by the columns ``group_by``, in the form that the request asks for."""
    dimensions = _dimensions(group_by)
    summed = await services_of(request).keys.summed_usage(which, dimensions)
    since, until = day_as_date(which.since_day), day_as_date(which.until_day)
    if not wants_csv(request, wanted):
        report = UsageReport(since=since, until=until, data=[])
        return await json_with_data(report, summed, _body)
    columns = [
        *("date" if dimension is UsageDimension.DAY else dimension.value for dimension in dimensions),
        *USAGE_COLUMNS,
    ]
    return await csv_of(columns, summed, _body, filename=f"usage-{since}-{until}.csv")


async def json_with_data(report: msgspec.Struct, entries: Sequence[T], body: Callable[[T], object]) -> Response[Any]:
    """A report whose last field ``data``, which is empty, gets the bodies of many entries; made in a thread.

    They are encoded in parts: the encoder lets no other thread run.
    """

    def encode() -> bytes:
        parts = [
            msgspec.json.encode([body(entry) for entry in entries[begin : begin + _ENCODED_AT_ONCE]])[1:-1]
            for begin in range(0, len(entries), _ENCODED_AT_ONCE)
        ]
        return msgspec.json.encode(report).removesuffix(b"]}") + b",".join(parts) + b"]}"

    return Response(await anyio.to_thread.run_sync(encode), media_type=MediaType.JSON)


async def csv_of(
    columns: Sequence[str], entries: Sequence[T], body: Callable[[T], object], *, filename: str
) -> Response[bytes]:
    """The columns of the bodies of many entries as a table, made in a thread."""

    def write() -> Response[bytes]:
        bodies = map(body, entries)
        return csv_response(columns, ([getattr(row, name) for name in columns] for row in bodies), filename=filename)

    return await anyio.to_thread.run_sync(write)


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
    fields = shown_numbers(entry)
    day = fields.pop("day")
    return UsageBody(**fields, date=None if day is None else day_as_date(day))


def shown_numbers(entry: SummedUsage | KeyUsage) -> dict[str, Any]:
    """The fields of usage with money as an amount and the mean duration instead of sums."""
    fields = msgspec.structs.asdict(entry)
    fields["cost"] = to_amount(fields.pop("cost_micros"))
    duration_ms, timed = fields.pop("duration_ms"), fields.pop("timed_requests")
    fields["latency_ms"] = round(duration_ms / timed, 1) if timed else None
    return fields


route_handlers = [get_summed_usage]
