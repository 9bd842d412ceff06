import json
from io import StringIO
from pathlib import Path

import anyio
import httpx
import pytest
import typer
from rich.console import Console

from ragsvc.cli.ask import show_citations, stream_answer
from ragsvc.cli.execution import execute
from ragsvc.cli.failures import CommandFailed, ExitCode
from ragsvc.cli.ingest.folders import SourceFile
from ragsvc.cli.ingest.progress import IngestProgress
from ragsvc.cli.output import Output
from ragsvc.cli.service_client import ServiceClient
from ragsvc.cli.service_failures import failure_of_answer
from ragsvc.cli.target import choose_target
from ragsvc.core.errors import ConfigurationError, DataDirectoryLocked


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CommandFailed("x", code="x", exit_code=ExitCode.UNREACHABLE), 3),
        (DataDirectoryLocked("in use"), 5),
        (ConfigurationError(["a", "b"]), 2),
        (ExceptionGroup("tasks", [CommandFailed("x", code="x", exit_code=ExitCode.NOT_AUTHORISED)]), 4),
    ],
)
def test_expected_errors_are_one_line_and_a_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def command(_: Output) -> None:
        raise error

    with pytest.raises(typer.Exit) as ended:
        execute(command, as_json=True)
    assert ended.value.exit_code == code
    printed = capsys.readouterr()
    assert "error" in json.loads(printed.out)
    assert len(printed.err.splitlines()) == 1


def test_a_bug_is_not_hidden() -> None:
    async def command(_: Output) -> None:
        raise ExceptionGroup("tasks", [CommandFailed("x", code="x"), ZeroDivisionError()])

    with pytest.raises(ExceptionGroup):
        execute(command, as_json=False)


@pytest.mark.parametrize(
    ("status", "code"), [(401, 4), (403, 4), (402, 6), (429, 6), (503, 6), (404, 1), (500, 1), (418, 1)]
)
def test_statuses_become_exit_codes(status: int, code: int) -> None:
    failure = failure_of_answer(status, {"retry-after-ms": "1500", "retry-after": "9"}, b"no json")
    assert failure.exit_code == code
    assert failure.retry_after_s == 1.5


def test_refusals_are_waited_out_as_long_as_patience_lasts() -> None:
    answers = [httpx.Response(503, headers={"retry-after-ms": "20"}), httpx.Response(429), httpx.Response(200, json={})]
    pauses: list[float] = []

    async def run(patience_s: float) -> None:
        replies = iter(answers)
        transport = httpx.MockTransport(lambda _: next(replies))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            client = ServiceClient(http, patience_s=patience_s)
            client.on_pause = lambda seconds, _: pauses.append(seconds)
            await client.get("/x")

    anyio.run(run, 5.0)
    assert pauses == [0.02, 1.0]
    with pytest.raises(CommandFailed) as failed:
        anyio.run(run, 0.5)
    assert failed.value.exit_code == ExitCode.REFUSED_FOR_NOW


def test_progress_estimates_by_bytes() -> None:
    now = [0.0]
    state = IngestProgress(total_files=2, total_bytes=400, clock=lambda: now[0])
    first, second = (SourceFile("/r", name, Path(name), size) for name, size in (("a", 100), ("b", 300)))
    now[0] = 10.0
    state.watch(first, {"progress": 0.5, "pages_done": 20})
    state.finish(first, failed=False)
    assert state.line() == "1/2 files · 20 pages (2.0/s) · ETA 0:00:30"
    state.watch(second, {"progress": 0.9, "pages_done": 40})
    state.watch(second, {"progress": 0.1, "pages_done": 4})  # a late event changes nothing
    state.finish(second, failed=True)
    assert state.line() == "2/2 files · 60 pages (6.0/s) · 1 failed"


def test_options_that_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSVC_URL", "http://from-environment")
    assert choose_target(url=None, data_dir=None, tenant=None).url == "http://from-environment"
    assert choose_target(url=None, data_dir=Path("x"), tenant="t").url is None
    for options in ({"url": "u", "data_dir": Path("x")}, {"url": "u", "tenant": "t"}, {"url": None, "tenant": "t"}):
        with pytest.raises(CommandFailed):
            choose_target(**{"data_dir": None, "tenant": None, **options})


def test_every_quote_of_a_passage_is_shown_once() -> None:
    quotes = ["Sales rose by 4 %.", "Sales fell in June.", "Sales rose by 4 %."]
    cited = [{"index": 1, "filename": "a.pdf", "page": 3, "page_label": None, "quote": quote} for quote in quotes]
    console = Console(file=StringIO(), width=160)
    show_citations([*cited, {**cited[0], "index": 2, "filename": "b.pdf"}], console)
    lines = console.file.getvalue().splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["[1]", "[1]", "[2]"]
    for line, quote in zip(lines, [*quotes[:2], quotes[0]], strict=True):
        assert quote in line


@pytest.mark.parametrize(("text", "printed"), [("Hello half", "Hello half\n"), ("", "")])
def test_the_error_of_a_stream_is_on_its_own_line(text: str, printed: str) -> None:
    events = [{"choices": [{"delta": {"content": text}}]}, {"error": {"message": "The provider left.", "code": "x"}}]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    answer = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    console = Console(file=StringIO(), width=160)

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: answer), base_url="http://test") as http:
            await stream_answer(ServiceClient(http), {}, console)

    with pytest.raises(CommandFailed, match="The provider left"):
        anyio.run(ask)
    assert console.file.getvalue() == printed
