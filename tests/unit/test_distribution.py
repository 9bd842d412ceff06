"""What the Python distribution contains."""

from __future__ import annotations

import pytest

from ragsvc.testing.service_runner import ROOT


def test_the_wheel_has_the_package_without_the_typescript_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Setuptools finds every folder below ``ragsvc``, also those without Python files, and ``node_modules``."""
    settings = pytest.importorskip("setuptools.config.pyprojecttoml")
    monkeypatch.chdir(ROOT)
    packages = settings.read_configuration("pyproject.toml")["tool"]["setuptools"]["packages"]
    assert {"ragsvc.client", "ragsvc.web.routes"} <= set(packages)
    assert [name for name in packages if "typescript" in name] == []
