"""PAIRED: what the adversary writes and learns, what the loop counts as regret, and that all of it is a value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from innerloop.arrays import Array, Arrays
from innerloop_server.domain import Task
from innerloop_server.learners import adversary, perceptron, registry
from innerloop_server.learners.learner import Tensors
from innerloop_server.tasks.families.navigation_2d import Navigation2D
from innerloop_server.tasks.families.point_maze import PointMaze, in_wall
from innerloop_server.tasks.generators.generator import Feedback
from innerloop_server.training import outer_loop, paired
from innerloop_server.training.adversary_fit import standardise
from innerloop_server.training.adversary_generator import CHOICES, AdversaryGenerator
from innerloop_server.training.collect import batch_collector
from innerloop_server.training.meta_student import MetaStudent
from innerloop_server.training.optimiser import AdamState
from innerloop_server.training.outer_loop import TrainState
from innerloop_server.training.paired import Paired
from innerloop_server.training.specs import spec_for
from innerloop_server.training.student import Played, Student


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def goals(tasks: Sequence[Task]) -> Array:
    return np.array([task.parameters["goal"] for task in tasks])


class Kinds(Navigation2D):
    """A parameter with fewer values than bins, one with more, and a number."""

    @property
    def parameter_space(self) -> gymnasium.spaces.Dict:  # type: ignore[override]
        return gymnasium.spaces.Dict(
            {
                "few": gymnasium.spaces.Discrete(3),
                "goal": gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64),
                "many": gymnasium.spaces.Discrete(40),
            }
        )


# -- the adversary ----------------------------------------------------------------------------------------------------


def test_what_the_network_sees_by_hand() -> None:
    seen = adversary.prefixes(np.array([[0.5, -0.25]]))
    np.testing.assert_array_equal(seen, [[[0, 0, 1, 0], [0.5, 0, 0, 1]]])


def test_bins_that_do_not_exist_have_no_probability() -> None:
    weights = {
        n: torch.from_numpy(v)
        for n, v in perceptron.initial((4, 4), np.random.default_rng(0), last_layer_scale=0.01).items()
    }
    weights["0.weight"] *= 0
    exists = torch.tensor([[True, True, False, False], [True, True, True, True]])
    log_p = adversary.log_probabilities(weights, torch.zeros(1, 2, 4), exists)
    np.testing.assert_allclose(torch.exp(log_p)[0], [[0.5, 0.5, 0, 0], [0.25] * 4], atol=1e-7)
    np.testing.assert_allclose(adversary.entropies(log_p)[0], [math.log(2), math.log(4)], rtol=1e-6)
    np.testing.assert_allclose(adversary.log_prob(log_p, torch.tensor([[1, 3]])), [math.log(1 / 8)], rtol=1e-6)


def test_the_loss_by_hand() -> None:
    """Two tasks of one choice among two: ratio 1.5 (1.2 counts) at advantage 1, ratio 0.5 (0.8 counts) at -1."""
    log_p = torch.log(torch.tensor([[[0.75, 0.25]], [[0.75, 0.25]]]))
    old = torch.log(torch.tensor([0.5, 0.5]))
    loss = adversary.loss(log_p, torch.tensor([[0], [1]]), old, torch.tensor([1.0, -1.0]), 0.2, 0.0)
    assert float(loss) == pytest.approx(-(1.2 - 0.8) / 2)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    paid = adversary.loss(log_p, torch.tensor([[0], [1]]), old, torch.tensor([1.0, -1.0]), 0.2, 0.1)
    assert float(paid) == pytest.approx(-0.2 - 0.1 * entropy)


def test_an_untrained_adversary_is_nearly_uniform_in_every_parameter() -> None:
    generator = AdversaryGenerator(Kinds(), 0)
    proposal, state = generator.propose(generator.initial(), 600)
    few = np.array([int(task.parameters["few"]) for task in proposal.tasks])
    many = np.array([int(task.parameters["many"]) for task in proposal.tasks])
    goal = goals(proposal.tasks)[:, 0]
    assert np.bincount(few).min() > 150
    assert len(set(many.tolist())) == 40
    assert np.histogram(goal, 10, (-1, 1))[0].min() > 35
    assert (state[CHOICES].max(0) == [2, 11, 11]).all()
    assert proposal.learn == (True,) * 600


def test_the_bins_that_are_kept_are_those_that_the_tasks_lie_in() -> None:
    generator = AdversaryGenerator(Navigation2D(), 0, bins=5)
    proposal, state = generator.propose(generator.initial(), 200)
    np.testing.assert_array_equal(np.floor((goals(proposal.tasks) + 0.5) * 5).astype(int), state[CHOICES])
    np.testing.assert_allclose(generator.centres(np.array([[0, 4]])), [[-0.8, 0.8]])


def test_tasks_in_a_wall_are_never_proposed_and_a_family_that_refuses_all_gives_its_own() -> None:
    generator = AdversaryGenerator(PointMaze(), 0)
    assert not in_wall(goals(generator.propose(generator.initial(), 200)[0].tasks)).any()
    stuck = AdversaryGenerator(PointMaze(), 0, attempts=0)
    proposal, state = stuck.propose(stuck.initial(), 10)
    assert not in_wall(goals(proposal.tasks)).any()
    assert (state[CHOICES] == -1).all()
    assert stuck.learn(state, np.arange(10.0)) is state


def test_the_adversary_finds_where_regret_is_and_does_not_collapse() -> None:
    """Regret lies in two opposite corners, a tenth of a uniform draw hits them: it comes to write both, given that the
    second number must fit the first."""
    generator = AdversaryGenerator(Navigation2D(), 0, bins=6, learning_rate=3e-3)
    state = generator.initial()

    def corners(tasks: Sequence[Task]) -> Array:
        x, y = goals(tasks).T
        return np.where((x > 1 / 6) & (y > 1 / 6), 1, 0) + np.where((x < -1 / 6) & (y < -1 / 6), 2, 0)

    for _ in range(80):
        proposal, state = generator.propose(state, 64)
        state = generator.learn(state, (corners(proposal.tasks) > 0).astype(float))
    hit = corners(generator.propose(state, 300)[0].tasks)
    assert np.mean(hit > 0) > 0.7
    assert min(np.mean(hit == 1), np.mean(hit == 2)) > 0.1


def test_equal_regrets_teach_nothing_but_entropy() -> None:
    np.testing.assert_array_equal(standardise(np.full(5, 3.0)), np.zeros(5))
    np.testing.assert_allclose(standardise(np.array([1.0, 3.0])), [-1.0, 1.0])
    generator = AdversaryGenerator(Navigation2D(), 0, entropy=0.0)
    _, state = generator.propose(generator.initial(), 8)
    after = generator.learn(state, np.full(8, 7.0))
    np.testing.assert_array_equal(after["adversary/weights/0.weight"], state["adversary/weights/0.weight"])


# -- the loop ---------------------------------------------------------------------------------------------------------


def test_regret_is_the_antagonists_best_minus_the_protagonists_mean_after_adaptation() -> None:
    task = Task("navigation-2d", {})
    protagonist = Feedback(task, (-40.0, -12.0), (-30.0, -5.0), (0.0, 0.0))
    antagonist = Feedback(task, (-40.0, -9.0), (-20.0, -2.0), (0.0, 0.0))
    assert paired.regret(protagonist, antagonist) == 10.0


class Scripted(Student[None]):
    """Returns what its one meta-parameter says, and learns by adding one to it for every task it may learn from."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, tuple[int, ...], tuple[bytes, ...]]] = []

    @property
    def tasks_per_update(self) -> int:
        return 3

    def initial_meta(self, seed: int) -> Tensors:
        return {"level": torch.tensor(0.0)}

    def play(self, meta: Tensors, tasks: Sequence[Task], seeds: Sequence[int]) -> Played[None]:
        level = float(meta["level"])
        self.asked.append((level, tuple(seeds), tuple(t.parameters["goal"].tobytes() for t in tasks)))
        feedback = tuple(Feedback(task, (level,), (level + 0.5,), (0.0,)) for task in tasks)
        return Played(None, feedback, 10, {"return_0": level})

    def learn(
        self, meta: Tensors, adam: AdamState, played: Played[None], learn: Sequence[bool], update: int, seed: int
    ) -> tuple[Tensors, AdamState, dict[str, float]]:
        return {"level": meta["level"] + sum(learn)}, adam, {"loss": 0.0}


