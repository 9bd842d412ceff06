"""The commands `ragsvc tenants` and `ragsvc collections`, and those of `ragsvc keys` that change a key."""

from __future__ import annotations

import re
import sys
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer

from ragsvc.cli.failures import usage_error
from ragsvc.cli.options import DataDir, Json, Tenant, Url, on_target
from ragsvc.cli.output import Output
from ragsvc.cli.target import Target

_MIN_SECRET_CHARACTERS = 16
_HASH = re.compile(r"sha256:([0-9a-fA-F]{64})")

tenants_app = typer.Typer(help="List, show, limit, export and delete tenants.", no_args_is_help=True)
collections_app = typer.Typer(help="List and delete the collections of a tenant.", no_args_is_help=True)

KeyCollections = Annotated[
    list[str] | None,
    typer.Option("--collection", metavar="NAME", help="Collections that the key may use (default: all); repeatable."),
]
_TenantName = Annotated[str, typer.Argument(metavar="TENANT")]
_KeyId = Annotated[str, typer.Argument(metavar="KEY_ID")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
_Limit = "0 for no limit"
_Quota = Annotated[
    str | None, typer.Option(metavar="N|default", help="A number, or 'default' for that of the settings.")
]

_Money = Annotated[
    float | None, typer.Option(min=-1, help="Daily money budget, in the currency of the prices; -1 for none.")
]
_MoneyLeft = Annotated[float | None, typer.Option(min=-1, help="Money left; -1 for no limit.")]


def read_secret_hash() -> str:
    """SHA-256 in hexadecimal of the secret on standard input; ``sha256:HEX`` is such a hash already.

    Raises:
        CommandFailed: the secret is too short to resist guessing from its hash.
    """
    text = sys.stdin.readline().strip()
    if (given := _HASH.fullmatch(text)) is not None:
        return given[1].lower()
    if len(text) < _MIN_SECRET_CHARACTERS:
        raise usage_error(f"a secret of fewer than {_MIN_SECRET_CHARACTERS} characters can be guessed from its hash")
    return sha256(text.encode()).hexdigest()


# -- tenants ---------------------------------------------------------------------------------------------------


@tenants_app.command("list")
def list_tenants(url: Url = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """List all tenants with their keys, collections, documents and stored bytes."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli import tenant_commands  # noqa: PLC0415 - keeps other commands fast

        await tenant_commands.list_all(target, output)

    on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=None)


@tenants_app.command("show")
def show_tenant(tenant: _TenantName, url: Url = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Show what a tenant has, and what it may have."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli import tenant_commands  # noqa: PLC0415 - keeps other commands fast

        await tenant_commands.show(target, tenant, output)

    on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=None)


@tenants_app.command("update")
def update_tenant(
    tenant: _TenantName,
    max_collections: _Quota = None,
    max_documents: _Quota = None,
    max_bytes: _Quota = None,
    money_per_day: _Money = None,
    money_balance: _MoneyLeft = None,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Set what a tenant may store and spend. What it has already stays."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli import tenant_commands  # noqa: PLC0415 - keeps other commands fast

        asked = {"max_collections": max_collections, "max_documents": max_documents, "max_bytes": max_bytes}
        limits: dict[str, float | None] = {name: _quota(name, text) for name, text in asked.items() if text is not None}
        budgets = {"money_per_day": money_per_day, "money_balance": money_balance}
        limits |= {name: None if value < 0 else value for name, value in budgets.items() if value is not None}
        await tenant_commands.update(target, tenant, limits, output)

    on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=None)


@tenants_app.command("delete")
def delete_tenant(
    tenant: _TenantName,
    yes: _Yes = False,
    remove_copies: Annotated[
        bool,
        typer.Option(
            "--remove-copies",
            help="Also remove the copies of the database from before upgrades, which hold data of all tenants.",
        ),
    ] = False,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Delete a tenant with keys, usage, documents, files, vectors and words. This cannot be undone."""
    _confirm(f"Delete everything of the tenant '{tenant}'?", yes=yes, as_json=as_json)

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli import tenant_commands  # noqa: PLC0415 - keeps other commands fast

        await tenant_commands.delete(target, tenant, output, remove_copies=remove_copies)

    on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=None)


@tenants_app.command("export")
def export_tenant(
    tenant: _TenantName,
    file: Annotated[Path, typer.Argument(metavar="FILE.tar", help="The archive to write; it must not exist.")],
    url: Url = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Write files, metadata, keys (without secrets) and usage of a tenant to a tar archive."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli import tenant_commands  # noqa: PLC0415 - keeps other commands fast

        await tenant_commands.export(target, tenant, file, output)

    on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=None)


# -- collections -----------------------------------------------------------------------------------------------


@collections_app.command("list")
def list_collections(url: Url = None, data_dir: DataDir = None, tenant: Tenant = None, as_json: Json = False) -> None:
    """List the collections of a tenant."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli import tenant_commands  # noqa: PLC0415 - keeps other commands fast

        await tenant_commands.list_collections(target, output)

    on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=tenant)


@collections_app.command("delete")
def delete_collection(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    only_if_empty: Annotated[bool, typer.Option("--only-if-empty", help="Fail if it has documents.")] = False,
    yes: _Yes = False,
    url: Url = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Delete a collection with its documents, files, vectors and words. This cannot be undone."""
    _confirm(f"Delete the collection '{name}' with all its documents?", yes=yes or only_if_empty, as_json=as_json)

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli import tenant_commands  # noqa: PLC0415 - keeps other commands fast

        await tenant_commands.delete_collection(target, name, output, only_if_empty=only_if_empty)

    on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=tenant)


