"""The port ``Parser`` on real child processes: what goes through, what is contained, what is cleaned up."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path
from unittest.mock import ANY

import anyio
import msgspec
import pytest

from ragsvc.core.documents import Passage, ProblemCode
from ragsvc.core.errors import ExtractionFailed, FailureReason, Overloaded
from ragsvc.core.page_views import PageBoxes, TextStretch
from ragsvc.core.ports.parsing import ExtractionLimits, FileToParse, Parser
from ragsvc.extract import child_protocol
from ragsvc.extract.child_protocol import ChunkingPlan
from ragsvc.extract.parser import ChildParser, _ParseJob
from ragsvc.testing.pdf_builder import assemble, lines, make_pdf, make_scan

FIXTURES = Path(__file__).parents[2] / "fixtures"
REPORT = FIXTURES / "documents/apple-10-q-2023-07-01.pdf"
COLUMNS = FIXTURES / "documents/two-columns.pdf"


def plan(split="split_paragraphs"):
    return ChunkingPlan(f"tests.support.parser_plans:{split}", "tests.support.parser_plans:load_words", "unused")


def with_parser(test, *, chunk=None, workers=1, queue_limit=16, **limits):
    """Run ``test(parser)`` on a parser that is closed in the end."""

    async def run():
        parser = ChildParser(ExtractionLimits(**limits), chunk=chunk, workers=workers, queue_limit=queue_limit)
        port: Parser = parser  # the type checker compares the signatures
        try:
            return await test(parser)
        finally:
            await port.close()
            assert parser.pids == []

    return anyio.run(run)


async def parse(parser, path=COLUMNS, **more):
    return await parser.parse(path, **{"media_type": "application/pdf", "filename": path.name, **more})


async def failure(parser, path=COLUMNS, **more):
    with pytest.raises(ExtractionFailed) as caught:
        await parse(parser, path, **more)
    return caught.value


def is_running(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


async def wait_until(condition, within_s=5.0):
    with anyio.fail_after(within_s):
        while not condition():
            await anyio.sleep(0.02)


# --- what goes through


def test_every_passage_stands_on_its_page():
    async def check(parser):
        for path in sorted(FIXTURES.rglob("documents/*.pdf")):
            parsed = await parse(parser, path)
            assert parsed.passages
            for passage in parsed.passages:
                page = parsed.extraction.pages[passage.page - 1]
                assert page.number == passage.page
                assert passage.text == page.text[passage.start : passage.end]

    with_parser(check, chunk=plan())


def test_progress_counts_to_the_end():
    async def check(parser):
        seen: list[tuple[int, int]] = []
        parsed = await parse(parser, REPORT, on_progress=lambda done, total: seen.append((done, total)))
        assert seen[-1] == (29, 29)
        assert seen == sorted(seen)
        assert parsed.extraction.timings["extract_s"] > 0

    with_parser(check)


def test_a_password_goes_along_and_failures_come_back_with_reasons():
    async def check(parser):
        path = FIXTURES / "dirty/password-asdfzxcv.pdf"
        assert (await failure(parser, path)).reason is FailureReason.PASSWORD_REQUIRED
        assert (await failure(parser, path, password="no")).reason is FailureReason.PASSWORD_WRONG
        assert (await parse(parser, path, password="asdfzxcv")).extraction.page_count == 1

    with_parser(check)


def test_one_warm_child_serves_many_documents():
    async def check(parser):
        await parse(parser)
        (pid,) = parser.pids
        await failure(parser, FIXTURES / "dirty/scan.pdf")
        await parse(parser)
        assert parser.pids == [pid]

    with_parser(check)


def test_scanned_pages_among_others_are_recognised_in_the_child(tmp_path):
    words = ["The lighthouse of Norderney was lit in 1874.", "Its lamp is seen from 23 nautical miles away."]
    original = tmp_path / "original.pdf"
    original.write_bytes(make_pdf([lines(words, x=20, top=60)], size=(300, 90)))
    path = tmp_path / "mixed.pdf"
    path.write_bytes(make_scan(original, 1, then=[lines(words, x=20, top=60)]))

    async def check(parser):
        seen: list[tuple[int, int]] = []
        parsed = await parse(parser, path, on_progress=lambda done, total: seen.append((done, total)))
        scanned, typed = (page.text for page in parsed.extraction.pages)
        assert scanned == typed
        assert [(one.code, one.first_page) for one in parsed.extraction.problems] == [(ProblemCode.OCR_USED, 1)]
        assert [passage.page for passage in parsed.passages] == [1, 2]
        assert seen == sorted(seen)
        assert seen[-1] == (2, 2)
        found, lines = await parser.page_boxes(path, 1, TextStretch(scanned, 4, 14, recognised=True))
        typed_boxes, no_lines = await parser.page_boxes(path, 2, TextStretch(typed, 4, 14))
        (box,), (typed_box,) = found.boxes, typed_boxes.boxes
        assert found.width * abs(box.left - typed_box.left) < 4
        assert found.width * abs(box.width - typed_box.width) < 7
        assert lines is not None
        assert no_lines is None
        again, _ = await parser.page_boxes(path, 1, TextStretch(scanned, 4, 14, recognised=True), known=lines)
        assert again == found

    with_parser(check, chunk=plan())


class RecordingWorker:
    """A worker whose child answers at once; keeps what deadlines it was given, from the first one on."""

    def __init__(self, *replies):
        self.deadlines: list[float] = []
        self.served = self.rss_bytes = 0
        self._replies = iter(replies)

    def receive(self, *, deadline):
        self.deadlines.append(deadline)
        return next(self._replies)


def test_each_recognised_page_adds_to_the_time_allowed_up_to_the_limit():
    limits = ExtractionLimits(timeout_s=10, ocr_max_pages=2, ocr_page_s=60)
    worker = RecordingWorker(
        child_protocol.ParseProgress(1, 9, 0),
        child_protocol.ParseProgress(2, 9, 1),
        child_protocol.ParseProgress(9, 9, 1_000_000),  # a child that a hostile file took over may claim anything
        child_protocol.FoundBoxes(PageBoxes(1, 1, []), None, rss_bytes=0),
    )
    _ParseJob(None, worker, start=lambda: worker, limits=limits, on_progress=None)._collect(worker)
    first = worker.deadlines[0]
    assert [round(deadline - first) for deadline in worker.deadlines] == [0, 0, 60, 120]


def test_boxes_are_found_in_the_child():
    async def check(parser):
        text = (await parse(parser)).extraction.pages[0].text
        start = text.index("Curabitur dictum")
        stretch = TextStretch(text, start, start + len("Curabitur dictum"))
        found, _ = await parser.page_boxes(COLUMNS, 1, stretch)
        (box,) = found.boxes
        assert 72 < found.width * box.left < found.width * (box.left + box.width) < 310

    with_parser(check)


def test_two_thousand_pages_come_back_without_stalling_the_loop(tmp_path):
    path = tmp_path / "long.pdf"
    path.write_bytes(make_pdf([lines([f"Page {n} of many says something."] * 20) for n in range(1, 2001)]))

    async def check(parser):
        await parse(parser)  # a warm child
        delays = []

        async def watch():
            while True:
                before = time.perf_counter()
                await anyio.sleep(0.001)
                delays.append(time.perf_counter() - before)

        gc.collect()
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            parsed = await parse(parser, path)
            group.cancel_scope.cancel()
        assert [page.number for page in parsed.extraction.pages] == list(range(1, 2001))
        assert parsed.extraction.pages[1999].text.startswith("Page 2000 of many")
        assert len(parsed.passages) == 2000
        delays.sort()
        assert delays[len(delays) // 2] < 0.005
        assert delays[-1] < 0.25  # a loaded machine has its own pauses; the batches' size is tested by itself

    with_parser(check, chunk=plan())


# --- what is contained


@pytest.mark.parametrize(
    ("split", "limits", "reason"),
    [
        ("hang", {"timeout_s": 5.0}, FailureReason.TIMEOUT),
        ("hang_in_native_code", {"timeout_s": 5.0}, FailureReason.TIMEOUT),
        ("crash", {}, FailureReason.PARSER_CRASHED),
        ("fail", {}, FailureReason.PARSER_CRASHED),
        ("swell", {"memory_bytes": 1 << 30}, FailureReason.OUT_OF_MEMORY),
    ],
)
def test_a_bad_child_fails_its_document_only(split, limits, reason):
    async def check(parser):
        error = await failure(parser)
        assert error.reason is reason
        assert error.message
        assert (await failure(parser, FIXTURES / "dirty/scan.pdf")).reason is FailureReason.NO_TEXT

    with_parser(check, chunk=plan(split), **limits)


def test_a_page_that_unpacks_to_more_than_the_memory_fails_alone(tmp_path):
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(bytes(1 << 20)) for _ in range(500)) + packer.flush()
    packed = b"<< /Filter /FlateDecode /Length %d >>\nstream\n%b\nendstream" % (len(data), data)
    path = tmp_path / "bomb.pdf"
    path.write_bytes(
        assemble(
            [
                b"<< /Type /Catalog /Pages 2 0 R >>",
                b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
                b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R >>",
                packed,
            ]
        )
    )

    async def check(parser):
        error = await failure(parser, path)
        assert error.reason is FailureReason.OUT_OF_MEMORY
        assert (await parse(parser)).extraction.page_count == 3

    with_parser(check, memory_bytes=400 << 20)


def test_another_document_does_not_wait_for_a_stuck_one(tmp_path):
    good = tmp_path / "no-chunking.pdf"
    good.write_bytes((FIXTURES / "dirty/scan.pdf").read_bytes())

    async def check(parser):
        async with anyio.create_task_group() as group:
            group.start_soon(failure, parser)
            await anyio.sleep(0.1)
            before = time.monotonic()
            await failure(parser, good)
            assert time.monotonic() - before < 2.0

    with_parser(check, chunk=plan("hang"), workers=2, timeout_s=4.0)


def test_noise_of_the_child_gets_nowhere(capfd):
    async def check(parser):
        parsed = await parse(parser)
        assert parsed.passages == []
        assert (await parse(parser)).extraction.page_count == 3

    with_parser(check, chunk=plan("make_noise"))
    assert capfd.readouterr() == ("", "")


def test_a_child_that_swelled_is_replaced():
    async def check(parser):
        await parse(parser)
        assert parser.pids == []
        assert (await parse(parser)).extraction.page_count == 3

    with_parser(check, chunk=plan("swell_and_stay"))


def test_the_child_sees_no_settings_and_yields_to_the_service(monkeypatch):
    monkeypatch.setenv("RAGSVC_UPSTREAM_KEY", "secret")

    async def check(parser):
        facts = [passage.text for passage in (await parse(parser)).passages]
        assert "PYTHONPATH" in facts
        assert not any("RAGSVC" in fact for fact in facts)
        assert facts[-1] == f"nice={min(19, os.nice(0) + 10)}"

    with_parser(check, chunk=plan("spend_environment"))


def test_cancelling_a_parse_ends_its_child():
    async def check(parser):
        with anyio.move_on_after(0.8) as scope:
            await parse(parser)
        assert scope.cancelled_caught
        pids = parser.pids
        await wait_until(lambda: not any(map(is_running, pids)))
        assert (await failure(parser, FIXTURES / "dirty/scan.pdf")).reason is FailureReason.NO_TEXT

    with_parser(check, chunk=plan("hang"))


def test_a_child_killed_from_outside_while_idle_is_replaced_unnoticed():
    async def check(parser):
        await parse(parser)
        (pid,) = parser.pids
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: not is_running(pid))
        assert (await parse(parser)).extraction.page_count == 3

    with_parser(check)


def test_a_full_queue_refuses_at_once():
    async def check(parser):
        async with anyio.create_task_group() as group:
            group.start_soon(failure, parser)
            group.start_soon(failure, parser)
            await anyio.sleep(0.1)
            with pytest.raises(Overloaded) as caught:
                await parse(parser)
            assert caught.value.retry_after_s

    with_parser(check, chunk=plan("hang"), workers=1, queue_limit=1, timeout_s=1.0)


SERVICE = """
import anyio, sys
from pathlib import Path
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.child_protocol import ChunkingPlan
from ragsvc.extract.parser import ChildParser

