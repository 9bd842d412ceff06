"""Names in the package: a class name has one meaning, and loops name what they iterate over; names of test files."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

import ragsvc

PACKAGE = Path(ragsvc.__file__).parent
ROOT = Path(__file__).parents[2]
MODULES = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


def test_a_class_name_is_defined_once() -> None:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path, text in MODULES.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert len(found) > 400
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_loops_name_what_they_iterate_over() -> None:
    vague = [
        f"{path.relative_to(PACKAGE)}:{number}"
        for path, text in MODULES.items()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(r"\bfor one in\b", line)
    ]
    assert vague == []


def test_a_module_name_says_more_than_its_folder() -> None:
    """Modules of one name stand in at most two folders, say as routes and as the services behind them."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        if path.stem not in ("__init__", "__main__"):
            found[path.stem].append(str(path.relative_to(PACKAGE)))
    assert {name: places for name, places in found.items() if len(places) > 3} == {}


def test_a_test_file_has_a_name_of_its_own() -> None:
    """Pytest refuses two test files of one name in folders that are no packages, but only when both are collected."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if "node_modules" not in path.parts:
            found[path.name].append(str(path.relative_to(ROOT)))
    assert len(found) > 200
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout of git")
def test_nothing_lies_at_the_top_level_by_mistake():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {"ragsvc", "indexes", "tests", "fixtures", "scripts", "docs", "findings", ".ci"}
    files = {"pyproject.toml", "constraints.txt", "zensical.toml", ".gitignore", "README.md", "LICENSE", "CHANGELOG.md"}
    files |= {"CONTRIBUTING.md", "SECURITY.md"}
    for path in listed.splitlines():
        top, _, rest = path.partition("/")
        assert top in (folders if rest else files), path
