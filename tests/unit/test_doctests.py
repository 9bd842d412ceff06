"""Every example in a docstring of the package runs here, through Sybil, in the module it documents."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sybil.document import PythonDocStringDocument
from sybil.parsers.rest import DocTestParser

import ragsvc

PACKAGE = Path(ragsvc.__file__).parent
_PROMPT = re.compile(r"^\s*>>> ", re.MULTILINE)
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if _PROMPT.search(path.read_text(encoding="utf-8")))


def _name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_examples_in_docstrings_hold(path: Path, record_property: Callable[[str, object], None]) -> None:
    document = PythonDocStringDocument.parse(str(path), DocTestParser())
    examples = list(document.examples())
    for example in examples:
        example.evaluate()
    prompts = len(_PROMPT.findall(path.read_text(encoding="utf-8")))
    assert len(examples) == prompts, "a '>>>' outside a docstring never runs"
    record_property("docstring_examples", len(examples))


def test_modules_with_examples_are_found() -> None:
    assert len(MODULES) > 20
