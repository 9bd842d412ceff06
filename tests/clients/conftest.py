"""Environments of the clients, the service that they use, and the table of results."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from filelock import FileLock

from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import RunningService, create_key
from tests.clients.catalogue import CLIENTS, HERE, Client
from tests.conftest import NO_LIMITS
from tests.support.upstream_server import Upstream, serving_upstream

ENVIRONMENTS = HERE.parent.parent / ".cache" / "clients"
OLDEST_NODE = 20
QUESTION = "How many litres of oil did the lighthouse lamp consume in 1903?"
SENTENCE = "The lighthouse lamp consumed 4,711 litres of oil in 1903."
CRANE = "The harbour crane lifts 11 tonnes."
REPORT = text_pdf([["The keeper was paid 12 pounds."], [SENTENCE]])

_UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectTimeout|Read timed out|ReadTimeout|Temporary failure in name resolution|SSLError"
    r"|ProxyError|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|network request to"
)
NOT_TRIED = "were not tried"
_failed_environments: dict[str, str] = {}


# -- environments -----------------------------------------------------------------------------------------------------


def _install(name: str, state: str, make: Callable[[Path], None]) -> Path:
    """The folder of an environment. It is made when ``state`` has changed, and replaces the one before.

    If the packages cannot be installed, the tests of the environment fail, and say that its clients were not tried.
    """
    folder = ENVIRONMENTS / f"{name}-{hashlib.sha256(state.encode()).hexdigest()[:16]}"
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with FileLock(ENVIRONMENTS / f"{name}.lock"):
        if name not in _failed_environments and not (folder / "ready").exists():
            for old in ENVIRONMENTS.glob(f"{name}-*"):
                shutil.rmtree(old)
            try:
                make(folder)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                _failed_environments[name] = _words_for_failed_installation(name, error)
            else:
                (folder / "ready").touch()
    if name in _failed_environments:
        pytest.fail(_failed_environments[name], pytrace=False)
    return folder


def _words_for_failed_installation(name: str, error: subprocess.CalledProcessError | subprocess.TimeoutExpired) -> str:
    output = f"{error.stdout or ''}\n{error.stderr or ''}"
    reason = (
        "the package index did not answer"
        if _UNREACHABLE.search(output) or isinstance(error, subprocess.TimeoutExpired)
        else "their packages could not be installed"
    )
    return (
        f"The clients of the environment '{name}' {NOT_TRIED}: {reason}. This says nothing about the service.\n"
        f"{error}\n{output.strip()[-3000:]}"
    )


def _run(command: Sequence[str | Path], *, timeout_s: float, cwd: Path | None = None) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout_s, cwd=cwd)


def python_of(name: str) -> Path:
    """The interpreter of an environment with ``requirements/<name>.txt``, in the versions of its lock file."""
    requirements, lock = (HERE / "requirements" / f"{name}.{kind}" for kind in ("txt", "lock"))
    in_folder = "Scripts/python.exe" if os.name == "nt" else "bin/python"

    def make(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", folder], timeout_s=120)
        # most modules are never imported, so that compiling all of them costs more time than it saves
        options = ["--disable-pip-version-check", "--no-compile", "--quiet", "--retries", "3"]
        command = [folder / in_folder, "-m", "pip", "install", *options, "-r", requirements, "-c", lock]
        _run(command, timeout_s=560)

    return _install(name, requirements.read_text() + lock.read_text() + sys.version, make) / in_folder


def node_folder_of(name: str) -> Path:
    """A folder with the Node packages of ``packages/<name>``, in the versions of their lock file."""
    _need_node()
    source = HERE / "packages" / name

    def make(folder: Path) -> None:
        shutil.copytree(source, folder)
        _run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], timeout_s=400, cwd=folder)

    return _install(f"node-{name}", (source / "package-lock.json").read_text(), make)


def _need_node() -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip(f"Node and npm are not installed; the JavaScript clients need Node {OLDEST_NODE} or newer")
    found = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    if int(found.removeprefix("v").split(".")[0]) < OLDEST_NODE:
        pytest.skip(f"Node {found} is installed; the JavaScript clients need Node {OLDEST_NODE} or newer")


def run_program(environment: str, program: Path, variables: Mapping[str, str]) -> str:
    """Run a program in an environment; returns what it prints."""
    if program.suffix == ".mjs":
        folder = node_folder_of(environment)
        for module in (HERE / "programs").glob("*.mjs"):  # Node looks for packages where a module is
            shutil.copy(module, folder)
        shutil.copy(program, folder)
        command, cwd = ["node", folder / program.name], folder
    else:
        command, cwd = [python_of(environment), program], program.parent
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RAGSVC_", "OPENAI_"))}
    environ = {**kept, **variables}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=environ,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


# -- the service ------------------------------------------------------------------------------------------------------


class ClientService(NamedTuple):
    """A service with a provider."""

    running: RunningService
    upstream: Upstream

    def new_key(self, tenant: str) -> str:
        """A key of a tenant, without limits."""
        with self.running.client(self.running.admin_key) as admin:
            reply = admin.post("/v1/keys", json={"tenant": tenant, "label": tenant, **NO_LIMITS})
        assert reply.status_code == 201, reply.text
        return reply.json()["key"]


PROVIDER = """
[[providers]]
name = "backend"
base_url = "{url}"
api_key = "sk-operator"
families = ["chat"]
models = ["backend-model", "tools"]
"""


@pytest.fixture(scope="session")
def client_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientService]:
    folder = tmp_path_factory.mktemp("clients")
    admin_key = create_key(folder / "data", tenant="operator", extra=("--scope", "admin"))
    with serving_upstream() as upstream:
        (folder / "ragsvc.toml").write_text(PROVIDER.format(url=upstream.url))
        running = RunningService(folder / "data", env={"RAGSVC_CONFIG": str(folder / "ragsvc.toml")})
        running.admin_key = admin_key
        try:
            yield ClientService(running, upstream)
        finally:
            assert running.stop() == 0


class Workplace(NamedTuple):
    """A tenant with a document of two pages, of which the second answers ``QUESTION``.

    Another tenant has the same file in a vector store, where the first cannot find it.
    """

    service: ClientService
    key: str
    document_id: str
    store_key: str
    file_id: str
    vector_store_id: str

    @property
    def page_url(self) -> str:
        """The address that citations of the second page have."""
        return f"{self.service.running.url}/v1/rag/documents/{self.document_id}/content#page=2"


def _created(reply: httpx.Response) -> str:
    """The id of an object that was made."""
    assert reply.status_code in {200, 201}, reply.text
    return reply.json()["id"]


@pytest.fixture(scope="session")
def workplace_of(client_service: ClientService) -> Callable[[str], Workplace]:
    """A function that makes a tenant of that name, with its document."""

    def make(name: str) -> Workplace:
        tenant = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        keys = [client_service.new_key(each) for each in (tenant, f"{tenant}-stores")]
        with client_service.running.client(keys[0]) as http:
            query, kind = {"filename": "lighthouse.pdf"}, {"content-type": "application/pdf"}
            document_id = _created(http.post("/v1/rag/documents", params=query, content=REPORT, headers=kind))
        with client_service.running.client(keys[1]) as http:
            files = {"file": ("lighthouse.pdf", REPORT, "application/pdf")}
            file_id = _created(http.post("/v1/files", files=files, data={"purpose": "assistants"}))
            store_id = _created(http.post("/v1/vector_stores", json={"name": "lighthouses", "file_ids": [file_id]}))
            deadline = time.monotonic() + 60
            while http.get(f"/v1/vector_stores/{store_id}").json()["file_counts"]["completed"] != 1:
                assert time.monotonic() < deadline, "the file of the vector store is not ready"
                time.sleep(0.1)
        return Workplace(client_service, keys[0], document_id, keys[1], file_id, store_id)

    return make


class Outcome(NamedTuple):
    """What the program of a client printed, and where it worked."""

    workplace: Workplace
    version: str
    features: dict[str, dict[str, Any]]
    weather: str


@pytest.fixture(scope="session")
def outcome_of(
    workplace_of: Callable[[str], Workplace], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Client], Outcome]:
    """Runs the program of a client, once; its tests look at the results."""
    upload = tmp_path_factory.mktemp("uploads") / "crane.txt"
    upload.write_text(CRANE)
    outcomes: dict[str, Outcome] = {}
    refusals: dict[str, BaseException] = {}

    def run(client: Client) -> Outcome:
        workplace = workplace_of(client.name)
        weather = f"18 degrees, says {client.name}"
        url = workplace.service.running.url
        variables = {
            "BASE_URL": f"{url}/v1",
            "MCP_URL": f"{url}/mcp",
            "API_KEY": workplace.key,
            "QUESTION": QUESTION,
            "DOCUMENT_ID": workplace.document_id,
            "STORE_KEY": workplace.store_key,
            "VECTOR_STORE_ID": workplace.vector_store_id,
            "UPLOAD": str(upload),
            "WEATHER": weather,
        }
        printed = json.loads(
            run_program(client.environment, HERE / "programs" / client.program, variables).splitlines()[-1]
        )
        return Outcome(workplace, printed["version"], printed["features"], weather)

    def look_up(client: Client) -> Outcome:
        if client.name in refusals:
            raise refusals[client.name]
        if client.name not in outcomes:
            try:
                outcomes[client.name] = run(client)
            except BaseException as error:
                refusals[client.name] = error
                raise
        return outcomes[client.name]

    return look_up


# -- the table --------------------------------------------------------------------------------------------------------


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print which feature of which client works."""
    found: dict[str, dict[str, str]] = {}
    for outcome, words in (("passed", "works"), ("failed", "FAILS"), ("error", "FAILS"), ("skipped", "not tried")):
        for result in terminalreporter.stats.get(outcome, ()):
            properties = dict(getattr(result, "user_properties", ()))
            if "client" in properties:
                shown = "not tried" if NOT_TRIED in result.longreprtext else words
                found.setdefault(str(properties["client"]), {})[str(properties["feature"])] = shown
    if not found:
        return
    terminalreporter.section("clients")
    for text in _failed_environments.values():
        terminalreporter.write_line(text.splitlines()[0])
    terminalreporter.write_line(f"{'client':<30}{'version':<10}{'feature':<22}result")
    for client in CLIENTS:
        for feature, words in found.get(client.name, {}).items():
            terminalreporter.write_line(f"{client.name:<30}{client.version:<10}{feature:<22}{words}")
