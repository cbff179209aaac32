"""Programs for EvaluationService."""

from __future__ import annotations

from innerloop._core import learners, reading
from innerloop._core.backoff import Backoff
from innerloop._core.calls import PAGE, call, fresh_request_id, pages
from innerloop._core.codec import enum_from_word
from innerloop._core.commands import Emit, Program, Receive, Rpc, Sleep, Start, Stop
from innerloop._core.names import resource
from innerloop.errors import EvaluationFailed, Unavailable
from innerloop.types import Evaluation, Score
from innerloop.v1 import evaluation_pb2 as pb
from innerloop.v1 import task_pb2

START = Rpc("EvaluationService", "StartEvaluation")
GET = Rpc("EvaluationService", "GetEvaluation")
LIST = Rpc("EvaluationService", "ListEvaluations")
FOLLOW = Rpc("EvaluationService", "FollowEvaluation")
CANCEL = Rpc("EvaluationService", "CancelEvaluation")
QUERY_SCORES = Rpc("EvaluationService", "QueryScores")


def start_evaluation(
    learner: str,
    *,
    split: str,
    task_seed: int | None,
    tasks: int,
    steps: int | None,
    episodes_per_step: int,
    evaluation_episodes: int,
    seed: int | None,
    guard: bool | None,
    greedy: bool,
    simulator: str,
    request_id: str,
) -> Program[Evaluation]:
    """Start an evaluation. What is left out is taken from the family's fixed protocol."""
    name, _ = yield from learners.resolve(learner)
    plan = pb.EvaluationPlan(
        learner=name,
        split=enum_from_word(task_pb2.Split, split, "split"),  # type: ignore[arg-type]
        task_seed=task_seed,
        tasks=tasks,
        steps=steps,
        episodes_per_step=episodes_per_step,
        evaluation_episodes=evaluation_episodes,
        seed=seed,
        guard=guard,
        greedy=greedy,
        simulator=enum_from_word(task_pb2.Simulator, simulator, "simulator"),  # type: ignore[arg-type]
    )
    request = pb.StartEvaluationRequest(plan=plan, request_id=request_id or fresh_request_id())
    return (yield from call(START, request, lambda response: reading.evaluation(response.evaluation)))


def evaluation(name: str) -> Program[Evaluation]:
    """One evaluation."""
    request = pb.GetEvaluationRequest(name=resource("evaluations", name))
    return call(GET, request, lambda response: reading.evaluation(response.evaluation))


def evaluations() -> Program[list[Evaluation]]:
    """The caller's evaluations, newest first."""
    return pages(
        LIST,
        lambda token: pb.ListEvaluationsRequest(page_size=PAGE, page_token=token),
        lambda response: map(reading.evaluation, response.evaluations),
    )


def cancel_evaluation(name: str) -> Program[Evaluation]:
    """Cancel an evaluation."""
    request = pb.CancelEvaluationRequest(name=resource("evaluations", name))
    return call(CANCEL, request, lambda response: reading.evaluation(response.evaluation))


def follow_evaluation(name: str, patience: float) -> Program[Evaluation]:
    """Emit the evaluation as it goes on, until it has ended; come back by itself after a lost stream.

    Returns:
        The evaluation with its scores.

    Raises:
        EvaluationFailed: it failed or was cancelled.
    """
    request = pb.FollowEvaluationRequest(name=resource("evaluations", name))
    latest: Evaluation | None = None
    backoff = Backoff(patience)
    while True:
        try:
            yield Start(FOLLOW, request, two_way=False)
            while (response := (yield Receive())) is not None:
                backoff.alive()
                latest = reading.evaluation(response.evaluation)
                yield Emit(latest)
            break
        except Unavailable as error:
            yield Stop()
            yield Sleep(backoff.pause(error))
    if latest is None or latest.state == "running":
        latest = yield from evaluation(name)
    if latest.state != "done":
        raise EvaluationFailed(f"{latest.name} is {latest.state}: {latest.error or 'no reason was given'}", latest)
    return latest


def scores(family: str, learner: str, k: int | None) -> Program[list[Score]]:
    """Scores that fit every filter, newest first."""
    where = resource("families", family) if family else ""
    whose = resource("learners", learner) if learner else ""
    return pages(
        QUERY_SCORES,
        lambda token: pb.QueryScoresRequest(family=where, learner=whose, k=k, page_size=PAGE, page_token=token),
        lambda response: map(reading.score, response.scores),
    )
