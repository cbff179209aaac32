"""The records of the store: frozen values, one class a kind of thing that is kept.

Times are Unix seconds (UTC). ``owner`` is a principal; ``""`` is the server itself. Mappings hold JSON values.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from innerloop_server.domain import Budget, LearnerSpec, Reference, Score, SessionState, Simulator, Split, Task


class EvaluationState(enum.StrEnum):
    """Where an evaluation is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    """Its scores exist."""
    FAILED = "failed"
    CANCELLED = "cancelled"


class TrainingState(enum.StrEnum):
    """Where a training is in its life."""

    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class LearnerRecord:
    """A learner and which of its revisions new sessions take."""

    id: str
    """Resource id: ``spec.name``."""
    owner: str
    """``""``: the server's own, readable by all."""
    spec: LearnerSpec
    champion: int | None
    """Number of the revision that new sessions take; ``None`` until one is promoted."""
    previous_champion: int | None
    """What ``roll_back`` returns to."""
    created_at: float


@dataclass(frozen=True)
class RevisionRecord:
    """An immutable, numbered set of meta-parameters."""

    learner_id: str
    number: int
    """1, 2, ... within the learner."""
    blob: str
    """SHA-256 of the meta-parameters' safetensors bytes."""
    manifest: Mapping[str, Any]
    """How it came to be: settings, seed, update, environment steps, wall seconds, scores, versions, command, commit."""
    promoted: bool
    """It is, or once was, champion."""
    created_at: float


@dataclass(frozen=True)
class NewSession:
    """What a session is opened with."""

    owner: str
    learner_id: str
    revision: int
    """The session stays with this revision, whatever is promoted later."""
    family: str
    simulated: bool
    """True: the server's simulators run the episodes. False: the client owns the environment."""
    task: Task | None
    """``None`` where the client owns the environment."""
    budget: Budget
    seed: int
    """Non-negative, below 2^63."""
    lease_seconds: float
    request_id: str = ""
    """Chosen by the caller: opening again with the same id gives the session that exists. Empty: always a new one."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Simulator, episodes a step, guard, ...: what the service needs to go on after a restart. Opaque here."""


@dataclass(frozen=True)
class SessionRecord:
    """One adaptation: a lease on an adaptation state, pinned to one revision."""

    id: str
    owner: str
    request_id: str
    """Unique for its owner; empty where the caller chose none."""
    state: SessionState
    learner_id: str
    revision: int
    family: str
    simulated: bool
    task: Task | None = field(compare=False)  # arrays have no one truth value
    options: Mapping[str, Any]
    budget: Budget
    seed: int
    lease_seconds: float
    expires_at: float
    """End of the lease. An active session ends then; an ended one loses its journal."""
    created_at: float
    updated_at: float
    step: int
    """The last durable adaptation step; 0: none yet."""
    episodes: int
    """Sampled so far, as of ``step``."""
    seconds: float
    """Of computing so far, as of ``step``."""
    last_sequence: int
    """The last client message whose effect is durable; 0: none."""
    policy_id: str | None
    """The policy a finished session left; ``None`` once that is deleted."""
    end_reason: str
    """Why it ended, for people; empty while it is active."""


@dataclass(frozen=True)
class StepRecord:
    """One durable adaptation step and what the client was told about it."""

    session_id: str
    number: int
    """1, 2, ... within the session."""
    reply: bytes
    """Opaque: what the service would answer again."""
    sequence: int | None = None
    """The client message that caused it; ``None`` where the session runs by itself."""


@dataclass(frozen=True)
class CommitStep:
    """One session's part of a tick. Totals are those after the step."""

    step: StepRecord
    state: bytes
    """Opaque: the adaptation state and the guard, as safetensors bytes. Only the latest is kept."""
    episodes: int
    seconds: float
    last_sequence: int | None = None
    """``None``: ``step.sequence`` if the step has one, else as before. It never goes back."""


@dataclass(frozen=True)
class PolicyRecord:
    """A portable policy that a session (or an export) left."""

    id: str
    owner: str
    session_id: str | None
    """``None`` where no session made it, or the session's record is gone."""
    learner_id: str
    revision: int
    family: str
    blob: str
    """SHA-256 of the policy file."""
    size: int
    """Of the policy file, in bytes."""
    header: Mapping[str, Any]
    """The policy's header (``innerloop.policy.Header``) as JSON values."""
    created_at: float


@dataclass(frozen=True)
class EvaluationRecord:
    """An evaluation: what was asked, and how far it is."""

    id: str
    owner: str
    request: Mapping[str, Any]
    """Opaque: enough to run it again after a restart."""
    state: EvaluationState
    done: int
    """Units of work finished."""
    total: int
    """Units of work in all; 0 until that is known."""
    error: str
    """Why it failed; empty otherwise."""
    created_at: float
    finished_at: float | None
    request_id: str = ""
    """Unique for its owner; empty where the caller chose none."""


@dataclass(frozen=True)
class ScoreRecord:
    """One row of the table: a revision after k steps, on one split of a family."""

    evaluation_id: str
    family: str
    learner_id: str
    revision: int
    """0: the untrained start."""
    split: Split
    guard: bool
    simulator: Simulator
    score: Score
    greedy: bool = False
    """The mode of the policy was scored instead of its samples."""
    references: tuple[Reference, ...] = ()
    created_at: float = 0.0
    """Filled in by the store."""


@dataclass(frozen=True)
class TrainingRecord:
    """A training of a learner in the background."""

    id: str
    owner: str
    learner_id: str
    settings: Mapping[str, Any]
    state: TrainingState
    seed: int
    update: int
    """Meta-updates finished."""
    updates: int
    """Meta-updates asked for."""
    error: str
    """Why it failed; empty otherwise."""
    created_at: float
    updated_at: float


@dataclass(frozen=True)
class Collected:
    """What one garbage collection removed."""

    expired: tuple[str, ...]
    """Sessions whose lease ended while they were active."""
    journals: int
    """Ended sessions whose journal was removed."""
    sessions: int
    """Records of long-ended sessions."""
    blobs: int
    bytes: int
    """Disk space freed by removed blobs."""
