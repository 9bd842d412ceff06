"""A Rego file decides as OPA does, or is refused at the start with the reason.

Expected results are those of the OPA documentation and of the Go packages that OPA calls.
"""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from ragsvc.core.errors import ConfigurationError
from ragsvc.providers.policy_engines import RegoFile
from ragsvc.providers.rego_subset import has_special_case

pytest.importorskip("regorus", reason="no wheel of the extra 'policies' for this platform")

INPUT = {
    "key": {"id": "k", "label": 'a"b\\c', "tenant": "Ärzte", "scopes": ["chat", "search"]},
    "model": "gpt-4",
    "family": "chat",
}


def decides(folder: Path, policy: str, given: dict[str, object] | None = None) -> bool:
    path = folder / "policy.rego"
    path.write_text(f"package ragsvc\n\nimport rego.v1\n\n{policy}\n", encoding="utf-8")

    async def decide() -> bool:
        return await rego(INPUT if given is None else given)

    rego = RegoFile(path)
    try:
        return anyio.run(decide)
    finally:
        rego.close()


SAME_AS_OPA = [
    # numbers are compared as numbers
    ("max([9, 10, 2])", 10),
    ("max({9, 10, 2})", 10),
    ("max([-1, -10])", -1),
    ('max([1, "a"])', "a"),
    ("min([9, 10, 2])", 2),
    ("sort([10, 9, 2, 1])", [1, 2, 9, 10]),
    ('sort([null, true, 1, "a", [1]])', [None, True, 1, "a", [1]]),
    ("sort({1.5, 10, 9})", [1.5, 9, 10]),
    ('1 < "a"', True),
    ('"10" < "9"', True),
    ("0 == -0", True),
    ("9007199254740991 - 1", 9007199254740990),
    ("sum([1, 2])", 3),
    ("product([2, 3])", 6),
    ("abs(-2)", 2),
    ("numbers.range(1, 3)", [1, 2, 3]),
    # versions
    ('semver.compare("1.10.0", "1.9.0")', 1),
    ('semver.compare("1.0.0-alpha.10", "1.0.0-alpha.9")', 1),
    ('semver.compare("1.0.0-alpha", "1.0.0")', -1),
    ('semver.compare("1.0.0+a", "1.0.0+b")', 0),
    ('semver.compare("1.0.0-1", "1.0.0-a")', -1),
    ('semver.is_valid("1.2")', False),
    # escapes in literals
    (r'count("a\"b")', 3),
    (r'count("a\nb")', 3),
    (r'count("a\\b")', 3),
    (r"count(`a\nb`)", 4),
    (r'contains(input.key.label, "\"")', True),
    (r'input.key.label == "a\"b\\c"', True),
    # RFC 3339
    ('time.parse_rfc3339_ns("2024-01-02T03:04:05Z")', 1704164645000000000),
    ('time.parse_rfc3339_ns("2024-01-02T03:04:05+01:00")', 1704161045000000000),
    ('time.parse_rfc3339_ns("1969-12-31T23:59:59Z")', -1000000000),
    ("time.clock(time.parse_rfc3339_ns(`2024-01-02T03:04:05Z`))", [3, 4, 5]),
    ('time.clock([time.parse_rfc3339_ns("2024-01-02T03:04:05Z"), "Europe/Berlin"])', [4, 4, 5]),
    ("time.date(0)", [1970, 1, 1]),
    ("time.weekday(0)", "Thursday"),
    ('time.now_ns() > time.parse_rfc3339_ns("2024-01-02T03:04:05Z")', True),
    # letters beyond ASCII
    ('lower("ÄÖÉ")', "äöé"),
    ('upper("äöé")', "ÄÖÉ"),
    ("lower(input.key.tenant)", "ärzte"),
    ('count("äö")', 2),
    ('substring("äöü", 1, 1)', "ö"),
    ('indexof("äöü", "ü")', 2),
    ('strings.reverse("äö")', "öä"),
    ('trim_space("\\u00a0a")', "a"),
    ('sort(["\U00010000", "\uffff"])', ["\uffff", "\U00010000"]),
    # texts
    ('concat(",", ["a", "b"])', "a,b"),
    ('split("a.b.c", ".")', ["a", "b", "c"]),
    ('split("", ".")', [""]),
    ('replace("aaa", "a", "b")', "bbb"),
    ('trim("aXa", "a")', "X"),
    ('trim_left("aab", "a")', "b"),
    ('trim_prefix("gpt-4", "gpt-")', "4"),
    ('trim_suffix("a.b", ".b")', "a"),
    ('substring("abc", 1, -1)', "bc"),
    ('substring("abc", 5, 1)', ""),
    ('startswith(input.model, "gpt")', True),
    ('strings.any_prefix_match("gpt-4", ["gpt"])', True),
    ('strings.count("aXaX", "X")', 2),
    # regular expressions
    ('regex.match("^gpt-[0-9]+$", input.model)', True),
    ('regex.match("^(?i)GPT", input.model)', True),
    ('regex.match("^[^a]$", "é")', True),
    ('regex.match("^a$", "a\\n")', False),
    ('regex.match("(?i)straße", "STRASSE")', False),
    (r'regex.match(`^gpt-4\.1(-mini|-nano)?$`, "gpt-4.1-mini")', True),
    # collections and networks
    ('"chat" in input.key.scopes', True),
    ("[y | some y in [3, 1]; y > 1]", [3]),
    ("array.concat([1], [2])", [1, 2]),
    ("array.slice([1, 2, 3], 1, 2)", [2]),
    ('object.get({"a": {"b": 1}}, ["a", "b"], 0)', 1),
    ('object.union({"a": 1}, {"b": 2})', {"a": 1, "b": 2}),
    ("count(intersection({{1, 2}, {2, 3}}))", 1),
    ('net.cidr_contains("10.0.0.0/8", "10.1.2.3")', True),
    ('net.cidr_contains("2001:db8::/32", "2001:db8::1")', True),
]


