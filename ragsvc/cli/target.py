"""The target of a command: a running service (``--url``), or a data directory through the same API in this process."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ragsvc.cli.failures import CommandFailed, ExitCode, usage_error
from ragsvc.core.network import is_loopback
from ragsvc.extract.sandbox.kernel import forbid_tracing

if TYPE_CHECKING:
    from ragsvc.cli.service_client import ServiceClient
    from ragsvc.config import Settings
    from ragsvc.core.access.api_keys import ApiKey

_LOCAL_URL = "http://in-process"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The target of a command. ``tenant`` applies to a data directory only; an API key has its own."""

    url: str | None = None
    data_dir: Path | None = None
    tenant: str = "default"

    def settings(self, environ: Mapping[str, str] | None = None) -> Settings:
        """The settings of the environment, with this data directory. Raises ``ConfigurationError``."""
        from ragsvc.config import Settings  # noqa: PLC0415 - a start without it is faster

        settings = Settings.from_env(os.environ if environ is None else environ)
        if self.data_dir is not None:
            settings = msgspec.structs.replace(settings, data_dir=self.data_dir)
        return settings


def keep_private() -> None:
    """Make files that this process creates readable by this user only, and its memory by no process of this user."""
    os.umask(0o077)
    with suppress(OSError):  # not Linux
        forbid_tracing()


def choose_target(*, url: str | None, data_dir: Path | None, tenant: str | None) -> Target:
    """Select the target from options and environment; an option takes precedence over ``RAGSVC_URL``.

    Raises:
        CommandFailed: the options cannot be combined.
    """
    if url is not None and (data_dir is not None or tenant is not None):
        other = "--data-dir" if data_dir is not None else "--tenant"
        raise usage_error(
            f"--url and {other} cannot be combined: a service has its own data directory, an API key its own tenant"
        )
    if data_dir is None and url is None:
        url = os.environ.get("RAGSVC_URL") or None
        if url is not None and tenant is not None:
            raise usage_error(
                "--tenant applies to a data directory, but RAGSVC_URL is set: an API key has its own tenant"
            )
    return Target(url=url, data_dir=data_dir, tenant=tenant or "default")


@asynccontextmanager
async def connect(target: Target, *, patience_s: float = 0.0, reads: bool = False) -> AsyncGenerator[ServiceClient]:
    """A client of the target. For a data directory, the whole service runs in this process meanwhile.

    A command that only reads (``reads``) does not create a data directory.

    Raises:
        DataDirectoryLocked: a running service holds the data directory.
        CommandFailed: the URL or the key is missing or malformed.
    """
    if target.url is not None:
        async with remote(target.url, patience_s=patience_s) as client:
            yield client
        return
    from ragsvc.cli.logs import log_to_standard_error  # noqa: PLC0415 - only when a service runs inside
    from ragsvc.cli.process_tuning import imports_kept  # noqa: PLC0415 - only when a service runs inside

    with imports_kept():
        from ragsvc.web.service_app import create_service  # noqa: PLC0415 - heavy
        from ragsvc.wiring.services import open_services  # noqa: PLC0415 - heavy

    keep_private()
    settings = target.settings()
    if reads:
        require_data(settings)
    log_to_standard_error("warning")
    async with open_services(settings) as services:
        app = create_service(services)
        async with app.lifespan():
            secret, key = local_key(target.tenant)
            services.access.trust(key)
            async with in_process(app, secret, patience_s=patience_s) as client:
                yield client


def require_own_database(settings: Settings, instead: str) -> None:
    """Raise ``CommandFailed`` for a command about the database file, which a database in PostgreSQL does not have."""
    if settings.database_url is not None:
        raise usage_error(f"the database is in PostgreSQL (database_url), and this command is about a file: {instead}")


def require_data(settings: Settings) -> None:
    """Raise ``CommandFailed`` if a data directory has no database; one in PostgreSQL is not looked for."""
    from ragsvc.store.data_keys import DATABASE_FILE_NAME  # noqa: PLC0415 - heavy

    data_dir = settings.data_dir
    if settings.database_url is not None:
        return
    if not os.path.lexists(data_dir / DATABASE_FILE_NAME):
        state = "holds no data" if data_dir.is_dir() else "does not exist"
        raise CommandFailed(
            f"the data directory '{data_dir}' {state}; 'ragsvc ingest FOLDER' puts documents into it, --data-dir names "
            "another directory, --url a running service",
            code="no_data",
        )


