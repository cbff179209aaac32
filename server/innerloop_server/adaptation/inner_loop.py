"""What an adaptation step is, said once, for every simulator and any company.

A step is a generator: it yields what it needs next (:class:`RolloutNeed`, :class:`AdaptNeed`), is sent the outcome, and
returns the resident state after it. It computes nothing itself; whoever drives it may serve the same kind of need of
many sessions in one batch.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace

import torch

from innerloop.arrays import Array, Arrays
from innerloop_server.adaptation.guard import Guard, Verdict, judge
from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.adaptation.rollout import Rollout
from innerloop_server.domain import Experience, Simulator, Task
from innerloop_server.learners.learner import Learner, Tensors


@dataclass(frozen=True)
class LoadedRevision:
    """A revision on the device."""

    ref: RevisionRef
    learner: Learner
    meta: Tensors


@dataclass(frozen=True)
class Resident:
    """One session's adaptation state on the device, and all that its next step depends on."""

    revision: LoadedRevision
    seed: int
    episodes_per_step: int
    task: Task | None
    simulator: Simulator | None
    state: Tensors
    """[1, ...] each."""
    best: Tensors
    """The guard's best state; the same object as ``state`` where that is the best."""
    guard: Guard
    number: int
    """Steps taken."""
    phase: int = 0
    """0: the state came from an update. 1: the session went back to it, so its next episodes must be fresh ones."""
    carry: Rollout | None = None
    """Episodes already sampled with ``state``; drawn again from the same streams when lost. Of a supervised family, the
    support with what ``state`` predicts for it."""


@dataclass(frozen=True)
class RolloutNeed:
    """Fresh episodes of one task with one state."""

    resident: Resident
    state: Tensors
    episodes: int
    counters: tuple[int, int]
    """(adaptation steps behind the state, phase): names the streams together with the session's seed."""
    evaluation: bool = False
    greedy: bool = False


@dataclass(frozen=True)
class AdaptNeed:
    """One inner update."""

    resident: Resident
    state: Tensors
    experience: Experience[torch.Tensor]
    rate_scale: float


@dataclass(frozen=True)
class ActNeed:
    """Actions for R rows of a client's environments."""

    resident: Resident
    observations: Array
    """[R, *O]."""
    counters: tuple[int, ...]
    memory: Arrays = field(default_factory=dict)
    """Of a method that remembers: [R, ...] each."""


@dataclass(frozen=True)
class ReplayNeed:
    """N whole episodes shown to one row of a method that remembers, one after the other."""

    resident: Resident
    state: Tensors
    """[1, 1, ...] each: of the row, before."""
    experience: Experience[torch.Tensor]
    """B = 1."""
    truncated: torch.Tensor
    """[1, N] bool; the others ended in a terminal state."""


Need = RolloutNeed | AdaptNeed | ActNeed | ReplayNeed


@dataclass(frozen=True)
class Replay:
    """Outcome of a :class:`ReplayNeed`."""

    state: Tensors
    """[1, 1, ...] each: of the row, after."""
    entropies: Array
    """[N] of the policy, in nats, mean over each episode's steps."""


@dataclass(frozen=True)
class Updated:
    """Outcome of an :class:`AdaptNeed`."""

    state: Tensors
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Taken:
    """What a step did."""

    resident: Resident
    """After the step."""
    pre_return: float
    post_return: float | None
    guarded: bool
    episodes: int
    metrics: Mapping[str, float]


Outcome = Rollout | Updated | Replay
Step = Generator[RolloutNeed | AdaptNeed | ReplayNeed, Outcome, Taken]

NO_UPDATE: Mapping[str, float] = {"loss": 0.0, "kl": 0.0, "entropy": 0.0}


def simulated_step(resident: Resident) -> Step:
    """One step of a session whose episodes we run.

    The update is judged at once: the episodes sampled after it are the next step's data, and show whether the return
    fell. If it did, the step is taken back and counted as guarded; the next one samples afresh.
    """
    sampled = 0
    before = resident.carry
    if before is None:
        counters = (resident.number, resident.phase)
        before = _rollout((yield RolloutNeed(resident, resident.state, resident.episodes_per_step, counters)))
        # A session that came back samples here, from the same streams, what its last step has counted already.
        if resident.number == 0 or resident.phase:
            sampled += resident.episodes_per_step
    pre_return = mean_return(before)
    guard, _ = judge(resident.guard, pre_return)
    updated = _updated((yield AdaptNeed(resident, resident.state, before.experience, guard.rate_scale)))
    counters = (resident.number + 1, 0)
    after = _rollout((yield RolloutNeed(resident, updated.state, resident.episodes_per_step, counters)))
    sampled += resident.episodes_per_step
    post_return = mean_return(after)
    guard, verdict = judge(guard.moved(), post_return)
    if verdict is Verdict.BACK:
        now = replace(resident, guard=guard, number=resident.number + 1, phase=1, carry=None)
    else:
        now = replace(
            resident,
            state=updated.state,
            best=updated.state,
            guard=guard,
            number=resident.number + 1,
            phase=0,
            carry=after,
        )
    return Taken(now, pre_return, post_return, verdict is Verdict.BACK, sampled, updated.metrics)


