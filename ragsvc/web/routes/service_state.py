"""``/v1/service``: the state of the service, its settings and what needs attention, for operators."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import anyio.to_thread
import msgspec
from litestar import Request, get
from sqlalchemy import Connection

from ragsvc import __version__
from ragsvc.config import Settings
from ragsvc.core.access.principal import Scope
from ragsvc.core.gateway.circuit_breaker import Circuit
from ragsvc.core.readiness import Readiness
from ragsvc.services.access_control import Access
from ragsvc.services.ingest_jobs import IngestService
from ragsvc.services.model_change import Reembedding
from ragsvc.services.provider_administration import ProviderAdministration
from ragsvc.services.request_encryption import EncryptionService
from ragsvc.store.blobs import BlobStore
from ragsvc.store.data_keys import KEY_FILE_NAME
from ragsvc.store.database import Database
from ragsvc.store.document_rows import IngestRate, count_by_status, ingest_rate, list_collections
from ragsvc.store.job_rows import waiting_count
from ragsvc.store.last_backup import LastBackup, last_backup
from ragsvc.store.migrations import revisions
from ragsvc.wiring import health_checks
from ragsvc.wiring.embedding_spaces import ModelSpace
from ragsvc.wiring.health_checks import Check, CheckState

AnyRequest = Request[Any, Any, Any]
_OPT: dict[str, Any] = {"scope": Scope.ADMIN, "tag": "service"}
_HOUR_S = 3_600
_PACKAGES = (
    "anyio",
    "cryptography",
    "faiss-cpu",
    "litestar",
    "numpy",
    "onnxruntime",
    "pypdf",
    "pypdfium2",
    "sentence-transformers",
    "sqlalchemy",
    "tantivy",
    "uvicorn",
)
_PAGE_BYTES = 4_096
_HIDDEN = "***"
_SECRET_SETTINGS = frozenset({"master_key", "master_key_command"})


class StateServices(Protocol):
    """The services that these routes use."""

    @property
    def settings(self) -> Settings: ...

    @property
    def database(self) -> Database: ...

    @property
    def blobs(self) -> BlobStore: ...

    @property
    def space(self) -> ModelSpace: ...

    @property
    def reembedding(self) -> Reembedding | None: ...

    @property
    def ingest(self) -> IngestService: ...

    @property
    def access(self) -> Access: ...

    @property
    def providers(self) -> ProviderAdministration: ...

    @property
    def encryption(self) -> EncryptionService: ...

    @property
    def readiness(self) -> Readiness: ...


class IngestBody(msgspec.Struct, frozen=True, kw_only=True):
    """Documents by status, and the work on them; the rates are of the last hour."""

    documents: dict[str, int]
    waiting: int
    running: int
    waiting_passages: int
    documents_last_hour: int
    pages_last_hour: int
    failed_last_hour: int


class ModelChangeBody(msgspec.Struct, frozen=True, kw_only=True):
    """The change to another embedding model: ``done`` of ``total`` documents have vectors of the new one."""

    model: str
    total: int
    done: int
    running: bool


class EmbeddingBody(msgspec.Struct, frozen=True, kw_only=True):
    """The embedding model that answers searches, and the change to another one, if there is one."""

    model: str
    dimension: int
    runtime: str
    fingerprint: str
    change: ModelChangeBody | None


class LoadedIndexBody(msgspec.Struct, frozen=True, kw_only=True):
    """The index of a collection in memory."""

    tenant: str
    collection: str
    kind: str
    passages: int
    memory_bytes: int


class IndexesBody(msgspec.Struct, frozen=True, kw_only=True):
    """The indexes in memory; those of collections that are not in use are on disk only."""

    memory_bytes: int
    memory_limit_bytes: int
    collections: int
    loaded: list[LoadedIndexBody]


class StorageBody(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes. ``memory_bytes`` is that of the process, ``null`` where the system does not tell."""

    data_dir: str
    database_bytes: int
    disk_free_bytes: int
    disk_size_bytes: int
    memory_bytes: int | None


class RequestKeyBody(msgspec.Struct, frozen=True, kw_only=True):
    """A key for which clients may encrypt requests. Times are Unix seconds, ``null`` for a key that never rotates."""

    key_id: str
    expires_at: float | None
    accepted_until: float | None


class EncryptionBody(msgspec.Struct, frozen=True, kw_only=True):
    """Encryption of the data directory and of requests; ``opened`` and ``refused`` count since the start.

    ``attestation``: whether the machine can prove what runs on it (a trusted execution environment).
    """

    at_rest: bool
    request_keys: list[RequestKeyBody]
    opened: dict[str, int]
    refused: dict[str, int]
    attestation: Literal["available", "unavailable"]