async def require_documents(client: ServiceClient, target: Target) -> None:
    """Raise ``CommandFailed`` if the tenant of a data directory has no documents: an answer would mislead."""
    if (await client.get("/v1/rag/documents", {"limit": 1}))["data"]:
        return
    tenants = (await client.get("/v1/tenants"))["data"]
    others = ", ".join(tenant["name"] for tenant in tenants if tenant["documents"])
    hint = f"tenants with documents: {others} (select one with --tenant)" if others else "the data directory has none"
    raise CommandFailed(f"no documents in tenant {target.tenant}; {hint}", code="no_documents")


@asynccontextmanager
async def remote(url: str, *, patience_s: float = 0.0) -> AsyncGenerator[ServiceClient]:
    """A client of the service at ``url``, with the API key of the environment."""
    import httpx  # noqa: PLC0415 - heavy

    from ragsvc.cli.service_client import ServiceClient  # noqa: PLC0415 - brings httpx

    address = _address(url)
    key = os.environ.get("RAGSVC_API_KEY", "").strip()
    if not key:
        raise CommandFailed(
            "no API key: set RAGSVC_API_KEY ('ragsvc keys create' makes a key)",
            code="unauthorized",
            exit_code=ExitCode.NOT_AUTHORISED,
        )
    if not key.isascii() or not key.isprintable():
        raise usage_error("RAGSVC_API_KEY contains characters that are not allowed in a key")
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
    async with httpx.AsyncClient(
        base_url=address,
        headers={"authorization": f"Bearer {key}"},
        limits=limits,
        follow_redirects=False,
        trust_env=not is_loopback(httpx.URL(address).host),  # proxies of the environment are for other machines
    ) as http:
        yield ServiceClient(http, patience_s=patience_s)


@asynccontextmanager
async def in_process(app: object, secret: str, *, patience_s: float = 0.0) -> AsyncGenerator[ServiceClient]:
    """A client of an ASGI application in this process."""
    import anyio  # noqa: PLC0415 - heavy
    import httpx  # noqa: PLC0415 - heavy

    from ragsvc.cli.in_process import InProcessTransport  # noqa: PLC0415 - brings httpx
    from ragsvc.cli.service_client import ServiceClient  # noqa: PLC0415 - brings httpx

    async with anyio.create_task_group() as tasks:
        transport = InProcessTransport(app, tasks)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - Litestar types its own scope
        async with httpx.AsyncClient(
            transport=transport, base_url=_LOCAL_URL, headers={"authorization": f"Bearer {secret}"}
        ) as http:
            yield ServiceClient(http, patience_s=patience_s)
        tasks.cancel_scope.cancel()


def local_key(tenant: str) -> tuple[str, ApiKey]:
    """A temporary key with every scope and no limits, which is never stored. Returns (secret, key)."""
    from ragsvc.core.access.api_keys import ApiKey, KeyLimits  # noqa: PLC0415 - a start without it is faster
    from ragsvc.core.access.principal import Scope  # noqa: PLC0415 - a start without it is faster
    from ragsvc.core.ids import KeyId, TenantId  # noqa: PLC0415 - a start without it is faster

    secret = f"rag_local_{secrets.token_urlsafe(32)}"
    key = ApiKey(
        id=KeyId("key_local"),
        tenant=TenantId(tenant),
        label="command line",
        secret_hash=sha256(secret.encode()).digest(),
        scopes=frozenset(Scope),
        limits=KeyLimits(requests_per_minute=None, requests_per_hour=None),
    )
    return secret, key


def _address(url: str) -> str:
    """The base URL without a trailing ``/v1``, which clients of OpenAI's API include."""
    import httpx  # noqa: PLC0415 - heavy

    address = url.strip().rstrip("/").removesuffix("/v1")
    try:
        parsed = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise usage_error(f"'{url}' is not a URL ({error})") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise usage_error(f"'{url}' is not the URL of a service; expected something like http://127.0.0.1:8080")
    return address


__all__ = [
    "Target",
    "choose_target",
    "connect",
    "in_process",
    "keep_private",
    "local_key",
    "remote",
    "require_data",
    "require_documents",
    "require_own_database",
]