def supervised_step(resident: Resident) -> Step:
    """One step of a session whose labelled examples we draw: the support, the same in every step and drawn once.

    They come from the streams of the first step whatever the step, so that a session that came back sees them again.
    Their answers are the data whoever predicts, so the predictions after an update are only there to be looked at.
    """
    need = RolloutNeed(resident, resident.state, resident.episodes_per_step, (0, 0))
    before = resident.carry or _rollout((yield need))
    updated = _updated((yield AdaptNeed(resident, resident.state, before.experience, resident.guard.rate_scale)))
    after = _rollout((yield replace(need, state=updated.state)))
    now = replace(resident, state=updated.state, best=updated.state, number=resident.number + 1, phase=0, carry=after)
    drawn = resident.episodes_per_step if resident.number == 0 else 0
    return Taken(now, mean_return(before), mean_return(after), False, drawn, updated.metrics)


def memory_step(resident: Resident, *, greedy: bool = False) -> Step:
    """One step of a session that remembers: an episode, played in the one row whose memory the state is.

    A session is one trial however long it lasts, so nothing empties the memory. The guard *holds* it: what the learner
    was not trained to remember more of is forgotten again, so that every further episode starts as the last one of a
    trial in training. The streams are those of the step's number, whoever asks and when.
    """
    need = RolloutNeed(resident, resident.state, 1, (resident.number, 0), greedy=greedy)
    played = _rollout((yield need))
    assert played.state is not None  # a method that remembers gives one
    if played.entropies is None:  # actors act in numpy and report actions alone
        again = yield ReplayNeed(resident, resident.state, played.experience, torch.zeros_like(played.returns).bool())
        assert isinstance(again, Replay)
        entropy = float(again.entropies[0])
    else:
        entropy = float(played.entropies[0, 0])
    held = is_held(resident, resident.number)
    state = resident.state if held else played.state
    now = replace(resident, state=state, best=state, number=resident.number + 1)
    return Taken(now, mean_return(played), None, held, 1, {**NO_UPDATE, "entropy": entropy})


def most_remembered(resident: Resident) -> int | None:
    """Whole episodes that a row may remember: with the guard as many as in training; ``None``: any number."""
    return resident.revision.learner.inner_steps if resident.guard.enabled else None


def is_held(resident: Resident, remembered: int) -> bool:
    """Whether a row that remembers so many whole episodes may remember no more of them."""
    most = most_remembered(resident)
    return most is not None and remembered >= most


def keep_step(resident: Resident, state: Tensors, returns: Array, entropy: float, *, held: bool) -> Taken:
    """The step of a session whose client plays and whose rows remember: it makes durable what they do.

    Args:
        resident: before.
        state: [1, R, ...] each, one row for each of the client's.
        returns: [N] undiscounted, of the episodes that ended since the step before.
        entropy: of the policy that played them, in nats, mean over their steps.
        held: none of them is remembered.
    """
    now = replace(resident, state=state, best=state, number=resident.number + 1)
    return Taken(now, float(returns.mean()), None, held, len(returns), {**NO_UPDATE, "entropy": entropy})


def client_step(resident: Resident, experience: Experience[torch.Tensor], returns: Array) -> Step:
    """One step of a session whose client ran the episodes.

    The episodes judge the update before them: if the return fell, the step goes back to the best state and makes no
    update; the client's next episodes come from that one.

    Args:
        resident: before.
        experience: B = 1, on the device.
        returns: [N] undiscounted.
    """
    pre_return = float(returns.mean())
    episodes = len(returns)
    guard, verdict = judge(resident.guard, pre_return)
    if verdict is Verdict.BACK:
        now = replace(resident, state=resident.best, guard=guard, number=resident.number + 1, phase=1)
        return Taken(now, pre_return, None, True, episodes, NO_UPDATE)
    updated = _updated((yield AdaptNeed(resident, resident.state, experience, guard.rate_scale)))
    now = replace(
        resident,
        state=updated.state,
        best=resident.state,
        guard=guard.moved(),
        number=resident.number + 1,
        phase=0,
    )
    return Taken(now, pre_return, None, False, episodes, updated.metrics)


def mean_return(rollout: Rollout) -> float:
    """Mean undiscounted return, in float64 on the host, so that company and device order cannot change it."""
    return float(rollout.returns.detach().cpu().numpy().astype("float64").mean())


def _rollout(outcome: Outcome) -> Rollout:
    assert isinstance(outcome, Rollout)
    return outcome


def _updated(outcome: Outcome) -> Updated:
    assert isinstance(outcome, Updated)
    return outcome
