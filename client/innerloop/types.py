"""What the client answers: frozen values, one for each resource of the contract. No protobuf, no grpc.

Names of resources are kept as they are on the wire (``families/navigation-2d``), and every call that takes a name
takes its short form too (``navigation-2d``). Enumerations are lower-case words without their prefix: the state
``SESSION_STATE_ACTIVE`` is ``"active"``; an unspecified one is ``""``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from innerloop.arrays import Array, Arrays, Space
from innerloop.policy import Policy


@dataclass(frozen=True)
class Reference:
    """A number that a score is read against."""

    name: str
    """``oracle``, ``memoryless``, ``no-move``, ..."""
    value: float
    """Mean undiscounted return."""
    source: str
    """A formula, or the manifest of a training."""
    unit: str = "episode"
    """What ``value`` is summed over: an ``episode``, or a ``trial``, all episodes of a task's lifetime."""


@dataclass(frozen=True)
class FamilyOption:
    """What can be chosen about a family, and how this one is: ``bernoulli-bandit.arms-10`` has 10 for ``arms``."""

    name: str
    value: str
    default_value: str
    """What the family of the plain name has."""


@dataclass(frozen=True)
class FamilyDefinition:
    """Where a family that ``define_family`` made comes from."""

    env_id: str
    """The environment's id with Gymnasium."""
    apply: str
    """How parameters reach it: ``arguments`` or ``attributes``."""
    owner: str
    create_time: datetime | None


@dataclass(frozen=True)
class Family:
    """A distribution of tasks with one observation space, one action space and a parameter space."""

    name: str
    title: str
    description: str
    observation_space: Space | None
    action_space: Space | None
    """``None`` for a family that is broken."""
    parameter_space: Mapping[str, Space]
    """Name of each hidden parameter and its space."""
    horizon: int
    """Steps after which an episode is truncated."""
    episodes_per_trial: int
    discount: float
    simulators: tuple[str, ...]
    """``batch``, ``actors``; the default first."""
    references: tuple[Reference, ...]
    missing_extra: str
    """The extra to install when the family lacks a dependency; empty when nothing is missing."""
    broken_reason: str
    """Why it cannot be used; empty for a working one."""
    options: tuple[FamilyOption, ...] = ()
    """In the order in which the name says them."""
    splits_share_tasks: bool = False
    """There are so few tasks that train, validation and test meet the same ones."""
    supervision: str = ""
    """``classification`` or ``regression``; empty where tasks are learned from rewards."""
    feedback_size: int = 0
    """Numbers in the feedback of one step of a supervised family."""
    missing_extra_command: str = ""
    """What installs ``missing_extra``."""
    definition: FamilyDefinition | None = None
    """Of a family that somebody defined; ``None`` for an installed one."""


@dataclass(frozen=True)
class Task:
    """One member of a family. Make your own with ``Task("navigation-2d", {"goal": [0.3, -0.2]})``."""

    family: str
    parameters: Mapping[str, Any]
    """Value of each parameter: arrays when a server answered, anything numpy understands when you make one."""
    name: str = ""
    """Resource name; empty for a task that a caller made up."""
    split: str = ""
    """``train``, ``validation``, ``test``; empty for a task that a caller made up."""
    seed: int = 0
    index: int = 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Task):
            return NotImplemented
        mine = (self.name, self.family, self.split, self.seed, self.index)
        return (
            mine == (other.name, other.family, other.split, other.seed, other.index)
            and self.parameters.keys() == other.parameters.keys()
            and all(np.array_equal(value, other.parameters[key]) for key, value in self.parameters.items())
        )

    def __hash__(self) -> int:
        return hash((self.name, self.family, self.split, self.seed, self.index))


@dataclass(frozen=True)
class Budget:
    """When a session ends by itself: at the first that is reached. ``None``: not bounded by this."""

    steps: int | None = None
    """Adaptation steps, 1 to 10000."""
    episodes: int | None = None
    """All that were sampled, the guard's too."""
    seconds: float | None = None
    """Of computing, without queueing or the client's own time."""
    target_return: float | None = None
    """Mean sampled return of a step's episodes."""
    auto: bool = False
    """As many steps as were worth their episodes on validation tasks."""


@dataclass(frozen=True)
class Opened:
    """A session is open, and durable."""

    session: str
    revision: str
    observation_space: Space
    action_space: Space
    task: Task | None
    """Of a simulated session."""
    seed: int
    simulator: str
    """``batch`` or ``actors``; empty when the client runs the episodes."""
    episodes_per_step: int
    guard: bool
    step: int
    """The last durable step."""
    next_sequence: int
    episodes_pending: int
    lease_expire_time: datetime | None
    server_version: str
    policy: Policy | None = field(default=None, compare=False)
    """The policy of the current state, where it was asked for."""


