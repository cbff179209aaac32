from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from innerloop_server.domain import Split
from innerloop_server.errors import InvalidField, NotFound
from innerloop_server.tasks.families.navigation_2d import Navigation2D
from innerloop_server.tasks.generators.generator import Feedback, TaskGenerator
from innerloop_server.tasks.generators.uniform import UniformGenerator
from innerloop_server.tasks.registry import Registry
from innerloop_server.tasks.sampling import custom_task, sample_task, stack_parameters, task_from_name

FAMILY = Navigation2D()


def goal(seed: int, split: Split, index: int) -> bytes:
    return sample_task(FAMILY, seed, split, index).parameters["goal"].tobytes()


def test_streams_never_meet() -> None:
    """Three splits, a few seeds, many indices: every task is another one."""
    seen = [goal(seed, split, i) for seed in (0, 1, 2, 2**63) for split in Split for i in range(150)]
    assert len(set(seen)) == len(seen)


def test_seed_split_and_index_decide_a_task_whatever_was_drawn_before() -> None:
    late = goal(3, Split.TEST, 41)
    for i in reversed(range(41)):
        goal(3, Split.TRAIN, i)
    assert goal(3, Split.TEST, 41) == late


def test_another_process_draws_the_same_task() -> None:
    program = """
from innerloop_server.domain import Split
from innerloop_server.tasks.families.navigation_2d import Navigation2D
from innerloop_server.tasks.sampling import sample_task
print(sample_task(Navigation2D(), 3, Split.VALIDATION, 17).parameters["goal"].tobytes().hex())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert bytes.fromhex(done.stdout) == goal(3, Split.VALIDATION, 17)


@pytest.mark.parametrize(("seed", "index", "field"), [(-1, 0, "seed"), (0, -5, "index")])
def test_negative_counters_are_refused(seed: int, index: int, field: str) -> None:
    with pytest.raises(InvalidField, match="negative") as caught:
        sample_task(FAMILY, seed, Split.TRAIN, index)
    assert caught.value.field == field


@pytest.mark.parametrize("split", list(Split))
def test_a_tasks_name_leads_back_to_it(registry: Registry, split: Split) -> None:
    for name in registry.names():
        task = sample_task(registry.get(name), 12345678901234, split, 67)
        again = task_from_name(registry, task.name)
        assert (again.family, again.split, again.seed, again.index) == (name, split, 12345678901234, 67)
        for key, value in task.parameters.items():
            np.testing.assert_array_equal(again.parameters[key], value)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "families/navigation-2d",
        "families/navigation-2d/tasks/test-0",
        "families/navigation-2d/tasks/dev-0-0",
        "families/navigation-2d/tasks/test--1-0",
        "families/navigation-2d/tasks/test-0-0/",
        "families/navigation-2d/tasks/test-0-0\n",
        "families/a/b/tasks/test-0-0",
    ],
)
def test_names_of_another_form_are_refused(registry: Registry, name: str) -> None:
    with pytest.raises(InvalidField, match="names no task") as caught:
        task_from_name(registry, name, "open.task")
    assert caught.value.field == "open.task"


def test_a_name_of_an_unknown_family_is_not_found(registry: Registry) -> None:
    with pytest.raises(NotFound, match="there are: "):
        task_from_name(registry, "families/nothing/tasks/test-0-0")


def test_a_task_that_a_caller_made_up_has_no_name() -> None:
    assert custom_task(FAMILY, {"goal": np.array([0.1, 0.2])}).name == ""


def test_parameters_stack_over_tasks() -> None:
    tasks = [sample_task(FAMILY, 0, Split.TRAIN, i) for i in range(5)]
    stacked = stack_parameters(tasks)["goal"]
    assert stacked.shape == (5, 2)
    np.testing.assert_array_equal(stacked[3], tasks[3].parameters["goal"])


def test_the_uniform_generator_is_a_walk_along_the_stream() -> None:
    generator: TaskGenerator = UniformGenerator(FAMILY, seed=8)
    first, state = generator.propose(generator.initial(), 3)
    second, later = generator.propose(state, 2)
    assert first.learn == (True, True, True)
    names = [f"families/navigation-2d/tasks/train-8-{i}" for i in range(5)]
    assert [t.name for t in (*first.tasks, *second.tasks)] == names
    again, _ = generator.propose(state, 2)  # a state is a value: going back to it proposes the same
    assert [t.name for t in again.tasks] == [t.name for t in second.tasks]
    assert generator.report(later, [Feedback(second.tasks[0], (-38.0, -12.0), (-30.0, -8.0), (0.0, 0.0))]) is later


def test_workers_differ_by_their_start_or_their_seed() -> None:
    workers = [
        UniformGenerator(FAMILY, seed=0),
        UniformGenerator(FAMILY, seed=0, start=1_000_000),
        UniformGenerator(FAMILY, seed=1),
        UniformGenerator(FAMILY, seed=0, split=Split.VALIDATION),
    ]
    drawn = [task.parameters["goal"].tobytes() for w in workers for task in w.propose(w.initial(), 100)[0].tasks]
    assert len(set(drawn)) == 400
