"""Reads a file of questions: JSON Lines, each line a question with the place or the absence of its answer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from ragsvc.core.defaults import MAX_QUERY_LENGTH
from ragsvc.core.validation import invalid_field
from ragsvc.evaluation.errors import InvalidEvaluation, InvalidQuestions
from ragsvc.evaluation.measures.excerpts import normalise_characters

_MIN_EXCERPT_CHARACTERS = 4
_SHOWN_PROBLEMS = 8


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A line of the file.

    ``pages`` are physical page numbers, from 1. ``document`` is a file name, a document id or a SHA-256.
    """

    question: Annotated[str, Meta(min_length=1, max_length=MAX_QUERY_LENGTH)]
    document: Annotated[str, Meta(min_length=1)] | None = None
    pages: tuple[Annotated[int, Meta(ge=1)], ...] = ()
    excerpts: tuple[str, ...] = ()
    answer: Annotated[str, Meta(min_length=1)] | None = None
    answerable: bool = True
    id: Annotated[str, Meta(min_length=1)] | int | None = None


class NumberedQuestion(msgspec.Struct, frozen=True):
    """A question with its line number; ``id`` is the question's ``id``, or ``line N`` without one."""

    line: int
    id: str
    question: Question


_decoder = msgspec.json.Decoder(Question)


def read_questions(path: Path) -> list[NumberedQuestion]:
    """Read and validate the whole file.

    Raises:
        InvalidEvaluation: the file cannot be read.
        InvalidQuestions: the file holds no questions or has invalid lines; the message names file, line and field.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidEvaluation(f"'{path}' cannot be read: {error.strerror}") from error
    questions: list[NumberedQuestion] = []
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
            problems.append(f"{path.name}:{number}: not a JSON object in UTF-8 ({error})")
        else:
            question_id = f"line {number}" if question.id is None else str(question.id)
            questions.append(NumberedQuestion(number, question_id, question))
    problems += [
        f"{path.name}: the id '{question_id}' is repeated on {lines}" for question_id, lines in _repeated(questions)
    ]
    if problems:
        more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        raise InvalidQuestions("; ".join(problems[:_SHOWN_PROBLEMS]) + more)
    if not questions:
        raise InvalidQuestions(f"{path.name} contains no questions")
    return questions


def _check(question: Question) -> None:
    """Check the rules that types cannot express."""
    if not question.question.strip():
        raise msgspec.ValidationError("Expected a question that is not blank - at `$.question`")
    if question.pages and question.document is None:
        raise msgspec.ValidationError("Required when 'pages' is given - at `$.document`")
    for field in ("pages", "excerpts", "answer"):
        if getattr(question, field) and not question.answerable:
            raise msgspec.ValidationError(f"Not allowed when 'answerable' is false - at `$.{field}`")
    for index, excerpt in enumerate(question.excerpts):
        if len(normalise_characters(excerpt)[0]) < _MIN_EXCERPT_CHARACTERS:
            raise msgspec.ValidationError(
                f"Expected an excerpt with at least {_MIN_EXCERPT_CHARACTERS} letters or digits "
                f"- at `$.excerpts[{index}]`"
            )


def _repeated(questions: list[NumberedQuestion]) -> list[tuple[str, str]]:
    counts = Counter(numbered.id for numbered in questions)
    return [
        (question_id, "lines " + ", ".join(str(numbered.line) for numbered in questions if numbered.id == question_id))
        for question_id, count in counts.items()
        if count > 1
    ]
