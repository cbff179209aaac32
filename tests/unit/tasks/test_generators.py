"""The cube of parameters, the grid, and prioritised replay."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.arrays import Array, Arrays
from innerloop_server.domain import Split, Task
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.families.cartpole_dynamics import CartPoleDynamics
from innerloop_server.tasks.families.gridnavi import GridNavi
from innerloop_server.tasks.families.navigation_2d import Navigation2D
from innerloop_server.tasks.families.point_maze import PointMaze, in_wall
from innerloop_server.tasks.generators.cube import ParameterCube
from innerloop_server.tasks.generators.generator import Feedback, TaskGenerator
from innerloop_server.tasks.generators.grid import MOST_SKIPPED, GridGenerator
from innerloop_server.tasks.generators.replay import ReplayGenerator, replay_distribution
from innerloop_server.tasks.registry import Registry


class Spaced(Navigation2D):
    """A family with the parameters that a test wants."""

    def __init__(self, **parts: gymnasium.Space[object]) -> None:
        self._space = Dict(parts)

    @property
    def parameter_space(self) -> Dict:  # type: ignore[override]
        return self._space


MIXED = Spaced(kind=Discrete(3, start=5), size=Box(2.0, 10.0, (2, 1), np.float64), many=Box(0, 4, (1,), np.int64))


# -- the cube ---------------------------------------------------------------------------------------------------------


def test_a_point_and_its_parameters_by_hand() -> None:
    cube = ParameterCube(MIXED, "grid")
    assert cube.size == 4  # a Dict space sorts its names: kind, many, size
    parameters = cube.decode(np.array([-0.5, 0.0, -1.0, 0.5]))
    assert parameters["kind"] == 5  # the first third
    assert parameters["many"].tolist() == [2]  # the third of five parts
    assert parameters["size"].tolist() == [[2.0], [8.0]]
    np.testing.assert_allclose(cube.encode(parameters), [-2 / 3, 0.0, -1.0, 0.5])


def test_points_outside_are_moved_to_the_surface() -> None:
    cube = ParameterCube(MIXED, "grid")
    for corner, kind, many, size in ((-3.0, 5, 0, 2.0), (3.0, 7, 4, 10.0), (1.0, 7, 4, 10.0)):
        parameters = cube.decode(np.full(4, corner))
        assert (parameters["kind"], parameters["many"][0], parameters["size"][0, 0]) == (kind, many, size)


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_parameters_survive_the_cube(point: list[float]) -> None:
    cube = ParameterCube(MIXED, "grid")
    parameters = cube.decode(np.array(point))
    again = cube.decode(cube.encode(parameters))
    MIXED.check(parameters)
    for name, value in parameters.items():
        np.testing.assert_allclose(again[name], value, rtol=1e-12)
        assert again[name].dtype == value.dtype


def test_what_cannot_be_made_up_is_refused_by_name() -> None:
    endless = Spaced(x=Box(0.0, np.inf, (1,), np.float64))
    with pytest.raises(InvalidField, match="no bounds"):
        ParameterCube(endless, "grid")
    with pytest.raises(InvalidField, match="at most 32 numbers"):
        GridGenerator(Spaced(x=Box(0.0, 1.0, (40,), np.float64)), 0).initial()

    class HoldsOut(Navigation2D):
        splits_hold_out = True

    with pytest.raises(InvalidField, match="use uniform or replay") as caught:
        GridGenerator(HoldsOut(), 0).initial()
    assert caught.value.field == "generator"


def test_there_is_no_task_in_a_wall() -> None:
    cube = ParameterCube(PointMaze(), "grid")
    assert cube.task(np.array([0.0, 0.0])) is None
    task = cube.task(np.array([0.0, 1.0]))
    assert task is not None
    assert task.parameters["goal"].tolist() == [0.0, 1.5]
    assert task.name == ""


# -- the grid ---------------------------------------------------------------------------------------------------------


def tasks_of(generator: GridGenerator, n: int) -> tuple[Task, ...]:
    return generator.propose(generator.initial(), n)[0].tasks


def goals(generator: GridGenerator, n: int) -> Array:
    return np.array([task.parameters["goal"] for task in tasks_of(generator, n)])


def largest_gap(x: Array) -> float:
    """Between neighbours on a circle of circumference 1."""
    ordered = np.sort(x)
    return float(np.diff(np.append(ordered, ordered[0] + 1)).max())


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_one_number_is_spread_as_the_golden_ratio_spreads_it(n: int) -> None:
    """No gap of n points is wider than the golden ratio over n (three-distance theorem); a random draw's widest gap is
    about log(n) / n."""
    generator = GridGenerator(Spaced(x=Box(0.0, 1.0, (), np.float64)), seed=4)
    assert largest_gap(np.array([task.parameters["x"] for task in tasks_of(generator, n)])) < 1.62 / n


def test_a_square_is_covered_evenly() -> None:
    """Every one of 8 x 8 fields has 2 to 6 of 256 goals (a random draw leaves fields with none and with ten)."""
    points = goals(GridGenerator(Navigation2D(), seed=0), 256)
    fields = Counter(map(tuple, np.floor((points + 0.5) * 8).astype(int).tolist()))
    assert len(fields) == 64
    assert set(fields.values()) <= {2, 3, 4, 5, 6}


def test_discrete_values_come_in_turn() -> None:
    few = Spaced(a=Discrete(3), b=Discrete(7))
    seen = [(int(t.parameters["a"]), int(t.parameters["b"])) for t in tasks_of(GridGenerator(few, 9), 42)]
    assert set(Counter(seen).values()) == {2}
    assert len(set(seen)) == len(set(seen[:21])) == 21
    few_of_many = sorted(int(t.parameters["goal"]) for t in tasks_of(GridGenerator(GridNavi(), 0), 5))
    assert np.diff([*few_of_many, few_of_many[0] + 21]).max() <= 8  # a few are spread over all 21 too
    signs = Counter(float(t.parameters["force_sign"]) for t in tasks_of(GridGenerator(CartPoleDynamics(), 0), 100))
    assert set(signs.values()) == {50}


def test_a_family_that_refuses_points_gets_the_next_ones() -> None:
    points = goals(GridGenerator(PointMaze(), seed=0, split=Split.TEST), 320)
    assert not in_wall(points).any()
    # 9 square units are free: 8 rows of 12 fields of edge 0.5 less the wall's, each with about 9 goals.
    fields = Counter(map(tuple, np.floor(points * 2).astype(int).tolist()))
    assert len(fields) == 36
    assert min(fields.values()) >= 7
    assert max(fields.values()) <= 11


@pytest.mark.parametrize("family", [Navigation2D(), PointMaze()], ids=lambda f: f.name)
def test_seed_split_and_index_decide_a_grid_task_wherever_it_is_drawn(family: Navigation2D | PointMaze) -> None:
    whole = goals(GridGenerator(family, 3, Split.VALIDATION), 60)
    late = goals(GridGenerator(family, 3, Split.VALIDATION, start=41), 19)
    np.testing.assert_array_equal(late, whole[41:])
    generator = GridGenerator(family, 3, Split.VALIDATION)
    first, state = generator.propose(generator.initial(), 30)
    second, _ = generator.propose(generator.report(state, []), 30)
    again = np.array([task.parameters["goal"] for task in (*first.tasks, *second.tasks)])
    np.testing.assert_array_equal(again, whole)
    assert first.learn == (True,) * 30


def test_another_process_draws_the_same_grid() -> None:
    program = """
