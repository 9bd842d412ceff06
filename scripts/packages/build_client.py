"""Build the distribution ``ragsvc-client`` from the modules that ``ragsvc.client`` imports.

    python -m scripts.packages.build_client [--output FOLDER] [--tree]

writes a wheel and a source archive to ``build/client``; with ``--tree`` the source tree only. The import root
``ragsvc`` becomes ``ragsvc_client``, so that both distributions can be installed in one environment. Needs setuptools
in the environment of the interpreter, and no network.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.packages.client_closure import CLIENT, PACKAGE, ROOT, client_closure

NAME: Final = "ragsvc-client"
IMPORT_NAME: Final = "ragsvc_client"
README: Final = Path(__file__).with_name("client_readme.md")
DISTRIBUTION_OF: Final = {
    "anyio": "anyio",
    "cryptography": "cryptography",
    "httpx": "httpx",
    "msgspec": "msgspec",
}
"""Distributions by the names that are imported. A new need of the client has to be added here."""

_ROOT_NAME = re.compile(rf"\b{PACKAGE}(?=\.(?:client|core|crypto)\b)|(?<=^from ){PACKAGE}(?= import )", re.MULTILINE)
_EXPORTED = re.compile(r"^__all__ = \[\n(.*?)^\]", re.MULTILINE | re.DOTALL)
_BUILD_BACKEND = """\
import sys
from setuptools import build_meta
output = sys.argv[1]  # setuptools replaces sys.argv
build_meta.build_sdist(output)
build_meta.build_wheel(output)
"""


class UnknownNeed(Exception):
    """The client imports a package that the distribution does not name."""


def rename_root(source: str) -> str:
    """Source text with ``ragsvc_client`` instead of ``ragsvc`` in names of modules.

    >>> rename_root("from ragsvc import __version__\\nfrom ragsvc.core.errors import ConfigurationError")
    'from ragsvc_client import __version__\\nfrom ragsvc_client.core.errors import ConfigurationError'
    """
    return _ROOT_NAME.sub(IMPORT_NAME, source)


def write_tree(target: Path) -> Path:
    """Write the source tree of the distribution into the empty or new folder ``target``. Raises ``UnknownNeed``."""
    closure = client_closure()
    unknown = sorted(closure.needs - DISTRIBUTION_OF.keys())
    if unknown:
        raise UnknownNeed(f"The client imports {', '.join(unknown)}, which {Path(__file__).name} does not know.")
    package = target / IMPORT_NAME
    for name, file in closure.modules.items():
        if name == PACKAGE:
            continue
        written = package / file.relative_to(ROOT / PACKAGE)
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(rename_root(file.read_text(encoding="utf-8")), encoding="utf-8")
    project = read_project()
    (package / "__init__.py").write_text(_root_module(project["version"]), encoding="utf-8")
    (package / "py.typed").touch()
    shutil.copy(README, target / "README.md")
    shutil.copy(ROOT / "LICENSE", target / "LICENSE")
    (target / "pyproject.toml").write_text(_metadata(project, closure.needs), encoding="utf-8")
    return target


def build(output: Path) -> list[Path]:
    """Write the source archive and the wheel; returns their paths."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = write_tree(Path(folder) / NAME)
        done = subprocess.run(
            [sys.executable, "-c", _BUILD_BACKEND, str(output.resolve())],
            cwd=tree,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"error: setuptools could not build {NAME}:\n{done.stderr}")
    version = read_project()["version"]
    return [output / f"{IMPORT_NAME}-{version}.tar.gz", output / f"{IMPORT_NAME}-{version}-py3-none-any.whl"]


def read_project() -> dict[str, Any]:
    """The table ``project`` of the package's ``pyproject.toml``."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def _root_module(version: str) -> str:
    exports = _EXPORTED.search((ROOT / CLIENT.replace(".", "/") / "__init__.py").read_text(encoding="utf-8"))
    if exports is None:
        raise ValueError(f"{CLIENT} has no list of exports")
    names = re.findall(r'"(\w+)"', exports[1])
    listed = "".join(f"    {name},\n" for name in names)
    quoted = "".join(f'    "{name}",\n' for name in ["__version__", *names])
    return f'''"""The Python client of ragsvc: documents, search, answers with citations, and end-to-end encryption."""

__version__ = "{version}"

from {IMPORT_NAME}.client import (
{listed})

__all__ = [
{quoted}]
'''


def _metadata(project: dict[str, Any], needs: frozenset[str]) -> str:
    """``pyproject.toml`` of the distribution, with the version and the ranges of the package's own."""
    wanted = {canonicalize_name(DISTRIBUTION_OF[name]) for name in needs}
    ranges = {canonicalize_name(Requirement(line).name): line for line in project["dependencies"]}
    dependencies = "".join(f'  "{ranges[name]}",\n' for name in sorted(wanted))
    classifiers = "".join(f'  "{line}",\n' for line in project["classifiers"] if not line.startswith("Framework"))
    return f"""\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{NAME}"
version = "{project["version"]}"
description = "The Python client of ragsvc: documents, answers with citations, end-to-end encryption."
readme = "README.md"
requires-python = "{project["requires-python"]}"
license = "{project["license"]}"
license-files = ["LICENSE"]
keywords = ["rag", "retrieval", "citations", "encryption", "hpke"]
classifiers = [
{classifiers}]
dependencies = [
{dependencies}]

[tool.setuptools.packages.find]
include = ["{IMPORT_NAME}*"]

[tool.setuptools.package-data]
{IMPORT_NAME} = ["py.typed"]
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "client", metavar="FOLDER")
    parser.add_argument("--tree", action="store_true", help="write the source tree only")
    options = parser.parse_args()
    try:
        if options.tree:
            print(write_tree(options.output))
            return 0
        for archive in build(options.output):
            print(f"{archive} ({archive.stat().st_size} bytes)")
    except UnknownNeed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