class UpgradeCopyBody(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of the database from before an upgrade."""

    name: str
    size_bytes: int
    created_at: int


class BackupsBody(msgspec.Struct, frozen=True, kw_only=True):
    """The last backup that ``ragsvc backup`` made of this directory, and the copies from before upgrades."""

    last: LastBackup | None
    upgrade_copies: list[UpgradeCopyBody]


class ServiceBody(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the service. ``not_ready`` names components that do not work, with the reason."""

    object: Literal["service"] = "service"
    version: str
    schema: str
    python: str
    system: str
    packages: dict[str, str]
    not_ready: dict[str, str]
    ingest: IngestBody
    embedding: EmbeddingBody
    indexes: IndexesBody
    storage: StorageBody
    encryption: EncryptionBody
    backups: BackupsBody


class SettingBody(msgspec.Struct, frozen=True, kw_only=True):
    """A setting. ``value`` of a secret is ``***``; ``is_default``: neither file nor environment sets another value."""

    name: str
    value: Any
    is_default: bool


class SettingList(msgspec.Struct, frozen=True, kw_only=True):
    """All settings in the order of the reference."""

    object: Literal["list"] = "list"
    data: list[SettingBody]


class FindingList(msgspec.Struct, frozen=True, kw_only=True):
    """Checks; ``words`` is the text for people."""

    object: Literal["list"] = "list"
    data: list[Check]


class _ServiceRows(msgspec.Struct, frozen=True):
    documents: dict[str, int]
    waiting: int
    rate: IngestRate
    collections: dict[int, tuple[str, str]]


@get("/v1/service", opt=_OPT, summary="Show the state of the service")
async def get_service(request: AnyRequest) -> ServiceBody:
    """Show queue, indexes, embedding model, storage, encryption, backups and versions."""
    services = _services(request)
    since = int(services.access.clock()) - _HOUR_S

    def read(connection: Connection) -> _ServiceRows:
        collections = {
            int(collection.id): (str(collection.tenant), collection.name) for collection in list_collections(connection)
        }
        return _ServiceRows(
            count_by_status(connection), waiting_count(connection), ingest_rate(connection, since=since), collections
        )

    stored = await services.database.read(read)
    storage, backups = await anyio.to_thread.run_sync(lambda: (_storage(services), _backups(services)))
    space = services.space
    return ServiceBody(
        version=__version__,
        schema=revisions()[-1],
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        packages=await anyio.to_thread.run_sync(_packages),
        not_ready=services.readiness.reasons(),
        ingest=IngestBody(
            documents=stored.documents,
            waiting=stored.waiting,
            running=services.ingest.running_count(),
            waiting_passages=space.batcher.waiting_texts,
            documents_last_hour=stored.rate.documents,
            pages_last_hour=stored.rate.pages,
            failed_last_hour=stored.rate.failed,
        ),
        embedding=EmbeddingBody(
            model=space.model.name,
            dimension=space.model.dimension,
            runtime=space.batcher.runtime,
            fingerprint=space.model.fingerprint,
            change=_model_change(services.reembedding),
        ),
        indexes=_indexes(space, stored.collections),
        storage=storage,
        encryption=_encryption(services),
        backups=backups,
    )


@get("/v1/service/settings", opt=_OPT, summary="Show the settings")
async def get_settings(request: AnyRequest) -> SettingList:
    """Show the settings with which the service was started; secrets are hidden."""
    settings = _services(request).settings
    defaults = {
        field.name: field.default
        for field in msgspec.structs.fields(Settings)
        if field.default is not msgspec.NODEFAULT
    }
    shown = settings.redacted()
    return SettingList(
        data=[
            SettingBody(
                name=name,
                value=shown_setting(name, shown.get(name)),
                is_default=name in defaults and defaults[name] == getattr(settings, name),
            )
            for name in settings.__struct_fields__
        ]
    )


@get("/v1/service/findings", opt=_OPT, summary="Show what needs attention")
async def get_findings(request: AnyRequest) -> FindingList:
    """Check the installation, the data directory, providers and documents, as ``ragsvc doctor`` does while it runs.

    ``ragsvc doctor --deep`` also reads the database, the files and the indexes, which can take minutes.
    """
    services = _services(request)
    counts = await services.database.read(count_by_status)
    checks = await anyio.to_thread.run_sync(lambda: list(_checks_of_directory(services.settings)))
    return FindingList(data=[*checks, *_checks_of_service(services, failed=counts.get("failed", 0))])


def shown_setting(name: str, value: object) -> object:
    """A setting without secrets: addresses lose user names, passwords and the values of their parameters.

    >>> shown_setting("policy_url", "https://user:secret@policies.example/v1")
    'https://***@policies.example/v1'
    >>> shown_setting("policy_url", "https://policies.example/v1?token=secret")
    'https://policies.example/v1?***'
    >>> shown_setting("policy_url", "https://user:a/b@policies.example/v1")
    'https://***@policies.example/v1'
    >>> shown_setting("addresses", ("https://user:secret@policies.example/v1",))
    ['https://***@policies.example/v1']
    >>> shown_setting("master_key_command", "vault read key")
    '***'
    """
    if name in _SECRET_SETTINGS:
        return None if value is None else _HIDDEN
    if isinstance(value, str):
        return _shown_address(value) if "://" in value else value
    if isinstance(value, list | tuple):
        return [shown_setting("", item) for item in value]
    if isinstance(value, dict):
        return {key: shown_setting(str(key), item) for key, item in value.items()}
    return value


def _shown_address(text: str) -> str:
    """An address without secrets. What precedes the last ``@`` is hidden: a password can have any character."""
    scheme, separator, rest = text.partition("://")
    before, at, place = rest.rpartition("@")
    place, question, _ = place.partition("?")
    return f"{scheme}{separator}{_HIDDEN if before else ''}{at}{place}{question}{_HIDDEN if question else ''}"


def _services(request: AnyRequest) -> StateServices:
    return cast("StateServices", request.app.state["services"])


def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _model_change(change: Reembedding | None) -> ModelChangeBody | None:
    if change is None or not change.running:
        return None
    return ModelChangeBody(model=change.model_name, total=change.total, done=change.done, running=change.running)


def _indexes(space: ModelSpace, collections: dict[int, tuple[str, str]]) -> IndexesBody:
    loaded = [
        LoadedIndexBody(
            tenant=collections[status.collection_id][0],
            collection=collections[status.collection_id][1],
            kind=status.kind,
            passages=status.passages,
            memory_bytes=status.memory_bytes,
        )
        for status in space.indexes.status()
        if status.collection_id in collections
    ]
    return IndexesBody(
        memory_bytes=space.indexes.memory_bytes(),
        memory_limit_bytes=space.indexes.memory_limit_bytes,
        collections=len(collections),
        loaded=sorted(loaded, key=lambda index: -index.memory_bytes),
    )


def _storage(services: StateServices) -> StorageBody:
    data_dir = services.settings.data_dir
    disk = shutil.disk_usage(data_dir)
    return StorageBody(
        data_dir=str(data_dir.resolve()),
        database_bytes=services.database.size_bytes(),
        disk_free_bytes=disk.free,
        disk_size_bytes=disk.total,
        memory_bytes=_resident_bytes(),
    )


def _resident_bytes() -> int | None:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return None


def _encryption(services: StateServices) -> EncryptionBody:
    encryption = services.encryption
    opened: dict[str, int] = {}
    for (mode, _), count in encryption.opened.items():
        opened[mode.value] = opened.get(mode.value, 0) + count
    return EncryptionBody(
        at_rest=(services.settings.data_dir / KEY_FILE_NAME).exists(),
        request_keys=[
            RequestKeyBody(key_id=keys.key_id, expires_at=keys.expires_at, accepted_until=keys.accepted_until)
            for keys in encryption.accepted()
        ],
        opened=opened,
        refused={mode.value: count for mode, count in encryption.refused.items()},
        attestation="available" if encryption.attestation_root.is_dir() else "unavailable",
    )


def _backups(services: StateServices) -> BackupsBody:
    copies: list[UpgradeCopyBody] = []
    for path in services.database.older_copies():
        with contextlib.suppress(OSError):  # deleted in the meantime
            found = path.stat()
            copies.append(UpgradeCopyBody(name=path.name, size_bytes=found.st_size, created_at=int(found.st_mtime)))
    return BackupsBody(last=last_backup(services.settings.data_dir), upgrade_copies=copies)


def _checks_of_directory(settings: Settings) -> Iterator[Check]:
    yield from health_checks.installation()
    yield from health_checks.folder(settings.data_dir)
    yield health_checks.encryption(settings.data_dir, settings.master_key_file)
    yield from health_checks.upgrade_copies(settings.data_dir)
    if settings.database_url is None and last_backup(settings.data_dir) is None:
        yield Check("backup", CheckState.WARN, "no backup of this directory is known; 'ragsvc backup' makes one")


def _checks_of_service(services: StateServices, *, failed: int) -> Iterator[Check]:
    for component, reason in services.readiness.reasons().items():
        yield Check(component, CheckState.FAIL, reason)
    files = services.blobs.files
    if files.fault is not None:
        words = f"{files.location} cannot be used ({files.fault}); uploads and downloads are refused until it can"
        yield Check("store of the files", CheckState.FAIL, words)
    for provider in services.providers.disabled():
        yield Check(f"provider {provider.name}", CheckState.FAIL, f"disabled: {provider.reason}")
    for view in services.providers.views():
        failing = [family for family, circuit in view.circuits.items() if circuit is not Circuit.CLOSED]
        if failing:
            words = f"the last requests for {', '.join(sorted(failing))} failed; it is tried again from time to time"
            yield Check(f"provider {view.settings.name}", CheckState.WARN, words)
    if failed:
        words = f"{failed} failed; the page Documents shows the reasons"
        yield Check("documents", CheckState.WARN, words)


route_handlers = [get_service, get_settings, get_findings]
"""All routes of this module."""
