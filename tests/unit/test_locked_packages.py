"""Installations compare archives with known hashes."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from scripts.packages.install import (
    HASHES,
    ROOT,
    UNHASHED,
    NotLocked,
    install_locked,
    read_locked_lines,
    read_pins,
    select_locked,
)


def test_every_pinned_package_has_hashes_of_its_version() -> None:
    pins = {name: version for name, version in read_pins(ROOT / "constraints.txt").items() if name not in UNHASHED}
    assert read_pins(HASHES) == pins
    assert all(" --hash=sha256:" in line for line in read_locked_lines().values())


def reported(name: str, version: str, **info: object) -> dict:
    return {"metadata": {"name": name, "version": version}, "download_info": info or {"archive_info": {}}}


PINS = {"some-package": "1.2", "torch": "2.0", "without": "3"}
LOCKED = {"some-package": "some-package==1.2 --hash=sha256:00"}


def test_packages_with_a_hash_are_separated_from_those_without() -> None:
    report = {
        "install": [
            reported("Some_Package", "1.2"),
            reported("torch", "2.0+cpu"),
            reported("nvidia-something", "9"),
            reported("ragsvc", "0.1.0", dir_info={}),
        ]
    }
    assert select_locked(report, PINS, LOCKED) == ([LOCKED["some-package"]], ["torch==2.0+cpu", "nvidia-something==9"])


@pytest.mark.parametrize(("name", "version"), [("without", "3"), ("some-package", "1.3"), ("some-package", "1.20")])
def test_a_pinned_package_without_a_hash_of_its_version_is_refused(name: str, version: str) -> None:
    with pytest.raises(NotLocked, match=f"{name}=={version} has no hash"):
        select_locked({"install": [reported(name, version)]}, PINS, LOCKED)


def wheel(folder: Path, content: str) -> Path:
    path = folder / "probe_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("probe_package.py", content)
        file.writestr(
            "probe_package-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: probe-package\nVersion: 1.0\n"
        )
        file.writestr(
            "probe_package-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr("probe_package-1.0.dist-info/RECORD", "")
    return path


def test_an_archive_that_was_replaced_is_not_installed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target, requirements = tmp_path / "target", tmp_path / "requirements.txt"
    digest = hashlib.sha256(wheel(tmp_path, "VALUE = 1").read_bytes()).hexdigest()
    requirements.write_text(f"probe-package==1.0 --hash=sha256:{digest}\n")
    options = ("--no-index", "--find-links", str(tmp_path), "--target", str(target))
    install_locked(requirements, *options)
    assert (target / "probe_package.py").read_text() == "VALUE = 1"

    wheel(tmp_path, "VALUE = 2")
    with pytest.raises(subprocess.CalledProcessError):
        install_locked(requirements, *options, "--upgrade", "--force-reinstall")
    assert "DO NOT MATCH THE HASHES" in capfd.readouterr().err
    assert (target / "probe_package.py").read_text() == "VALUE = 1"
