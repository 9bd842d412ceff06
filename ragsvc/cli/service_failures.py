"""Failures of commands for the errors that the client of the service raises."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from ragsvc.cli.failures import CommandFailed, ExitCode
from ragsvc.client.service_errors import ServiceError, ServiceUnreachable, StatusError, UnexpectedAnswer, status_error
from ragsvc.core.errors import QuotaExceeded

_EXIT_BY_STATUS: dict[int, ExitCode] = {
    HTTPStatus.UNAUTHORIZED: ExitCode.NOT_AUTHORISED,
    HTTPStatus.FORBIDDEN: ExitCode.NOT_AUTHORISED,
    HTTPStatus.PAYMENT_REQUIRED: ExitCode.REFUSED_FOR_NOW,
    HTTPStatus.TOO_MANY_REQUESTS: ExitCode.REFUSED_FOR_NOW,
    HTTPStatus.SERVICE_UNAVAILABLE: ExitCode.REFUSED_FOR_NOW,
}
_EXIT_BY_CODE = {QuotaExceeded.code: ExitCode.REFUSED_FOR_NOW}


def failure_of_answer(status: int, headers: Mapping[str, str], body: bytes) -> CommandFailed:
    """Convert an error response of the service."""
    return failure_of_service(status_error(status, headers, body))


def failure_of_service(error: ServiceError) -> CommandFailed:
    """Convert an error of the client."""
    match error:
        case StatusError():
            no_body = f"the service answered with status {error.status} and no error body of ragsvc"
            exit_code = _EXIT_BY_STATUS.get(error.status, ExitCode.FAILED)
            return CommandFailed(
                error.message if error.code is not None else no_body,
                code=error.code or "internal_error",
                exit_code=_EXIT_BY_CODE.get(error.code or "", exit_code),
                status=error.status,
                retry_after_s=error.retry_after_s,
                location=error.location,
            )
        case ServiceUnreachable():
            return CommandFailed(
                f"no service answers at {error.url} ({error.reason}); start it with 'ragsvc serve', or check the URL",
                code="service_unreachable",
                exit_code=ExitCode.UNREACHABLE,
            )
        case UnexpectedAnswer():
            return CommandFailed(
                f"{error.url} did not answer with {error.expected}; check the URL of the service", code="bad_answer"
            )
        case _:
            return CommandFailed(
                error.message[:1].lower() + error.message[1:].removesuffix("."), code=error.code or "error"
            )
