"""Write ``hashes.txt``: the SHA-256 of every archive of the versions in ``constraints.txt``, except of PyTorch.

Run after a change of ``constraints.txt``, with the address of a package index that answers as PEP 691 says.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from scripts.packages.install import HASHES, ROOT, UNHASHED, read_pins

_ACCEPT = {"accept": "application/vnd.pypi.simple.v1+json"}


def version_of(filename: str) -> Version | None:
    """The version of an archive; ``None`` for a name that is no wheel and no source archive."""
    try:
        if filename.endswith(".whl"):
            return parse_wheel_filename(filename)[1]
        return parse_sdist_filename(filename)[1]
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        return None


def locked_line(client: httpx.Client, index: str, name: str, version: str) -> str:
    """``name==version`` with the hash of each archive."""
    files = client.get(f"{index.rstrip('/')}/{name}/", headers=_ACCEPT).raise_for_status().json()["files"]
    wanted = Version(version)
    hashes = sorted({file["hashes"]["sha256"] for file in files if version_of(file["filename"]) == wanted})
    if not hashes:
        raise SystemExit(f"error: the index has no archive of {name}=={version}")
    return " ".join([f"{name}=={version}", *(f"--hash=sha256:{digest}" for digest in hashes)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", required=True, metavar="URL", help="the simple API of a package index")
    options = parser.parse_args()
    pins = {name: version for name, version in read_pins(ROOT / "constraints.txt").items() if name not in UNHASHED}
    with httpx.Client(timeout=60, follow_redirects=True) as client, ThreadPoolExecutor(8) as pool:
        lines = list(pool.map(partial(locked_line, client, options.index), pins, pins.values()))
    HASHES.write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
