"""Errors of an evaluation.

::

    EvaluationError
    ├── InvalidEvaluation   the options are wrong; nothing was read or asked
    ├── InvalidQuestions    the file of questions has invalid lines or none
    ├── UnknownGold         questions name documents, pages or excerpts that the collection does not hold
    └── QuestionFailed      a request for a question failed; ``__cause__`` is the client's error

The command line maps them to messages and exit codes.
"""

from __future__ import annotations

from typing import ClassVar


class EvaluationError(Exception):
    code: ClassVar[str] = "evaluation"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidEvaluation(EvaluationError):
    code = "usage"


class InvalidQuestions(EvaluationError):
    code = "bad_questions"


class UnknownGold(EvaluationError):
    code = "unknown_gold"


class QuestionFailed(EvaluationError):
    """``message`` names the question and the setting; the cause is the error that the client raised."""
