from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.arrays import Discrete
from innerloop_server.domain import Simulator, Split, Task
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.families.tabular_mdp import HORIZON, TabularMDP, cumulative, next_state, standard_normal
from innerloop_server.tasks.sampling import custom_task, sample_task, stack_parameters

CPU = torch.device("cpu")
FAMILY = TabularMDP()
TINY = TabularMDP(states=3, actions=2)
TINY_TASK = {
    "transitions": np.array(
        [
            [[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]],
            [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]],
            [[0.0, 0.5, 0.5], [0.1, 0.0, 0.9]],
        ]
    ),
    "rewards": np.array([[1.0, -2.0], [0.5, 3.0], [0.0, 10.0]]),
}


class Fed:
    """Stands for an environment's generator: gives the numbers it was given."""

    def __init__(self, *numbers: float) -> None:
        self.left = list(numbers)

    def random(self, size: int) -> np.ndarray:
        numbers, self.left = self.left[:size], self.left[size:]
        return np.array(numbers)


@settings(max_examples=25, deadline=None)
@given(states=st.integers(2, 12), actions=st.integers(2, 6), seed=st.integers(0, 2**32))
def test_both_faces_are_the_same_environment(states: int, actions: int, seed: int) -> None:
    """Whole episodes of 3 x 2 rows: one environment and one stream of numbers each."""
    family = TabularMDP(states, actions)
    tasks = [sample_task(family, seed, Split.TRAIN, i) for i in range(3)]
    batch = family.batch(stack_parameters(tasks), CPU)
    assert (batch.reset_uniforms, batch.step_uniforms) == (0, 2)
    rows = list(np.ndindex(3, 2))
    envs = {row: family.make(tasks[row[0]]) for row in rows}
    twins = {row: gymnasium.utils.seeding.np_random(seed + k)[0] for k, row in enumerate(rows)}
    seen = {row: envs[row].reset(seed=seed + k)[0] for k, row in enumerate(rows)}
    state, observed = batch.reset(torch.zeros(3, 2, 0, dtype=torch.float64))
    rng = np.random.default_rng(seed)
    for t in range(1, HORIZON + 1):
        assert observed.dtype == torch.int64
        assert observed.tolist() == [[seen[i, 0], seen[i, 1]] for i in range(3)]
        action = rng.integers(actions, size=(3, 2))
        uniforms = np.array([[twins[i, j].random(2) for j in range(2)] for i in range(3)])
        before = state.clone()
        after, observed, reward, ended = batch.step(state, torch.tensor(action), torch.tensor(uniforms))
        assert torch.equal(state, before)
        state = after
        for row in rows:
            seen[row], paid, terminated, truncated, _ = envs[row].step(action[row])
            # the normal's quantile is the standard library's on one side and torch's on the other
            np.testing.assert_allclose(reward[row].item(), np.float32(paid), rtol=2e-7, atol=1e-9)
            assert bool(ended[row]) is terminated is False
            assert truncated == (t == HORIZON)


def test_steps_by_hand() -> None:
    """On both faces, at the very edges of the states' shares of [0, 1)."""
    env = TINY.make(custom_task(TINY, TINY_TASK))
    assert env.reset(seed=0)[0] == 0
    batch = TINY.batch({name: value[None] for name, value in TINY_TASK.items()}, CPU)
    row, observed = batch.reset(torch.zeros(1, 1, 0, dtype=torch.float64))
    assert observed.item() == 0
    median = 0.5  # whose normal is 0
    walk = [
        (0, 0.74, 1, 1.0),  # 0.5 + 0.25 = 0.75 lies above
        (0, 0.999, 1, 0.5),
        (1, 0.0, 0, 3.0),
        (0, 0.75, 2, 1.0),  # the second state ends at 0.75, which belongs to the third
        (1, 0.0999, 0, 10.0),
        (1, 0.0, 2, -2.0),  # states of probability 0 are never drawn
    ]
    for action, uniform, state, reward in walk:
        env.unwrapped.np_random = Fed(uniform, median)  # type: ignore[assignment]
        seen, paid, terminated, truncated, info = env.step(action)
        assert (seen, paid, terminated, truncated, info) == (state, reward, False, False, {})
        assert env.unwrapped.np_random.left == []  # type: ignore[attr-defined]
        drawn = torch.tensor([[[uniform, median]]], dtype=torch.float64)
        row, observed, rewards, _ = batch.step(row, torch.tensor([[action]]), drawn)
        assert (observed.item(), rewards.item()) == (state, reward)


