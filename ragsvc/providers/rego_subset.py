"""The part of Rego that the engine in this process decides as Open Policy Agent does; everything else is refused. Pure.

Works on the syntax tree of regorus. Of the engines that are Python packages, regorus decided most like OPA: of 127
expressions with documented results, rego-cpp (regopy 1.5) decided 37 otherwise, among them ``max`` and ``sort`` of
numbers, ``semver.compare``, quotation marks in literals, ``Z`` in RFC 3339 and ``lower("Ä")``; regorus 0.9 decided 4
otherwise, all of which are refused here or, if they depend on the input (``has_special_case``), get no decision.

Source: the OPA documentation (Policy Reference, Built-in Functions) and the Go packages it is built with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

SyntaxTree = dict[str, Any]

_FUNCTIONS: Final = frozenset(
    """
    abs array.concat array.reverse array.slice concat contains count endswith indexof intersection is_array is_boolean
    is_null is_number is_object is_set is_string lower max min net.cidr_contains numbers.range object.get object.keys
    object.remove object.union product regex.match replace semver.compare semver.is_valid sort split startswith
    strings.any_prefix_match strings.any_suffix_match strings.count strings.reverse substring sum time.clock time.date
    time.now_ns time.parse_rfc3339_ns time.weekday trim trim_left trim_prefix trim_right trim_space trim_suffix
    type_name union upper
    """.split()
)
"""Functions whose results equal those of OPA; ``tests/unit/test_rego_policies.py`` compares them."""

_REASONS: Final = {
    "glob.match": "its wildcards cross delimiters here and not in OPA; use startswith, endswith or regex.match",
    "any": "OPA 1.0 removed it",
    "all": "OPA 1.0 removed it",
}
_NODES: Final = frozenset(
    """
    ArithExpr Array ArrayCompr AssignExpr BinExpr Bool BoolExpr Call Compr Default Every Expr Func Membership NotExpr
    Null Number Object ObjectCompr RawString RefBrack RefDot Set SetCompr SomeIn SomeVars Spec String UnaryExpr Var
    """.split()
)
_INEXACT_OPERATORS: Final = {"Div": "/", "Mod": "%"}
_ORDERINGS: Final = frozenset({"Lt", "Le", "Gt", "Ge"})
_COLLECTIONS: Final = frozenset({"Set", "Object", "SetCompr", "ObjectCompr"})
_EXACT: Final = (1 << 63) - 1
_SEPARATOR: Final = {"split": 1, "replace": 1, "indexof": 1, "strings.count": 1}
"""The argument that separates texts: Go and Rust differ for an empty one."""

_IMPORTS: Final = re.compile(r"(rego\.v1|future\.keywords(\.\w+)?|(input|data\.ragsvc)(\.\w+)*)")
_SAFE_PATTERN: Final = re.compile(
    r"""(?: \\[.*+?^$|()\[\]{}\\/-]             # an escaped sign
          | \[\^?(?:[^\[\]\\&~-]|[^\[\]\\&~-]-[^\[\]\\&~-])+-?\]  # a class of characters and ranges
          | \(\?:|\(\?i:|\(\?i\)|\((?!\?)|\)|\|
          | [.^$]
          | [*+?]\??
          | \{\d{1,3}(?:,\d{0,3})?\}
          | [^\\\[\](){}.^$*+?|]
        )*""",
    re.VERBOSE,
)


def refusals(tree: SyntaxTree) -> list[str]:
    """The reasons to refuse a policy, with lines; empty if it decides as OPA does."""
    own = {name for name in map(_function_head, tree["rules"]) if name}
    found = [
        f"line {_line(tree)}: a function of its own must not have the name of the built-in function {name}"
        for name in sorted(own & _FUNCTIONS)
    ]
    for statement in tree["imports"]:
        name = _dotted(statement["refr"])
        if not name or not _IMPORTS.fullmatch(name) or statement.get("as"):
            found.append(f"{_at(statement)}: import of {name or 'a computed name'}")
    nodes = list(_nodes(tree["rules"]))
    arithmetic = any(kind in ("ArithExpr", "UnaryExpr") for kind, _ in nodes)
    for kind, node in nodes:
        reason = _refusal(kind, node, own, arithmetic=arithmetic)
        if reason is not None:
            found.append(f"{_at(node)}: {reason}")
    return found


def changes_case(tree: SyntaxTree) -> bool:
    """Whether the policy calls ``lower`` or ``upper``."""
    return any(kind == "Call" and _dotted(node["fcn"]) in ("lower", "upper") for kind, node in _nodes(tree["rules"]))


def has_special_case(text: str) -> bool:
    """Whether the cases of the text depend on more than single letters: Go maps letter by letter, regorus does not.

    >>> [has_special_case(text) for text in ("gpt-4", "ÄÖÜ", "Straße", "ΟΔΟΣ", "İ")]
    [False, False, True, True, True]
    """
    return any(letter in "Σσςİ" or len(letter.upper()) > 1 or len(letter.lower()) > 1 for letter in text)


def _refusal(kind: str, node: Any, own: set[str], *, arithmetic: bool) -> str | None:  # noqa: ANN401 - a syntax tree
    match kind:
        case "with_mods":
            return "the keyword with"
        case "Number":
            return _number_refusal(node["value"], arithmetic=arithmetic)
        case "ArithExpr" if node["op"] in _INEXACT_OPERATORS:
            return f"the operator {_INEXACT_OPERATORS[node['op']]}"
        case "BoolExpr" if node["op"] in _ORDERINGS and _COLLECTIONS & {*node["lhs"], *node["rhs"]}:
            return "an order of sets or objects"
        case "Call":
            return _call_refusal(node, own)
        case _:
            return None if kind in _NODES else f"the syntax {kind}"


def _number_refusal(value: float, *, arithmetic: bool) -> str | None:
    if not isinstance(value, int):
        return f"the number {value} with arithmetic, which rounds differently" if arithmetic else None
    return f"the number {value}, which has more than 64 bits" if abs(value) > _EXACT else None


def _call_refusal(node: Any, own: set[str]) -> str | None:  # noqa: ANN401 - a syntax tree
    name = _dotted(node["fcn"]) or "a computed name"
    if name.removeprefix("data.ragsvc.") in own:
        return None
    if name not in _FUNCTIONS:
        reason = _REASONS.get(name, "its results are not known to equal those of OPA")
        return f"the function {name} ({reason})"
    arguments = node["params"]
    if name == "regex.match" and not _is_safe_pattern(_literal(arguments[0])):
        return (
            "a regular expression that is no literal, or has other syntax than groups, alternatives, repetitions, "
            "(?i), escaped signs and simple classes (write [0-9] for \\d and [A-Za-z0-9_] for \\w, which include "
            "other scripts here and not in OPA)"
        )
    position = _SEPARATOR.get(name)
    if position is not None and not (len(arguments) > position and _literal(arguments[position])):
        return f"{name} with a separator that is no literal or empty"
    return None


def _is_safe_pattern(pattern: str | None) -> bool:
    return pattern is not None and _SAFE_PATTERN.fullmatch(pattern) is not None


def _literal(node: SyntaxTree) -> str | None:
    for kind in ("String", "RawString"):
        if kind in node:
            return str(node[kind]["value"])
    return None


def _function_head(rule: SyntaxTree) -> str | None:
    head = rule.get("Spec", {}).get("head", {}).get("Func")
    return _dotted(head["refr"]) if head else None


def _nodes(tree: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - JSON
    """Every node of the tree with its kind. Kinds have capitals; ``with_mods`` counts as one if it is not empty."""
    if isinstance(tree, list):
        for item in tree:
            yield from _nodes(item)
    elif isinstance(tree, dict):
        for name, value in tree.items():
            if name[:1].isupper():
                yield name, value
            elif name == "with_mods" and value:
                yield name, value[0]
            if name != "span":
                yield from _nodes(value)


def _dotted(node: SyntaxTree) -> str | None:
    if "Var" in node:
        return str(node["Var"]["value"])
    if "RefDot" in node:
        left, (_, field) = _dotted(node["RefDot"]["refr"]), node["RefDot"]["field"]
        return None if left is None else f"{left}.{field}"
    return None


def _at(node: Any) -> str:  # noqa: ANN401 - JSON
    return f"line {_line(node)}"


def _line(node: Any) -> int:  # noqa: ANN401 - JSON
    if isinstance(node, dict):
        if "span" in node:
            return int(node["span"]["line"])
        return next((line for line in map(_line, node.values()) if line), 0)
    return 0
