"""Runs the coroutine of a command, and maps its result or failure to output and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable

import anyio
import typer

from ragsvc.cli.failures import CommandFailed, ExitCode, failure_of_error, failure_of_system
from ragsvc.cli.output import Output
from ragsvc.core.errors import RagsvcError


def execute(
    command: Callable[[Output], Awaitable[None]],
    *,
    as_json: bool,
    fast_loop: bool = False,
    log_failure: Callable[[CommandFailed | None, Exception], bool] = lambda _failure, _error: False,
) -> None:
    """Run ``command``. An expected failure becomes a line on standard error and its exit code.

    ``log_failure`` may write the failure (``None`` for a bug) to the log instead; then it returns ``True``.

    Raises:
        typer.Exit: the command failed or was interrupted.
    """
    output = Output(as_json=as_json)
    code = ExitCode.OK
    try:
        anyio.run(command, output, backend_options={"use_uvloop": fast_loop})
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_standard_output()
    except KeyboardInterrupt:
        output.err.print("ragsvc: interrupted; run the same command again to continue")
        code = ExitCode.INTERRUPTED
    except Exception as error:
        failure = _expected(error)
        is_logged = log_failure(failure, error)
        if failure is None and not is_logged:
            raise
        if failure is not None:
            output.failure(failure, is_logged=is_logged)
        code = ExitCode.FAILED if failure is None else failure.exit_code
    if code:
        raise typer.Exit(int(code))


def _expected(error: BaseException) -> CommandFailed | None:
    """The failure behind an error, also inside exception groups; ``None`` for a bug."""
    if isinstance(error, CommandFailed):
        return error
    if isinstance(error, RagsvcError):
        return failure_of_error(error)
    if isinstance(error, BaseExceptionGroup):
        found = [_expected(inner) for inner in error.exceptions]
        expected = [failure for failure in found if failure is not None]
        return expected[0] if len(expected) == len(found) else None
    return failure_of_system(error) if isinstance(error, Exception) else None


def _discard_standard_output() -> None:
    """Handle a closed pipe (``| head``): without this the interpreter reports an error at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
