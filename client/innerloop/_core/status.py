"""gRPC statuses as errors of the client. The one place that reads ``google.rpc`` details."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from innerloop import errors

_BY_CODE: Mapping[grpc.StatusCode, type[errors.InnerloopError]] = {
    grpc.StatusCode.CANCELLED: errors.Cancelled,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidRequest,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Exhausted,
    grpc.StatusCode.FAILED_PRECONDITION: errors.PreconditionFailed,
    grpc.StatusCode.ABORTED: errors.PreconditionFailed,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unimplemented,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.INTERNAL: errors.ServerError,
    grpc.StatusCode.UNKNOWN: errors.ServerError,
    grpc.StatusCode.DATA_LOSS: errors.ServerError,
}
_BY_REASON: Mapping[str, type[errors.InnerloopError]] = {
    kind.default_reason: kind for kind in (errors.SequenceGap, errors.StaleStep, errors.NoEpisodes, errors.VersionSkew)
}
_DETAILS_KEY = "grpc-status-details-bin"


def client_closed() -> errors.Cancelled:
    """A call on a client that was closed: gRPC itself raises errors of its own for it, another for each driver."""
    return errors.Cancelled("the client is closed; connect again", reason="CLIENT_CLOSED")


def error_from_rpc(failure: Any, address: str) -> errors.InnerloopError:
    """What a failed call means.

    Args:
        failure: ``grpc.RpcError`` of a blocking call, or ``grpc.aio.AioRpcError``: both answer ``code``, ``details``
            and ``trailing_metadata``.
        address: whom the call went to, for the message.
    """
    code: grpc.StatusCode = failure.code()
    message = failure.details() or f"the call failed with {code.name}"
    info, bad_request, retry = _details(failure)
    kind = _BY_CODE.get(code, errors.ServerError)
    if kind is errors.PreconditionFailed:
        kind = _BY_REASON.get(info.reason, kind)
    facts = dict(info.metadata)
    if kind is errors.InvalidRequest:
        return errors.InvalidRequest(
            message,
            reason=info.reason,
            facts=facts,
            violations=[errors.Violation(v.field, v.description) for v in bad_request.field_violations],
        )
    if kind is errors.Exhausted:
        after = retry.retry_delay.ToTimedelta().total_seconds() if retry is not None else None
        return errors.Exhausted(message, reason=info.reason, facts=facts, retry_after_seconds=after)
    if kind is errors.Unavailable and not info.reason:
        # not the server's own word but the transport's: say whom it was that did not answer
        message = f"no server answers at {address} ({message}); start one with `innerloop serve`"
        facts["address"] = address
    return kind(message, reason=info.reason, facts=facts)


def _details(
    failure: Any,
) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo | None]:
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry: error_details_pb2.RetryInfo | None = None
    status = status_pb2.Status()
    for key, value in failure.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            try:
                status.ParseFromString(value)
            except DecodeError:  # a proxy's, not ours: the code and its text are all there is
                continue
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            detail.Unpack(bad_request)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
    return info, bad_request, retry
