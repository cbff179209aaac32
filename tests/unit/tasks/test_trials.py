from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_server.domain import Split
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.families.bernoulli_bandit import BernoulliBandit
from innerloop_server.tasks.families.cartpole_dynamics import CartPoleDynamics
from innerloop_server.tasks.families.navigation_2d import Navigation2D
from innerloop_server.tasks.families.pendulum_dynamics import PendulumDynamics
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.sampling import sample_task, stack_parameters
from innerloop_server.tasks.trials import TrialEnv, Trials, TrialState, TrialStep

CPU = torch.device("cpu")
HAZARD = 0.3
"""Chance of :class:`Walk` to fall in a step."""


class WalkBatch(TaskBatch):
    """A walk that starts anywhere on [0, 1), moves by its action and may fall at every step; standing right of 1 is a
    success. All that a trial has to get right is in it: drawn starts, drawn steps, ends of either kind.
    """

    reset_uniforms = 2
    step_uniforms = 1
    knows_success = True

    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return uniforms[..., :1], uniforms[..., :1].float()

    def step(
        self, state: torch.Tensor, action: torch.Tensor, uniforms: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        assert uniforms is not None
        state = state + action[..., None].double() + uniforms
        return state, state.float(), state[..., 0].float(), uniforms[..., 0] < HAZARD

    def success(self, state: torch.Tensor) -> torch.Tensor:
        return state[..., 0] > 1


class Walk(gymnasium.Env[np.ndarray, Any]):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = self.np_random.random(2)[:1]
        return self.at.astype(np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        u = self.np_random.random(1)
        self.at = self.at + float(action) + u
        return (
            self.at.astype(np.float32),
            float(self.at[0]),
            bool(u[0] < HAZARD),
            False,
            {"success": bool(self.at[0] > 1)},
        )


def compare(
    trials: Trials, envs: list[list[TrialEnv[Any, Any]]], actions: np.ndarray, seed: int, tolerance: float
) -> list[TrialStep]:
    """Play all B x N trials to their ends in both faces, on the same numbers, and demand the same of both."""
    rows = list(np.ndindex(len(envs), len(envs[0])))
    batch = trials.batch
    streams = {(i, j): gymnasium.utils.seeding.np_random(seed + 1_000 * i + j)[0] for i, j in rows}
    shape = (len(envs), len(envs[0]))
    resets = np.zeros((*shape, batch.reset_uniforms))
    for row in rows:
        resets[row] = streams[row].random(batch.reset_uniforms)
    state, observation = trials.begin(torch.tensor(resets))
    for i, j in rows:
        seen, _ = envs[i][j].reset(seed=seed + 1_000 * i + j)
        np.testing.assert_allclose(observation[i, j].numpy(), seen, rtol=0, atol=tolerance)
    playing = set(rows)
    log = []
    for t in range(trials.steps):
        assert playing, "trials end by their last step, not before all are over"
        uniforms = np.zeros((*shape, batch.step_uniforms))
        told = {}
        for i, j in playing:
            uniforms[i, j] = streams[i, j].random(batch.step_uniforms)
            told[i, j] = envs[i][j].step(actions[t, i, j])
            info = told[i, j][-1]
            if (info["terminated"] or info["truncated"]) and not info["trial_end"]:
                resets[i, j] = streams[i, j].random(batch.reset_uniforms)
        before = state
        state, step = trials.step(
            state,
            torch.tensor(actions[t]),
            torch.tensor(uniforms) if batch.step_uniforms else None,
            torch.tensor(resets) if batch.reset_uniforms else None,
        )
        log.append(step)
        for i, j in rows:
            assert bool(step.real[i, j]) == ((i, j) in playing)
            if (i, j) not in playing:
                check_still(before, state, step, (i, j))
                continue
            seen, reward, over, cut, info = told[i, j]
            np.testing.assert_allclose(step.observation[i, j].numpy(), seen, rtol=0, atol=tolerance)
            final = info.get("final_observation", seen)
            np.testing.assert_allclose(step.final_observation[i, j].numpy(), final, rtol=0, atol=tolerance)
            assert step.reward[i, j].item() == pytest.approx(np.float32(reward), abs=tolerance)
            for flag in ("terminated", "truncated", "trial_end"):
                assert bool(getattr(step, flag)[i, j]) == info[flag], flag
            assert bool(step.success[i, j]) == info.get("success", False)
            assert not cut
            assert over == info["trial_end"]
        playing = {row for row in playing if not told[row][-1]["trial_end"]}
        if not playing:
            break
    assert not playing
    return log


def check_still(before: TrialState, after: TrialState, step: TrialStep, row: tuple[int, ...]) -> None:
    """A row whose trial was over stays as it was, and says nothing."""
    for field in ("simulation", "observation", "elapsed", "episode"):
        assert torch.equal(getattr(before, field)[row], getattr(after, field)[row])
    assert torch.equal(step.observation[row], before.observation[row])
    assert torch.equal(step.final_observation[row], before.observation[row])
    assert step.reward[row] == 0
    for flag in (step.terminated, step.truncated, step.trial_end, step.success):
        assert not flag[row]


SIZES = {
    "tasks": st.integers(1, 3),
    "parallel": st.integers(1, 3),
    "episodes": st.integers(1, 4),
    "seed": st.integers(0, 2**31),
}


@settings(max_examples=60, deadline=None)
@given(horizon=st.integers(1, 6), **SIZES)
def test_both_faces_run_the_same_trials(horizon: int, tasks: int, parallel: int, episodes: int, seed: int) -> None:
    envs = [[TrialEnv(TimeLimit(Walk(), horizon), episodes) for _ in range(parallel)] for _ in range(tasks)]
    trials = Trials(WalkBatch(), horizon, episodes)
    actions = np.random.default_rng(seed).integers(3, size=(trials.steps, tasks, parallel))
    compare(trials, envs, actions, seed, tolerance=0)


FAMILIES: dict[str, tuple[Family, float, int]] = {
    # family, tolerance, episodes: the light physics is Gymnasium's up to rounding
    "bernoulli-bandit": (BernoulliBandit(4, 12), 0, 12),
    "navigation-2d": (Navigation2D(), 1e-6, 2),
    "cartpole-dynamics": (CartPoleDynamics(), 1e-5, 3),
    "pendulum-dynamics": (PendulumDynamics(), 1e-3, 2),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_both_faces_of_a_family_run_the_same_trials(name: str) -> None:
    family, tolerance, episodes = FAMILIES[name]
    drawn = [sample_task(family, 3, Split.TEST, i) for i in range(3)]
    trials = Trials(family.batch(stack_parameters(drawn), CPU), family.horizon, episodes)
    envs = [[TrialEnv(family.make(task), episodes) for _ in range(2)] for task in drawn]
    rng = np.random.default_rng(0)
    if family.action_space.shape == ():
        actions: np.ndarray = rng.integers(family.action_space.n, size=(trials.steps, 3, 2))  # type: ignore[union-attr]
    else:
        size = (trials.steps, 3, 2, *family.action_space.shape)
        actions = rng.uniform(-1, 1, size).astype(np.float32) * np.array(family.action_scale, np.float32)
    log = compare(trials, envs, actions, 7, tolerance)
    ends = torch.stack([step.terminated | step.truncated for step in log])
    assert ends.sum(0).tolist() == [[episodes] * 2] * 3


def test_a_trial_by_hand() -> None:
    """Two episodes of two steps: the first falls in its second step, the second is cut by the horizon."""
    trials = Trials(WalkBatch(), horizon=2, episodes=2)

    def one(*numbers: float) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.float64).reshape(1, 1, -1)

    state, first = trials.begin(one(0.5, 0.0))
    assert first.item() == 0.5
    told = []
    for u, start in ((0.75, 0.1), (0.25, 0.2), (0.5, 0.3), (0.875, 0.4)):
        state, step = trials.step(state, torch.zeros(1, 1, dtype=torch.int64), one(u), one(start, 0.0))
        flags = [bool(flag) for flag in (step.terminated, step.truncated, step.trial_end, step.success)]
        told.append((round(step.observation.item(), 6), round(step.final_observation.item(), 6), *flags))
    assert told == [
        (1.25, 1.25, False, False, False, True),
        (0.2, 1.5, True, False, False, True),  # fell on its last step: that is no truncation
        (0.7, 0.7, False, False, False, False),
        (1.575, 1.575, False, True, True, True),
    ]
    assert (state.episode.item(), state.elapsed.item()) == (2, 2)


def test_states_are_left_as_they_were() -> None:
    trials = Trials(WalkBatch(), horizon=1, episodes=3)
    state, _ = trials.begin(torch.rand(2, 2, 2, dtype=torch.float64))
    kept = {name: getattr(state, name).clone() for name in ("simulation", "observation", "elapsed", "episode")}
    one = torch.ones(2, 2, dtype=torch.int64)
    again = [
        trials.step(state, one, torch.full((2, 2, 1), 0.5).double(), torch.full((2, 2, 2), 0.25).double())[0]
        for _ in range(2)
    ]
    for name, value in kept.items():
        assert torch.equal(getattr(state, name), value)
        assert torch.equal(getattr(again[0], name), getattr(again[1], name))


@pytest.mark.gpu
def test_the_device_runs_the_same_trials() -> None:
    """On a device every row is reset in every step, and dropped where nothing ended: nobody may notice."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = np.random.default_rng(0)
    starts, falls = rng.random((13, 3, 4, 2)), rng.random((12, 3, 4, 1))
    actions = rng.integers(3, size=(12, 3, 4))
    told: list[list[TrialStep]] = []
    for where in (CPU, device):
        trials = Trials(WalkBatch(), horizon=4, episodes=3)
        state, _ = trials.begin(torch.tensor(starts[0], device=where))
        log = []
        for t in range(trials.steps):
            given = (torch.tensor(x, device=where) for x in (actions[t], falls[t], starts[t + 1]))
            state, step = trials.step(state, *given)
            log.append(step)
        told.append(log)
    for here, there in zip(*told, strict=True):
        for field in dataclasses.fields(TrialStep):
            ours, theirs = getattr(here, field.name), getattr(there, field.name)
            torch.testing.assert_close(theirs.cpu(), ours, rtol=0, atol=1e-6)


def test_trials_of_a_family_have_its_length() -> None:
    family = BernoulliBandit(3, 7)
    trials = Trials.of(family, stack_parameters([sample_task(family, 0, Split.TRAIN, 0)]), CPU)
    assert (trials.horizon, trials.episodes, trials.steps) == (1, 7, 7)


def test_a_trial_that_is_over_is_not_stepped() -> None:
    env = TrialEnv(TimeLimit(Walk(), 1), 2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    assert env.step(0)[2] is False
    assert env.step(0)[2] is True
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset()
    assert env.step(0)[2] is False


@pytest.mark.parametrize(("horizon", "episodes"), [(0, 1), (1, 0), (3, -1)])
def test_a_trial_without_steps_is_refused(horizon: int, episodes: int) -> None:
    with pytest.raises(ValueError, match="has no step"):
        Trials(WalkBatch(), horizon, episodes)
    if episodes < 1:
        with pytest.raises(ValueError, match="has no step"):
            TrialEnv(Walk(), episodes)
