"""What a step asks for and what it makes of the answers, driven by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import drift
import numpy as np
import pytest
import torch

from innerloop_server.adaptation.guard import Guard
from innerloop_server.adaptation.inner_loop import (
    NO_UPDATE,
    AdaptNeed,
    LoadedRevision,
    Resident,
    RolloutNeed,
    Step,
    Taken,
    Updated,
    client_step,
    simulated_step,
)
from innerloop_server.adaptation.revisions import load
from innerloop_server.adaptation.rollout import Rollout
from innerloop_server.domain import Simulator
from innerloop_server.learners.learner import Tensors

METRICS = {"loss": 1.0, "kl": 2.0, "entropy": 3.0}
EXPERIENCE: Any = object()  # a step hands it on unseen


@pytest.fixture
def revision(tmp_path: Path) -> LoadedRevision:
    return load(drift.revision(tmp_path), torch.device("cpu"))


@pytest.fixture
def resident(revision: LoadedRevision) -> Resident:
    state = {"w": torch.zeros(1, 2)}
    task = drift.task()
    return Resident(revision, 7, 3, task, Simulator.BATCH, state, state, Guard(enabled=True), number=0)


def state(value: float) -> Tensors:
    return {"w": torch.full((1, 2), value)}


def rolled(*returns: float) -> Rollout:
    return Rollout(EXPERIENCE, torch.tensor([returns]))


def asked_rollout(need: object, counters: tuple[int, int]) -> RolloutNeed:
    assert isinstance(need, RolloutNeed)
    assert (need.counters, need.episodes, need.evaluation, need.greedy) == (counters, 3, False, False)
    return need


def end(step: Step, outcome: Rollout | Updated | None) -> Taken:
    with pytest.raises(StopIteration) as caught:
        next(step) if outcome is None else step.send(outcome)
    taken: Taken = caught.value.value
    return taken


def test_the_first_step_samples_adapts_and_samples_again(resident: Resident) -> None:
    step = simulated_step(resident)
    need = asked_rollout(next(step), (0, 0))
    assert need.state is resident.state
    before = rolled(-3.0, -5.0)
    need_update = step.send(before)
    assert isinstance(need_update, AdaptNeed)
    assert need_update.state is resident.state
    assert need_update.experience is before.experience
    assert need_update.rate_scale == 1.0
    updated = Updated(state(1), METRICS)
    need = asked_rollout(step.send(updated), (1, 0))
    assert need.state is updated.state
    after = rolled(-2.0, -2.0)
    taken = end(step, after)
    assert (taken.pre_return, taken.post_return, taken.guarded, taken.episodes) == (-4.0, -2.0, False, 6)
    assert taken.metrics == METRICS
    now = taken.resident
    assert now.state is now.best is updated.state
    assert (now.number, now.phase, now.carry) == (1, 0, after)
    assert now.guard == Guard(True, -2.0, 1.0, True)


def test_the_next_step_learns_from_the_episodes_that_judged_the_last(resident: Resident) -> None:
    carry = rolled(-4.0)
    step = simulated_step(replace(resident, carry=carry))
    need = next(step)
    assert isinstance(need, AdaptNeed)
    assert need.experience is carry.experience
    asked_rollout(step.send(Updated(state(1), METRICS)), (1, 0))
    assert end(step, rolled(-3.0)).episodes == 3


def test_a_lost_carry_is_drawn_from_the_same_counters(resident: Resident) -> None:
    """The counters of the judging sample of step 1 are those that a session resumed there asks for; counted once."""
    step = simulated_step(resident)
    next(step)
    step.send(rolled(-4.0))
    judging = step.send(Updated(state(1), METRICS))
    assert isinstance(judging, RolloutNeed)
    now = end(step, rolled(-3.0)).resident
    resumed = simulated_step(replace(now, carry=None))
    again = next(resumed)
    assert isinstance(again, RolloutNeed)
    assert again.counters == judging.counters
    assert again.state is judging.state
    resumed.send(rolled(-3.0))
    resumed.send(Updated(state(2), METRICS))
    assert end(resumed, rolled(-2.0)).episodes == 3


def test_a_fall_is_taken_back_and_fresh_episodes_come_next(resident: Resident) -> None:
    step = simulated_step(resident)
    next(step)
    step.send(rolled(-4.0))
    step.send(Updated(state(1), METRICS))
    taken = end(step, rolled(-9.0))
    assert (taken.pre_return, taken.post_return, taken.guarded, taken.episodes) == (-4.0, -9.0, True, 6)
    now = taken.resident
    assert now.state is now.best is resident.state
    assert (now.number, now.phase, now.carry) == (1, 1, None)
    assert now.guard == Guard(True, -4.0, 0.5, True)
    following = simulated_step(now)
    asked_rollout(next(following), (1, 1))
    need = following.send(rolled(-6.0))
    assert isinstance(need, AdaptNeed)
    assert need.rate_scale == 0.5
    assert need.state is resident.state
    asked_rollout(following.send(Updated(state(2), METRICS)), (2, 0))
    taken = end(following, rolled(-5.0))  # above the fresh -6, below the old -4
    assert (taken.guarded, taken.episodes) == (False, 6)
    assert (taken.resident.phase, taken.resident.guard) == (0, Guard(True, -5.0, 0.5, True))


def test_without_a_guard_a_fall_is_kept(resident: Resident) -> None:
    step = simulated_step(replace(resident, guard=Guard(enabled=False)))
    next(step)
    step.send(rolled(-4.0))
    updated = Updated(state(1), METRICS)
    step.send(updated)
    taken = end(step, rolled(-9.0))
    assert not taken.guarded
    assert taken.resident.state is updated.state
    assert taken.resident.guard.rate_scale == 1.0


def owned(resident: Resident) -> Resident:
    return replace(resident, task=None, simulator=None)


def test_a_clients_step_adapts_and_asks_for_nothing_else(resident: Resident) -> None:
    step = client_step(owned(resident), EXPERIENCE, np.array([-1.0, -2.0]))
    need = next(step)
    assert isinstance(need, AdaptNeed)
    assert (need.state, need.experience, need.rate_scale) == (resident.state, EXPERIENCE, 1.0)
    updated = Updated(state(1), METRICS)
    taken = end(step, updated)
    assert (taken.pre_return, taken.post_return, taken.guarded, taken.episodes) == (-1.5, None, False, 2)
    now = taken.resident
    assert (now.state, now.best) == (updated.state, resident.state)
    assert (now.number, now.guard) == (1, Guard(True, -1.5, 1.0, False))


def test_a_clients_episodes_judge_the_update_before_them(resident: Resident) -> None:
    step = client_step(owned(resident), EXPERIENCE, np.array([-1.5]))
    next(step)
    now = end(step, Updated(state(1), METRICS)).resident
    taken = end(client_step(now, EXPERIENCE, np.array([-4.0, -2.0])), None)  # asks for nothing
    assert (taken.pre_return, taken.post_return, taken.guarded, taken.episodes) == (-3.0, None, True, 2)
    assert taken.metrics == NO_UPDATE
    now = taken.resident
    assert now.state is now.best is resident.state
    assert (now.number, now.phase, now.guard) == (2, 1, Guard(True, -1.5, 0.5, True))
    step = client_step(now, EXPERIENCE, np.array([-7.0]))  # of the best state: measures it afresh
    need = next(step)
    assert isinstance(need, AdaptNeed)
    assert need.rate_scale == 0.5
    assert end(step, Updated(state(2), METRICS)).resident.guard == Guard(True, -7.0, 0.5, False)


def test_a_rise_makes_the_clients_present_state_the_best(resident: Resident) -> None:
    moved = replace(owned(resident), state=state(1), guard=Guard(True, -4.0, 1.0, False))
    step = client_step(moved, EXPERIENCE, np.array([-3.0]))
    next(step)
    now = end(step, Updated(state(2), METRICS)).resident
    assert now.best is moved.state
    assert now.guard == Guard(True, -3.0, 1.0, False)