# -- keys ------------------------------------------------------------------------------------------------------


def update_key(
    key_id: _KeyId,
    label: Annotated[str | None, typer.Option("--label", metavar="L", help="Another name.")] = None,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Switch the key on or off.")] = None,
    scope: Annotated[list[str] | None, typer.Option("--scope", help="The scopes instead; repeatable.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="GLOB", help="The models instead ('*' for all); repeatable."),
    ] = None,
    collection: Annotated[
        list[str] | None,
        typer.Option("--collection", metavar="NAME", help="The collections instead; repeatable."),
    ] = None,
    all_collections: Annotated[bool, typer.Option("--all-collections", help="Allow every collection.")] = False,
    requests_per_minute: Annotated[int | None, typer.Option(min=0, help=f"Request limit; {_Limit}.")] = None,
    requests_per_hour: Annotated[int | None, typer.Option(min=0, help=f"Request limit; {_Limit}.")] = None,
    max_parallel_requests: Annotated[int | None, typer.Option(min=0, help=f"Parallel requests; {_Limit}.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=-1, help="Daily token budget; -1 for none.")] = None,
    token_balance: Annotated[int | None, typer.Option(min=-1, help="Tokens left; -1 for no limit.")] = None,
    money_per_day: _Money = None,
    money_balance: _MoneyLeft = None,
    expires_in_days: Annotated[
        float | None, typer.Option(min=-1, help="Days until the key expires; -1 for never.")
    ] = None,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Change fields of an API key; the change applies to a running service within seconds."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli import key_commands  # noqa: PLC0415 - keeps other commands fast

        changes: dict[str, Any] = {} if label is None else {"label": label}
        if active is not None:
            changes["state"] = "active" if active else "inactive"
        lists = {"scopes": scope, "allowed_models": model, "allowed_collections": collection}
        changes |= {name: value for name, value in lists.items() if value}
        if all_collections:
            changes["allowed_collections"] = []
        counts = {
            "requests_per_minute": requests_per_minute,
            "requests_per_hour": requests_per_hour,
            "max_parallel_requests": max_parallel_requests,
        }
        changes |= {name: value or None for name, value in counts.items() if value is not None}
        budgets = {
            "tokens_per_day": tokens_per_day,
            "token_balance": token_balance,
            "money_per_day": money_per_day,
            "money_balance": money_balance,
        }
        changes |= {name: None if value < 0 else value for name, value in budgets.items() if value is not None}
        await key_commands.update(target, key_id, changes, output, expires_in_days=expires_in_days)

    on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=None)


def rotate_key(
    key_id: _KeyId,
    overlap_s: Annotated[
        int, typer.Option("--overlap-s", min=0, max=30 * 86_400, help="Seconds that the old secret still works.")
    ] = 86_400,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Give an API key a new secret, which is printed once."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli import key_commands  # noqa: PLC0415 - keeps other commands fast

        await key_commands.rotate(target, key_id, overlap_s, output)

    on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=None)


def show_usage(
    key_id: Annotated[str | None, typer.Argument(metavar="[KEY_ID]", help="Only this key.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="T", help="Only keys of this tenant.")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Only this model.")] = None,
    family: Annotated[
        str | None, typer.Option("--family", metavar="NAME", help="Only these endpoints: chat, embeddings, search, …")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="DATE", help="First day in UTC (default: 30 days ago).")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="DATE", help="Last day in UTC (default: today).")
    ] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="COLUMNS", help="Some of tenant,key_id,model,family,day.")
    ] = "tenant,key_id,model,family,day",
    url: Url = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show tokens and requests by tenant, key, model, family and day. Searches and uploads count as requests."""

    async def work(target: Target, output: Output) -> None:
        from ragsvc.cli import key_commands  # noqa: PLC0415 - keeps other commands fast

        asked = {
            "key_id": key_id,
            "tenant": tenant,
            "model": model,
            "family": family,
            "since": since,
            "until": until,
            "group_by": by,
        }
        await key_commands.usage(target, {name: value for name, value in asked.items() if value is not None}, output)

    on_target(work, as_json=as_json, url=url, data_dir=data_dir, tenant=None)


def add_key_commands(keys_app: typer.Typer) -> None:
    """Add the commands of this module to `ragsvc keys`."""
    keys_app.command("update")(update_key)
    keys_app.command("rotate")(rotate_key)
    keys_app.command("usage")(show_usage)


def _confirm(question: str, *, yes: bool, as_json: bool) -> None:
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        typer.echo("ragsvc: not confirmed; repeat the command with --yes", err=True)
        raise typer.Exit(2)
    typer.confirm(question, abort=True)


def _quota(name: str, text: str) -> int | None:
    if text == "default":
        return None
    if not text.isdecimal():
        raise usage_error(f"--{name.replace('_', '-')} must be a number or 'default', not '{text}'")
    return int(text)
