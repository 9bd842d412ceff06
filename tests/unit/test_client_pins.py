"""The clients that tests install are pinned: every package has an exact version, and lock files name no registry."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.clients.catalogue import CLIENTS, HERE

REQUIREMENTS = sorted((HERE / "requirements").glob("*.txt"))
PACKAGES = sorted((HERE / "packages").iterdir())
PIN = re.compile(r"^(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>[\w.]+)(?: ; .*)?$")


def pins_of(path: Path) -> list[tuple[str, str]]:
    """The packages of a file with their versions; every line is a pin or a comment."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    found = [PIN.match(line) for line in lines]
    assert [line for line, match in zip(lines, found, strict=True) if match is None] == []
    return [(match["name"], match["version"]) for match in found if match is not None]


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.stem)
def test_a_lock_file_has_the_pins_of_its_requirements(path: Path) -> None:
    locked = pins_of(path.with_suffix(".lock"))
    assert set(pins_of(path)) <= set(locked)
    assert len(locked) > 100


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_a_lock_file_of_node_packages_has_their_pins_and_hashes(folder: Path) -> None:
    wanted = json.loads((folder / "package.json").read_text(encoding="utf-8"))["dependencies"]
    packages = json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    packages.pop("")
    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert [name for name, package in packages.items() if not package["integrity"].startswith("sha512-")] == []


def test_every_client_has_a_pin_and_a_program() -> None:
    assert [client.name for client in CLIENTS if not re.fullmatch(r"[\d.]+", client.version)] == []
    programs = {path.name for path in (HERE / "programs").iterdir() if path.suffix in {".py", ".mjs"}}
    shared = {"reporting.py", "reporting.mjs", "ai_sdk_models.mjs"}
    of_other_tests = {name for name in programs if name.startswith("typescript_") or "_file_chat." in name}
    assert {client.program for client in CLIENTS} == programs - shared - of_other_tests
