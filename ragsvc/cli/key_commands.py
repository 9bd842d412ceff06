"""``ragsvc keys``: calls the admin API, over HTTP or in this process on the data directory.

A running service picks up changed rows by itself: a new key at its first use, other changes within seconds. So these
commands take no lock and load no model.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import msgspec
from rich.console import Console
from rich.markup import escape

from ragsvc.cli.failures import usage_error
from ragsvc.cli.logs import log_to_standard_error
from ragsvc.cli.output import Output, table
from ragsvc.cli.service_client import Json, ServiceClient
from ragsvc.cli.target import Target, in_process, keep_private, local_key, remote, require_data
from ragsvc.core.readiness import Readiness
from ragsvc.services.access_control import Access
from ragsvc.services.key_administration import KeyAdministration
from ragsvc.wiring.open_database import open_database

_DAY_S = 86_400


class _KeyServices(msgspec.Struct):
    """The services that the key routes use."""

    access: Access
    keys: KeyAdministration
    readiness: Readiness
    registry: Any


@asynccontextmanager
async def _connect(target: Target, *, creates: bool = False) -> AsyncGenerator[ServiceClient]:
    if target.url is not None:
        async with remote(target.url) as client:
            yield client
        return
    from prometheus_client import CollectorRegistry  # noqa: PLC0415 - heavy

    from ragsvc.web.app import create_app  # noqa: PLC0415 - heavy

    keep_private()
    log_to_standard_error("warning")  # opening the database may upgrade it, which is irreversible
    settings = target.settings()
    if creates:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    else:
        require_data(settings)
    database = open_database(settings, settings.open_data_keys())
    try:
        access = Access(database)
        secret, key = local_key(target.tenant)
        access.trust(key)
        app = create_app(_KeyServices(access, KeyAdministration(access), Readiness(), CollectorRegistry()))
        # no lifespan: it would settle the token leases of a service that may be running
        async with in_process(app, secret) as client:
            yield client
    finally:
        database.close()


async def create(target: Target, wish: Json, output: Output, *, expires_in_days: float | None) -> None:
    """Create a key, and print its secret."""
    if expires_in_days is not None:
        wish = {**wish, "expires_at": int(time.time() + expires_in_days * _DAY_S)}
    if target.url is None:
        settings = target.settings()
        wish = {
            "requests_per_minute": settings.requests_per_minute,
            "requests_per_hour": settings.requests_per_hour,
            **wish,
        }
    async with _connect(target, creates=True) as client:
        key = await client.post("/v1/keys", wish)

    output.result(key, lambda console: _show_issued(key, console, output))


async def list_all(target: Target, tenant: str | None, output: Output) -> None:
    async with _connect(target) as client:
        found = [key async for key in client.pages("/v1/keys", {} if tenant is None else {"tenant": tenant})]

    def show(console: Console) -> None:
        columns = ("id", "tenant", "label", "state", "created", "scopes", "collections", "models", "limits")
        console.print(table(*columns, rows=map(_row, found)))

    output.result({"object": "list", "data": found}, show)


async def update(target: Target, key_id: str, changes: Json, output: Output, *, expires_in_days: float | None) -> None:
    """Change fields of a key. Raises ``CommandFailed`` if there is nothing to change."""
    if expires_in_days is not None:
        expires_at = None if expires_in_days < 0 else int(time.time() + expires_in_days * _DAY_S)
        changes = {**changes, "expires_at": expires_at}
    if not changes:
        raise usage_error("name at least one field to change; 'ragsvc keys update --help' lists them")
    async with _connect(target) as client:
        key = await client.patch(f"/v1/keys/{quote(key_id, safe='')}", changes)

    def show(console: Console) -> None:
        for name, value in key.items():
            if name != "object":
                console.print(escape(f"{name:<22}{_shown(name, value)}"))

    output.result(key, show)


async def rotate(target: Target, key_id: str, overlap_s: int, output: Output) -> None:
    """Give a key a new secret, and print it."""
    async with _connect(target) as client:
        key = await client.post(f"/v1/keys/{quote(key_id, safe='')}/rotate", {"overlap_s": overlap_s})
    output.result(key, lambda console: _show_issued(key, console, output))


async def usage(target: Target, asked: Json, output: Output) -> None:
    """Print tokens and requests, a line for each combination of the columns asked for."""
    async with _connect(target) as client:
        found = await client.get("/v1/usage", asked)
    named = {"tenant": "tenant", "key_id": "key", "model": "model", "family": "family", "day": "date"}
    columns = [name for name in named if name in str(asked["group_by"]).split(",")]

    def show(console: Console) -> None:
        fields = ["date" if name == "day" else name for name in columns]
        numbers = ("prompt_tokens", "completion_tokens", "requests", "cost")
        rows = [
            (*(entry[field] or "-" for field in fields), *(entry[name] for name in numbers)) for entry in found["data"]
        ]
        titles = ("prompt tokens", "completion tokens", "requests", "cost")
        console.print(table(*(named[name] for name in columns), *titles, rows=rows, right=titles))
        output.note(f"from {found['since']} to {found['until']} (UTC)")

    output.result(found, show)


def _show_issued(key: Json, console: Console, output: Output) -> None:
    if key["key"] is not None:
        console.print(f"key     {escape(key['key'])}")
    console.print(f"id      {escape(key['id'])}")
    console.print(f"tenant  {escape(key['tenant'])}")
    if key["key"] is None:
        output.note("The key accepts the imported secret; only its hash is stored.")
    else:
        output.note("The key is shown only once. Store it in RAGSVC_API_KEY.")


async def revoke(target: Target, key_id: str, output: Output) -> None:
    async with _connect(target) as client:
        key = await client.post(f"/v1/keys/{key_id}/revoke")
    output.result(key, lambda console: console.print(escape(f"{key['id']} ({key['label']}) is revoked")))


_LIMITS = {
    "requests_per_minute": "requests/min",
    "requests_per_hour": "requests/h",
    "tokens_per_day": "tokens/day",
    "token_balance": "tokens left",
    "money_per_day": "money/day",
    "money_balance": "money left",
    "max_parallel_requests": "at once",
}


def _row(key: Json) -> tuple[str, ...]:
    """The cells of a key in the list."""
    limits = [f"{key[name]} {unit}" for name, unit in _LIMITS.items() if key[name] is not None]
    if key["expires_at"] is not None:
        limits.append(f"until {_day(key['expires_at'])}")
    return (
        *(key["id"], key["tenant"], key["label"], key["state"], _day(key["created_at"])),
        ", ".join(key["scopes"]),
        ", ".join(key["allowed_collections"]) or "all",
        ", ".join(key["allowed_models"]) or "all",
        ", ".join(limits) or "none",
    )


def _shown(name: str, value: object) -> str:
    """A field of a key for people: times in local time, and ``-`` for no value."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "all"
    if name.endswith("_at") and isinstance(value, int):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    return "-" if value is None else str(value)


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))
