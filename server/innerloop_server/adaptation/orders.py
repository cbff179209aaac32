"""What the gateway asks of the engine, and what it gets: plain values, numpy and bytes only.

An adaptation state lives in the engine under a *key*, a number that is never used twice: a session that detaches and
comes back gets a new key, so an answer to an old attachment can never be taken for the new one's (Triton#7117). Orders
of one key run one after the other, in the order in which they came.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from innerloop.arrays import Array, Arrays
from innerloop_server.domain import Experience, LearnerSpec, Simulator, Task


class Priority(enum.IntEnum):
    """Lower runs first when there is more to do than fits in a tick."""

    ACT = 0
    STEP = 1
    BACKGROUND = 2
    """Evaluations."""


@dataclass(frozen=True)
class RevisionRef:
    """A revision as the engine needs it."""

    name: str
    """Resource name, for people and policy headers."""
    hash: str
    """Content hash of the weights."""
    path: str
    """Where the weights' file lies."""
    spec: LearnerSpec

    @property
    def key(self) -> tuple[str, str]:
        """Of every cache. Two learners may have the same weights, and not the same settings or name."""
        return self.name, self.hash


@dataclass(frozen=True)
class Attach:
    """Make a state resident. Answered with :class:`Attached`, or :class:`Failed` when the device is full."""

    key: int
    revision: RevisionRef
    seed: int
    episodes_per_step: int
    guard: bool
    task: Task | None = None
    """``None`` for a client-owned environment."""
    simulator: Simulator | None = None
    snapshot: bytes = b""
    """Where to go on from (a :class:`Stepped` one); empty: an unadapted state."""
    number: int = 0
    """The step that the snapshot was taken after."""
    priority: Priority = Priority.STEP


@dataclass(frozen=True)
class Detach:
    """Forget a key at once, with all its unanswered orders (they get no answer) and actor slots."""

    key: int


@dataclass(frozen=True)
class StepOrder:
    """Run one adaptation step of a simulated session. Answered with :class:`Stepped`."""

    key: int
    number: int
    """The step to take: one more than the last."""
    snapshot: bool = True
    """Whether the answer carries a snapshot to journal."""
    policy: bool = False
    """Whether it carries the portable policy file."""
    greedy: bool = False
    """Take the modes of the policy: for methods that remember alone, whose steps are what is scored. Others sample."""


@dataclass(frozen=True)
class AdaptOrder:
    """Adapt on a client's own episodes. Answered with :class:`Stepped`."""

    key: int
    number: int
    experience: Experience[Array]
    """B = 1. ``log_probs`` may be NaN where unknown: they are then computed under the present state. Of a supervised
    learner only the examples and their feedback are read."""
    returns: Array
    """[N] undiscounted returns of the episodes; of a supervised learner not read."""
    policy: bool = False


@dataclass(frozen=True)
class Rows:
    """What the rows of a client's environments remember."""

    ids: Array
    """[R] int64."""
    remembered: Array
    """[R] int64: whole episodes that each remembers."""
    memory: Arrays
    """[R, ...] each."""


@dataclass(frozen=True)
class KeepOrder:
    """Make what the rows of a client's environments remember the state. Answered with :class:`Stepped`."""

    key: int
    number: int
    rows: Rows
    returns: Array
    """[N] undiscounted returns of the episodes that were played for it."""
    entropy: float = 0.0
    """Of the policy that played them, in nats, mean over their steps."""
    held: bool = False
    """None of them is remembered."""
    policy: bool = False


@dataclass(frozen=True)
class KeptRows:
    """What a session's last durable step kept of its rows, and what they may go on to."""

    rows: Rows
    empty: Arrays
    """[...] each: what a row remembers at the first step of a trial."""
    most: int | None = None
    """Whole episodes that a row may remember; ``None``: any number."""


@dataclass(frozen=True)
class ActOrder:
    """Choose actions for R rows of a client's environments. Answered with :class:`Acted`."""

    key: int
    observations: Array
    """[R, *O] float32."""
    counters: tuple[int, ...]
    """Counters of the stream that the actions are drawn from."""
    memory: Arrays = field(default_factory=dict)
    """Of a method that remembers: [R, ...] each, what the rows' last steps brought included."""


