import pytest

from ragsvc.core.errors import InvalidRequest
from ragsvc.core.retrieval.filters import matches, parse_filter

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
    assert matches(parse_filter(raw), DOCUMENT) is expected


@pytest.mark.parametrize(
    ("raw", "place", "problem"),
    [
        (None, "filters", ": expected `object` with the field `type`"),
        ([], "filters", ": expected `object` with the field `type`"),
        ({}, "filters.type", " is required"),
        ({"type": "like", "key": "a", "value": "b"}, "filters.type", ": invalid enum value 'like'"),
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