from innerloop_server.tasks.families.gridnavi import GridNavi
from innerloop_server.tasks.families.navigation_2d import Navigation2D
from innerloop_server.tasks.generators.grid import GridGenerator
generator = GridGenerator(Navigation2D(), 3)
print(generator.propose(generator.initial(), 9)[0].tasks[8].parameters["goal"].tobytes().hex())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert bytes.fromhex(done.stdout) == goals(GridGenerator(Navigation2D(), 3), 9)[8].tobytes()


def test_the_grids_of_the_splits_never_meet() -> None:
    drawn = [
        g.tobytes() for s in range(3) for split in Split for g in goals(GridGenerator(Navigation2D(), s, split), 500)
    ]
    assert len(set(drawn)) == len(drawn)


def test_a_grid_that_starts_too_far_or_finds_nothing_says_so() -> None:
    with pytest.raises(InvalidField, match="start_index"):
        GridGenerator(PointMaze(), 0, start=MOST_SKIPPED + 1).initial()
    far = GridGenerator(Navigation2D(), 0, start=2**40)  # nothing is refused there, so nothing has to be looked at
    assert len(goals(far, 2)) == 2

    class Nowhere(Navigation2D):
        def check(self, parameters: Arrays, field: str = "") -> dict[str, Array]:  # type: ignore[override]
            raise InvalidField("task.parameters", "never")

    with pytest.raises(InvalidField, match="finds no tasks"):
        tasks_of(GridGenerator(Nowhere(), 0), 1)


