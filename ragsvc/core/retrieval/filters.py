"""Metadata filters in the comparison and compound shapes of OpenAI's vector stores.

``{"type": "eq"|"ne"|"gt"|"gte"|"lt"|"lte"|"in"|"nin"|"contains"|"prefix", "key": …, "value": …}`` or
``{"type": "and"|"or", "filters": […]}``.
A document without the key matches only ``ne`` and ``nin``. Values of different types are neither equal nor ordered.
``contains`` and ``prefix`` compare text and ignore case. The keys ``filename`` and ``created_at`` are the document's
own unless its metadata have them; a filter on ``created_at`` has Unix seconds, or an ISO 8601 date or time (UTC unless
it says otherwise).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, assert_never

import msgspec

from ragsvc.core.errors import InvalidRequest
from ragsvc.core.validation import check_nesting, check_number, invalid_field, invalid_value

_SHAPE = (
    '{"type": "eq", "key": "year", "value": 2024} or {"type": "and", "filters": [{"type": "prefix", "key": "filename", '
    '"value": "report"}]}'
)
Scalar = str | int | float | bool
_MAX_DEPTH = 8
_MAX_NODES = 256


class MetadataComparison(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A condition on one metadata value."""

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "contains", "prefix"]
    key: str
    value: Scalar | list[Scalar]


class CompoundFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A conjunction or disjunction of filters."""

    type: Literal["and", "or"]
    filters: list[Filter]


Filter = MetadataComparison | CompoundFilter
_TYPES = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "contains", "prefix", "and", "or")


def parse_filter(raw: object, *, path: str = "filters") -> Filter:
    """Parse a filter from decoded JSON. ``path`` is its place in the request.

    Raises:
        InvalidRequest: the shape is wrong, or the filter exceeds the limits on depth and number of conditions.
    """
    budget = [_MAX_NODES]
    try:
        check_nesting(path, raw)
        return _parse(raw, path, depth=0, budget=budget)
    except InvalidRequest as error:  # the message names the place in the filter, ``param`` the whole filter
        raise InvalidRequest(error.message, param=path) from error


def _parse(raw: object, path: str, *, depth: int, budget: list[int]) -> Filter:
    budget[0] -= 1
    if depth > _MAX_DEPTH or budget[0] < 0:
        raise invalid_value(path, f"Expected at most {_MAX_DEPTH} levels of filters and {_MAX_NODES} conditions")
    raw, kind = _shaped(raw, path)
    if kind in ("and", "or"):
        members = raw.get("filters")
        if not isinstance(members, list) or not members or set(raw) != {"type", "filters"}:
            raise invalid_value(path, f"Expected a non-empty `array` in `filters` and no other field for type '{kind}'")
        parsed = [
            _parse(member, f"{path}.filters[{index}]", depth=depth + 1, budget=budget)
            for index, member in enumerate(members)
        ]
        return CompoundFilter(type=kind, filters=parsed)
    try:
        comparison = msgspec.convert(dict(raw), MetadataComparison)
    except msgspec.ValidationError as error:
        raise invalid_field(error, within=path) from error
    for value in comparison.value if isinstance(comparison.value, list) else (comparison.value,):
        check_number(f"{path}.value", value)
    wants_list = comparison.type in ("in", "nin")
    if wants_list != isinstance(comparison.value, list):
        expected = "`array`" if wants_list else "a single value"
        raise invalid_value(f"{path}.value", f"Expected {expected} for type '{comparison.type}'")
    if comparison.type in ("contains", "prefix") and not isinstance(comparison.value, str):
        raise invalid_value(f"{path}.value", f"Expected `str` for type '{comparison.type}'")
    return comparison


def _shaped(raw: object, path: str) -> tuple[Mapping[str, Any], Any]:
    """The object of a filter and its type, one of those known."""
    if not isinstance(raw, Mapping):
        raise invalid_value(path, f"Expected an `object` such as {_SHAPE}")
    kind = raw.get("type")
    if kind is None:
        raise invalid_value(path, f"`type` is missing; expected a filter such as {_SHAPE}")
    if kind not in _TYPES:
        raise invalid_value(f"{path}.type", f"Expected one of {', '.join(_TYPES)}")
    return raw, kind


def matches(condition: Filter, metadata: Mapping[str, Any], *, filename: str, created_at: float) -> bool:
    """Whether a document's metadata, file name and time of creation satisfy the filter."""
    if isinstance(condition, CompoundFilter):
        results = (matches(member, metadata, filename=filename, created_at=created_at) for member in condition.filters)
        return all(results) if condition.type == "and" else any(results)
    key, value = condition.key, condition.value
    if key in metadata:
        return _compare(condition, metadata[key], value)
    if key == "filename":
        return _compare(condition, filename, value)
    if key == "created_at":
        times = [_time(item) for item in value] if isinstance(value, list) else _time(value)
        return _compare(condition, created_at, times)
    return condition.type in ("ne", "nin")


def _time(value: Scalar) -> Scalar:
    """Unix seconds of an ISO 8601 date or time; other values stay."""
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return value
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _compare(condition: MetadataComparison, actual: object, value: Scalar | list[Scalar]) -> bool:
    match condition.type:
        case "eq":
            return _equal(actual, value)
        case "ne":
            return not _equal(actual, value)
        case "in":
            return isinstance(value, list) and any(_equal(actual, candidate) for candidate in value)
        case "nin":
            return not (isinstance(value, list) and any(_equal(actual, candidate) for candidate in value))
        case "contains" | "prefix":
            return _has_part(condition.type, actual, value)
        case "gt" | "gte" | "lt" | "lte":
            return _ordered(condition.type, actual, value)
        case _:
            assert_never(condition.type)


def _equal(left: object, right: object) -> bool:
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _has_part(operator: Literal["contains", "prefix"], text: object, part: object) -> bool:
    if not isinstance(text, str) or not isinstance(part, str):
        return False
    text, part = text.casefold(), part.casefold()
    return part in text if operator == "contains" else text.startswith(part)


def _ordered(operator: Literal["gt", "gte", "lt", "lte"], left: object, right: object) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return False
    if isinstance(left, str) and isinstance(right, str):
        order = (left > right) - (left < right)
    elif isinstance(left, int | float) and isinstance(right, int | float):
        order = int(left > right) - int(left < right)
    else:
        return False
    return {"gt": order > 0, "gte": order >= 0, "lt": order < 0, "lte": order <= 0}[operator]
