"""Fixtures: a real service that all integration tests of a session share, and a separate tenant for every test."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from filelock import FileLock
from hypothesis import settings as hypothesis_settings

from ragsvc.store.database import Database
from ragsvc.store.postgres_database import PostgresDatabase
from ragsvc.store.sqlite_database import SqliteDatabase
from ragsvc.testing.service_runner import RunningService, create_key, set_more_settings
from tests.support.engines import POSTGRES, SQLITE, engine
from tests.support.file_places import DIRECTORY, S3, file_place
from tests.support.postgres_server import PostgresServer
from tests.support.recording_provider import RecordingProvider
from tests.support.s3_server import S3Server
from tests.support.upstream_server import serving

_serial = itertools.count(1)

hypothesis_settings.register_profile("thorough", max_examples=2000)

_MARKER_OF_FOLDER = {"browser": "browser", "models": "model", "ocr": "ocr", "long_runs": "slow", "clients": "clients"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of a folder, so that ``-m "not model and not ocr and not slow"`` selects the fast tests.

    Tests that install other clients run only if ``-m`` names ``clients``, and those about SQLite's file and about files
    in the data directory only where these are in use. Two tests with one id are an error:
    workers of pytest-xdist would run them and count one of them.
    """
    repeated = [identifier for identifier, count in Counter(item.nodeid for item in items).items() if count > 1]
    if repeated:
        raise pytest.UsageError(f"Several tests have the id {repeated[0]}.")
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in _MARKER_OF_FOLDER:
            item.add_marker(_MARKER_OF_FOLDER[folder])
    markers = _markers_left_out(config)
    left_out = {item for item in items if any(item.get_closest_marker(marker) for marker in markers)}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def _markers_left_out(config: pytest.Config) -> list[str]:
    """The markers whose tests this run does not select."""
    is_left_out = {
        "clients": "clients" not in config.option.markexpr,
        "sqlite_file": engine.name != SQLITE,
        "local_files": file_place.name != DIRECTORY,
    }
    return [marker for marker, left_out in is_left_out.items() if left_out]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database", choices=[SQLITE, POSTGRES], default=SQLITE, help="engine of the services under test")
    parser.addoption("--files", choices=[DIRECTORY, S3], default=DIRECTORY, help="place of the services' stored files")


def pytest_configure(config: pytest.Config) -> None:
    engine.name = config.getoption("--database")
    file_place.use(config.getoption("--files"))
    set_more_settings(lambda data_dir: {**engine.settings_of(data_dir), **file_place.settings_of(data_dir)})


def pytest_unconfigure() -> None:
    engine.close()
    file_place.close()


@pytest.fixture
def postgres_server() -> PostgresServer:
    return engine.server


@pytest.fixture(params=[SQLITE, POSTGRES])
def any_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A new database of each engine; ``ONLY_SQLITE`` chooses one."""
    if request.param == SQLITE:
        opened: Database = SqliteDatabase(tmp_path / "test.sqlite")
    else:
        opened = PostgresDatabase(engine.server.new_database())
    yield opened
    opened.close()


NO_LIMITS = {"requests_per_minute": None, "requests_per_hour": None}


class Tenant:
    """A tenant of the running service, with a key and a client that uses the key."""

    def __init__(self, service: RunningService, name: str, key: str) -> None:
        self.service = service
        self.name = name
        self.key = key
        self.http = service.client(key)

    def upload(self, content: bytes, *, filename: str = "file.pdf", kind: str = "application/pdf", **query: object):
        """Upload a raw body; returns the response."""
        parameters = {"filename": filename, **query}
        return self.http.post("/v1/rag/documents", params=parameters, content=content, headers={"content-type": kind})

    def add_text(self, text: str, *, filename: str = "notes.txt", **query: object) -> str:
        """Upload plain text, wait until it is ready, and return the document's id."""
        reply = self.upload(text.encode(), filename=filename, kind="text/plain", **query)
        assert reply.status_code == 201, reply.text
        return reply.json()["id"]

    def search(self, query: str, **options: object) -> list[dict]:
        """Search, and return the hits."""
        reply = self.http.post("/v1/rag/search", json={"query": query, **options})
        assert reply.status_code == 200, reply.text
        return reply.json()["data"]


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    data_dir = tmp_path_factory.mktemp("service") / "data"
    admin_key = create_key(data_dir, tenant="operator", extra=("--scope", "admin"))
    running = RunningService(data_dir)
    running.admin_key = admin_key
    try:
        yield running
    finally:
        assert running.stop() == 0