def test_every_family_has_a_grid_or_says_why_not(registry: Registry) -> None:
    fields = set()
    for name in registry.names():
        family = registry.get(name)
        try:
            tasks = tasks_of(GridGenerator(family, 0, Split.TEST), 4)
        except InvalidField as refused:
            fields.add(refused.field)
            continue
        for task in tasks:
            family.check(task.parameters)
    assert fields <= {"generator"}


# -- replay -----------------------------------------------------------------------------------------------------------


def heard(task: Task, mean: float, best: float) -> Feedback:
    return Feedback(task, (-99.0, mean), (-99.0, best), (0.0, 0.0))


def test_the_distribution_by_hand() -> None:
    """Scores 5 > 2 > 1 have ranks 1, 2, 3; at temperature 1/2 that is 1, 1/4, 1/9; ages are 1, 0, 3 of 4."""
    scores, ages = np.array([2.0, 5.0, 1.0]), np.array([1, 0, 3])
    by_score = np.array([1 / 4, 1, 1 / 9]) / (1 + 1 / 4 + 1 / 9)
    np.testing.assert_allclose(replay_distribution(scores, ages, 0.5, 0.0), by_score)
    np.testing.assert_allclose(replay_distribution(scores, ages, 0.5, 1.0), ages / 4)
    np.testing.assert_allclose(replay_distribution(scores, ages, 0.5, 0.25), 0.75 * by_score + 0.25 * ages / 4)
    np.testing.assert_allclose(replay_distribution(scores, np.zeros(3, int), 0.5, 1.0), [1 / 3] * 3)


def told(generator: ReplayGenerator, means: Sequence[float], bests: Sequence[float]) -> Arrays:
    """The state after tasks 0, 1, 2, ... went like this."""
    proposal, state = generator.propose(generator.initial(), len(means))
    return generator.report(state, [heard(*row) for row in zip(proposal.tasks, means, bests, strict=True)])


def test_new_tasks_are_looked_at_and_replayed_ones_are_learned_from() -> None:
    generator = ReplayGenerator(Navigation2D(), 0, capacity=20, warm=10)
    proposal, _ = generator.propose(generator.initial(), 10)
    assert proposal.learn == (False,) * 10
    assert [task.index for task in proposal.tasks] == list(range(10))
    state = told(generator, [0.0] * 10, [1.0] * 10)
    proposal, after = generator.propose(state, 40)
    indices = [task.index for task in proposal.tasks]
    replayed = [index for index, learn in zip(indices, proposal.learn, strict=True) if learn]
    assert len(set(replayed)) == len(replayed) == 10  # half of 40 would be more than are remembered
    assert set(replayed) == set(range(10))
    assert [i for i, learn in zip(indices, proposal.learn, strict=True) if not learn] == list(range(10, 40))
    assert int(after["index"]) == 40
    trusting = ReplayGenerator(Navigation2D(), 0, capacity=20, warm=10, robust=False)
    assert all(trusting.propose(trusting.initial(), 5)[0].learn)


