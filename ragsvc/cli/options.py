"""Options that several commands have, and the choice of the target that they name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from ragsvc.cli.execution import execute
from ragsvc.cli.output import Output
from ragsvc.cli.target import Target, choose_target

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on standard output.")]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="A running service (default: RAGSVC_URL); key: RAGSVC_API_KEY."),
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", metavar="DIR", help="The data directory (default: RAGSVC_DATA_DIR).")
]
Tenant = Annotated[
    str | None,
    typer.Option("--tenant", metavar="T", help="The tenant to work for, on a data directory (default: 'default')."),
]


def on_target(
    work: Callable[[Target, Output], Awaitable[None]],
    *,
    as_json: bool,
    url: str | None,
    data_dir: Path | None,
    tenant: str | None,
) -> None:
    """Run ``work`` on the target the options name."""

    async def command(output: Output) -> None:
        await work(choose_target(url=url, data_dir=data_dir, tenant=tenant), output)

    execute(command, as_json=as_json)
