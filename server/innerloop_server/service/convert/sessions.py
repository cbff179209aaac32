"""Sessions and what is said on their stream, between messages and values."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

import numpy as np

from innerloop.arrays import Array, Discrete, Space
from innerloop.v1 import adaptation_pb2, array_pb2
from innerloop_server.adaptation.measures import UNCERTAINTY
from innerloop_server.adaptation.messages import (
    Accepted,
    Actions,
    Adapted,
    Advance,
    ClientMessage,
    Draining,
    EndReason,
    Finish,
    Heartbeat,
    Observe,
    Open,
    Opened,
    ServerMessage,
    StepTaken,
    Trajectories,
)
from innerloop_server.domain import Budget, LearnerSpec, Simulator
from innerloop_server.errors import InvalidField
from innerloop_server.service.convert.answers import answers_from_pb, refuse_answers
from innerloop_server.service.convert.arrays import array_from_pb, optional_array_from_pb
from innerloop_server.service.convert.enums import SESSION_STATES, simulator_from_pb, simulator_to_pb
from innerloop_server.service.convert.names import (
    POLICY,
    SESSION,
    format_revision,
    parse_learner_or_revision,
    request_id,
)
from innerloop_server.service.convert.policies import (
    observations_from_pb,
    output_to_pb,
    policy_to_pb,
    raw_actions_from_pb,
)
from innerloop_server.service.convert.spaces import space_from_pb, space_to_pb
from innerloop_server.service.convert.tasks import task_from_pb, task_to_pb
from innerloop_server.service.convert.values import duration, seconds_from_pb, seed, timestamp
from innerloop_server.service.handshake import require_compatible
from innerloop_server.settings import Limits
from innerloop_server.store.records import SessionRecord
from innerloop_server.tasks.registry import Registry

END_REASONS: Mapping[EndReason, adaptation_pb2.EndReason.ValueType] = {
    reason: adaptation_pb2.EndReason.Value(f"END_REASON_{reason.name}") for reason in EndReason
}
_REASONS = {reason.value: number for reason, number in END_REASONS.items()}
_VERSION = version("innerloop")
_LARGEST_ROW = 65_535
_LARGEST_LEASE_SECONDS = 7 * 86_400.0


def open_from_pb(message: adaptation_pb2.Open, registry: Registry) -> Open:
    """What a client opens a session with. Spaces of its own environment are checked by :func:`check_spaces`.

    Raises:
        InvalidField: a field that cannot be.
        NotFound: a task of a family that there is not.
    """
    require_compatible(message.client_version, _VERSION, "open.client_version")
    learner, revision = parse_learner_or_revision(message.learner, "open.learner")
    environment = message.WhichOneof("environment")
    if environment is None:
        raise InvalidField("open.task", "is missing; give a task, or a client_environment to step yourself")
    budget = message.budget
    return Open(
        learner=learner,
        revision=revision,
        task=task_from_pb(message.task, registry, "open.task") if environment == "task" else None,
        budget=Budget(
            steps=budget.steps if budget.HasField("steps") else None,
            episodes=budget.episodes if budget.HasField("episodes") else None,
            seconds=budget.compute_seconds if budget.HasField("compute_seconds") else None,
            target_return=budget.target_return if budget.HasField("target_return") else None,
            auto=budget.auto,
        ),
        seed=seed(message.seed, "open.seed") if message.HasField("seed") else None,
        simulator=simulator_from_pb(message.simulator, "open.simulator"),
        episodes_per_step=message.episodes_per_step,
        guard=message.guard if message.HasField("guard") else None,
        policy_in_steps=message.policy_in_steps,
        lease_seconds=(
            seconds_from_pb(message.lease, "open.lease", 1.0, _LARGEST_LEASE_SECONDS)
            if message.HasField("lease")
            else None
        ),
        request_id=request_id(message.request_id, "open.request_id"),
    )


def check_spaces(message: adaptation_pb2.ClientEnvironment, spec: LearnerSpec) -> None:
    """Refuse an environment that the learner cannot act in.

    Raises:
        InvalidField: names both spaces.
    """
    for name, want in (("observation_space", spec.observation_space), ("action_space", spec.action_space)):
        field = f"open.client_environment.{name}"
        have = space_from_pb(getattr(message, name), field)
        if type(have) is not type(want) or have.shape != want.shape or _size(have) != _size(want):
            raise InvalidField(
                field,
                f"{have} is not the {want} of {spec.name}; use a learner whose spaces fit",
                reason="SPACE_MISMATCH",
            )


def client_message_from_pb(message: adaptation_pb2.AdaptRequest, spec: LearnerSpec, limits: Limits) -> ClientMessage:
    """A message after the first one.

    Raises:
        InvalidField: a field that cannot be.
    """
    kind = message.WhichOneof("message")
    if message.sequence < 1:
        raise InvalidField("sequence", "is missing; number your messages from opened.next_sequence")
    if kind == "observe":
        return _observe_from_pb(message.observe, message.sequence, spec, limits)
    if kind == "experience":
        return _experience_from_pb(message.experience, message.sequence, spec, limits)
    if kind == "advance":
        return Advance(message.sequence)
    if kind == "finish":
        return Finish(message.sequence)
    raise InvalidField(
        "message", f"{kind or 'nothing'} was sent; after opening, send observe, experience, advance or finish"
    )


def server_message_to_pb(message: ServerMessage) -> adaptation_pb2.AdaptResponse:
    """What a session says."""
    if isinstance(message, StepTaken):
        return adaptation_pb2.AdaptResponse(sequence=message.sequence, step=_step_to_pb(message))
    if isinstance(message, Actions):
        output = output_to_pb(message.acted.actions, message.acted.raw_actions, message.acted.log_probs)
        actions = adaptation_pb2.Actions(step=message.step, row_ids=message.row_ids, output=output)
        return adaptation_pb2.AdaptResponse(sequence=message.sequence, actions=actions)
    if isinstance(message, Accepted):
        accepted = adaptation_pb2.Accepted(episodes_pending=message.episodes_pending)
        return adaptation_pb2.AdaptResponse(sequence=message.sequence, accepted=accepted)
    if isinstance(message, Heartbeat):
        heartbeat = adaptation_pb2.Heartbeat(lease_expire_time=timestamp(message.expires_at))
        return adaptation_pb2.AdaptResponse(heartbeat=heartbeat)
    if isinstance(message, Draining):
        draining = adaptation_pb2.Draining(remaining=duration(message.remaining_seconds))
        return adaptation_pb2.AdaptResponse(draining=draining)
    if isinstance(message, Adapted):
        adapted = adaptation_pb2.Adapted(
            policy=policy_to_pb(message.policy), end_reason=END_REASONS[message.end_reason], step=message.step
        )
        return adaptation_pb2.AdaptResponse(sequence=message.sequence, adapted=adapted)
    raise TypeError(f"{type(message).__name__} needs the learner's spec: use opened_to_pb")


def opened_to_pb(message: Opened, spec: LearnerSpec) -> adaptation_pb2.AdaptResponse:
    """The first thing a session says."""
    record = message.record
    options = record.options
    opened = adaptation_pb2.Opened(
        session=SESSION.format(record.id),
        revision=format_revision(record.learner_id, record.revision),
        observation_space=space_to_pb(spec.observation_space),
        action_space=space_to_pb(spec.action_space),
        task=task_to_pb(record.task) if record.task else None,
        seed=record.seed,
        simulator=simulator_to_pb(Simulator(options["simulator"]) if options["simulator"] else None),
        episodes_per_step=options["episodes_per_step"],
        guard=options["guard"],
        step=record.step,
        next_sequence=message.next_sequence,
        episodes_pending=message.episodes_pending,
        lease_expire_time=timestamp(record.expires_at),
        server_version=_VERSION,
        policy_file=message.policy_file,
    )
    return adaptation_pb2.AdaptResponse(sequence=message.sequence, opened=opened)


def session_to_pb(record: SessionRecord, attached: bool) -> adaptation_pb2.Session:
    """A session's record as a message."""
    budget = record.budget
    return adaptation_pb2.Session(
        name=SESSION.format(record.id),
        state=SESSION_STATES[record.state],
        revision=format_revision(record.learner_id, record.revision),
        task=task_to_pb(record.task) if record.task else None,
        budget=adaptation_pb2.Budget(
            steps=budget.steps,
            episodes=budget.episodes,
            compute_seconds=budget.seconds,
            target_return=budget.target_return,
            auto=budget.auto,
        ),
        step=record.step,
        episodes=record.episodes,
        compute_seconds=record.seconds,
        seed=record.seed,
        attached=attached,
        create_time=timestamp(record.created_at),
        lease_expire_time=timestamp(record.expires_at),
        end_reason=_REASONS.get(record.end_reason, adaptation_pb2.END_REASON_UNSPECIFIED),
        policy=POLICY.format(record.policy_id or ""),
    )


