"""Output of commands: text for people or one JSON document for programs; notes and failures go to standard error."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ragsvc.cli.failures import CommandFailed

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_KIB = 1024.0
_PIPE_WIDTH = 160


class Output:
    """Output of one command. With ``as_json``, standard output holds exactly one JSON document."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._printed = False
        self.out = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
        self.err = Console(stderr=True, soft_wrap=True, highlight=False)

    def result(self, document: object, show: Callable[[Console], None]) -> None:
        """Print the result: ``document`` as JSON, or as text by calling ``show``."""
        if self.as_json:
            self._printed = True
            print_json(document)
        else:
            show(self.out)

    def note(self, text: str) -> None:
        """Print a line to standard error, unless ``--json`` is given."""
        if not self.as_json:
            self.err.print(escape(text))

    def failure(self, failure: CommandFailed, *, is_logged: bool = False) -> None:
        """Print the failure to standard error, unless the log has it there.

        With ``--json`` it is also printed as JSON, unless a document was printed before.
        """
        if self.as_json and not self._printed:
            print_json({"error": {"message": failure.message, "code": failure.code}})
        if not is_logged:
            message = " ".join(failure.message.split())
            if failure.retry_after_s is not None and "again" not in message:
                message = f"{message.rstrip('.')}; try again in {math.ceil(failure.retry_after_s)} s"
            self.err.print(f"[bold red]ragsvc:[/] {escape(message)}")


def print_json(document: object) -> None:
    """Print a JSON document to standard output."""
    encoded = msgspec.json.format(msgspec.json.encode(document), indent=2)
    sys.stdout.write(encoded.decode() + "\n")
    sys.stdout.flush()


def table(*columns: str, rows: Iterable[Iterable[Any]], right: Iterable[str] = ()) -> Table:
    """A table of plain text; columns named in ``right`` are right-aligned."""
    text_table = Table(box=None, header_style="bold", pad_edge=False)
    numbers = set(right)
    for name in columns:
        text_table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        text_table.add_row(*(escape(str(cell)) for cell in row))
    return text_table


def shortened(text: str, limit: int) -> str:
    r"""One line of at most ``limit`` characters, without control characters (terminals interpret some).

    >>> shortened("a\n b   c", 80), shortened("abcdef", 4)
    ('a b c', 'abc…')
    """
    line = " ".join(_CONTROLS.sub(" ", text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"
