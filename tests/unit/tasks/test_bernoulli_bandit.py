from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.arrays import Discrete
from innerloop_server.domain import Simulator, Split
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.families.bernoulli_bandit import BernoulliBandit, BernoulliBanditEnv
from innerloop_server.tasks.sampling import custom_task, sample_task, stack_parameters

CPU = torch.device("cpu")


@settings(max_examples=25, deadline=None)
@given(
    arms=st.integers(2, 12),
    pulls=st.integers(1, 30),
    tasks=st.integers(1, 3),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_both_faces_are_the_same_environment(arms: int, pulls: int, tasks: int, seed: int, data: st.DataObject) -> None:
    """Fed the same uniform numbers, pull by pull: one environment and one stream for each of B x N rows."""
    family = BernoulliBandit(arms, pulls)
    drawn = [sample_task(family, seed, Split.TRAIN, i) for i in range(tasks)]
    episodes = data.draw(st.integers(1, 3))
    batch = family.batch(stack_parameters(drawn), CPU)
    envs = [[family.make(task) for _ in range(episodes)] for task in drawn]
    streams = [[np.random.default_rng((seed, i, j)) for j in range(episodes)] for i in range(tasks)]
    for i, j in np.ndindex(tasks, episodes):
        envs[i][j].reset(seed=0)
        envs[i][j].unwrapped.np_random = np.random.default_rng((seed, i, j))
    actions = np.random.default_rng(seed)
    for _ in range(pulls):
        state, observed = batch.reset(torch.zeros(tasks, episodes, batch.reset_uniforms, dtype=torch.float64))
        uniforms = np.array([[rng.random(batch.step_uniforms) for rng in row] for row in streams])
        action = actions.integers(arms, size=(tasks, episodes))
        _, after, reward, ended = batch.step(state, torch.tensor(action), torch.tensor(uniforms))
        for i, j in np.ndindex(tasks, episodes):
            seen, _ = envs[i][j].reset()
            assert np.array_equal(observed[i, j].numpy(), seen)
            seen, paid, terminated, truncated, _ = envs[i][j].step(action[i, j])
            assert np.array_equal(after[i, j].numpy(), seen)
            assert (reward[i, j].item(), bool(ended[i, j])) == (paid, terminated)
            assert not truncated


def test_a_pull_by_hand() -> None:
    """It pays exactly when the number drawn is below the arm's probability."""
    task = custom_task(BernoulliBandit(3), {"probabilities": np.array([0.0, 0.25, 1.0])})
    batch = BernoulliBandit(3).batch(stack_parameters([task]), CPU)
    state, _ = batch.reset(torch.zeros(1, 6, 0, dtype=torch.float64))
    drawn = torch.tensor([0.0, 0.2499, 0.25, 0.9999, 0.0, 0.9], dtype=torch.float64)[None, :, None]
    action = torch.tensor([[0, 1, 1, 2, 2, 1]])
    _, _, reward, terminated = batch.step(state, action, drawn)
    assert reward.tolist() == [[0.0, 1.0, 0.0, 1.0, 1.0, 0.0]]
    assert terminated.all()


def test_the_environment_too_pays_below_the_probability_and_not_at_it() -> None:
    drawn = np.random.default_rng(5).random()
    env = BernoulliBanditEnv(np.array([drawn, np.nextafter(drawn, 1)]))
    for arm, paid in enumerate((0.0, 1.0)):
        env.np_random = np.random.default_rng(5)
        assert env.step(np.int64(arm))[1] == paid


def test_each_arm_pays_as_often_as_its_probability_says() -> None:
    env = BernoulliBanditEnv(np.array([0.1, 0.5, 0.95]))
    env.reset(seed=1)
    for arm, p in enumerate(env.probabilities):
        paid = [env.step(np.int64(arm))[1] for _ in range(4_000)]
        assert np.mean(paid) == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 4_000))


def test_the_batch_is_bitwise_independent_of_its_company() -> None:
    family = BernoulliBandit(7)
    parameters = stack_parameters([sample_task(family, 0, Split.TEST, i) for i in range(9)])
    uniforms = torch.tensor(np.random.default_rng(0).random((9, 5, 1)))
    action = torch.tensor(np.random.default_rng(1).integers(7, size=(9, 5)))

    def rewards(rows: slice, columns: slice) -> torch.Tensor:
        batch = family.batch({name: value[rows] for name, value in parameters.items()}, CPU)
        state, _ = batch.reset(uniforms[rows, columns, :0])
        return batch.step(state, action[rows, columns], uniforms[rows, columns])[2]

    together = rewards(slice(None), slice(None))
    for i, j in np.ndindex(9, 5):
        assert torch.equal(rewards(slice(i, i + 1), slice(j, j + 1))[0, 0], together[i, j])


def test_options_make_another_family() -> None:
    default = BernoulliBandit()
    assert (default.name, default.arms, default.pulls) == ("bernoulli-bandit", 5, 10)
    assert (default.horizon, default.episodes_per_trial) == (1, 10)
    assert default.simulators == (Simulator.BATCH, Simulator.ACTORS)
    other = BernoulliBandit(arms=50, pulls=500)
    assert other.name == "bernoulli-bandit.arms-50.pulls-500"
    assert BernoulliBandit(pulls=100).name == "bernoulli-bandit.pulls-100"
    assert (other.action_space, other.episodes_per_trial) == (Discrete(50), 500)
    assert "50 arms" in other.description
    assert "500 pulls" in other.description
    task = sample_task(other, 3, Split.VALIDATION, 4)
    assert task.name == "families/bernoulli-bandit.arms-50.pulls-500/tasks/validation-3-4"
    assert task.parameters["probabilities"].shape == (50,)


@pytest.mark.parametrize(
    ("option", "value"), [("arms", 1), ("arms", 0), ("arms", 1_001), ("pulls", 0), ("pulls", 10_001)]
)
def test_sizes_out_of_range_are_refused_by_name(option: str, value: int) -> None:
    with pytest.raises(InvalidField, match=f"{value} is out of range") as caught:
        BernoulliBandit(**{option: value})
    assert caught.value.field == f"options.{option}"


def test_gymnasiums_checker_is_content() -> None:
    env = BernoulliBandit().make(sample_task(BernoulliBandit(), 0, Split.TRAIN, 0))
    check_env(env, skip_render_check=True)


def test_loads_no_torch_until_its_batch_is_built() -> None:
    code = (
        "import sys, innerloop_server.tasks.trials, innerloop_server.tasks.families.bernoulli_bandit;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
