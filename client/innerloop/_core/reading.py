"""Messages of the contract as the values of ``innerloop.types``."""

from __future__ import annotations

from innerloop._core.codec import array_from_pb, space_from_pb, struct_from_pb, time_from_pb, word_from_enum
from innerloop.errors import ProtocolError
from innerloop.policy import Policy, PolicyFormatError
from innerloop.types import (
    Acted,
    Adapted,
    Budget,
    Evaluation,
    EvaluationPlan,
    Family,
    FamilyDefinition,
    FamilyOption,
    Learner,
    Opened,
    PolicyInfo,
    Reference,
    Revision,
    Score,
    Session,
    Step,
    Task,
    Training,
    TrainingMetrics,
)
from innerloop.v1 import adaptation_pb2, evaluation_pb2, learner_pb2, policy_pb2, task_pb2


def family(m: task_pb2.Family) -> Family:
    """A task family."""
    return Family(
        name=m.name,
        title=m.title,
        description=m.description,
        observation_space=space_from_pb(m.observation_space) if m.HasField("observation_space") else None,
        action_space=space_from_pb(m.action_space) if m.HasField("action_space") else None,
        parameter_space={name: space_from_pb(space) for name, space in sorted(m.parameter_space.items())},
        horizon=m.horizon,
        episodes_per_trial=m.episodes_per_trial,
        discount=m.discount,
        simulators=tuple(word_from_enum(task_pb2.Simulator, s) for s in m.simulators),
        references=tuple(reference(r) for r in m.references),
        missing_extra=m.missing_extra,
        broken_reason=m.broken_reason,
        options=tuple(FamilyOption(o.name, o.value, o.default_value) for o in m.options),
        splits_share_tasks=m.splits_share_tasks,
        supervision=word_from_enum(task_pb2.Supervision, m.supervision),
        feedback_size=m.feedback_size,
        missing_extra_command=m.missing_extra_command,
        definition=_definition(m.definition) if m.HasField("definition") else None,
    )


def reference(m: task_pb2.Reference) -> Reference:
    """A number that a score is read against."""
    return Reference(m.name, m.value, m.source, word_from_enum(task_pb2.ReturnUnit, m.unit) or "episode")


def task(m: task_pb2.Task) -> Task:
    """A member of a family."""
    return Task(
        family=m.family,
        parameters={name: array_from_pb(value) for name, value in sorted(m.parameters.items())},
        name=m.name,
        split=word_from_enum(task_pb2.Split, m.split),
        seed=m.seed,
        index=m.index,
    )


def opened(m: adaptation_pb2.Opened) -> Opened:
    """An open session."""
    return Opened(
        session=m.session,
        revision=m.revision,
        observation_space=space_from_pb(m.observation_space),
        action_space=space_from_pb(m.action_space),
        task=task(m.task) if m.HasField("task") else None,
        seed=m.seed,
        simulator=word_from_enum(task_pb2.Simulator, m.simulator),
        episodes_per_step=m.episodes_per_step,
        guard=m.guard,
        step=m.step,
        next_sequence=m.next_sequence,
        episodes_pending=m.episodes_pending,
        lease_expire_time=time_from_pb(m, "lease_expire_time"),
        server_version=m.server_version,
        policy=_policy_file(m.policy_file),
    )


def step(m: adaptation_pb2.Step) -> Step:
    """An adaptation step."""
    return Step(
        number=m.number,
        state_hash=m.state_hash,
        pre_return=m.pre_return,
        post_return=m.post_return if m.HasField("post_return") else None,
        loss=m.loss,
        kl=m.kl,
        entropy=m.entropy,
        guarded=m.guarded,
        rate_scale=m.rate_scale,
        episodes=m.episodes,
        total_episodes=m.total_episodes,
        compute_seconds=m.compute_seconds,
        total_compute_seconds=m.total_compute_seconds,
        policy=_policy_file(m.policy_file),
        end_reason=word_from_enum(adaptation_pb2.EndReason, m.end_reason),
        expected_gain=m.expected_gain if m.HasField("expected_gain") else None,
        uncertainty=m.uncertainty if m.HasField("uncertainty") else None,
    )


def adapted(m: adaptation_pb2.Adapted) -> Adapted:
    """The end of a session."""
    return Adapted(
        policy=policy_info(m.policy),
        end_reason=word_from_enum(adaptation_pb2.EndReason, m.end_reason),
        step=m.step,
    )


def session(m: adaptation_pb2.Session) -> Session:
    """A session."""
    return Session(
        name=m.name,
        state=word_from_enum(adaptation_pb2.SessionState, m.state),
        revision=m.revision,
        task=task(m.task) if m.HasField("task") else None,
        budget=budget(m.budget),
        step=m.step,
        episodes=m.episodes,
        compute_seconds=m.compute_seconds,
        seed=m.seed,
        attached=m.attached,
        create_time=time_from_pb(m, "create_time"),
        lease_expire_time=time_from_pb(m, "lease_expire_time"),
        end_reason=word_from_enum(adaptation_pb2.EndReason, m.end_reason),
        policy=m.policy,
    )


def budget(m: adaptation_pb2.Budget) -> Budget:
    """When a session ends by itself."""
    return Budget(
        steps=m.steps if m.HasField("steps") else None,
        episodes=m.episodes if m.HasField("episodes") else None,
        seconds=m.compute_seconds if m.HasField("compute_seconds") else None,
        target_return=m.target_return if m.HasField("target_return") else None,
        auto=m.auto,
    )