async def main():
    split = "tests.support.parser_plans:" + {"busy": "hang", "idle": "split_paragraphs"}[sys.argv[2]]
    plan = ChunkingPlan(split, "tests.support.parser_plans:load_words", "unused")
    parser = ChildParser(ExtractionLimits(), chunk=plan, workers=1, queue_limit=1)
    async def report():
        while not parser.pids:
            await anyio.sleep(0.01)
        await anyio.sleep(0.7)
        print(parser.pids[0], flush=True)
    async with anyio.create_task_group() as group:
        group.start_soon(report)
        await parser.parse(Path(sys.argv[1]), media_type="application/pdf", filename="x.pdf")
        await anyio.sleep(60)

anyio.run(main)
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize("state", ["idle", "busy"])
def test_children_do_not_outlive_a_killed_service(state):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", SERVICE, str(COLUMNS), state]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as service:
        assert service.stdout is not None
        child = int(service.stdout.readline())
        assert is_running(child)
        service.kill()
    deadline = time.monotonic() + 5
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)


def test_memory_of_the_service_comes_back():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    async def check(parser):
        await parse(parser, REPORT)
        gc.collect()
        before = resident()
        for _ in range(5):
            await parse(parser, REPORT)
        gc.collect()
        assert resident() - before < 30 << 20

    with_parser(check, chunk=plan())


