"""The services of the contract by name, on either kind of channel."""

from __future__ import annotations

from typing import Any

from innerloop._core.commands import Rpc
from innerloop.v1.adaptation_pb2_grpc import AdaptationServiceStub
from innerloop.v1.evaluation_pb2_grpc import EvaluationServiceStub
from innerloop.v1.learner_pb2_grpc import LearnerServiceStub
from innerloop.v1.policy_pb2_grpc import PolicyServiceStub
from innerloop.v1.task_pb2_grpc import TaskServiceStub

_STUBS: dict[str, Any] = {
    "AdaptationService": AdaptationServiceStub,
    "EvaluationService": EvaluationServiceStub,
    "LearnerService": LearnerServiceStub,
    "PolicyService": PolicyServiceStub,
    "TaskService": TaskServiceStub,
}


class Stubs:
    """All services on one channel, blocking or async."""

    def __init__(self, channel: Any) -> None:
        self._services = {name: stub(channel) for name, stub in _STUBS.items()}

    def __getitem__(self, rpc: Rpc) -> Any:
        """The callable of a method."""
        return getattr(self._services[rpc.service], rpc.method)
