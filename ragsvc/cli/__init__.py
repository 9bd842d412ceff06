"""The command line. Importing this package is cheap; ``main`` imports the commands."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit with its code (see ``ragsvc.cli.failures.ExitCode``)."""
    from ragsvc.cli.commands import run  # noqa: PLC0415 - keeps ``import ragsvc.cli`` fast

    run()


__all__ = ["main"]