def test_both_play_the_same_tasks_from_other_seeds_and_all_steps_count() -> None:
    student = Scripted()
    loop = Paired(AdversaryGenerator(Navigation2D(), 0), student)
    state = outer_loop.start(student, loop, 0)
    state, metrics = paired.update(student, loop, state, 0)
    state, _ = paired.update(student, loop, state, 0)
    protagonist, antagonist, later, _ = student.asked
    assert protagonist[2] == antagonist[2] != later[2]
    assert not set(protagonist[1]) & set(antagonist[1])
    assert metrics == {"return_0": 0.0, "loss": 0.0, "regret": 0.5, "environment_steps": 20.0}
    assert (state.update, state.environment_steps) == (2, 40)
    assert float(state.meta["level"]) == float(state.generator["antagonist/weights/level"]) == 6.0


SMALL = {"hidden_sizes": [8], "tasks_per_update": 3, "episodes_per_step": 2, "inner_steps": 1, "updates": 6}


def test_a_resumed_training_goes_on_bit_for_bit() -> None:
    def parts() -> tuple[Any, Paired]:
        family = Navigation2D()
        learner = registry.build(spec_for(family, settings=SMALL))
        student = MetaStudent(learner, batch_collector(family, learner, torch.device("cpu")))
        return student, Paired(AdversaryGenerator(family, 3), learner)

    def run(state: TrainState, updates: int) -> tuple[TrainState, list[dict[str, float]]]:
        student, loop = parts()
        log = []
        for _ in range(updates):
            state, metrics = paired.update(student, loop, state, 3)
            log.append(metrics)
        return state, log

    student, loop = parts()
    fresh = outer_loop.start(student, loop, 3)
    antagonist: Arrays = {name: fresh.generator[f"antagonist/weights/{name}"] for name in fresh.meta}
    assert any(not np.array_equal(antagonist[name], value) for name, value in fresh.meta.items())
    straight, whole = run(fresh, 4)
    half, first = run(fresh, 2)
    resumed, second = run(outer_loop.from_bytes(outer_loop.to_bytes(half)), 2)
    assert first + second == whole
    assert outer_loop.to_bytes(resumed) == outer_loop.to_bytes(straight)
    assert {"return_0", "return_1", "kl_0", "loss", "gradient_norm", "regret", "environment_steps"} == whole[0].keys()
    assert resumed.environment_steps == sum(metrics["environment_steps"] for metrics in whole)
    for name in fresh.meta:
        if name.startswith("layers.1"):
            assert not np.array_equal(straight.generator[f"antagonist/weights/{name}"], antagonist[name])
