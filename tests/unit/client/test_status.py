from __future__ import annotations

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from innerloop import errors
from innerloop._core.status import error_from_rpc


class Failure:
    """What both kinds of failed call answer."""

    def __init__(self, code, text="no", *details):
        self._code, self._text = code, text
        status = status_pb2.Status(code=code.value[0], message=text)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        self._trailers = (("grpc-status-details-bin", status.SerializeToString()),) if details else ()

    def code(self):
        return self._code

    def details(self):
        return self._text

    def trailing_metadata(self):
        return self._trailers


def info(reason, **facts):
    return error_details_pb2.ErrorInfo(reason=reason, domain="innerloop", metadata=facts)


Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (Code.CANCELLED, "", errors.Cancelled),
        (Code.INVALID_ARGUMENT, "INVALID_FIELD", errors.InvalidRequest),
        (Code.OUT_OF_RANGE, "", errors.InvalidRequest),
        (Code.DEADLINE_EXCEEDED, "", errors.DeadlineExceeded),
        (Code.NOT_FOUND, "NOT_FOUND", errors.NotFound),
        (Code.ALREADY_EXISTS, "", errors.AlreadyExists),
        (Code.PERMISSION_DENIED, "", errors.PermissionDenied),
        (Code.UNAUTHENTICATED, "", errors.Unauthenticated),
        (Code.RESOURCE_EXHAUSTED, "STREAMS", errors.Exhausted),
        (Code.FAILED_PRECONDITION, "SESSION_FINISHED", errors.PreconditionFailed),
        (Code.FAILED_PRECONDITION, "SEQUENCE_GAP", errors.SequenceGap),
        (Code.FAILED_PRECONDITION, "STALE_STEP", errors.StaleStep),
        (Code.FAILED_PRECONDITION, "NO_EPISODES", errors.NoEpisodes),
        (Code.FAILED_PRECONDITION, "VERSION_SKEW", errors.VersionSkew),
        (Code.ABORTED, "", errors.PreconditionFailed),
        (Code.UNIMPLEMENTED, "", errors.Unimplemented),
        (Code.UNAVAILABLE, "UNAVAILABLE", errors.Unavailable),
        (Code.INTERNAL, "INTERNAL", errors.ServerError),
        (Code.UNKNOWN, "", errors.ServerError),
        (Code.DATA_LOSS, "DATA_LOSS", errors.ServerError),
    ],
)
def test_every_status_has_its_error(code, reason, kind):
    details = [info(reason, a="b")] if reason else []
    error = error_from_rpc(Failure(code, "what to do", *details), "host:1")
    assert type(error) is kind
    assert error.reason == (reason or kind.default_reason)
    if reason:
        assert error.message == "what to do"
        assert error.facts == {"a": "b"}


def test_every_code_but_ok_is_mapped():
    for code in grpc.StatusCode:
        if code is not Code.OK:
            assert isinstance(error_from_rpc(Failure(code), "host:1"), errors.InnerloopError)


def test_facts_are_numbers_where_they_are():
    gap = error_from_rpc(Failure(Code.FAILED_PRECONDITION, "no", info("SEQUENCE_GAP", got="9", expected="7")), "")
    assert (gap.got, gap.expected) == (9, 7)
    stale = error_from_rpc(Failure(Code.FAILED_PRECONDITION, "no", info("STALE_STEP", got="1")), "")
    assert (stale.got, stale.current) == (1, None)
    missing = error_from_rpc(Failure(Code.NOT_FOUND, "no", info("NOT_FOUND", name="tasks/x")), "")
    assert missing.name == "tasks/x"


def test_field_violations():
    violation = error_details_pb2.BadRequest.FieldViolation(field="open.budget.steps", description="at least 1")
    bad = error_details_pb2.BadRequest(field_violations=[violation])
    error = error_from_rpc(Failure(Code.INVALID_ARGUMENT, "no", info("INVALID_FIELD"), bad), "")
    assert error.violations == (errors.Violation("open.budget.steps", "at least 1"),)
    assert error.field == "open.budget.steps"


def test_retry_after():
    hint = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2, nanos=500_000_000))
    error = error_from_rpc(Failure(Code.RESOURCE_EXHAUSTED, "full", info("FULL"), hint), "")
    assert error.retry_after_seconds == 2.5
    assert error_from_rpc(Failure(Code.RESOURCE_EXHAUSTED, "full"), "").retry_after_seconds is None


def test_the_transports_own_unavailable_says_who_did_not_answer():
    error = error_from_rpc(Failure(Code.UNAVAILABLE, "connection refused"), "host:1")
    assert error.facts == {"address": "host:1"}
    assert "host:1" in error.message
    assert "innerloop serve" in error.message


def test_details_that_are_not_ours_are_no_reason_to_fail():
    failure = Failure(Code.INTERNAL, "oops")
    failure._trailers = (("grpc-status-details-bin", b"\xff\xff"), ("other", "x"))
    assert error_from_rpc(failure, "").message == "oops"
    failure._trailers = None
    assert error_from_rpc(failure, "").message == "oops"


def test_the_tree_that_is_drawn_is_the_tree_that_is_there():
    drawn = {line.split("── ")[1].split()[0] for line in errors.__doc__.splitlines() if "── " in line}
    there = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.InnerloopError) and value is not errors.InnerloopError
    }
    assert drawn == there