def policy_info(m: policy_pb2.Policy) -> PolicyInfo:
    """A finished policy's metadata."""
    return PolicyInfo(
        name=m.name,
        family=m.family,
        revision=m.revision,
        session=m.session,
        steps=m.steps,
        hash=m.hash,
        size_bytes=m.size_bytes,
        observation_space=space_from_pb(m.observation_space),
        action_space=space_from_pb(m.action_space),
        adapts=m.adapts,
        create_time=time_from_pb(m, "create_time"),
    )


def policy(data: bytes) -> Policy:
    """A policy file that the server sent.

    Raises:
        ProtocolError: it is damaged, or of a format that this client does not read.
    """
    try:
        return Policy.from_bytes(data)
    except PolicyFormatError as error:
        raise ProtocolError(f"the server sent a policy that cannot be read: {error}") from error


def acted(m: policy_pb2.ActResponse | policy_pb2.ActStreamResponse) -> Acted:
    """What a policy on the server did."""
    state = m.state if isinstance(m, policy_pb2.ActResponse) else {}
    return Acted(
        actions=array_from_pb(m.output.actions),
        raw_actions=array_from_pb(m.output.raw_actions),
        log_probs=array_from_pb(m.output.log_probs),
        state={name: array_from_pb(value) for name, value in sorted(state.items())},
    )


def learner(m: learner_pb2.Learner) -> Learner:
    """A learner."""
    return Learner(
        name=m.name,
        method=m.method,
        family=m.family,
        observation_space=space_from_pb(m.observation_space),
        action_space=space_from_pb(m.action_space),
        inner_steps=m.inner_steps,
        episodes_per_step=m.episodes_per_step,
        settings=struct_from_pb(m.settings),
        champion=m.champion,
        revisions=m.revisions,
        owner=m.owner,
        create_time=time_from_pb(m, "create_time"),
        remembers=m.remembers,
    )


def revision(m: learner_pb2.Revision) -> Revision:
    """A revision of a learner."""
    return Revision(
        name=m.name,
        hash=m.hash,
        manifest=struct_from_pb(m.manifest),
        champion=m.champion,
        create_time=time_from_pb(m, "create_time"),
    )


def training(m: learner_pb2.Training) -> Training:
    """An outer loop."""
    return Training(
        name=m.name,
        learner=m.learner,
        state=word_from_enum(learner_pb2.TrainingState, m.state),
        update=m.update,
        updates=m.updates,
        seed=m.seed,
        simulator=word_from_enum(task_pb2.Simulator, m.simulator),
        error=m.error,
        create_time=time_from_pb(m, "create_time"),
        generator=m.generator or "uniform",
    )


def metrics(m: learner_pb2.TrainingMetrics) -> TrainingMetrics:
    """Metrics of one update."""
    return TrainingMetrics(m.update, dict(sorted(m.values.items())))


def score(m: evaluation_pb2.Score) -> Score:
    """A result for one k."""
    return Score(
        evaluation=m.evaluation,
        family=m.family,
        revision=m.revision,
        k=m.k,
        mean=m.mean,
        interquartile_mean=m.interquartile_mean,
        low=m.low,
        high=m.high,
        standard_error=m.standard_error,
        tasks=m.tasks,
        episodes=m.episodes,
        split=word_from_enum(task_pb2.Split, m.split),
        guard=m.guard,
        greedy=m.greedy,
        simulator=word_from_enum(task_pb2.Simulator, m.simulator),
        gap_closed=m.gap_closed if m.HasField("gap_closed") else None,
        create_time=time_from_pb(m, "create_time"),
        metrics=dict(sorted(m.metrics.items())),
        trial_references=tuple(reference(r) for r in m.trial_references),
        trial_gap_closed=m.trial_gap_closed if m.HasField("trial_gap_closed") else None,
    )


def evaluation(m: evaluation_pb2.Evaluation) -> Evaluation:
    """An evaluation."""
    plan = m.plan
    return Evaluation(
        name=m.name,
        state=word_from_enum(evaluation_pb2.EvaluationState, m.state),
        plan=EvaluationPlan(
            learner=plan.learner,
            split=word_from_enum(task_pb2.Split, plan.split),
            task_seed=plan.task_seed,
            tasks=plan.tasks,
            steps=plan.steps,
            episodes_per_step=plan.episodes_per_step,
            evaluation_episodes=plan.evaluation_episodes,
            seed=plan.seed,
            guard=plan.guard if plan.HasField("guard") else None,
            greedy=plan.greedy,
            simulator=word_from_enum(task_pb2.Simulator, plan.simulator),
        ),
        units_done=m.units_done,
        units_total=m.units_total,
        error=m.error,
        scores=tuple(score(s) for s in m.scores),
        references=tuple(reference(r) for r in m.references),
        create_time=time_from_pb(m, "create_time"),
        end_time=time_from_pb(m, "end_time"),
    )


def _definition(m: task_pb2.FamilyDefinition) -> FamilyDefinition:
    return FamilyDefinition(
        env_id=m.env_id,
        apply=word_from_enum(task_pb2.Apply, m.apply),
        owner=m.owner,
        create_time=time_from_pb(m, "create_time"),
    )


def _policy_file(data: bytes) -> Policy | None:
    return policy(data) if data else None
