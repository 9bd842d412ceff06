"""The wheel of ``ragsvc-client`` in an environment of its own: installed with pip, small, and without the service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ragsvc
from ragsvc.testing.service_runner import ROOT
from scripts.packages.build_client import build

MAX_BYTES = 5_000_000
"""Installed size of the distribution and its needs, beyond those of httpx and cryptography."""

_SIZES = """
import importlib.metadata as metadata, json, re

def closure(*names):
    found, waiting = {}, list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name not in found:
            try:
                found[name] = metadata.distribution(name)
            except metadata.PackageNotFoundError:
                continue
            waiting += [re.match(r"[\\w.-]+", need)[0] for need in found[name].requires or () if "extra ==" not in need]
    return found

whole, given = closure("ragsvc-client"), closure("httpx", "cryptography")
sizes = {
    name: sum(file.locate().stat().st_size for file in distribution.files if file.locate().exists())
    for name, distribution in whole.items()
    if name not in given
}
installed = sorted(distribution.name for distribution in metadata.distributions())
print(json.dumps([sizes, installed]))
"""

_PROGRAM = """
import importlib.util, json, sys
import ragsvc_client
from ragsvc_client import AsyncClient, Client, EncryptedTransport, HpkeStream, Rvenc
for name in ("ragsvc", "torch", "litestar", "numpy"):
    assert importlib.util.find_spec(name) is None, name
url, key = sys.argv[1:]
answers = []
for mode in (None, HpkeStream(), Rvenc()):
    with Client(url, key, transport=mode and EncryptedTransport(url, mode)) as client:
        if not isinstance(mode, Rvenc):
            document = client.documents.upload(b"The lighthouse keeper is called Oda Brand.", filename="notes.txt")
            assert document.status == "ready"
        answer = client.ask("Who keeps the lighthouse?")
        answers.append([answer.text, [citation.filename for citation in answer.citations]])
print(json.dumps([ragsvc_client.__version__, answers]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the wheel and the pinned versions of its needs."""
    folder = tmp_path_factory.mktemp("client")
    wheel = build(folder / "dist")[1]
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True, timeout=120)
    interpreter = folder / "venv" / "bin" / "python"
    install = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--constraint", ROOT / "constraints.txt", wheel], check=True, timeout=300)
    return interpreter


def run(python: Path, program: str, *arguments: str) -> list:
    done = subprocess.run(
        [python, "-I", "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={name: value for name, value in os.environ.items() if not name.startswith(("RAGSVC_", "PYTHON"))},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(600)
def test_the_distribution_is_small_and_needs_no_part_of_the_service(python: Path) -> None:
    sizes, installed = run(python, _SIZES)
    total = sum(sizes.values())
    sys.stdout.write(f"ragsvc-client and its needs beyond httpx and cryptography: {total:,} bytes {sizes}\n")
    assert "ragsvc-client" in sizes
    assert total <= MAX_BYTES
    assert not {"ragsvc", "torch", "litestar", "numpy", "transformers"} & set(installed)


@pytest.mark.timeout(600)
def test_the_installed_client_works_plain_and_encrypted(python: Path, tenant) -> None:
    version, answers = run(python, _PROGRAM, tenant.service.url, tenant.key)
    assert version == ragsvc.__version__
    assert len(answers) == 3
    for text, cited in answers:
        assert "Oda Brand" in text
        assert cited == ["notes.txt"]
