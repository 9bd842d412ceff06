"""The README does what it says: its commands and snippets run here, in order, and its tables follow the code."""

import ast
import contextlib
import inspect
import io
import os
import re
import stat
import subprocess
import sys
import textwrap
import tomllib
import unittest
from pathlib import Path
from typing import Any

import pytest
from sybil import Document, Example
from sybil.parsers.markdown import CodeBlockParser, SkipParser

from ragsvc.cli.failures import ExitCode
from ragsvc.config import Settings
from ragsvc.core import errors
from ragsvc.testing.service_runner import ROOT
from ragsvc.web.errors import RENDERINGS

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
_HOW_TO_UPDATE = "the code has changed; 'python -m tests.integration.test_readme' brings the README's tables up to date"


@pytest.fixture
def shell_environment(tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the quickstart leaves behind, without installing anything: address, key, and ``ragsvc`` on the path."""
    program = tmp_path / "bin" / "ragsvc"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ragsvc "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    for name in [name for name in os.environ if name.startswith("RAGSVC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RAGSVC_URL", tenant.service.url)
    monkeypatch.setenv("RAGSVC_API_KEY", tenant.key)
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def _run_bash(example: Example) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example.parsed],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, f"line {example.line}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    example.namespace["printed"] = done.stdout


def _run_python(example: Example) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example.parsed, f"{README}:{example.line}", "exec"), example.namespace)  # noqa: S102 - our own text
    example.namespace["printed"] = printed.getvalue()


def _compare(example: Example) -> None:
    """What a block printed; ``…`` stands for anything."""
    printed = example.namespace.pop("printed", None)
    if printed is None:
        return  # a drawing, not an output
    pattern = ".*?".join(re.escape(part) for part in example.parsed.strip().split("…"))
    assert re.fullmatch(pattern, printed.strip(), re.DOTALL), f"line {example.line}: printed\n{printed}"


def _read_toml(example: Example) -> None:
    assert tomllib.loads(example.parsed)


@pytest.mark.model
@pytest.mark.timeout(600)
def test_every_command_and_snippet_works_in_order(shell_environment: None) -> None:
    parsers = [
        SkipParser(),
        CodeBlockParser("bash", _run_bash),
        CodeBlockParser("python", _run_python),
        CodeBlockParser("text", _compare),
        CodeBlockParser("toml", _read_toml),
    ]
    document = Document.parse(str(README), *parsers)
    count = 0
    for example in document.examples():
        with contextlib.suppress(unittest.SkipTest):
            example.evaluate()
        count += 1
    assert count > 12
    document.namespace["stream"].close()
    document.namespace["client"].close()


def test_the_settings_table_says_what_the_settings_are() -> None:
    assert settings_table() in TEXT, _HOW_TO_UPDATE


def test_the_error_table_says_what_the_service_answers() -> None:
    assert errors_table() in TEXT, _HOW_TO_UPDATE


def test_the_exit_codes_are_all_listed() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)}
    assert {int(code) for code in ExitCode} <= listed


def test_files_that_the_readme_names_exist() -> None:
    named = set(re.findall(r"`((?:tests|scripts|fixtures|ragsvc)/[\w./-]+\w)`", TEXT))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_no_placeholder_is_left() -> None:
    assert (
        re.findall(r"\b(?:TODO|TBD|FIXME|[A-Z]{4,}_[A-Z_]{4,})\b", re.sub(r"RAGSVC_\w+|VENDOR_API_KEY", "", TEXT)) == []
    )


def settings_table() -> str:
    """The settings with defaults and docstrings, as the README shows them."""
    defaults = Settings()
    rows = ["| variable | default | |", "|---|---|---|"]
    for name, words in _field_docstrings(Settings).items():
        if name == "providers":
            rows.append(f"| `[[providers]]` | none | {words} |")
        else:
            rows.append(
                f"| `RAGSVC_{name.upper()}` | {_default(getattr(defaults, name))} | {words.replace('``', '`')} |"
            )
    return "\n".join(rows)


def _default(value: Any) -> str:
    return "none" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _field_docstrings(kind: type) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, docstring in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(docstring, ast.Expr)
            assert isinstance(docstring.value, ast.Constant)
            found[field.target.id] = " ".join(str(docstring.value.value).split())
    assert set(found) == set(kind.__struct_fields__)
    return found


def errors_table() -> str:
    """Codes with their status and what they mean."""
    rows = ["| status | `code` | meaning |", "|---|---|---|"]
    listed = [
        (rendering.status, kind.code, inspect.getdoc(kind))
        for kind, rendering in RENDERINGS.items()
        if kind
        not in (errors.Forbidden, errors.DataDirectoryLocked, errors.ConfigurationError, errors.ExtractionFailed)
    ]
    for status, code, words in sorted(listed):
        first = " ".join((words or "").split("\n\n")[0].split()).replace("``", "`")
        rows.append(f"| {status} | `{code}` | {first} |")
    return "\n".join(rows)


def update_tables() -> None:
    """Write the tables anew where they stand."""
    text = TEXT
    for made in (settings_table(), errors_table()):
        head = re.escape(made.split("\n", 1)[0])
        text = re.sub(rf"^{head}\n(?:\|.*\n)+", lambda _, made=made: f"{made}\n", text, flags=re.MULTILINE)
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    update_tables()
