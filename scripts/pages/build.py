"""Builds the web pages from ``ragsvc/web/pages/source`` into ``ragsvc/web/pages/static``, with Node and npm.

``--check`` builds into a temporary folder and compares: it fails if the folder in the repository differs. Without Node
it says so and compares nothing, unless the variable ``CI`` is set.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "ragsvc" / "web" / "pages" / "source"
OLDEST_NODE = (20, 19)
STATIC = ROOT / "ragsvc" / "web" / "pages" / "static"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare a new build with the folder in the repository")
    parser.add_argument("--out", type=Path, default=STATIC, help="folder to build into")
    options = parser.parse_args()
    if not has_node():
        print("The pages cannot be built: Node 20.19 or newer, with npm, was not found.", file=sys.stderr)
        return 1 if "CI" in os.environ or not options.check else 0
    install()
    if not options.check:
        build(options.out)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder) / "static")
        differences = sorted(compare(Path(folder) / "static", options.out))
    for difference in differences:
        print(difference, file=sys.stderr)
    if differences:
        print("Run scripts/pages/build.py and commit what it writes.", file=sys.stderr)
    return 1 if differences else 0


def has_node() -> bool:
    if shutil.which("npm") is None or shutil.which("node") is None:
        return False
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    return numbers >= OLDEST_NODE


def install() -> None:
    """Install the packages of the lock file, if those that are installed are not of this lock file."""
    lock = SOURCE / "package-lock.json"
    stamp = SOURCE / "node_modules" / ".installed-lock.json"
    if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=SOURCE, check=True)
        shutil.copyfile(lock, stamp)


def build(out: Path) -> None:
    """Check the types and build into ``out``, which is emptied first."""
    environment = {**os.environ, "PAGES_OUT": str(out.resolve())}
    subprocess.run(["npm", "run", "--silent", "build"], cwd=SOURCE, check=True, env=environment)


def compare(built: Path, kept: Path) -> set[str]:
    """What differs between two folders, in words."""
    found: set[str] = set()
    paths = {path.relative_to(folder) for folder in (built, kept) for path in folder.rglob("*") if path.is_file()}
    for path in paths:
        if not (kept / path).is_file():
            found.add(f"{path} is missing in {kept}")
        elif not (built / path).is_file():
            found.add(f"{path} in {kept} is not built from the sources")
        elif not filecmp.cmp(built / path, kept / path, shallow=False):
            found.add(f"{path} in {kept} differs from the build of the sources")
    return found


if __name__ == "__main__":
    sys.exit(main())