def test_the_child_imports_only_what_most_files_need():
    heavy = {
        "torch", "faiss", "litestar", "tantivy", "sqlmodel", "sentence_transformers", "pypdf", "onnxruntime", "numpy",
        "charset_normalizer", "anyio",
    }  # fmt: skip
    code = (
        "import sys, ragsvc.extract.parser_child, ragsvc.core.text.chunking, ragsvc.inference.tokens\n"
        f"print(sorted({{name.partition('.')[0] for name in sys.modules}} & {heavy!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def test_passages_of_a_text_file_stand_in_it(tmp_path):
    path = tmp_path / "notes.md"
    path.write_text("# One\n\nFirst.\n\n## Two\n\nSecond.\n")

    async def check(parser) -> list[Passage]:
        parsed = await parse(parser, path, media_type="text/markdown")
        (page,) = parsed.extraction.pages
        assert [page.text[p.start : p.end] for p in parsed.passages] == [p.text for p in parsed.passages]
        return parsed.passages

    assert [passage.text for passage in with_parser(check, chunk=plan())] == ["# One", "First.", "## Two", "Second."]


# --- what a child that a hostile file took over can reach


PLANS = "tests.support.parser_plans"


@pytest.mark.skipif(sys.platform != "linux", reason="confinement is a feature of Linux")
def test_a_child_that_was_taken_over_reaches_neither_files_nor_the_network_nor_the_service(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("ragsvc.sqlite", "sealing.key"):
        (data / name).write_bytes(b"secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        targets = tmp_path / "targets.json"
        targets.write_text(
            json.dumps(
                {
                    "database": str(data / "ragsvc.sqlite"),
                    "sealing_key": str(data / "sealing.key"),
                    "service": os.getpid(),
                    "port": server.getsockname()[1],
                }
            )
        )
        attacks = ChunkingPlan(f"{PLANS}:try_attacks", f"{PLANS}:AttackTargets", str(targets))

        async def check(parser):
            return (await parse(parser)).passages

        outcomes = [passage.text for passage in with_parser(check, chunk=attacks)]
    assert len(outcomes) > 20
    assert [outcome for outcome in outcomes if outcome.rpartition(": ")[2] not in ("EPERM", "EACCES")] == []
    assert sorted(path.name for path in data.iterdir()) == ["ragsvc.sqlite", "sealing.key"]
    assert {path.read_bytes() for path in data.iterdir()} == {b"secret"}


# --- several small files in one child


def small_files(folder: Path, *texts: bytes) -> list[FileToParse]:
    files = []
    for number, text in enumerate(texts):
        path = folder / f"{number}.txt"
        path.write_bytes(text)
        files.append(FileToParse(path, "text/plain", path.name))
    return files


def test_small_files_are_read_in_one_child_as_each_by_itself(tmp_path):
    async def check(parser):
        files = small_files(tmp_path, b"One lamp.", b"Two\nlamps.\n\nThree.", "Vier Lämpchen.".encode("latin-1"))
        together = await parser.parse_many(files)
        (child,) = parser.pids
        alone = [await parser.parse(file.path, media_type="text/plain", filename=file.filename) for file in files]
        assert parser.pids == [child]
        for first, second in zip(together, alone, strict=True):
            assert first.passages == second.passages
            assert first.passages
            assert first.extraction.pages == second.extraction.pages
        assert await parser.parse_many(files[:1]) == [
            msgspec.structs.replace(
                together[0], extraction=msgspec.structs.replace(together[0].extraction, timings=ANY)
            )
        ]

    with_parser(check, chunk=plan())


def test_a_small_file_that_cannot_be_read_does_not_concern_the_others(tmp_path):
    async def check(parser):
        files = small_files(tmp_path, b"One lamp.", b"", b"%PDF-1.7 no text", b"Two lamps.")
        found = await parser.parse_many([*files[:3], FileToParse(tmp_path / "gone", "text/plain", "gone"), files[3]])
        assert [None if parsed is None else parsed.extraction.pages[0].text for parsed in found] == [
            "One lamp.",
            None,
            None,
            None,
            "Two lamps.",
        ]

    with_parser(check, chunk=plan())


def test_after_a_small_file_that_ends_the_child_the_others_are_left(tmp_path):
    async def check(parser):
        files = small_files(tmp_path, b"One lamp.", b"kill", b"Two lamps.")
        found = await parser.parse_many(files)
        assert [parsed is not None for parsed in found] == [True, False, False]
        again = await parser.parse_many([files[0], files[2]])
        assert [parsed is not None for parsed in again] == [True, True]

    with_parser(check, chunk=plan("die_of_a_word"))


def test_a_small_file_that_takes_too_long_is_stopped(tmp_path):
    async def check(parser):
        found = await parser.parse_many(small_files(tmp_path, b"One lamp.", b"hang", b"Two lamps."))
        assert [parsed is not None for parsed in found] == [True, False, False]

    with_parser(check, chunk=plan("die_of_a_word"), timeout_s=8.0)