@pytest.mark.parametrize(("uniform", "normal"), [(0.5, 0.0), (0.8413447460685429, 1.0), (0.0249978951482204, -1.96)])
def test_the_noise_is_the_quantile_of_a_standard_normal(uniform: float, normal: float) -> None:
    assert standard_normal(uniform) == pytest.approx(normal, abs=1e-9)
    batch = TINY.batch({name: value[None] for name, value in TINY_TASK.items()}, CPU)
    state, _ = batch.reset(torch.zeros(1, 1, 0, dtype=torch.float64))
    drawn = torch.tensor([[[0.0, uniform]]], dtype=torch.float64)
    assert batch.step(state, torch.tensor([[0]]), drawn)[2].item() == pytest.approx(1.0 + normal, abs=1e-6)


@pytest.mark.parametrize("edge", [0.0, 1 - 2.0**-53])
def test_the_ends_of_the_uniforms_stay_finite(edge: float) -> None:
    assert 8 < abs(standard_normal(edge)) < 9
    batch = TINY.batch({name: value[None] for name, value in TINY_TASK.items()}, CPU)
    state, _ = batch.reset(torch.zeros(1, 1, 0, dtype=torch.float64))
    _, seen, reward, _ = batch.step(state, torch.tensor([[0]]), torch.full((1, 1, 2), edge, dtype=torch.float64))
    assert reward.item() == pytest.approx(1 + standard_normal(edge), rel=1e-6)
    assert seen.item() == (0 if edge == 0 else 2)


def test_rounding_never_leads_out_of_the_states() -> None:
    """Ten tenths sum to less than 1 in floating point; the last state must catch what is left."""
    tenths = np.full(10, 0.1)
    assert np.cumsum(tenths)[-1] < 1
    assert next_state(cumulative(tenths), 1 - 2.0**-53) == 9
    short = np.array([0.5, 0.499995, 0.0])  # within the tolerance of a sum; its last state is impossible
    assert next_state(cumulative(short), 1 - 2.0**-53) == 1


def test_frequencies_and_rewards_are_those_of_the_task() -> None:
    """20,000 first steps of one task, on the batch: each state to within five standard errors."""
    task = sample_task(FAMILY, 3, Split.TEST, 0)
    batch = FAMILY.batch(stack_parameters([task]), CPU)
    n = 20_000
    state, _ = batch.reset(torch.zeros(1, n, 0, dtype=torch.float64))
    uniforms = torch.tensor(np.random.default_rng(0).random((1, n, 2)))
    _, seen, reward, _ = batch.step(state, torch.full((1, n), 2), uniforms)
    expected = task.parameters["transitions"][0, 2]
    frequency = np.bincount(seen[0].numpy(), minlength=10) / n
    assert np.all(np.abs(frequency - expected) < 5 * np.sqrt(expected * (1 - expected) / n) + 1e-9)
    assert reward.mean().item() == pytest.approx(task.parameters["rewards"][0, 2], abs=5 / np.sqrt(n))
    assert reward.std().item() == pytest.approx(1.0, abs=5 / np.sqrt(2 * n))


def test_tasks_are_drawn_as_defined() -> None:
    drawn = [sample_task(FAMILY, 1, Split.TRAIN, i).parameters for i in range(200)]
    transitions = np.stack([d["transitions"] for d in drawn])
    rewards = np.stack([d["rewards"] for d in drawn])
    np.testing.assert_allclose(transitions.sum(-1), 1, atol=1e-12)
    # Dirichlet(1, ..., 1) over 10: mean 1/10, variance (1/10)(9/10)/11; 10,000 draws of it and of the normal
    assert transitions.std() == pytest.approx(np.sqrt(0.09 / 11), rel=0.02)
    assert rewards.mean() == pytest.approx(1.0, abs=5 / 100)
    assert rewards.std() == pytest.approx(1.0, abs=5 / 100 / np.sqrt(2))