def _observe_from_pb(message: adaptation_pb2.Observe, sequence: int, spec: LearnerSpec, limits: Limits) -> Observe:
    rows = len(message.row_ids)
    if not 1 <= rows <= limits.rows_per_message:
        raise InvalidField("observe.row_ids", f"names {rows} rows; send 1 to {limits.rows_per_message}")
    if len(set(message.row_ids)) != rows:
        raise InvalidField("observe.row_ids", "names a row twice; each row once a message")
    if max(message.row_ids) > _LARGEST_ROW:
        raise InvalidField("observe.row_ids", f"{max(message.row_ids)} is above {_LARGEST_ROW}")
    truncated = _flags(message.truncated, "observe.truncated", message.HasField("truncated"), rows)
    terminated = _flags(message.terminated, "observe.terminated", message.HasField("terminated"), rows)
    feedback: Array | None = None
    if spec.supervision is None:
        refuse_answers(message.HasField("feedback"), "observe.feedback", spec)
    elif np.any(truncated & ~terminated):
        raise InvalidField("observe.truncated", "an example has one step and is not cut short; set terminated")
    elif np.any(terminated):
        feedback = answers_from_pb(message.feedback, "observe.feedback", spec, (rows,))
    elif message.HasField("feedback"):
        raise InvalidField("observe.feedback", "answers no row; set terminated in the rows whose answer came")
    return Observe(
        sequence=sequence,
        step=message.step,
        row_ids=tuple(message.row_ids),
        observations=observations_from_pb(message.observations, spec.observation_space, "observe.observations", rows),
        rewards=_rewards(message.rewards, "observe.rewards", message.HasField("rewards"), rows),
        terminated=terminated,
        truncated=truncated,
        final_observations=_final(message, truncated, spec.observation_space, "observe.final_observations", rows),
        report_only=message.report_only,
        feedback=feedback,
        trial_end=_flags(message.trial_end, "observe.trial_end", message.HasField("trial_end"), rows),
    )


