"""The client imports nothing of the service, and the distribution consists of what it imports."""

import inspect
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import msgspec
import pytest

import ragsvc
from ragsvc import client
from ragsvc.client import async_client, records, sync_client
from ragsvc.services.tenant_administration import DeletionReport
from ragsvc.store.key_rows import AuditEntry
from ragsvc.web.routes import collections, keys, own_key, schemas, tenants, usage
from scripts.packages.build_client import DISTRIBUTION_OF, IMPORT_NAME, build, read_project, rename_root, write_tree
from scripts.packages.client_closure import ROOT, client_closure

SHARED = {
    "ragsvc",
    "ragsvc.core",
    "ragsvc.core.defaults",
    "ragsvc.core.errors",
    "ragsvc.core.gateway",
    "ragsvc.core.gateway.event_stream",
    "ragsvc.core.network",
    "ragsvc.core.retry_after",
    "ragsvc.crypto",
    "ragsvc.crypto.attestation_quotes",
    "ragsvc.crypto.framing",
    "ragsvc.crypto.hpke",
    "ragsvc.crypto.hpke_stream",
    "ragsvc.crypto.rvenc",
    "ragsvc.crypto.rvenc_events",
    "ragsvc.crypto.sealed_headers",
    "ragsvc.crypto.xchacha",
    "ragsvc.crypto.xwing",
}
"""Modules of the client outside of ``ragsvc.client``. Each is a burden for every client: think before adding one."""

NEEDS = {"anyio", "cryptography", "httpx", "msgspec"}


def test_the_client_imports_nothing_of_the_service() -> None:
    modules = client_closure().modules
    assert {name for name in modules if not name.startswith("ragsvc.client")} == SHARED
    assert client_closure().needs == NEEDS == set(DISTRIBUTION_OF)


def test_the_closure_is_what_python_imports() -> None:
    program = """
import json, pkgutil, sys
import ragsvc.client
for module in pkgutil.iter_modules(ragsvc.client.__path__, "ragsvc.client."):
    __import__(module.name)
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    imported = set(json.loads(done.stdout))
    assert {name for name in imported if name.split(".")[0] == "ragsvc"} == set(client_closure().modules)
    assert not imported & {"torch", "litestar", "numpy", "sqlalchemy", "faiss", "typer"}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return build(tmp_path_factory.mktemp("client"))


def test_both_archives_hold_the_closure_under_another_name(archives: list[Path]) -> None:
    wanted = {rename_root(f"{name}.")[:-1] if name != "ragsvc" else IMPORT_NAME for name in client_closure().modules}
    with zipfile.ZipFile(archives[1]) as wheel, tarfile.open(archives[0]) as source:
        in_wheel = set(wheel.namelist())
        in_source = {name.partition("/")[2] for name in source.getnames()}
        metadata = wheel.read(next(name for name in in_wheel if name.endswith(".dist-info/METADATA"))).decode()
    for files in (in_wheel, in_source):
        modules = {name for name in files if name.startswith(f"{IMPORT_NAME}/") and name.endswith(".py")}
        assert {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in modules} == wanted
        assert f"{IMPORT_NAME}/py.typed" in files
        assert any(name.endswith("LICENSE") for name in files)
    assert "Name: ragsvc-client\n" in metadata
    assert f"\nVersion: {ragsvc.__version__}\n" in metadata
    assert {line.split(": ")[1].split(">=")[0] for line in metadata.splitlines() if "Requires-Dist" in line} == set(
        DISTRIBUTION_OF.values()
    )


def test_the_renamed_client_runs_beside_the_service_and_exports_the_same(tmp_path: Path) -> None:
    write_tree(tmp_path)
    program = """
import json, sys
import ragsvc_client
assert not [name for name in sys.modules if name.split(".")[0] == "ragsvc"]
import ragsvc.client
assert ragsvc.client.Client is not ragsvc_client.Client
print(json.dumps([ragsvc_client.__all__, ragsvc_client.__version__, ragsvc_client.Client.__module__]))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    exported, version, module = json.loads(done.stdout)
    assert exported == ["__version__", *client.__all__]
    assert version == ragsvc.__version__
    assert module == "ragsvc_client.client.sync_client"
    left = [
        f"{file.relative_to(tmp_path)}: {line}"
        for file in tmp_path.rglob("*.py")
        for line in file.read_text().splitlines()
        if line.lstrip().startswith(("import ragsvc.", "from ragsvc.", "import ragsvc ", "from ragsvc "))
    ]
    assert left == []


def test_the_version_is_stated_alike() -> None:
    assert read_project()["version"] == ragsvc.__version__


@pytest.mark.parametrize(
    ("record", "answer"),
    [
        (records.PageProblem, schemas.ProblemOut),
        (records.DocumentFailure, schemas.FailureOut),
        (records.DocumentRecord, schemas.DocumentOut),
        (records.UploadedDocument, schemas.UploadedDocumentOut),
        (records.PassageRecord, schemas.PassageOut),
        (records.PageRecord, schemas.PageOut),
        (records.HitScores, schemas.ScoresOut),
        (records.PassageHit, schemas.SearchHitOut),
        (records.PassageHits, schemas.SearchResponse),
        (records.CollectionRecord, collections.CollectionBody),
        (records.RemovedData, DeletionReport),
        (records.KeyRecord, keys.KeyBody),
        (records.NewKey, keys.IssuedKeyBody),
        (records.OwnKeyRecord, own_key.OwnKeyBody),
        (records.KeyChangeRecord, AuditEntry),
        (records.UsageRecord, usage.UsageBody),
        (records.UsageRecords, usage.UsageReport),
        (records.QuotaRecord, tenants.LimitsBody),
        (records.TenantRecord, tenants.TenantBody),
    ],
    ids=lambda value: value.__name__,
)
def test_records_have_the_fields_of_the_answers(record: type, answer: type) -> None:
    wanted = {field.name for field in msgspec.structs.fields(answer)} - {"object"}
    assert {field.name for field in msgspec.structs.fields(record)} == wanted


FACES = [
    (sync_client.Client, async_client.AsyncClient),
    (sync_client.DocumentsResource, async_client.AsyncDocumentsResource),
    (sync_client.CollectionsResource, async_client.AsyncCollectionsResource),
    (sync_client.KeysResource, async_client.AsyncKeysResource),
    (sync_client.TenantsResource, async_client.AsyncTenantsResource),
    (sync_client.StreamedAnswer, async_client.AsyncStreamedAnswer),
]


@pytest.mark.parametrize(("synchronous", "asynchronous"), FACES, ids=lambda cls: cls.__name__)
def test_both_faces_have_the_same_methods(synchronous: type, asynchronous: type) -> None:
    def methods(cls: type) -> dict[str, list[tuple[str, object, object]]]:
        return {
            name.removeprefix("a") if name == "aclose" else name: [
                (parameter.name, parameter.kind, parameter.default)
                for parameter in inspect.signature(value).parameters.values()
            ]
            for name, value in vars(cls).items()
            if inspect.isfunction(value) and not name.startswith("_")
        }

    assert methods(synchronous) == methods(asynchronous)
    documented = {name: inspect.getdoc(value) for name, value in vars(synchronous).items() if not name.startswith("_")}
    assert documented == {
        "close" if name == "aclose" else name: inspect.getdoc(value)
        for name, value in vars(asynchronous).items()
        if not name.startswith("_")
    }
