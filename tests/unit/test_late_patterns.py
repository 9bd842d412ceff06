"""Patterns that are compiled at their first use."""

from __future__ import annotations

import re

import pytest

from ragsvc.core.text.late_patterns import late_pattern


def test_a_late_pattern_does_what_the_compiled_one_does() -> None:
    late, compiled = (
        late_pattern(r"(?P<word>[a-z]+)\d", re.IGNORECASE),
        re.compile(r"(?P<word>[a-z]+)\d", re.IGNORECASE),
    )
    text = "Ab1 cd 2 EF3"
    assert late.findall(text) == compiled.findall(text) == ["Ab", "EF"]
    assert late.sub("-", text) == compiled.sub("-", text)
    assert late.split(text) == compiled.split(text)
    assert [match["word"] for match in late.finditer(text)] == ["Ab", "EF"]
    assert late.search(text, 3)[0] == "EF3"
    assert late.match(text).span() == (0, 3)
    assert late.fullmatch(text) is None
    assert (late.pattern, late.groupindex["word"]) == (compiled.pattern, 1)


def test_it_is_compiled_once_and_not_before_it_is_used() -> None:
    wrong = late_pattern("(")
    with pytest.raises(re.error):
        wrong.search("text")
    late = late_pattern("a")
    assert "search" not in vars(late)
    assert late.search("banana").start() == 1
    assert vars(late)["search"] == late.search
