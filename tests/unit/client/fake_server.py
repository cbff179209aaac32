"""A small server in this process that keeps to the contract, counts what happens, and fails on purpose when asked.

It knows nothing of learning: a step's return is the mean of the episodes it got, or its own number. What it does
know is the grammar of ``Adapt``; a client that breaks it finds its sins in ``FakeServer.violations``.
"""

# ruff: noqa: N802 - methods are named by the contract
from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import fake_answers as answers
import grpc
import numpy as np
from fake_answers import Refusal
from fake_sessions import FakeAdaptation, FakeSession, Faults
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from innerloop._core.codec import array_from_pb, array_to_pb
from innerloop.v1 import (
    adaptation_pb2,
    adaptation_pb2_grpc,
    evaluation_pb2,
    evaluation_pb2_grpc,
    learner_pb2,
    learner_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    task_pb2,
    task_pb2_grpc,
)


class FakeServer:
    """The server: ``address`` to connect to, ``adaptation`` to look into, ``refuse`` to make an rpc fail."""

    def __init__(self, *, token: str = "") -> None:
        self.token = token
        self.adaptation = FakeAdaptation()
        self.metadata: list[dict[str, Any]] = []
        self.refuse: dict[str, list[Refusal]] = {}
        self.calls: list[str] = []
        self.defined: list[Any] = []
        self.deleted: list[str] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        task_pb2_grpc.add_TaskServiceServicer_to_server(_Tasks(self), self._server)
        adaptation_pb2_grpc.add_AdaptationServiceServicer_to_server(_Adaptation(self), self._server)
        policy_pb2_grpc.add_PolicyServiceServicer_to_server(_Policies(self), self._server)
        learner_pb2_grpc.add_LearnerServiceServicer_to_server(_Learners(self), self._server)
        evaluation_pb2_grpc.add_EvaluationServiceServicer_to_server(_Evaluations(self), self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    @property
    def faults(self) -> Faults:
        return self.adaptation.faults

    @property
    def violations(self) -> list[str]:
        return self.adaptation.violations

    @property
    def session(self) -> FakeSession:
        """The only session there is."""
        (session,) = self.adaptation.sessions.values()
        return session

    def idle(self) -> bool:
        """Wait until no Adapt stream is live; whether that came true."""
        with self.adaptation.emptied:
            return self.adaptation.emptied.wait_for(lambda: self.adaptation.live == 0, timeout=5)

    def stop(self) -> None:
        self._server.stop(None).wait()

    def enter(self, rpc: str, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        self.metadata.append(metadata)
        self.calls.append(rpc)
        if self.token and metadata.get("authorization") != f"Bearer {self.token}":
            raise Refusal("UNAUTHENTICATED", "UNAUTHENTICATED", "a token is needed: authorization: Bearer TOKEN")
        if waiting := self.refuse.get(rpc):
            raise waiting.pop(0)


def _abort(context: Any, refusal: Refusal) -> None:
    status = status_pb2.Status(code=code_pb2.Code.Value(refusal.code), message=refusal.message)
    details: list[Any] = [
        error_details_pb2.ErrorInfo(reason=refusal.reason, domain="innerloop", metadata=dict(refusal.facts))
    ]
    if refusal.violations:
        violation = error_details_pb2.BadRequest.FieldViolation
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[violation(field=f, description=d) for f, d in refusal.violations]
            )
        )
    if refusal.retry_after is not None:
        delay = duration_pb2.Duration(nanos=int(refusal.retry_after * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    context.abort_with_status(rpc_status.to_status(status))


def rpc(method: Callable[..., Any]) -> Callable[..., Any]:
    """Names the call, checks the token, turns refusals into statuses."""

    @functools.wraps(method)
    def unary(self: Any, request: Any, context: Any) -> Any:
        try:
            self.server.enter(method.__name__, context)
            return method(self, request, context)
        except Refusal as refusal:
            return _abort(context, refusal)

    return unary


def streaming(method: Callable[..., Any]) -> Callable[..., Any]:
    """As ``rpc``, for methods that stream their responses."""

    @functools.wraps(method)
    def stream(self: Any, request: Any, context: Any) -> Iterator[Any]:
        try:
            self.server.enter(method.__name__, context)
            yield from method(self, request, context)
        except Refusal as refusal:
            _abort(context, refusal)

    return stream


def page(items: list[Any], request: Any, size: int = 1) -> tuple[list[Any], str]:
    """Pages of one, so that every test of a list is a test of paging."""
    start = int(request.page_token or 0)
    end = start + size
    return items[start:end], str(end) if end < len(items) else ""


class _Service:
    def __init__(self, server: FakeServer) -> None:
        self.server = server


class _Tasks(_Service, task_pb2_grpc.TaskServiceServicer):
    @rpc
    def ListFamilies(self, request: Any, context: Any) -> Any:
        found, token = page([answers.family_message(n) for n in answers.FAMILIES], request)
        return task_pb2.ListFamiliesResponse(families=found, next_page_token=token)

    @rpc
    def GetFamily(self, request: Any, context: Any) -> Any:
        return task_pb2.GetFamilyResponse(family=answers.family_message(request.name))

    @rpc
    def DefineFamily(self, request: Any, context: Any) -> Any:
        self.server.defined.append(request)
        family = answers.family_message("families/navigation-2d")
        family.name = request.name
        family.definition.env_id = request.env_id
        family.definition.apply = request.apply
        family.definition.owner = "local"
        return task_pb2.DefineFamilyResponse(family=family)

    @rpc
    def DeleteFamily(self, request: Any, context: Any) -> Any:
        self.server.deleted.append(request.name)
        return task_pb2.DeleteFamilyResponse()

    @rpc
    def SampleTasks(self, request: Any, context: Any) -> Any:
        answers.family_message(request.family)
        first = request.start_index
        drawn = [
            answers.sampled_task(request.family, request.split, request.seed, i)
            for i in range(first, first + request.count)
        ]
        return task_pb2.SampleTasksResponse(tasks=drawn)

    @rpc
    def GetTask(self, request: Any, context: Any) -> Any:
        return task_pb2.GetTaskResponse(task=answers.task_message(task_pb2.Task(name=request.name)))


class _Adaptation(_Service, adaptation_pb2_grpc.AdaptationServiceServicer):
    @streaming
    def Adapt(self, request: Any, context: Any) -> Any:
        return self.server.adaptation.adapt(request, context)

    @rpc
    def GetSession(self, request: Any, context: Any) -> Any:
        return adaptation_pb2.GetSessionResponse(session=self._message(request.name))

    @rpc
    def ListSessions(self, request: Any, context: Any) -> Any:
        names = list(self.server.adaptation.sessions)[::-1]
        found, token = page([self._message(n) for n in names], request)
        return adaptation_pb2.ListSessionsResponse(sessions=found, next_page_token=token)

    @rpc
    def CancelSession(self, request: Any, context: Any) -> Any:
        message = self._message(request.name)
        self.server.adaptation.sessions[request.name].cancelled = True
        message.state = adaptation_pb2.SESSION_STATE_CANCELLED
        return adaptation_pb2.CancelSessionResponse(session=message)

    def _message(self, name: str) -> adaptation_pb2.Session:
        session = self.server.adaptation.sessions.get(name)
        if session is None:
            raise Refusal("NOT_FOUND", "NOT_FOUND", f"{name} does not exist", facts={"name": name})
        states = adaptation_pb2.SessionState
        state = states.SESSION_STATE_FINISHED if session.adapted else states.SESSION_STATE_ACTIVE
        return adaptation_pb2.Session(name=name, state=state, step=session.step, budget=session.open.budget)


class _Policies(_Service, policy_pb2_grpc.PolicyServiceServicer):
    @rpc
    def GetPolicy(self, request: Any, context: Any) -> Any:
        return policy_pb2.GetPolicyResponse(policy=self._find(request.name).adapted.policy)

    @rpc
    def ListPolicies(self, request: Any, context: Any) -> Any:
        done = [s.adapted.policy for s in self.server.adaptation.sessions.values() if s.adapted is not None]
        found, token = page(done, request)
        return policy_pb2.ListPoliciesResponse(policies=found, next_page_token=token)

    @streaming
    def DownloadPolicy(self, request: Any, context: Any) -> Any:
        session = self._find(request.name)
        data = answers.policy_bytes(session.open.learner.split("/revisions/")[0], session.step)
        for start in range(0, len(data), 100):
            yield policy_pb2.DownloadPolicyResponse(chunk=data[start : start + 100], size_bytes=len(data))

    @rpc
    def DeletePolicy(self, request: Any, context: Any) -> Any:
        self._find(request.name).adapted = None
        return policy_pb2.DeletePolicyResponse()

    @rpc
    def Act(self, request: Any, context: Any) -> Any:
        return policy_pb2.ActResponse(output=self._act(request.input), state=request.state)

    @streaming
    def ActStream(self, request: Any, context: Any) -> Any:
        for one in request:
            yield policy_pb2.ActStreamResponse(output=self._act(one.input))

    def _act(self, seen: policy_pb2.PolicyInput) -> policy_pb2.PolicyOutput:
        actions = array_from_pb(seen.observations).sum(-1)
        zeros = array_to_pb(np.zeros(len(actions), np.float32))
        return policy_pb2.PolicyOutput(actions=array_to_pb(actions), raw_actions=array_to_pb(actions), log_probs=zeros)

    def _find(self, name: str) -> Any:
        for session in self.server.adaptation.sessions.values():
            if session.adapted is not None and session.adapted.policy.name == name:
                return session
        raise Refusal("NOT_FOUND", "NOT_FOUND", f"{name} does not exist", facts={"name": name})


class _Learners(_Service, learner_pb2_grpc.LearnerServiceServicer):
    def __init__(self, server: FakeServer) -> None:
        super().__init__(server)
        self.training = learner_pb2.Training(
            name="trainings/t0", learner="learners/navigation-2d-maml", state=learner_pb2.TRAINING_STATE_RUNNING
        )

    @rpc
    def ListLearners(self, request: Any, context: Any) -> Any:
        names = [n for n, family in answers.LEARNERS.items() if request.family in ("", family)]
        found, token = page([answers.learner_message(n) for n in names], request)
        return learner_pb2.ListLearnersResponse(learners=found, next_page_token=token)

    @rpc
    def GetLearner(self, request: Any, context: Any) -> Any:
        return learner_pb2.GetLearnerResponse(learner=answers.learner_message(request.name))

    @rpc
    def ListRevisions(self, request: Any, context: Any) -> Any:
        revisions = [learner_pb2.Revision(name=f"{request.parent}/revisions/{i}", champion=i == 1) for i in (2, 1)]
        promotion = {"promote": False, "champion": 1, "difference": -17.06, "reason": "worse than revision 1"}
        validation = {"protocol": {"tasks": 100}}
        revisions[0].manifest.update({"training": "t0", "promotion": promotion, "validation": validation})
        found, token = page(revisions, request)
        return learner_pb2.ListRevisionsResponse(revisions=found, next_page_token=token)

    @rpc
    def GetRevision(self, request: Any, context: Any) -> Any:
        revision = learner_pb2.Revision(name=request.name)
        revision.manifest.update({"seed": 3})
        return learner_pb2.GetRevisionResponse(revision=revision)

    @rpc
    def PromoteRevision(self, request: Any, context: Any) -> Any:
        learner = answers.learner_message(request.name.split("/revisions/")[0])
        learner.champion = request.name
        return learner_pb2.PromoteRevisionResponse(learner=learner)

    @rpc
    def RollBackLearner(self, request: Any, context: Any) -> Any:
        return learner_pb2.RollBackLearnerResponse(learner=answers.learner_message(request.name))

    @rpc
    def StartTraining(self, request: Any, context: Any) -> Any:
        answers.family_message(request.family)
        self.training.updates = request.updates or 3
        self.training.seed = request.seed
        return learner_pb2.StartTrainingResponse(training=self.training)

    @rpc
    def PauseTraining(self, request: Any, context: Any) -> Any:
        self.training.state = learner_pb2.TRAINING_STATE_PAUSED
        return learner_pb2.PauseTrainingResponse(training=self.training)

    @rpc
    def ResumeTraining(self, request: Any, context: Any) -> Any:
        self.training.state = learner_pb2.TRAINING_STATE_RUNNING
        return learner_pb2.ResumeTrainingResponse(training=self.training)

    @rpc
    def GetTraining(self, request: Any, context: Any) -> Any:
        return learner_pb2.GetTrainingResponse(training=self.training)

    @rpc
    def ListTrainings(self, request: Any, context: Any) -> Any:
        return learner_pb2.ListTrainingsResponse(trainings=[self.training])

    @streaming
    def FollowTraining(self, request: Any, context: Any) -> Any:
        yield learner_pb2.FollowTrainingResponse(training=self.training)
        for update in range(request.after_update + 1, self.training.updates + 1):
            returns = {f"return_{k}": value / update for k, value in enumerate((-64.06, -59.87, -55.61))}
            values = {**returns, "loss": 1.0 / update, "environment_steps": 314_159.0}
            metrics = learner_pb2.TrainingMetrics(update=update, values=values)
            yield learner_pb2.FollowTrainingResponse(metrics=metrics)
            if waiting := self.server.refuse.get("FollowTraining.later"):
                raise waiting.pop(0)
        self.training.update = self.training.updates
        self.training.state = learner_pb2.TRAINING_STATE_DONE
        yield learner_pb2.FollowTrainingResponse(training=self.training)


class _Evaluations(_Service, evaluation_pb2_grpc.EvaluationServiceServicer):
    def __init__(self, server: FakeServer) -> None:
        super().__init__(server)
        self.evaluation = evaluation_pb2.Evaluation(
            name="evaluations/e0", state=evaluation_pb2.EVALUATION_STATE_RUNNING, units_total=2
        )

    @rpc
    def StartEvaluation(self, request: Any, context: Any) -> Any:
        self.evaluation.plan.CopyFrom(request.plan)
        return evaluation_pb2.StartEvaluationResponse(evaluation=self.evaluation)

    @rpc
    def GetEvaluation(self, request: Any, context: Any) -> Any:
        return evaluation_pb2.GetEvaluationResponse(evaluation=self.evaluation)

    @rpc
    def ListEvaluations(self, request: Any, context: Any) -> Any:
        return evaluation_pb2.ListEvaluationsResponse(evaluations=[self.evaluation])

    @streaming
    def FollowEvaluation(self, request: Any, context: Any) -> Any:
        yield evaluation_pb2.FollowEvaluationResponse(evaluation=self.evaluation)
        if self.server.refuse.get("evaluation fails"):
            self.evaluation.state = evaluation_pb2.EVALUATION_STATE_FAILED
            self.evaluation.error = "the engine is gone"
            yield evaluation_pb2.FollowEvaluationResponse(evaluation=self.evaluation)
            return
        self.evaluation.units_done = 2
        self.evaluation.state = evaluation_pb2.EVALUATION_STATE_DONE
        self.evaluation.scores.extend(self._scores())
        yield evaluation_pb2.FollowEvaluationResponse(evaluation=self.evaluation)

    @rpc
    def CancelEvaluation(self, request: Any, context: Any) -> Any:
        self.evaluation.state = evaluation_pb2.EVALUATION_STATE_CANCELLED
        return evaluation_pb2.CancelEvaluationResponse(evaluation=self.evaluation)

    @rpc
    def QueryScores(self, request: Any, context: Any) -> Any:
        scores = [s for s in self._scores() if not request.HasField("k") or s.k == request.k]
        found, token = page(scores, request)
        return evaluation_pb2.QueryScoresResponse(scores=found, next_page_token=token)

    def _scores(self) -> list[evaluation_pb2.Score]:
        return [
            evaluation_pb2.Score(
                evaluation="evaluations/e0",
                family="families/navigation-2d",
                revision="learners/navigation-2d-maml/revisions/1",
                k=k,
                mean=-10.0 + k,
                tasks=5,
                gap_closed=0.5 if k else None,
                metrics={"success": 0.375 * k, "accuracy": 0.0625} if k else {},
            )
            for k in range(3)
        ]