def test_the_score_is_the_best_return_ever_seen_minus_the_mean_now() -> None:
    generator = ReplayGenerator(Navigation2D(), 0, capacity=4, warm=2)
    state = told(generator, [-5.0, -3.0], [-1.0, -2.0])
    np.testing.assert_array_equal(state["scores"], [4.0, 1.0, 0.0, 0.0])
    task = generator.propose(generator.initial(), 1)[0].tasks[0]
    worse = generator.report(state, [heard(task, -6.0, -4.0)])
    np.testing.assert_array_equal(worse["scores"][:2], [5.0, 1.0])
    mastered = generator.report(worse, [heard(task, 0.0, 0.0)])
    np.testing.assert_array_equal(mastered["scores"][:2], [0.0, 1.0])
    assert mastered["best"][0] == 0.0
    np.testing.assert_array_equal(mastered["levels"], [0, 1, -1, -1])


def test_a_full_memory_gives_up_its_lowest_score_for_a_higher_one() -> None:
    generator = ReplayGenerator(Navigation2D(), 0, capacity=3, warm=3)
    state = told(generator, [0.0] * 5, [2.0, 1.0, 3.0, 0.5, 1.5])
    assert state["levels"].tolist() == [0, 4, 2]
    assert state["scores"].tolist() == [2.0, 1.5, 3.0]


def test_high_scores_come_back_more_often() -> None:
    generator = ReplayGenerator(Navigation2D(), 0, capacity=50, warm=50, staleness=0.1)
    state = told(generator, [0.0] * 50, [1.0] * 5 + [0.0] * 45)
    counts: Counter[int | None] = Counter()
    for _ in range(50):
        proposal, state = generator.propose(state, 4)
        counts.update(t.index for t, learn in zip(proposal.tasks, proposal.learn, strict=True) if learn)
    share = sum(counts[i] for i in range(5)) / sum(counts.values())
    assert share > 0.6, counts  # evenly it would be 0.1
    assert sum(counts.values()) == pytest.approx(100, abs=30)  # half of what was proposed


def test_what_was_not_seen_for_long_comes_back() -> None:
    generator = ReplayGenerator(Navigation2D(), 0, capacity=30, warm=30, staleness=1.0, replay_probability=1.0)
    state = told(generator, [0.0] * 30, [float(i) for i in range(30)])
    seen: set[int | None] = set()
    for _ in range(6):
        proposal, state = generator.propose(state, 10)
        seen |= {task.index for task in proposal.tasks}
    assert len(seen) >= 27


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8), st.lists(st.floats(-10, 10), min_size=40, max_size=40))
def test_replay_is_a_function_of_its_state_and_keeps_its_books(seed: int, n: int, numbers: list[float]) -> None:
    generator: TaskGenerator = ReplayGenerator(Navigation2D(), seed, capacity=6, warm=2)

    def run(state: Arrays, first: int, last: int) -> Arrays:
        for i in range(first, last):
            proposal, state = generator.propose(state, n)
            best = [numbers[(i * n + j) % 40] for j in range(n)]
            rows = zip(proposal.tasks, best, strict=True)
            state = generator.report(state, [heard(task, b - abs(b) / 2, b) for task, b in rows])
        return state

    whole = run(generator.initial(), 0, 6)
    saved = {name: value.copy() for name, value in run(generator.initial(), 0, 3).items()}
    resumed = run(saved, 3, 6)
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value)
    levels = whole["levels"][whole["levels"] >= 0]
    assert len(set(levels.tolist())) == len(levels)
    assert (levels < whole["index"]).all()
    assert (whole["scores"] >= 0).all()