def _experience_from_pb(
    message: adaptation_pb2.Experience, sequence: int, spec: LearnerSpec, limits: Limits
) -> Trajectories:
    if spec.supervision is not None:
        return _examples_from_pb(message, sequence, spec, limits)
    shape = message.raw_actions.shape
    if len(shape) < 2 or not all(n >= 1 for n in shape[:2]):
        raise InvalidField("experience.raw_actions", "has no episodes; send [N, T, ...] with N and T at least 1")
    n, t = shape[0], shape[1]
    if n > limits.rows_per_message:
        raise InvalidField("experience.raw_actions", f"holds {n} episodes; send at most {limits.rows_per_message}")
    refuse_answers(message.HasField("feedback"), "experience.feedback", spec)
    space = spec.observation_space
    lengths = optional_array_from_pb(
        message.lengths, "experience.lengths", present=message.HasField("lengths"), dtype=np.int64, shape=(n,)
    )
    if lengths is None:
        lengths = np.full(n, t, np.int64)
    if np.any((lengths < 1) | (lengths > t)):
        raise InvalidField("experience.lengths", f"holds a length that is not in 1 to {t}")
    truncated = _flags(message.truncated, "experience.truncated", message.HasField("truncated"), n)
    terminated = _flags(message.terminated, "experience.terminated", message.HasField("terminated"), n)
    if np.any(terminated & truncated):
        raise InvalidField("experience.truncated", "an episode is both terminated and truncated; it ends once")
    log_probs = optional_array_from_pb(
        message.log_probs, "experience.log_probs", present=message.HasField("log_probs"), dtype=np.float32, shape=(n, t)
    )
    return Trajectories(
        sequence=sequence,
        step=message.step,
        observations=observations_from_pb(message.observations, space, "experience.observations", n, steps=t),
        raw_actions=raw_actions_from_pb(message.raw_actions, spec.action_space, "experience.raw_actions", (n, t)),
        rewards=array_from_pb(message.rewards, "experience.rewards", dtype=np.float32, shape=(n, t)),
        lengths=lengths,
        truncated=truncated,
        final_observations=_final(message, truncated, space, "experience.final_observations", n),
        log_probs=log_probs,
    )


