"""Install this checkout and the versions of ``constraints.txt``; every archive has one of the hashes of ``hashes.txt``.

Runs in the interpreter into whose environment it installs, with pip and nothing else. The arguments are extras.

PyTorch is not hashed: which of its builds is wanted depends on the index, and so do the packages that only some builds
need. They are printed. Everything else is installed by pip's hash-checking mode
(https://pip.pypa.io/en/stable/topics/secure-installs/) before PyTorch and the package itself.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
HASHES: Final = Path(__file__).with_name("hashes.txt")
UNHASHED: Final = frozenset({"torch"})


class NotLocked(Exception):
    """A package would be installed whose hash is not known, though its version is pinned."""


def normalised(name: str) -> str:
    """A project's name as it is compared (https://packaging.python.org/en/latest/specifications/name-normalization/)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(path: Path) -> dict[str, str]:
    """Versions by normalised name, from lines ``name==version``, with or without hashes."""
    pins = (line.split(" ", 1)[0].split("==", 1) for line in path.read_text().splitlines() if "==" in line)
    return {normalised(name): version for name, version in pins}


def read_locked_lines(path: Path = HASHES) -> dict[str, str]:
    """Requirement lines with hashes, by normalised name."""
    return {normalised(line.split("==", 1)[0]): line for line in path.read_text().splitlines() if "==" in line}


def select_locked(
    report: Mapping[str, Any], pins: Mapping[str, str], locked: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Requirement lines with hashes, and names without, of the packages that a report of pip would install.

    ``report``: https://pip.pypa.io/en/stable/reference/installation-report/. Raises ``NotLocked``.
    """
    lines, unhashed = [], []
    for item in report["install"]:
        name, version = normalised(item["metadata"]["name"]), item["metadata"]["version"]
        if "dir_info" in item["download_info"]:  # this checkout
            continue
        line = locked.get(name, "")
        if line.startswith(f"{name}=={version} "):
            lines.append(line)
        elif name in UNHASHED or name not in pins:
            unhashed.append(f"{name}=={version}")
        else:
            raise NotLocked(f"{name}=={version} has no hash in {HASHES.relative_to(ROOT)}")
    return lines, unhashed


def pip(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments],
        cwd=ROOT,
        check=True,
    )


def install_locked(requirements: Path, *options: str) -> None:
    """Install exactly these archives. Raises ``CalledProcessError`` if one has another hash."""
    pip("--require-hashes", "--no-deps", "--requirement", str(requirements), *options)


def install(extras: Sequence[str]) -> None:
    target = f".[{','.join(extras)}]" if extras else "."
    constrained = ("--constraint", "constraints.txt", target)
    with tempfile.TemporaryDirectory() as folder:
        report, requirements = Path(folder) / "report.json", Path(folder) / "requirements.txt"
        pip("--dry-run", "--report", str(report), *constrained)
        lines, unhashed = select_locked(
            json.loads(report.read_text()), read_pins(ROOT / "constraints.txt"), read_locked_lines()
        )
        if unhashed:
            print(f"Not compared with a hash: {', '.join(unhashed)}", file=sys.stderr)
        if lines:
            requirements.write_text("\n".join(lines) + "\n")
            install_locked(requirements)
    pip(*constrained)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*", metavar="EXTRA")
    try:
        install(parser.parse_args().extras)
    except NotLocked as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