@dataclass(frozen=True)
class Step:
    """One inner-loop update."""

    number: int
    """From 1."""
    state_hash: str
    """SHA-256 of the adaptation state after it."""
    pre_return: float
    """Mean return of the episodes that the update was computed from."""
    post_return: float | None
    """Mean return of the episodes sampled after it (simulated sessions alone)."""
    loss: float
    """The inner loss before the update: a surrogate of the return, or the cross-entropy or mean squared error of
    labelled examples."""
    kl: float
    """From the policy before to the one after, in nats; 0 in regression."""
    entropy: float
    """Of the policy before, in nats; where a learner remembers, of the policy that played the episodes."""
    guarded: bool
    """The update made the sampled return fall and was taken back; where a learner remembers: none of the step's
    episodes is remembered, since its memory is as long as in training."""
    rate_scale: float
    """What the inner rates are multiplied by in the next update."""
    episodes: int
    """Used up by this step."""
    total_episodes: int
    compute_seconds: float
    total_compute_seconds: float
    policy: Policy | None = field(default=None, compare=False)
    """The policy after the step, where it was asked for."""
    end_reason: str = ""
    """Why it was the last, where a budget was reached by it; as in :class:`Adapted`."""
    expected_gain: float | None = None
    """With budget ``auto``: what one more step brought on validation tasks, in mean return."""
    uncertainty: float | None = None
    """Entropy in nats of what the method believes about the task; ``None`` without such a belief."""

    def __str__(self) -> str:
        """``step 3: return -1.95 -> -2.99 (guarded)``."""
        after = "" if self.post_return is None else f" -> {self.post_return:.2f}"
        return f"step {self.number}: return {self.pre_return:.2f}{after}{' (guarded)' if self.guarded else ''}"


@dataclass(frozen=True)
class PolicyInfo:
    """A finished policy on the server. ``client.download(info)`` gives the policy itself."""

    name: str
    family: str
    revision: str
    session: str
    steps: int
    hash: str
    """SHA-256 of the weights; the same as in the header of the file."""
    size_bytes: int
    observation_space: Space
    action_space: Space
    adapts: bool
    create_time: datetime | None


@dataclass(frozen=True)
class Adapted:
    """A session has ended with a policy."""

    policy: PolicyInfo
    end_reason: str
    """``finished``, ``budget_steps``, ``budget_episodes``, ``budget_auto``, ``target_return``, ..."""
    step: int
    """The last step of the session."""


@dataclass(frozen=True)
class Session:
    """One adaptation: a lease on an adaptation state, pinned to one revision."""

    name: str
    state: str
    """``active``, ``finished``, ``cancelled``, ``expired``."""
    revision: str
    task: Task | None
    budget: Budget
    step: int
    episodes: int
    compute_seconds: float
    seed: int
    attached: bool
    create_time: datetime | None
    lease_expire_time: datetime | None
    end_reason: str
    policy: str
    """Resource name of its policy; empty until it has finished."""


@dataclass(frozen=True)
class Learner:
    """A learning method bound to a family; long-lived, with revisions."""

    name: str
    method: str
    family: str
    observation_space: Space
    action_space: Space
    inner_steps: int
    episodes_per_step: int
    settings: Mapping[str, Any]
    champion: str
    """Resource name of the revision that new sessions take; empty when none was promoted yet."""
    revisions: int
    owner: str
    create_time: datetime | None
    remembers: bool = False
    """It adapts by remembering what it does: a step of its sessions is an episode."""


@dataclass(frozen=True)
class Revision:
    """An immutable, numbered set of meta-parameters."""

    name: str
    hash: str
    manifest: Mapping[str, Any]
    """How it was trained."""
    champion: bool
    create_time: datetime | None


@dataclass(frozen=True)
class Training:
    """An outer loop in the background."""

    name: str
    learner: str
    state: str
    """``running``, ``paused``, ``done``, ``failed``."""
    update: int
    updates: int
    seed: int
    simulator: str
    error: str
    create_time: datetime | None
    generator: str = "uniform"
    """What proposes the tasks."""


@dataclass(frozen=True)
class TrainingMetrics:
    """Metrics of one update of the outer loop."""

    update: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Score:
    """An evaluator's result for one k."""

    evaluation: str
    family: str
    revision: str
    k: int
    """Adaptation steps behind the policies that were scored."""
    mean: float
    interquartile_mean: float
    low: float
    high: float
    """95 % bootstrap interval of the mean, over tasks."""
    standard_error: float
    tasks: int
    episodes: int
    split: str
    guard: bool
    greedy: bool
    simulator: str
    gap_closed: float | None
    """Share of the gap between the memoryless and the oracle reference; ``None`` where there is none."""
    create_time: datetime | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What else was measured on the same episodes: ``success``, ``accuracy``, ``cross_entropy`` (nats), ``mse``,
    ``r2``; only those that the family knows. Where a learner remembers, at the k of a trial's last episode:
    ``trial_return`` of whole trials, and ``trial_low`` and ``trial_high``, its 95 % bootstrap interval over tasks."""
    trial_references: tuple[Reference, ...] = ()
    """What ``trial_return`` is read against."""
    trial_gap_closed: float | None = None
    """As ``gap_closed``, of whole trials."""


@dataclass(frozen=True)
class EvaluationPlan:
    """How an evaluation is run: held-out tasks, K adaptation steps, E fresh episodes at each k."""

    learner: str
    split: str
    task_seed: int
    tasks: int
    steps: int
    episodes_per_step: int
    evaluation_episodes: int
    seed: int
    guard: bool | None
    greedy: bool
    simulator: str


@dataclass(frozen=True)
class Evaluation:
    """An evaluation, with its scores once it is done."""

    name: str
    state: str
    """``running``, ``done``, ``failed``, ``cancelled``."""
    plan: EvaluationPlan
    units_done: int
    units_total: int
    error: str
    scores: tuple[Score, ...]
    references: tuple[Reference, ...]
    create_time: datetime | None
    end_time: datetime | None


@dataclass(frozen=True, eq=False)
class Acted:
    """What a policy on the server did, for R rows."""

    actions: Array
    """[R, *action_shape]: to be passed to the environment."""
    raw_actions: Array
    """[R, A] or [R]: before clip and scale."""
    log_probs: Array
    """[R]."""
    state: Arrays = field(default_factory=dict)
    """The memory of a policy that remembers, after having acted; empty for others. Pass it to the next call."""