@pytest.mark.parametrize(("expression", "expected"), SAME_AS_OPA, ids=[case[0][:40] for case in SAME_AS_OPA])
def test_expressions_have_the_values_that_opa_documents(tmp_path, expression, expected):
    assert decides(tmp_path, f"result := {expression}\n\nallow if result == {json.dumps(expected)}")
    assert not decides(tmp_path, f"result := {expression}\n\nallow if result != {json.dumps(expected)}")


def test_the_language_around_expressions(tmp_path):
    policy = """
    default allow := false

    paid contains tenant if some tenant in ["Ärzte", "other"]

    is_small(model) if model in {"gpt-4", "gpt-5"}

    limit := 1 if input.family == "embeddings" else := 2 if input.family == "chat" else := 3

    allow if {
        input.key.tenant in paid
        is_small(input.model)
        not input.key.revoked
        every scope in input.key.scopes { scope != "admin" }
        limit == 2
        count({scope | some scope in input.key.scopes}) == 2
    }
    """
    assert decides(tmp_path, policy)
    assert not decides(tmp_path, policy, {**INPUT, "family": "embeddings"})
    assert not decides(tmp_path, policy, {})


REFUSED = [
    ('glob.match("gpt-*", ["."], input.model)', "line 5: the function glob.match (its wildcards cross delimiters"),
    ('http.send({"method": "GET", "url": "http://x"}).status_code == 200', "the function http.send"),
    ("any([true])", "the function any (OPA 1.0 removed it)"),
    ('sprintf("%d", [1]) == "1"', "the function sprintf"),
    ('json.marshal("<") == "x"', "the function json.marshal"),
    ("to_number(input.model) == 1", "the function to_number"),
    ("unknown.function(1)", "the function unknown.function"),
    (r'regex.match(`^\w$`, "é")', "a regular expression"),
    (r'regex.match(`^\d$`, "1")', "a regular expression"),
    ('regex.match("[a-z&&[b]]", "b")', "a regular expression"),
    ("regex.match(input.model, input.model)", "a regular expression that is no literal"),
    ('split(input.model, "") == ["a"]', "split with a separator that is no literal or empty"),
    ("1 / 4 == 0.25", "the operator /"),
    ("7 % 3 == 1", "the operator %"),
    ("0.1 + 0.2 == 0.3", "with arithmetic, which rounds differently"),
    ("12345678901234567890 > 1", "which has more than 64 bits"),
    ('{"a": 1} < {1}', "an order of sets or objects"),
    ('input.x with input as {"x": true}', "the keyword with"),
    ('lower(input.model) == "straße"', "lower and upper of letters such as ß"),
    ("count(5) == 1", "policy_file: "),
    ("startswith(input.key.scopes, `a`)", "policy_file: "),
]


@pytest.mark.parametrize(("expression", "reason"), REFUSED, ids=[case[0][:40] for case in REFUSED])
def test_what_could_decide_otherwise_is_refused_with_its_name(tmp_path, expression, reason):
    with pytest.raises(ConfigurationError) as caught:
        decides(tmp_path, f"allow if {expression}")
    assert reason in str(caught.value)
    assert "backtrace" not in str(caught.value)


def test_a_policy_of_another_package_is_refused(tmp_path):
    path = tmp_path / "policy.rego"
    path.write_text("package other\n\nallow := true\n")
    with pytest.raises(ConfigurationError, match="the package must be ragsvc, not other"):
        RegoFile(path)


def test_imports_and_names_that_opa_resolves_elsewhere_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"import of data\.users"):
        decides(tmp_path, "import data.users\n\nallow := true")
    with pytest.raises(ConfigurationError, match="must not have the name of the built-in function lower"):
        decides(tmp_path, "lower(x) := x\n\nallow := true")


@pytest.mark.parametrize("tenant", ["Straße", "ΟΔΟΣ", "İstanbul"])
def test_letters_whose_case_go_maps_otherwise_get_no_decision(tmp_path, tenant):
    given = {**INPUT, "key": {**INPUT["key"], "tenant": tenant}}
    assert has_special_case(tenant)
    with pytest.raises(ValueError, match="cases of a letter"):
        decides(tmp_path, 'allow if lower(input.key.tenant) != "x"', given)
    assert decides(tmp_path, 'allow if input.key.tenant != "x"', given)
