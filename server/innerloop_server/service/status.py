"""The one place where an exception becomes a gRPC status.

Every failure carries a ``google.rpc.Status`` with an ``ErrorInfo`` (domain ``innerloop``, reason, facts); an invalid
field adds a ``BadRequest``, an exhausted quota that will be free again a ``RetryInfo``. An exception that nobody raised
on purpose becomes INTERNAL with the number of an incident: the log has its traceback, the caller never does.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from innerloop_server import errors

DOMAIN = "innerloop"
DETAILS_KEY = "grpc-status-details-bin"

_CODES: Mapping[type[errors.InnerloopError], grpc.StatusCode] = {
    errors.InvalidField: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.PreconditionFailed: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.DataLoss: grpc.StatusCode.DATA_LOSS,
}

# Trailers of more than 8 KiB are dropped on the way, and a message travels twice, percent-encoded and in the details.
_LONGEST_MESSAGE = 800
_LONGEST_FACT = 200
_MOST_FACTS = 8


@dataclass(frozen=True)
class Failure:
    """An exception as the caller sees it."""

    code: grpc.StatusCode
    message: str
    reason: str
    details: tuple[Message, ...]
    incident: str = ""
    """Names the log entry of an exception that nobody raised on purpose; empty otherwise."""

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        """The ``google.rpc.Status`` as trailing metadata."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            status.details.add().Pack(detail)
        return ((DETAILS_KEY, status.SerializeToString()),)


def failure_of(error: Exception) -> Failure:
    """What the caller is told about an exception.

    Whoever calls this lets ``asyncio.CancelledError`` pass: it is no ``Exception``.
    """
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), None)
    if code is None or not isinstance(error, errors.InnerloopError):
        return _incident()
    text = _cut(error.message, _LONGEST_MESSAGE)
    details: list[Message] = [_info(error.reason, error.facts)]
    if isinstance(error, errors.InvalidField):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(error.field, _LONGEST_FACT), description=_cut(error.advice, _LONGEST_MESSAGE)
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.Exhausted) and error.retry_after_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_seconds * 1_000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return Failure(code, text, error.reason, tuple(details))


def _incident() -> Failure:
    incident = secrets.token_hex(6)
    return Failure(
        grpc.StatusCode.INTERNAL,
        f"internal error; the server's log tells more under incident {incident}",
        "INTERNAL",
        (_info("INTERNAL", {"incident": incident}),),
        incident,
    )


def _info(reason: str, facts: Mapping[str, str]) -> error_details_pb2.ErrorInfo:
    few = list(facts.items())[:_MOST_FACTS]
    return error_details_pb2.ErrorInfo(
        reason=reason, domain=DOMAIN, metadata={key: _cut(value, _LONGEST_FACT) for key, value in few}
    )


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