def changed(name: str, where: tuple[int, ...], value: float) -> dict[str, np.ndarray]:
    parameters = {key: array.copy() for key, array in TINY_TASK.items()}
    parameters[name][where] = value
    return parameters


@pytest.mark.parametrize(
    ("parameters", "field", "advice"),
    [
        (
            changed("transitions", (2, 1, 2), 0.8),
            "transitions",
            "the probabilities of state 2, action 1 sum to 0.9, not to 1",
        ),
        (changed("transitions", (0, 0), 0.0), "transitions", "state 0, action 0 sum to 0, not to 1"),
        (changed("transitions", (0, 0, 0), 1.5), "transitions", "lies outside"),
        (changed("transitions", (0, 0, 0), -0.5), "transitions", "lies outside"),
        (changed("rewards", (0, 0), np.inf), "rewards", "not finite"),
        ({**TINY_TASK, "transitions": np.full((3, 3), 1 / 3)}, "transitions", r"shape \[3, 3\]"),
    ],
)
def test_what_is_no_mdp_is_refused_by_name(parameters: dict[str, Any], field: str, advice: str) -> None:
    with pytest.raises(InvalidField, match=advice) as caught:
        custom_task(TINY, parameters, "open.task.parameters")
    assert caught.value.field == f"open.task.parameters.{field}"


def test_an_error_does_not_repeat_a_thousand_numbers() -> None:
    transitions = np.full((10, 5, 10), 0.1)
    transitions[0, 0, 0] = 2.0
    with pytest.raises(InvalidField, match="lies outside") as caught:
        custom_task(FAMILY, {"transitions": transitions, "rewards": np.zeros((10, 5))})
    assert len(str(caught.value)) < 500


def test_probabilities_rounded_to_float32_are_taken() -> None:
    for i in range(50):
        parameters = sample_task(FAMILY, 0, Split.TRAIN, i).parameters
        custom_task(FAMILY, {name: value.astype(np.float32) for name, value in parameters.items()})


def test_options_make_another_family() -> None:
    assert FAMILY.name == "tabular-mdp"
    other = TabularMDP(states=4, episodes=25)
    assert other.name == "tabular-mdp.states-4.episodes-25"
    assert other.observation_space == Discrete(4)
    assert other.action_space == Discrete(5)
    assert (other.horizon, other.episodes_per_trial) == (10, 25)
    assert other.simulators == (Simulator.BATCH, Simulator.ACTORS)
    assert sample_task(other, 0, Split.TRAIN, 0).parameters["transitions"].shape == (4, 5, 4)
    for word in ("4 states", "5 actions", "25 episodes", "10 steps", "Hidden", "transitions", "rewards"):
        assert word in other.description


@pytest.mark.parametrize(
    ("options", "field"),
    [({"states": 1}, "states"), ({"actions": 1}, "actions"), ({"episodes": 0}, "episodes"), ({"states": 51}, "states")],
)
def test_impossible_options_are_refused(options: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidField, match="out of range; give") as caught:
        TabularMDP(**options)
    assert caught.value.field == f"options.{field}"


def test_gymnasiums_checker_is_content() -> None:
    env = FAMILY.make(sample_task(FAMILY, 0, Split.TRAIN, 0))
    check_env(env.unwrapped, skip_render_check=True)


def test_the_environment_loads_no_torch() -> None:
    program = """
import sys
from innerloop_server.domain import Split
from innerloop_server.tasks.families import tabular_mdp
from innerloop_server.tasks.sampling import sample_task
family = tabular_mdp.TabularMDP()
env = family.make(sample_task(family, 0, Split.TRAIN, 0))
env.reset(seed=0)
env.step(0)
print("torch" in sys.modules)
"""
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_a_task_is_only_its_parameters() -> None:
    task = Task(TINY.name, TINY_TASK)
    first, second = (TINY.make(task) for _ in range(2))
    first.reset(seed=5)
    second.reset(seed=5)
    assert [first.step(1)[:2] for _ in range(HORIZON)] == [second.step(1)[:2] for _ in range(HORIZON)]
