"""Exceptions as callers see them."""

from __future__ import annotations

import inspect

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from innerloop_server import errors
from innerloop_server.service.handshake import require_compatible
from innerloop_server.service.status import failure_of


def made(kind: type[errors.InnerloopError]) -> errors.InnerloopError:
    arguments = [1 if p.annotation == "int" else "x" for p in inspect.signature(kind).parameters.values()
                 if p.default is p.empty]  # fmt: skip
    return kind(*arguments)


KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.InnerloopError)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not errors.InnerloopError])
def test_every_error_has_a_status_and_its_reason(kind: type[errors.InnerloopError]) -> None:
    error = made(kind)
    failure = failure_of(error)
    assert failure.code is not grpc.StatusCode.INTERNAL
    assert failure.reason == error.reason
    assert not failure.incident


@pytest.mark.parametrize("error", [RuntimeError("secret"), errors.InnerloopError("secret"), OSError(5, "secret")])
def test_anything_else_is_an_incident(error: Exception) -> None:
    failure = failure_of(error)
    assert failure.code is grpc.StatusCode.INTERNAL
    assert len(failure.incident) == 12
    assert failure.incident in failure.message
    assert "secret" not in failure.message
    assert failure_of(error).incident != failure.incident


def test_the_details_are_those_of_grpc_status() -> None:
    failure = failure_of(errors.InvalidField("open.budget.steps", "is 0; give 1 to 10000"))
    ((key, data),) = failure.trailing_metadata()
    assert key == rpc_status.GRPC_DETAILS_METADATA_KEY
    status = status_pb2.Status.FromString(data)
    assert (status.code, status.message) == (3, "open.budget.steps: is 0; give 1 to 10000")
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert [(v.field, v.description) for v in bad.field_violations] == [("open.budget.steps", "is 0; give 1 to 10000")]


def test_what_callers_sent_never_makes_trailers_too_long() -> None:
    failure = failure_of(errors.InvalidField("f" * 10**6, "é" * 10**6, facts={str(i): "x" * 10**6 for i in range(99)}))
    ((_, data),) = failure.trailing_metadata()
    assert len(failure.message.encode()) * 3 + len(data) * 4 / 3 < 16_384


@pytest.mark.parametrize(
    ("client", "server", "fits"),
    [
        ("", "0.1.0", True),
        ("0.1.9", "0.1.0", True),
        ("0.2.0", "0.1.0", False),
        ("1.0.0", "0.1.0", False),
        ("1.0.0", "1.9.0", True),
        ("2.0.0", "1.9.0", False),
    ],
)
def test_which_versions_fit(client: str, server: str, fits: bool) -> None:
    if fits:
        require_compatible(client, server, "open.client_version")
    else:
        with pytest.raises(errors.PreconditionFailed) as caught:
            require_compatible(client, server, "open.client_version")
        assert caught.value.reason == "VERSION_SKEW"


@pytest.mark.parametrize("version", ["1", "v1.0", "1.x", "1.0\n", "9" * 5_000 + ".0", "1.0" + "a" * 65])
def test_what_is_no_version(version: str) -> None:
    with pytest.raises(errors.InvalidField) as caught:
        require_compatible(version, "0.1.0", "open.client_version")
    assert caught.value.field == "open.client_version"
