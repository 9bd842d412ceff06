"""Messages of the error tree are sentences: an upper-case letter or a quoted field first, a full stop last."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ragsvc
from ragsvc.core import errors
from ragsvc.core.errors import ConfigurationError, RagsvcError

PACKAGE = Path(ragsvc.__file__).parent
SENTENCE = re.compile(r"(?:[A-Z]|'[^']+')(?:.*[^.])?\.", re.DOTALL)
TREE = {
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, RagsvcError) and value is not ConfigurationError
}
"""``ConfigurationError`` lists problems for the operator; its message is no sentence."""

SENT_LATER = {"overloaded"}
"""Keyword arguments whose text becomes the message of an error."""


def test_messages_are_sentences() -> None:
    messages = list(written_messages())
    assert len(messages) > 150
    assert [f"{place}: {text}" for place, text in messages if not SENTENCE.fullmatch(text)] == []


@pytest.mark.parametrize("text", ["lower case.", "No stop", "Two stops..", "'field' without a stop", "", "."])
def test_the_rule_refuses(text: str) -> None:
    assert not SENTENCE.fullmatch(text)


def written_messages() -> Iterator[tuple[str, str]]:
    """Place and text of each message in the code; ``X`` stands for an interpolated value."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                for text in texts_of(node):
                    yield f"{path.relative_to(PACKAGE)}:{node.lineno}", text


def texts_of(call: ast.Call) -> Iterator[str]:
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    if name in TREE:
        for argument in call.args:
            yield from literals(argument)
    for keyword in call.keywords:
        if keyword.arg in SENT_LATER:
            yield from literals(keyword.value)


def literals(value: ast.expr) -> Iterator[str]:
    match value:
        case ast.Constant(value=str(text)) if text:
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in parts)
        case ast.BoolOp(values=values):
            for branch in values:
                yield from literals(branch)
        case ast.IfExp(body=body, orelse=otherwise):
            yield from literals(body)
            yield from literals(otherwise)
        case ast.BinOp(left=left, right=right):
            begins, ends = list(literals(left)), list(literals(right))
            yield from (f"{begin}{end}" for begin in begins for end in ends)
        case _:
            pass
