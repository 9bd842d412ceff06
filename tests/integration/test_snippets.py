"""Every snippet of the documentation works: commands and programs run on a real service, settings are read as settings.

The snippets of a page run in their order and build on each other; each page has a tenant of its own. A block of
``text`` is compared with what the block before it printed; ``…`` stands for anything. What cannot run here is skipped
by a comment in the page, with a reason.
"""

import contextlib
import io
import os
import re
import stat
import subprocess
import sys
import unittest
from collections.abc import Callable
from pathlib import Path

import pytest
from sybil import Document, Example
from sybil.parsers.markdown import CodeBlockParser, SkipParser

from ragsvc.config import Settings
from ragsvc.testing.service_runner import ROOT
from scripts.packages.build_client import write_tree
from tests.support.documentation_pages import FENCE, PAGES, page_name

_WITH_SNIPPETS = [path for path in PAGES if FENCE.search(path.read_text(encoding="utf-8"))]
_HAS_PROGRAM = re.compile(r"^ *```(?:bash|python)$", re.MULTILINE)
_NOT_RUN = (
    "javascript",
    "typescript",
    "json",
    "ini",
    "nginx",
    "caddy",
    "console",
    "sql",
    "yaml",
    "rego",
    "dockerfile",
)
"""Languages without an evaluator: each block needs a skip comment."""


@pytest.fixture
def shell_environment(tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the quickstart leaves behind, without installing anything: address, key, and ``ragsvc`` on the path.

    ``ADMIN_KEY`` is a key with the scope ``admin``, which some how-to guides ask for.
    """
    program = tmp_path / "bin" / "ragsvc"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ragsvc "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    for name in [name for name in os.environ if name.startswith("RAGSVC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RAGSVC_URL", tenant.service.url)
    monkeypatch.setenv("RAGSVC_API_KEY", tenant.key)
    monkeypatch.setenv("ADMIN_KEY", tenant.service.admin_key)
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture
def client_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``ragsvc_client`` importable, as the wheel does."""
    monkeypatch.syspath_prepend(write_tree(tmp_path / "client"))


def _run_bash(example: Example) -> None:
    """Run commands; variables that they export reach the snippets after them, as in a reader's shell."""
    kept = example.namespace["folder"] / "environment"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{example.parsed}\nenv -0 > '{kept}'"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=200,
        env=example.namespace["environment"],
    )
    assert done.returncode == 0, f"line {example.line}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    pairs = kept.read_text(encoding="utf-8").rstrip("\0").split("\0")
    example.namespace["environment"] = dict(pair.split("=", 1) for pair in pairs)
    example.namespace["printed"] = done.stdout


def _run_python(example: Example) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example.parsed, f"{example.path}:{example.line}", "exec"), example.namespace)  # noqa: S102 - our own text
    example.namespace["printed"] = printed.getvalue()


def _compare(example: Example) -> None:
    """What a block printed; ``…`` stands for anything."""
    printed = example.namespace.pop("printed", None)
    assert printed is not None, f"line {example.line}: no output to compare with; a drawing needs a skip comment"
    pattern = ".*?".join(re.escape(part) for part in example.parsed.strip().split("…"))
    assert re.fullmatch(pattern, printed.strip(), re.DOTALL), f"line {example.line}: printed\n{printed}"


def _read_settings(example: Example) -> None:
    file = example.namespace["folder"] / "ragsvc.toml"
    file.write_text(example.parsed, encoding="utf-8")
    keys = dict.fromkeys(re.findall(r'^api_key_env = "(\w+)"', example.parsed, re.MULTILINE), "sk-example")
    assert Settings.from_env({"RAGSVC_CONFIG": str(file), **keys}) != Settings()


def _refuse(example: Example) -> None:
    raise AssertionError(f"line {example.line}: nothing runs this block; say why in a skip comment")


@pytest.mark.model
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", _WITH_SNIPPETS, ids=page_name)
def test_every_snippet_works_in_order(
    path: Path, request: pytest.FixtureRequest, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    if _HAS_PROGRAM.search(path.read_text(encoding="utf-8")):
        request.getfixturevalue("shell_environment")
    if "ragsvc_client" in path.read_text(encoding="utf-8"):
        request.getfixturevalue("client_distribution")
    parsers = [
        SkipParser(),
        CodeBlockParser("bash", _run_bash),
        CodeBlockParser("python", _run_python),
        CodeBlockParser("text", _compare),
        CodeBlockParser("toml", _read_settings),
        *(CodeBlockParser(language, _refuse) for language in _NOT_RUN),
    ]
    document = Document.parse(str(path), *parsers)
    document.namespace.update(folder=tmp_path, environment=dict(os.environ))
    ran = skipped = 0
    try:
        for example in document.examples():
            if not isinstance(example.parsed, str):
                example.evaluate()  # a skip comment
                continue
            try:
                example.evaluate()
                ran += 1
            except unittest.SkipTest:
                skipped += 1
    finally:
        for name in ("stream", "client"):
            if name in document.namespace:
                document.namespace[name].close()
    assert ran + skipped == len(FENCE.findall(path.read_text(encoding="utf-8"))), "a block was not recognised"
    record_property("snippets", ran)
    record_property("skipped_snippets", skipped)


def test_the_metrics_of_a_running_service_are_documented(service) -> None:
    with service.client(service.admin_key) as client:
        shown = set(re.findall(r"^# TYPE (ragsvc_\w+)", client.get("/metrics").text, re.MULTILINE))
    listed = set(re.findall(r"^\| `(ragsvc_\w+)`", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE))
    assert len(shown) > 8
    assert shown <= listed
