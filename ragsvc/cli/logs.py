"""The log goes to standard error, as lines of text or of JSON; standard output is for results."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from ragsvc.cli.failures import CommandFailed
from ragsvc.core.log_events import REQUEST_ID, log_event

_log = logging.getLogger("ragsvc.service")

LogFormat = Literal["text", "json"]
_SECRETS: Final = re.compile(r"\b(?:rag_|sk-)[A-Za-z0-9_-]{6,}|(?<=Bearer )\S+")
"""API keys in messages of libraries; our own messages never contain one."""


def log_to_standard_error(level: str, *, log_format: LogFormat = "text") -> None:
    """Log to standard error at ``level``; libraries log warnings and errors only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    logging.getLogger("ragsvc").setLevel(level.upper())
    if level != "error":  # a download takes minutes, also in commands that log warnings only
        logging.getLogger("ragsvc.inference.model_download").setLevel(logging.INFO)


def log_refused_start(failure: CommandFailed | None, error: Exception) -> bool:
    """Log why the service does not start, or what ended it, if its log is JSON; returns whether it did.

    Settings that cannot be read have not configured the log. The variable alone decides then.
    """
    if os.environ.get("RAGSVC_LOG_FORMAT") == "json" and not _is_configured():
        log_to_standard_error("info", log_format="json")
    if not any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers):
        return False
    if failure is None:
        log_event(_log, logging.CRITICAL, "crashed", "the service ended unexpectedly", error=error)
    else:
        code, exit_code = failure.code, int(failure.exit_code)
        log_event(_log, logging.ERROR, "refused_start", failure.message, code=code, exit_code=exit_code)
    return True


def _is_configured() -> bool:
    return any(isinstance(handler.formatter, JsonLines | TextLines) for handler in logging.getLogger().handlers)


class JsonLines(logging.Formatter):
    """A JSON object per line: time, level, logger, event, message, request id, then the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": _time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", "message"),
            "message": _message_of(record),
        }
        line |= _fields_of(record)
        if (error := _error_of(record)) is not None:
            line["error"], line["stack"] = _types_of(error), _stack_of(error)
        return msgspec.json.encode(line, enc_hook=str).decode()


class TextLines(logging.Formatter):
    """A line of text with the same content: ``key=value`` after the message; a stack follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_shown(value)}" for name, value in _fields_of(record).items())
        line = f"{_time_of(record)} {record.levelname} {record.name}: {_message_of(record)}{fields}"
        if (error := _error_of(record)) is None:
            return line
        return f"{line} error={_types_of(error)}\n{_stack_of(error)}"


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message_of(record: logging.LogRecord) -> str:
    """The message without secrets. Of asyncio's reports of failed tasks only the first line: others quote the error."""
    message = record.getMessage()
    if record.name == "asyncio":
        message = message.partition("\n")[0]
    return _SECRETS.sub("***", message)


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = dict(getattr(record, "fields", {}))
    request_id = REQUEST_ID.get()
    if request_id is not None:
        fields.setdefault("request_id", request_id)
    return fields


def _error_of(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None


def _types_of(error: BaseException) -> str:
    """The types of an error and its causes. Their messages may contain document text, and are left out."""
    names = [type(error).__name__]
    cause = error.__cause__
    while cause is not None and len(names) < 8:
        names.append(type(cause).__name__)
        cause = cause.__cause__
    return " from ".join(names)


def _stack_of(error: BaseException) -> str:
    return "".join(traceback.format_list(traceback.extract_tb(error.__traceback__))).rstrip()


def _shown(value: object) -> str:
    text = str(value)
    return text if re.fullmatch(r"[^\s\"=]+", text) else msgspec.json.encode(text).decode()