@dataclass(frozen=True)
class ReplayOrder:
    """Show a row N whole episodes, one after the other, as if it had acted itself: what does it remember then? For
    methods that remember alone. Answered with :class:`Replayed`.
    """

    key: int
    memory: Arrays
    """[1, ...] each: what the row remembers before."""
    observations: Array
    """[N, T, *O] float32."""
    actions: Array
    """[N, T, A] float32 or [N, T] int64, raw."""
    rewards: Array
    """[N, T] float32."""
    lengths: Array
    """[N] int64, 1 to T."""
    truncated: Array
    """[N] bool; the others ended in a terminal state."""


@dataclass(frozen=True)
class RolloutOrder:
    """Sample fresh evaluation episodes with the present state. Answered with :class:`RolledOut`."""

    key: int
    episodes: int
    k: int
    """Counter of the stream: the adaptation steps behind the state."""
    greedy: bool = False
    trajectories: bool = False
    """Whether the answer carries the episodes themselves."""


@dataclass(frozen=True)
class ExportOrder:
    """The present state as a portable policy file. Answered with :class:`Exported`."""

    key: int


Order = StepOrder | AdaptOrder | KeepOrder | ActOrder | ReplayOrder | RolloutOrder | ExportOrder
Request = Attach | Detach | Order


@dataclass(frozen=True)
class Attached:
    """The state is resident."""

    key: int
    policy: bytes
    """The portable policy file of the state it starts from."""
    kept: KeptRows | None = None
    """Of a client's environments, where the method remembers."""


@dataclass(frozen=True)
class Stepped:
    """A step was taken. Not acknowledged to anybody before its snapshot is durable."""

    key: int
    number: int
    state_hash: str
    pre_return: float
    post_return: float | None
    """``None`` for client-owned environments."""
    guarded: bool
    rate_scale: float
    """Of the next update."""
    episodes: int
    """Sampled in this step."""
    seconds: float
    """Of computing: this session's share of the batches that it was part of."""
    metrics: Mapping[str, float]
    """``loss``, ``kl``, ``entropy``; zero where no update was made, but for the entropy of methods that remember. And
    ``uncertainty`` where the method knows it."""
    snapshot: bytes
    policy: bytes


@dataclass(frozen=True)
class Acted:
    """Actions for the rows of an :class:`ActOrder`."""

    key: int
    actions: Array
    """[R, *A] as an environment takes them."""
    raw_actions: Array
    log_probs: Array
    memory: Arrays = field(default_factory=dict)
    """Of a method that remembers: [R, ...] each, after having acted."""
    entropies: Array | None = None
    """Of a method that remembers: [R] of the policy that chose, in nats."""


@dataclass(frozen=True)
class Replayed:
    """What a row remembers after the episodes of a :class:`ReplayOrder`."""

    key: int
    memory: Arrays
    """[1, ...] each."""
    entropies: Array
    """[N] of the policy that would have played them, in nats, mean over each one's steps."""


@dataclass(frozen=True)
class RolledOut:
    """Fresh episodes."""

    key: int
    returns: Array
    """[N] undiscounted."""
    experience: Experience[Array] | None
    """B = 1, where it was asked for."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """What the episodes say beside their returns (``measures.measure``)."""


@dataclass(frozen=True)
class Exported:
    """A portable policy."""

    key: int
    policy: bytes
    """The file."""
    steps: int


@dataclass(frozen=True)
class Failed:
    """An order, or an attachment, that could not be carried out. The key stays resident."""

    key: int
    message: str
    reason: str
    """As in ``errors``: ``EXHAUSTED``, ``UNAVAILABLE``, ``ENVIRONMENT_FAILED``, ``INTERNAL``."""


Answer = Attached | Stepped | Acted | Replayed | RolledOut | Exported | Failed


@dataclass(frozen=True)
class Occupancy:
    """What the engine holds, counted."""

    device_rows: int
    """Resident states."""
    device_rows_limit: int
    actor_slots: int
    """Environments that run for somebody now."""
    actor_slots_limit: int
    pending: int
    """Orders not yet answered."""
    ticks: int
    """Ticks that did something."""
    batched: int
    """Needs served in those ticks; ``batched / ticks`` is the mean batch."""
    actor_restarts: int
