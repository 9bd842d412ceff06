"""Reads a file of questions: JSON Lines, one question with what is known of its answer per line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from ragsvc.cli.failures import CommandFailed, usage_error
from ragsvc.core.validation import invalid_field
from ragsvc.evaluation.measures.excerpts import letters

_FEWEST_LETTERS = 4
_SHOWN = 8


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line of the file. Pages are physical ones, from 1; ``document`` is a file name, an id or a SHA-256."""

    question: Annotated[str, Meta(min_length=1, max_length=20_000)]
    document: Annotated[str, Meta(min_length=1)] | None = None
    pages: tuple[Annotated[int, Meta(ge=1)], ...] = ()
    excerpts: tuple[str, ...] = ()
    answer: Annotated[str, Meta(min_length=1)] | None = None
    answerable: bool = True
    id: Annotated[str, Meta(min_length=1)] | int | None = None


class Asked(msgspec.Struct, frozen=True):
    """A question with the line it stands on; ``id`` is its own or ``line N``."""

    line: int
    id: str
    question: Question


_decoder = msgspec.json.Decoder(Question)


def read_questions(path: Path) -> list[Asked]:
    """Read and check the whole file.

    Raises:
        CommandFailed: the file cannot be read, holds no question, or has bad lines; names file, line and field.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise usage_error(f"'{path}' cannot be read: {error.strerror}") from error
    asked: list[Asked] = []
    problems: list[str] = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            question = _decoder.decode(line)
            _check(question)
        except msgspec.ValidationError as error:
            problems.append(f"{path.name}:{number}: {invalid_field(error).message.rstrip('.')}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            problems.append(f"{path.name}:{number}: no JSON object in UTF-8 ({error})")
        else:
            asked.append(Asked(number, f"line {number}" if question.id is None else str(question.id), question))
    problems += [f"{path.name}: the id '{name}' is on {lines}" for name, lines in _repeated(asked)]
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CommandFailed("; ".join(problems[:_SHOWN]) + more, code="bad_questions")
    if not asked:
        raise CommandFailed(f"{path.name} holds no question", code="bad_questions")
    return asked


def _check(question: Question) -> None:
    """What the types do not say."""
    if not question.question.strip():
        raise msgspec.ValidationError("Expected a question, not only spaces - at `$.question`")
    if question.pages and question.document is None:
        raise msgspec.ValidationError("Pages of which document? It is missing - at `$.document`")
    for field in ("pages", "excerpts", "answer"):
        if getattr(question, field) and not question.answerable:
            raise msgspec.ValidationError(f"An answer's place or text, where answerable is false - at `$.{field}`")
    for index, excerpt in enumerate(question.excerpts):
        if len(letters(excerpt)[0]) < _FEWEST_LETTERS:
            raise msgspec.ValidationError(
                f"Expected an excerpt of at least {_FEWEST_LETTERS} letters or digits - at `$.excerpts[{index}]`"
            )


def _repeated(asked: list[Asked]) -> list[tuple[str, str]]:
    counts = Counter(one.id for one in asked)
    return [
        (name, "lines " + ", ".join(str(one.line) for one in asked if one.id == name))
        for name, count in counts.items()
        if count > 1
    ]
