"""Programs for the unary half of AdaptationService, and the message that opens a session."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from google.protobuf.duration_pb2 import Duration

from innerloop._core import learners, reading
from innerloop._core.calls import PAGE, call, fresh_request_id, pages
from innerloop._core.codec import enum_from_word, space_to_pb
from innerloop._core.commands import Program, Rpc
from innerloop._core.names import resource
from innerloop._core.tasks import TaskLike, task_to_pb
from innerloop.arrays import Space
from innerloop.types import Budget, Learner, Session
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import task_pb2

BudgetLike = Budget | Literal["auto"] | None
"""A budget, or the word for learned time: ``Budget(auto=True)``."""

ADAPT = Rpc("AdaptationService", "Adapt")
GET = Rpc("AdaptationService", "GetSession")
LIST = Rpc("AdaptationService", "ListSessions")
CANCEL = Rpc("AdaptationService", "CancelSession")


@dataclass(frozen=True)
class OpenOptions:
    """What every session may be opened with."""

    budget: Budget
    seed: int | None = None
    simulator: str = ""
    episodes_per_step: int = 0
    guard: bool | None = None
    policy_in_steps: bool = False
    lease_seconds: float | None = None
    request_id: str = ""

    @staticmethod
    def budgeted(
        budget: BudgetLike,
        steps: int | None,
        episodes: int | None,
        seconds: float | None,
        target_return: float | None,
    ) -> Budget:
        """A budget given whole or in parts; ``"auto"`` goes with parts.

        Raises:
            ValueError: both were given, or a word that is none.
        """
        parts = Budget(steps, episodes, seconds, target_return)
        if budget is None:
            return parts
        if isinstance(budget, str):
            if budget != "auto":
                raise ValueError(f"budget={budget!r} is unknown; give a Budget, or 'auto'")
            return replace(parts, auto=True)
        if parts != Budget():
            raise ValueError("give either budget=... or its parts (steps, episodes, seconds, target_return)")
        return budget


def sessions() -> Program[list[Session]]:
    """The caller's sessions, newest first."""
    return pages(
        LIST,
        lambda token: pb.ListSessionsRequest(page_size=PAGE, page_token=token),
        lambda response: map(reading.session, response.sessions),
    )


def session(name: str) -> Program[Session]:
    """One session."""
    request = pb.GetSessionRequest(name=resource("sessions", name))
    return call(GET, request, lambda response: reading.session(response.session))


def cancel(name: str) -> Program[Session]:
    """End a session and remove all that it held."""
    request = pb.CancelSessionRequest(name=resource("sessions", name))
    return call(CANCEL, request, lambda response: reading.session(response.session))


def open_simulated(learner: str, task: TaskLike, options: OpenOptions, version: str) -> Program[pb.Open]:
    """The message that opens a session whose episodes the server runs. Without any budget: as many steps as the
    learner was trained for.
    """
    name, bound = yield from learners.resolve(learner)
    if options.budget == Budget():
        options = replace(options, budget=Budget(steps=_trained(bound)))
    message = _open(name, options, version)
    message.task.CopyFrom(task_to_pb(task, bound.family))
    return message


def open_client_owned(
    name: str,
    bound: Learner,
    observation_space: Space,
    action_space: Space,
    options: OpenOptions,
    version: str,
    *,
    rows: int = 1,
) -> pb.Open:
    """The message that opens a session whose episodes the client runs. Without any budget: as many steps as the learner
    was trained for; where it remembers, as many episodes in each of the ``rows``, which are trials of their own.
    """
    if options.budget == Budget():
        apart = bound.remembers and rows > 1
        trained = Budget(episodes=_trained(bound) * rows) if apart else Budget(steps=_trained(bound))
        options = replace(options, budget=trained)
    if options.episodes_per_step == 0:
        options = replace(options, episodes_per_step=bound.episodes_per_step)
    message = _open(name, options, version)
    message.client_environment.observation_space.CopyFrom(space_to_pb(observation_space))
    message.client_environment.action_space.CopyFrom(space_to_pb(action_space))
    return message


def open_supervised(name: str, bound: Learner, options: OpenOptions, version: str) -> pb.Open:
    """The message that opens a session whose client brings labelled examples: it steps when asked, with no end in sight
    unless a budget says one.
    """
    message = _open(name, options, version)
    message.client_environment.observation_space.CopyFrom(space_to_pb(bound.observation_space))
    message.client_environment.action_space.CopyFrom(space_to_pb(bound.action_space))
    return message


def _trained(bound: Learner) -> int:
    """Steps that a learner was trained for, and one where that is none (trials of one episode)."""
    return max(1, bound.inner_steps)


def _open(learner: str, options: OpenOptions, version: str) -> pb.Open:
    budget = options.budget
    lease: Duration | None = None
    if options.lease_seconds is not None:
        lease = Duration()
        lease.FromTimedelta(timedelta(seconds=options.lease_seconds))
    return pb.Open(
        # always set: an `open` whose answer was lost must come back to the session that it made
        request_id=options.request_id or fresh_request_id(),
        learner=learner,
        budget=pb.Budget(
            steps=budget.steps,
            episodes=budget.episodes,
            compute_seconds=budget.seconds,
            target_return=budget.target_return,
            auto=budget.auto,
        ),
        seed=options.seed,
        simulator=enum_from_word(task_pb2.Simulator, options.simulator, "simulator"),  # type: ignore[arg-type]
        episodes_per_step=options.episodes_per_step,
        guard=options.guard,
        policy_in_steps=options.policy_in_steps,
        lease=lease,
        client_version=version,
    )
