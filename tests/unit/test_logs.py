"""Lines of the log: one structure in both formats, ids of requests, and nothing that a document or a client said."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest

from ragsvc.cli.failures import CommandFailed
from ragsvc.cli.logs import JsonLines, TextLines, log_refused_start
from ragsvc.core.log_events import REQUEST_ID, log_event

SECRET = "the merger is called Bluebird"


@pytest.fixture(params=[JsonLines, TextLines])
def written(request: pytest.FixtureRequest) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger and what it has written."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(request.param())
    logger = logging.getLogger("ragsvc.test_logs")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield logger, stream
    logger.removeHandler(handler)


def fail() -> None:
    try:
        int(SECRET)
    except ValueError as error:
        raise RuntimeError(SECRET) from error


def test_an_event_has_its_name_its_fields_and_the_id_of_the_request(written) -> None:
    logger, stream = written
    REQUEST_ID.set("req_42")
    try:
        log_event(logger, logging.WARNING, "document_failed", "a document failed", code="damaged", pages=3, tenant=None)
    finally:
        REQUEST_ID.set(None)
    log_event(logger, logging.DEBUG, "document_ready", "not at this level")
    (line,) = stream.getvalue().splitlines()
    if line.startswith("{"):
        found = json.loads(line)
        assert found.pop("at").endswith("Z")
        assert found == {
            "level": "warning",
            "logger": "ragsvc.test_logs",
            "event": "document_failed",
            "message": "a document failed",
            "code": "damaged",
            "pages": 3,
            "request_id": "req_42",
        }
    else:
        expected = "WARNING ragsvc.test_logs: a document failed code=damaged pages=3 request_id=req_42"
        assert line.partition(" ")[2] == expected


def test_an_error_is_logged_with_types_and_stack_and_without_its_words(written) -> None:
    logger, stream = written
    try:
        fail()
    except RuntimeError:
        logger.exception("maintenance failed")
    text = stream.getvalue()
    assert "RuntimeError from ValueError" in text
    assert "in fail" in text
    assert SECRET not in text


def test_keys_in_messages_of_libraries_are_masked(written) -> None:
    logger, stream = written
    logger.warning("invalid header Authorization: Bearer abc.def and key %s", "rag_9f8e7d6c5b")
    logger.warning("provider key sk-1234567890 was refused")
    text = stream.getvalue()
    assert "***" in text
    for secret in ("abc.def", "rag_9f8e7d6c5b", "sk-1234567890"):
        assert secret not in text


def test_asyncios_report_of_a_failed_task_does_not_quote_the_error() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)

    async def main() -> None:
        async def broken() -> None:
            raise ValueError(SECRET)

        task = asyncio.get_running_loop().create_task(broken())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task

    try:
        asyncio.run(main())
    finally:
        logger.removeHandler(handler)
    line = json.loads(stream.getvalue())
    assert line["error"] == "ValueError"
    assert SECRET not in stream.getvalue()


def test_a_refused_start_is_left_to_the_terminal_unless_the_log_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAGSVC_LOG_FORMAT", raising=False)
    failure = CommandFailed("port 80 is in use", code="address_unavailable")
    assert log_refused_start(failure, failure) is False