def _examples_from_pb(
    message: adaptation_pb2.Experience, sequence: int, spec: LearnerSpec, limits: Limits
) -> Trajectories:
    """Labelled examples: observations and answers alone are read. The engine says what the policy makes of them."""
    shape = message.observations.shape
    if len(shape) < 2 or shape[0] < 1 or shape[1] != 1:
        raise InvalidField("experience.observations", f"has shape {list(shape)}; send examples as [N, 1, ...]")
    n = shape[0]
    if n > limits.rows_per_message:
        raise InvalidField("experience.observations", f"holds {n} examples; send at most {limits.rows_per_message}")
    observations = observations_from_pb(
        message.observations, spec.observation_space, "experience.observations", n, steps=1
    )
    if isinstance(spec.action_space, Discrete):
        nothing: Array = np.zeros((n, 1), np.int64)
    else:
        nothing = np.zeros((n, 1, spec.action_space.size), np.float32)
    return Trajectories(
        sequence=sequence,
        step=message.step,
        observations=observations,
        raw_actions=nothing,
        rewards=np.zeros((n, 1), np.float32),
        lengths=np.ones(n, np.int64),
        truncated=np.zeros(n, bool),
        final_observations=np.zeros((n, *spec.observation_space.shape), np.float32),
        log_probs=None,
        feedback=answers_from_pb(message.feedback, "experience.feedback", spec, (n, 1)),
    )


def _final(
    message: adaptation_pb2.Observe | adaptation_pb2.Experience, truncated: Array, space: Space, field: str, rows: int
) -> Array:
    """[R, *O]; zeros where the client sent none, which it may only where nothing was truncated."""
    if message.HasField("final_observations"):
        return observations_from_pb(message.final_observations, space, field, rows)
    if np.any(truncated):
        raise InvalidField(field, "is missing; where truncated is set, send the observation after the last step")
    return np.zeros((rows, *space.shape), np.float32)


def _flags(message: array_pb2.Array, field: str, present: bool, rows: int) -> Array:
    flags = optional_array_from_pb(message, field, present=present, dtype=np.bool_, shape=(rows,))
    return np.zeros(rows, bool) if flags is None else flags


def _rewards(message: array_pb2.Array, field: str, present: bool, rows: int) -> Array:
    rewards = optional_array_from_pb(message, field, present=present, dtype=np.float32, shape=(rows,))
    return np.zeros(rows, np.float32) if rewards is None else rewards


def _size(space: Space) -> int:
    return getattr(space, "n", 0)


def _step_to_pb(message: StepTaken) -> adaptation_pb2.Step:
    return adaptation_pb2.Step(
        number=message.number,
        state_hash=message.state_hash,
        pre_return=message.pre_return,
        post_return=message.post_return,
        loss=message.metrics["loss"],
        kl=message.metrics["kl"],
        entropy=message.metrics["entropy"],
        guarded=message.guarded,
        rate_scale=message.rate_scale,
        episodes=message.episodes,
        total_episodes=message.total_episodes,
        compute_seconds=message.seconds,
        total_compute_seconds=message.total_seconds,
        policy_file=message.policy_file,
        end_reason=_REASONS.get(message.end_reason, adaptation_pb2.END_REASON_UNSPECIFIED),
        expected_gain=message.expected_gain,
        uncertainty=message.metrics.get(UNCERTAINTY),
    )
