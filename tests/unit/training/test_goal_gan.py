"""The goal GAN: its losses, what it learns to propose, and that it is a value."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from innerloop.arrays import Array, Arrays
from innerloop_server.domain import Split, Task
from innerloop_server.errors import InvalidField
from innerloop_server.learners import goal_gan, perceptron
from innerloop_server.tasks.families.navigation_2d import Navigation2D
from innerloop_server.tasks.families.point_maze import PointMaze, in_wall
from innerloop_server.tasks.generators.generator import Feedback
from innerloop_server.training import outer_loop, packed
from innerloop_server.training.goal_gan_generator import GoalGanGenerator, _archive
from innerloop_server.training.network_steps import unpack


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def goals(tasks: Sequence[Task]) -> Array:
    return np.array([task.parameters["goal"] for task in tasks])


def succeeded(task: Task, share: float) -> Feedback:
    """After the first step nothing works, after the last a share of the episodes does."""
    return Feedback(task, (0.0, share), (0.0, 1.0), (0.0, share))


SMALL = {"hidden_sizes": (16,), "window": 32, "capacity": 8, "fit_steps": 5, "batch": 16}


class Reaching(Navigation2D):
    """``navigation-2d`` that calls an episode a success; the tests say which."""

    knows_success = True


# -- losses -----------------------------------------------------------------------------------------------------------


def test_the_losses_by_hand() -> None:
    """Good task scored 0.5: 0.25; bad task: 2.25; mean 1.25. Made up ones scored -1 and 1: 0 and 4; mean 2."""
    scores, labels = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    made_up = torch.tensor([-1.0, 1.0])
    assert float(goal_gan.discriminator_loss(scores, labels, made_up)) == pytest.approx(1.25 + 2.0)
    assert float(goal_gan.generator_loss(torch.tensor([-0.5, 1.0]))) == pytest.approx((2.25 + 0.0) / 2)


def test_the_network_by_hand_in_numpy_and_in_torch() -> None:
    """One input 2, one hidden unit tanh(0.5 * 2 - 0.25), output 3 h + 1."""
    weights = {
        "0.weight": np.array([[0.5]], np.float32),
        "0.bias": np.array([-0.25], np.float32),
        "1.weight": np.array([[3.0]], np.float32),
        "1.bias": np.array([1.0], np.float32),
    }
    expected = 3 * np.tanh(0.75) + 1
    x = np.array([[2.0]], np.float32)
    np.testing.assert_allclose(perceptron.forward(weights, x), [[expected]], rtol=1e-6)
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    np.testing.assert_allclose(perceptron.forward(tensors, torch.from_numpy(x), torch.tanh), [[expected]], rtol=1e-6)
    assert goal_gan.discriminate(tensors, torch.from_numpy(x)).shape == (1,)
    np.testing.assert_allclose(goal_gan.generate(tensors, torch.from_numpy(x)), [[np.tanh(expected)]], rtol=1e-6)


# -- the archive ------------------------------------------------------------------------------------------------------


def test_the_archive_takes_what_is_far_from_all_in_it_and_overwrites_the_oldest() -> None:
    archive, archived = _archive(np.zeros((2, 1)), 0, np.array([[0.5], [0.54], [0.6], [-0.5]]), 0.05)
    assert archived == 3  # 0.54 is too near to 0.5
    assert archive.tolist() == [[-0.5], [0.6]]


def test_only_tasks_of_intermediate_difficulty_are_archived() -> None:
    generator = GoalGanGenerator(Reaching(), 0, **SMALL)
    proposal, state = generator.propose(generator.initial(), 5)
    shares = (0.0, 0.05, 0.1, 0.9, 1.0)
    state = generator.report(state, [succeeded(*row) for row in zip(proposal.tasks, shares, strict=True)])
    assert state["labels"][:5].tolist() == [0, 0, 1, 1, 0]
    assert int(state["archived"]) == 2
    np.testing.assert_allclose(state["archive"][:2], goals(proposal.tasks)[2:4] * 2)  # navigation's box is +-0.5


# -- what it proposes -------------------------------------------------------------------------------------------------


def test_until_something_is_of_intermediate_difficulty_tasks_are_the_familys_own() -> None:
    generator = GoalGanGenerator(Reaching(), 0, **SMALL)
    state = generator.initial()
    for _ in range(3):
        proposal, state = generator.propose(state, 20)
        assert proposal.learn == (True,) * 20
        state = generator.report(state, [succeeded(task, 0.0) for task in proposal.tasks])
    assert int(state["generator/count"]) == 0
    assert int(state["archived"]) == 0
    points = goals(generator.propose(state, 400)[0].tasks)
    quarters = np.unique((points > 0) @ [1, 2], return_counts=True)[1]
    assert quarters.min() > 70


def test_it_learns_to_propose_tasks_of_intermediate_difficulty_and_follows_them() -> None:
    """Tasks in a band are of intermediate difficulty, all others mastered; a fifth of a uniform draw hits the band.
    Then the band moves. Adversarial training swings, so what counts is the mean over ten reports."""
    generator = GoalGanGenerator(Reaching(), 0, old_share=0.0, fit_steps=40)

    def teach(state: Arrays, low: float, high: float) -> tuple[Arrays, Array, float]:
        """The state after 30 reports, the goals of the last ten proposals, and their share in the band."""
        late = []
        for report in range(30):
            proposal, state = generator.propose(state, 64)
            points = goals(proposal.tasks)
            rows = zip(proposal.tasks, (points[:, 0] > low) & (points[:, 0] < high), strict=True)
            state = generator.report(state, [succeeded(task, 0.5 if good else 1.0) for task, good in rows])
            late += [points] * (report >= 20)
        x = np.concatenate(late)
        return state, x, float(np.mean((x[:, 0] > low) & (x[:, 0] < high)))

    state, points, share = teach(generator.initial(), -0.4, -0.2)
    assert share > 0.4
    assert np.std(points[:, 1]) > 0.15  # no collapse along what does not matter
    assert teach(state, -0.1, 0.1)[2] > 0.6


def test_proposed_tasks_are_the_familys_tasks() -> None:
    """Most of a cube's points may lie in walls; what is proposed never does."""
    generator = GoalGanGenerator(PointMaze(), 0, **SMALL)
    state = generator.initial()
    for _ in range(4):
        proposal, state = generator.propose(state, 30)
        assert not in_wall(goals(proposal.tasks)).any()
        state = generator.report(state, [succeeded(task, 0.5) for task in proposal.tasks])
    assert int(state["generator/count"]) == 4 * SMALL["fit_steps"]  # type: ignore[operator]
    assert int(state["archived"]) > 8  # more than it holds


