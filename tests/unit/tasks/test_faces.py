"""The batch face of a family is its Gymnasium face: the same numbers in, the same episodes out, step by step.

The faces are fed the same randomness by giving each environment a seed and the batch the uniform numbers that a second
generator of that seed draws. So this also holds an environment to drawing exactly as many as the batch declares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.acrobot import AcrobotEnv
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from gymnasium.utils import seeding
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.arrays import Box
from innerloop_server.domain import Simulator, Split
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task, stack_parameters

FAMILIES = load_registry().families
TENSOR_NATIVE = sorted(name for name, family in FAMILIES.items() if Simulator.BATCH in family.simulators)
GYMNASIUMS = (AcrobotEnv, CartPoleEnv, PendulumEnv)
"""Physics of Gymnasium's own code, which the batch writes down differently: they agree in each step from the same state
and not over an episode, where an acrobot doubles a difference every few steps."""
TASKS, ROWS = 2, 2


class Row:
    """An environment, and a generator that draws what it draws."""

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int, number: int, query: bool) -> None:
        self.env = env
        self.gymnasiums = isinstance(env.unwrapped, GYMNASIUMS)
        self._twin, _ = seeding.np_random(seed)
        self._seed: int | None = seed
        self._number = number
        self._query = query

    def reset(self, supervised: bool, uniforms: int) -> tuple[Any, np.ndarray]:
        """(observation, the uniform numbers that made it, as the batch wants them)."""
        options = {"episode": self._number, "query": self._query} if supervised else None
        seen, _ = self.env.reset(seed=self._seed, options=options)
        self._seed = None
        drawn = self._twin.random(uniforms)
        if supervised:
            drawn[0] = (drawn[0] + self._query) / 2
        return seen, drawn

    def step(self, state: torch.Tensor, action: torch.Tensor, uniforms: int) -> tuple[Any, np.ndarray]:
        """(what Gymnasium answers, the uniform numbers that the step drew); ``state`` [S] is the batch's."""
        if self.gymnasiums:
            self.env.unwrapped.state = state.numpy().copy()  # type: ignore[attr-defined]
        taken = np.int64(action) if action.ndim == 0 else action.numpy().copy()
        return self.env.step(taken), self._twin.random(uniforms)


def same(batch_s: torch.Tensor, gymnasiums: Any) -> None:
    """Equal to within the rounding of a float32: numpy's and torch's sine may differ in a float64's last digit."""
    assert batch_s.dtype == (torch.int64 if np.asarray(gymnasiums).dtype == np.int64 else torch.float32)
    expected = np.asarray(gymnasiums, batch_s.numpy().dtype)
    assert batch_s.shape == expected.shape
    np.testing.assert_allclose(batch_s.numpy(), expected, rtol=2e-7, atol=1e-9)


def actions(family: Family, rng: np.random.Generator, hold: bool) -> Iterator[torch.Tensor]:
    """[TASKS, ROWS, *A] actions without end, of a Box within its bounds and outside; always the same if ``hold``."""
    space, shape = family.action_space, (TASKS, ROWS)
    while True:
        if isinstance(space, Box):
            raw = 1.5 * rng.standard_normal((*shape, space.size))
            scaled = np.asarray(family.action_shift) + np.asarray(family.action_scale) * raw
            action = torch.tensor(scaled.reshape(*shape, *space.shape), dtype=torch.float32)
        else:
            action = torch.tensor(rng.integers(space.n, size=shape))
        yield action
        while hold:
            yield action


def drawn_for_all(drawn: dict[tuple[int, int], np.ndarray], each: int) -> torch.Tensor:
    """[TASKS, ROWS, each]; zeros where nothing was drawn."""
    uniforms = torch.zeros(TASKS, ROWS, each, dtype=torch.float64)
    for index, numbers in drawn.items():
        uniforms[index] = torch.from_numpy(numbers)
    return uniforms


def episode(family: Family, batch: TaskBatch, rows: dict[tuple[int, int], Row], steps: int, moves: Any) -> None:
    """Run an episode of every row on both faces, of at most ``steps`` steps, and compare all they say."""
    supervised = family.supervision is not None
    seen, drawn = {}, {}
    for index, row in rows.items():
        seen[index], drawn[index] = row.reset(supervised, batch.reset_uniforms)
    state, observation = batch.reset(drawn_for_all(drawn, batch.reset_uniforms))
    for index in rows:
        same(observation[index], seen[index])
    answers = batch.feedback(state)
    assert answers.shape == (TASKS, ROWS, family.feedback_size)
    running = dict(rows)
    for t in range(1, steps + 1):
        action = next(moves)
        answered = {i: row.step(state[i], action[i], batch.step_uniforms) for i, row in running.items()}
        uniforms = drawn_for_all({i: numbers for i, (_, numbers) in answered.items()}, batch.step_uniforms)
        state, observation, reward, terminated = batch.step(state, action, uniforms if batch.step_uniforms else None)
        success = batch.success(state)
        for index, ((seen_now, paid, ended, truncated, info), _) in answered.items():
            same(observation[index], seen_now)
            same(reward[index], np.float32(paid))
            assert terminated[index].item() == ended
            assert ended or truncated == (t == family.horizon)  # what ended by itself need not be cut off too
            assert ("success" in info) == batch.knows_success
            assert success[index].item() == info.get("success", False)
            if supervised:
                same(answers[index], info["feedback"])
            if running[index].gymnasiums:
                own = running[index].env.unwrapped.state  # type: ignore[attr-defined]
                np.testing.assert_allclose(state[index].numpy(), own, rtol=0, atol=1e-9)
            if ended or truncated:
                del running[index]
        if not running:
            return


@pytest.mark.parametrize("name", TENSOR_NATIVE)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**31), part=st.floats(0, 1), hold=st.booleans(), query=st.booleans())
def test_both_faces_are_the_same_environment(name: str, seed: int, part: float, hold: bool, query: bool) -> None:
    """Random tasks, actions and lengths. Each environment is left somewhere, and then run through a whole episode: it
    goes on drawing where it was.
    """
    family = FAMILIES[name]
    if family.extra is not None and family.extra.missing:
        pytest.skip(f"needs {family.extra.missing}: {family.extra.hint}")
    tasks = [sample_task(family, seed, Split.TRAIN, index) for index in range(TASKS)]
    batch = family.batch(stack_parameters(tasks), torch.device("cpu"))
    assert batch.knows_success == family.knows_success
    rows = {
        (b, n): Row(family.make(task), seed + TASKS * n + b, n, query)
        for b, task in enumerate(tasks)
        for n in range(ROWS)
    }
    moves = actions(family, np.random.default_rng(seed), hold)
    for steps in (1 + round(part * (family.horizon - 1)), family.horizon):
        episode(family, batch, rows, steps, moves)
