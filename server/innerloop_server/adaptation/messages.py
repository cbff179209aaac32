"""What a client and a session say to each other, free of any transport (``service/adaptation`` converts)."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from innerloop.arrays import Array
from innerloop_server.adaptation.orders import Acted, Stepped
from innerloop_server.domain import Budget, Simulator, Task
from innerloop_server.store.records import PolicyRecord, SessionRecord


class EndReason(enum.StrEnum):
    """Why a session ended."""

    FINISHED = "finished"
    BUDGET_STEPS = "budget_steps"
    BUDGET_EPISODES = "budget_episodes"
    BUDGET_SECONDS = "budget_seconds"
    TARGET_RETURN = "target_return"
    CANCELLED = "cancelled"
    LEASE_EXPIRED = "lease_expired"
    BUDGET_AUTO = "budget_auto"
    """Another step was not worth its episodes."""


# -- from the client ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Open:
    """Open a session. Fields as in the contract; ``None`` where the client left it to the server."""

    learner: str
    """Resource id of the learner."""
    revision: int | None
    """``None``: the champion."""
    task: Task | None
    """``None``: the client owns the environment."""
    budget: Budget
    seed: int | None = None
    simulator: Simulator | None = None
    episodes_per_step: int = 0
    guard: bool | None = None
    policy_in_steps: bool = False
    lease_seconds: float | None = None
    request_id: str = ""


@dataclass(frozen=True)
class Observe:
    """What R rows of a client's environments did."""

    sequence: int
    step: int
    row_ids: tuple[int, ...]
    observations: Array
    """[R, *O] float32."""
    rewards: Array
    """[R] float32."""
    terminated: Array
    """[R] bool."""
    truncated: Array
    """[R] bool."""
    final_observations: Array
    """[R, *O] float32; read where ``truncated``."""
    report_only: bool = False
    feedback: Array | None = None
    """[R, F] float32, read where ``terminated``: the right answers, which supervised learners need there."""
    trial_end: Array | None = None
    """[R] bool: the row's memory is emptied. ``None``: none is."""


@dataclass(frozen=True)
class Trajectories:
    """Whole episodes, N of up to T steps."""

    sequence: int
    step: int
    observations: Array
    """[N, T, *O] float32."""
    raw_actions: Array
    """[N, T, A] float32 or [N, T] int64."""
    rewards: Array
    """[N, T] float32."""
    lengths: Array
    """[N] int64."""
    truncated: Array
    """[N] bool."""
    final_observations: Array
    """[N, *O] float32; read where ``truncated``."""
    log_probs: Array | None
    """[N, T] float32; ``None``: to be computed."""
    feedback: Array | None = None
    """[N, T, F] float32: the right answers. A supervised learner reads these and the observations, nothing else."""


@dataclass(frozen=True)
class Advance:
    """Adapt now, on all complete episodes."""

    sequence: int


@dataclass(frozen=True)
class Finish:
    """End the session with its policy."""

    sequence: int


ClientMessage = Observe | Trajectories | Advance | Finish


# -- from the server ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """The session is open, and durable."""

    sequence: int
    record: SessionRecord
    next_sequence: int
    episodes_pending: int
    policy_file: bytes = b""


@dataclass(frozen=True)
class Actions:
    """What to do in the rows of an :class:`Observe`."""

    sequence: int
    step: int
    row_ids: tuple[int, ...]
    acted: Acted


@dataclass(frozen=True)
class Accepted:
    """Experience was taken in; not durable before the next step."""

    sequence: int
    episodes_pending: int


@dataclass(frozen=True)
class StepTaken:
    """A durable adaptation step."""

    sequence: int
    number: int
    state_hash: str
    pre_return: float
    post_return: float | None
    guarded: bool
    rate_scale: float
    episodes: int
    total_episodes: int
    seconds: float
    total_seconds: float
    metrics: Mapping[str, float]
    policy_file: bytes = b""
    end_reason: str = ""
    """Why the session ends with it (an :class:`EndReason`); empty: it goes on."""
    expected_gain: float | None = None
    """With budget ``auto``: what one more step brought on validation tasks."""

    @staticmethod
    def of(stepped: Stepped, record: SessionRecord, sequence: int) -> StepTaken:
        """What is told of a step.

        Args:
            stepped: the engine's answer.
            record: the session before the step.
            sequence: the client message that caused it; 0: the session runs by itself.
        """
        return StepTaken(
            sequence=sequence,
            number=stepped.number,
            state_hash=stepped.state_hash,
            pre_return=stepped.pre_return,
            post_return=stepped.post_return,
            guarded=stepped.guarded,
            rate_scale=stepped.rate_scale,
            episodes=stepped.episodes,
            total_episodes=record.episodes + stepped.episodes,
            seconds=stepped.seconds,
            total_seconds=record.seconds + stepped.seconds,
            metrics=stepped.metrics,
            policy_file=stepped.policy,
        )

    def to_bytes(self) -> bytes:
        """For the journal: everything but the policy file, which the present state can give again."""
        return json.dumps(asdict(replace(self, policy_file=b"")) | {"policy_file": ""}).encode()

    @staticmethod
    def from_bytes(data: bytes) -> StepTaken:
        """Undo :meth:`to_bytes`."""
        value: dict[str, Any] = json.loads(data)
        return StepTaken(**{**value, "policy_file": b""})


@dataclass(frozen=True)
class Adapted:
    """The session has ended with a policy."""

    sequence: int
    policy: PolicyRecord
    end_reason: EndReason
    step: int


@dataclass(frozen=True)
class AdaptedReply:
    """What the journal keeps of an :class:`Adapted`."""

    sequence: int
    policy_id: str
    end_reason: str
    step: int

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_bytes(data: bytes) -> AdaptedReply:
        """Undo :meth:`to_bytes`."""
        return AdaptedReply(**json.loads(data))


@dataclass(frozen=True)
class Heartbeat:
    """Still alive."""

    expires_at: float


@dataclass(frozen=True)
class Draining:
    """The server is going away."""

    remaining_seconds: float


ServerMessage = Opened | Actions | Accepted | StepTaken | Adapted | Heartbeat | Draining
Reply = Actions | Accepted | StepTaken | Adapted
