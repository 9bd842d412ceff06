"""Runs a command's coroutine and turns every way it can end into output and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable

import anyio
import typer

from ragsvc.cli.failures import CommandFailed, ExitCode, failure_of_error
from ragsvc.cli.output import Output
from ragsvc.core.errors import RagsvcError


def execute(command: Callable[[Output], Awaitable[None]], *, as_json: bool, fast_loop: bool = False) -> None:
    """Run ``command``; expected failures become one line on standard error and the exit code that goes with them.

    Raises:
        typer.Exit: always, unless the command did its task.
    """
    output = Output(as_json=as_json)
    code = ExitCode.OK
    try:
        anyio.run(command, output, backend_options={"use_uvloop": fast_loop})
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_standard_output()
    except KeyboardInterrupt:
        output.err.print("ragsvc: interrupted; the same command goes on where it stopped")
        code = ExitCode.INTERRUPTED
    except Exception as error:
        failure = _expected(error)
        if failure is None:
            raise
        output.failure(failure)
        code = failure.exit_code
    if code:
        raise typer.Exit(int(code))


def _expected(error: BaseException) -> CommandFailed | None:
    """The failure behind an error, also when task groups wrapped it; ``None`` for a bug."""
    if isinstance(error, CommandFailed):
        return error
    if isinstance(error, RagsvcError):
        return failure_of_error(error)
    if isinstance(error, BaseExceptionGroup):
        found = [_expected(one) for one in error.exceptions]
        expected = [one for one in found if one is not None]
        return expected[0] if len(expected) == len(found) else None
    return None


def _forget_standard_output() -> None:
    """Whoever read us has enough (``| head``); keep the interpreter from complaining at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