class Gateway:
    """A service whose models are served by a recording provider, and a key without limits."""

    def __init__(self, running: RunningService, upstream: RecordingProvider) -> None:
        self.service = running
        self.upstream = upstream
        self.url = running.url
        self.admin_key = running.admin_key
        self.key = self.new_key()

    def new_key(self, **options: object) -> str:
        """Create another key, of the same tenant unless ``tenant`` is given."""
        with self.service.client(self.admin_key) as admin:
            body = {"tenant": "gateway", "label": "quickstart", **NO_LIMITS, **options}
            reply = admin.post("/v1/keys", json=body)
        assert reply.status_code == 201, reply.text
        return reply.json()["key"]

    def tokens_left(self, key: str) -> int:
        """The token balance of a key."""
        with self.service.client(key) as client:
            return client.get("/v1/tokens").json()["tokens_remaining"]


PROVIDERS = """
policy_file = "{folder}/policy.rego"
policy_url = "{url}/policy/v1/data/ragsvc/allow"
allowed_base_urls = ["{url}/other/v1", "https://*.example.com"]

[[providers]]
name = "recording"
base_url = "{url}/v1"
api_key = "sk-operator"
retries = 0
breaker_failures = 1000
models = [
  {{ id = "local-name", upstream = "upstream-name", aliases = ["operayde/alias"] }},
  "*",
]

[[providers]]
name = "only-images"
base_url = "{url}/v1"
families = ["images"]
models = ["image-model"]
"""


POLICY = """
package ragsvc

import rego.v1

default allow := false

allow if not denied

denied if {
    startswith(input.model, "rego-denied")
    input.key.tenant == "gateway"
    input.family == "embeddings"
}
"""


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    data_dir = folder / "data"
    admin_key = create_key(data_dir, tenant="operator", extra=("--scope", "admin"))
    upstream = RecordingProvider()
    with serving(upstream) as (url, _server):
        upstream.url = url
        config = folder / "ragsvc.toml"
        (folder / "policy.rego").write_text(POLICY)
        config.write_text(PROVIDERS.format(url=url, folder=folder))
        running = RunningService(data_dir, env={"RAGSVC_CONFIG": str(config)})
        running.admin_key = admin_key
        try:
            yield Gateway(running, upstream)
        finally:
            assert running.stop() == 0


@pytest.fixture(scope="session")
def node_modules(request: pytest.FixtureRequest) -> Callable[[], Path]:
    """A function that returns the folder of the Node packages, for tests of which only some need Node."""

    def install() -> Path:
        request.getfixturevalue("node")
        return NODE_FOLDER / "node_modules"

    return install


@pytest.fixture
def new_tenant(service: RunningService) -> Iterator[Callable[..., Tenant]]:
    made: list[Tenant] = []

    def make(**key_options: object) -> Tenant:
        name = f"tenant-{next(_serial)}"
        with service.client(service.admin_key) as admin:
            body = {"tenant": name, "label": name, **NO_LIMITS, **key_options}
            reply = admin.post("/v1/keys", json=body)
        assert reply.status_code in (200, 201), reply.text
        made.append(Tenant(service, name, reply.json()["key"]))
        return made[-1]

    yield make
    for tenant in made:
        tenant.http.close()


@pytest.fixture
def tenant(new_tenant: Callable[..., Tenant]) -> Tenant:
    return new_tenant()


@pytest.fixture
def anonymous(service: RunningService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=30) as client:
        yield client


@pytest.fixture
def s3_server(monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server of this process, with its credentials in the environment."""
    for name, value in S3Server.environment().items():
        monkeypatch.setenv(name, value)
    return file_place.server


FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
NODE_FOLDER = Path(__file__).resolve().parent / "node"


@pytest.fixture(scope="session")
def node() -> str:
    """Path of Node, after the packages of the checked-in lock file are installed."""
    path = shutil.which("node")
    if path is None:
        pytest.skip("Node is not installed; the independent JavaScript clients need it")
    stamp = NODE_FOLDER / "node_modules" / ".package-lock.json"
    lock_file = NODE_FOLDER / "package-lock.json"
    with FileLock(NODE_FOLDER / ".install.lock"):
        if not stamp.exists() or stamp.stat().st_mtime < lock_file.stat().st_mtime:
            subprocess.run(["npm", "ci"], cwd=NODE_FOLDER, check=True, capture_output=True, timeout=100)
            stamp.touch()
    return path


_COUNTED = {
    "docstring_examples": "docstring examples",
    "snippets": "snippets of the documentation",
    "skipped_snippets": "snippets skipped, each with a reason in its page",
}


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the number of documentation examples that ran in all workers."""
    counts = dict.fromkeys(_COUNTED, 0)
    for report in terminalreporter.stats.get("passed", ()):
        for name, value in report.user_properties:
            if name in counts and report.when == "call":
                counts[name] += value
    for name, count in counts.items():
        if count:
            terminalreporter.write_line(f"{count} {_COUNTED[name]}")
