import pytest

from ragsvc.core.errors import InvalidRequest
from ragsvc.core.retrieval.filters import matches, parse_filter

SHAPE = (
    '{"type": "eq", "key": "year", "value": 2024} or {"type": "and", "filters": [{"type": "prefix", "key": "filename", '
    '"value": "report"}]}'
)
DOCUMENT = {"year": 2023, "company": "ACME", "public": True, "ratio": 0.5}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"type": "eq", "key": "year", "value": 2023}, True),
        ({"type": "eq", "key": "year", "value": "2023"}, False),
        ({"type": "eq", "key": "public", "value": 1}, False),
        ({"type": "ne", "key": "missing", "value": 1}, True),
        ({"type": "eq", "key": "missing", "value": 1}, False),
        ({"type": "gt", "key": "year", "value": 2022}, True),
        ({"type": "lte", "key": "ratio", "value": 0.5}, True),
        ({"type": "lt", "key": "company", "value": "B"}, True),
        ({"type": "gt", "key": "company", "value": 1}, False),
        ({"type": "in", "key": "company", "value": ["X", "ACME"]}, True),
        ({"type": "contains", "key": "company", "value": "cm"}, True),
        ({"type": "contains", "key": "year", "value": "20"}, False),
        ({"type": "prefix", "key": "company", "value": "ac"}, True),
        ({"type": "prefix", "key": "company", "value": "CM"}, False),
        ({"type": "prefix", "key": "missing", "value": ""}, False),
        ({"type": "prefix", "key": "filename", "value": "report"}, True),
        ({"type": "contains", "key": "filename", "value": "2022"}, False),
        ({"type": "gte", "key": "created_at", "value": 1_700_000_000}, True),
        ({"type": "gte", "key": "created_at", "value": "2023-11-14"}, True),
        ({"type": "lt", "key": "created_at", "value": "2023-11-14T23:13:20+01:00"}, False),
        ({"type": "lte", "key": "created_at", "value": "2023-11-14T23:13:20+01:00"}, True),
        ({"type": "gte", "key": "created_at", "value": "last week"}, False),
        ({"type": "nin", "key": "company", "value": ["X", "ACME"]}, False),
        (
            {
                "type": "and",
                "filters": [
                    {"type": "eq", "key": "company", "value": "ACME"},
                    {
                        "type": "or",
                        "filters": [
                            {"type": "eq", "key": "year", "value": 1},
                            {"type": "gte", "key": "year", "value": 2023},
                        ],
                    },
                ],
            },
            True,
        ),
    ],
)
def test_a_filter_decides_by_value_and_kind(raw: dict, expected: bool) -> None:
    assert matches(parse_filter(raw), DOCUMENT, filename="Report 2023.pdf", created_at=1_700_000_000) is expected


@pytest.mark.parametrize(
    ("raw", "place", "problem"),
    [
        (None, "filters", f": expected an `object` such as {SHAPE}"),
        ([], "filters", f": expected an `object` such as {SHAPE}"),
        ({}, "filters", f": `type` is missing; expected a filter such as {SHAPE}"),
        ({"year": {"$gte": 2023}}, "filters", f": `type` is missing; expected a filter such as {SHAPE}"),
        (
            {"type": "like", "key": "a", "value": "b"},
            "filters.type",
            ": expected one of eq, ne, gt, gte, lt, lte, in, nin, contains, prefix, and, or",
        ),
        ({"type": "prefix", "key": "a", "value": 1}, "filters.value", ": expected `str` for type 'prefix'"),
        ({"type": "eq", "key": "a"}, "filters.value", " is required"),
        ({"type": "eq", "key": "a", "value": [1]}, "filters.value", ": expected a single value for type 'eq'"),
        ({"type": "in", "key": "a", "value": 1}, "filters.value", ": expected `array` for type 'in'"),
        (
            {"type": "and", "filters": []},
            "filters",
            ": expected a non-empty `array` in `filters` and no other field for type 'and'",
        ),
        ({"type": "eq", "key": "a", "value": 1, "extra": 1}, "filters.extra", " is not a known field"),
        (
            {"type": "or", "filters": [{"type": "eq", "key": "a", "value": {"b": 1}}]},
            "filters.filters[0].value",
            ": expected `bool | int | float | str | array`, got `object`",
        ),
    ],
)
def test_another_shape_is_refused_with_the_field_named(raw: object, place: str, problem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_filter(raw)
    assert (caught.value.param, caught.value.message) == ("filters", f"'{place}'{problem}.")


def test_nesting_beyond_reason_is_refused() -> None:
    raw: dict = {"type": "eq", "key": "a", "value": 1}
    for _ in range(1000):
        raw = {"type": "and", "filters": [raw]}
    with pytest.raises(InvalidRequest):
        parse_filter(raw)
    with pytest.raises(InvalidRequest):
        parse_filter({"type": "or", "filters": [{"type": "eq", "key": "a", "value": 1}] * 1000})