def test_old_good_tasks_come_back() -> None:
    generator = GoalGanGenerator(Reaching(), 0, **{**SMALL, "old_share": 0.5})
    proposal, state = generator.propose(generator.initial(), 5)
    state = generator.report(state, [succeeded(task, 0.5) for task in proposal.tasks])
    known = {tuple(np.round(goal, 9)) for goal in goals(proposal.tasks)}
    again = goals(generator.propose(state, 400)[0].tasks)
    assert np.mean([tuple(np.round(goal, 9)) in known for goal in again]) == pytest.approx(0.5, abs=0.08)


# -- a value ----------------------------------------------------------------------------------------------------------


def run(generator: GoalGanGenerator, state: Arrays, rounds: int) -> tuple[Arrays, Array]:
    proposed = []
    for _ in range(rounds):
        proposal, state = generator.propose(state, 12)
        proposed.append(goals(proposal.tasks))
        state = generator.report(state, [succeeded(t, float(abs(t.parameters["goal"][0]) * 2)) for t in proposal.tasks])
    return state, np.concatenate(proposed)


def test_a_resumed_generator_goes_on_bit_for_bit() -> None:
    """Through the very bytes of a checkpoint, as a value that an older one does not change."""
    whole, proposed = run(
        GoalGanGenerator(Reaching(), 5, **SMALL), GoalGanGenerator(Reaching(), 5, **SMALL).initial(), 6
    )
    half, first = run(GoalGanGenerator(Reaching(), 5, **SMALL), GoalGanGenerator(Reaching(), 5, **SMALL).initial(), 3)
    saved = outer_loop.to_bytes(outer_loop.TrainState({}, outer_loop.optimiser.start({}), 3, 0, half))
    resumed, second = run(GoalGanGenerator(Reaching(), 5, **SMALL), outer_loop.from_bytes(saved).generator, 3)
    np.testing.assert_array_equal(np.concatenate([first, second]), proposed)
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value)
        assert resumed[name].dtype == value.dtype


def test_a_task_depends_on_its_number_and_not_on_those_proposed_with_it() -> None:
    generator = GoalGanGenerator(Reaching(), 5, **SMALL)
    state, _ = run(generator, generator.initial(), 2)
    together = goals(generator.propose(state, 6)[0].tasks)
    first, after = generator.propose(state, 2)
    np.testing.assert_array_equal(
        np.concatenate([goals(first.tasks), goals(generator.propose(after, 4)[0].tasks)]), together
    )
    assert not np.array_equal(goals(GoalGanGenerator(Reaching(), 6, **SMALL).propose(state, 6)[0].tasks), together)


def test_networks_are_packed_and_unpacked() -> None:
    weights = perceptron.initial((3, 4, 2), np.random.default_rng(0))
    state = packed.fresh("net", weights)
    tensors, adam = unpack("net", state)
    assert tensors.keys() == weights.keys() == adam.first.keys() == adam.second.keys()
    assert adam.count == 0
    for name, value in packed.part(state, "net/weights").items():
        np.testing.assert_array_equal(value, tensors[name])


def test_proposing_needs_no_torch() -> None:
    code = (
        "import sys, json\n"
        "from innerloop_server.tasks.families.point_maze import PointMaze\n"
        "from innerloop_server.training import generators\n"
        "for name in generators.KINDS:\n"
        "    generator = generators.build(name, PointMaze(), 0)\n"
        "    generator.propose(generator.initial(), 3)\n"
        "print(json.dumps('torch' in sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out) is False


def test_a_family_that_holds_out_parameters_is_refused() -> None:
    class HoldsOut(Reaching):
        splits_hold_out = True

    with pytest.raises(InvalidField, match="goal-gan makes up parameters"):
        GoalGanGenerator(HoldsOut(), 0).initial()


def test_splits_are_proposed_different_tasks() -> None:
    ours, theirs = (GoalGanGenerator(Reaching(), 5, split, **SMALL) for split in (Split.TRAIN, Split.VALIDATION))
    state, _ = run(ours, ours.initial(), 2)
    assert not np.array_equal(goals(ours.propose(state, 6)[0].tasks), goals(theirs.propose(state, 6)[0].tasks))
