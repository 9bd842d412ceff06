"""``ragsvc open``: a link that signs in to the web pages of a running service once."""

from __future__ import annotations

import time
import webbrowser

from rich.console import Console
from rich.markup import escape

from ragsvc.cli.failures import CommandFailed, usage_error
from ragsvc.cli.output import Output
from ragsvc.cli.target import Target, remote


async def open_pages(target: Target, output: Output, *, browser: bool) -> None:
    """Print a link that signs in with the key of the environment, and open it if ``browser`` is set.

    Raises:
        CommandFailed: no service is named, or no browser could be started.
    """
    if target.url is None:
        raise usage_error("name the running service with --url or RAGSVC_URL: the pages are a part of it")
    async with remote(target.url) as client:
        link = await client.post("/v1/session/links")

    def show(console: Console) -> None:
        console.print(escape(link["url"]), soft_wrap=True)
        minutes = max(1, round((link["expires_at"] - time.time()) / 60))
        output.note(f"The link signs in once, within {minutes} minutes.")

    output.result(link, show)
    if browser and not webbrowser.open(link["url"]):
        raise CommandFailed("no browser could be started; open the link above", code="no_browser")
