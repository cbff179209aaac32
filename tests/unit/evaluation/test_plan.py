from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest

from innerloop_server.domain import Simulator, Split
from innerloop_server.errors import InvalidField
from innerloop_server.evaluation.plan import Plan, draw_tasks, fixed_plan, make_plan, session_seed
from innerloop_server.tasks.families.halfcheetah_direction import HalfCheetahDirection
from innerloop_server.tasks.families.metaworld import MetaWorldML1, MetaWorldML10, MetaWorldML45
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import load_registry

FAMILIES = load_registry().families
PLAN = fixed_plan(FAMILIES["navigation-2d"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tasks", 0),
        ("tasks", 1_001),
        ("steps", -1),
        ("steps", 101),
        ("episodes_per_step", 0),
        ("episodes_per_step", 1_001),
        ("evaluation_episodes", 0),
        ("evaluation_episodes", 1_001),
        ("task_seed", -1),
        ("task_seed", 2**63),
        ("seed", -1),
        ("seed", 2**63),
    ],
)
def test_a_field_out_of_its_range_is_named(field: str, value: int) -> None:
    with pytest.raises(InvalidField) as caught:
        replace(PLAN, **{field: value})
    assert caught.value.field == f"plan.{field}"


def test_the_fixed_test_plans() -> None:
    counts = {"navigation-2d": 400, "cartpole-dynamics": 200, "pendulum-dynamics": 200, "halfcheetah-velocity": 20}
    for name, tasks in counts.items():
        family = FAMILIES[name]
        plan = fixed_plan(family)
        assert plan.tasks == tasks
        assert (plan.split, plan.steps, plan.episodes_per_step) == (Split.TEST, 10, 20)
        assert plan.guard
        assert not plan.greedy
        assert plan.simulator is family.simulators[0]
        validation = fixed_plan(family, Split.VALIDATION)
        assert validation.split is Split.VALIDATION
        assert validation.seed != plan.seed


def test_a_family_without_an_entry_takes_the_default() -> None:
    plan = make_plan(
        SimpleNamespace(name="somebody-elses", simulators=(Simulator.ACTORS,), supervision=None),
        Split.TEST,
        guard=False,
    )
    assert (plan.tasks, plan.simulator, plan.guard) == (100, Simulator.ACTORS, False)


def test_other_options_take_the_plan_of_the_defaults() -> None:
    assert fixed_plan(MetaWorldML1("push-v3")) == fixed_plan(MetaWorldML1())
    assert fixed_plan(MetaWorldML1()).steps == 1


def test_train_takes_the_numbers_of_test() -> None:
    assert fixed_plan(FAMILIES["navigation-2d"], Split.TRAIN) == replace(PLAN, split=Split.TRAIN)


def test_a_plan_survives_json() -> None:
    assert Plan.from_json(PLAN.to_json()) == PLAN


def make(**changes) -> Plan:
    return make_plan(FAMILIES["cartpole-dynamics"], Split.TEST, **changes)


def test_what_is_left_out_is_as_in_the_fixed_plan() -> None:
    assert make() == fixed_plan(FAMILIES["cartpole-dynamics"])
    assert make(tasks=None, seed=None) == make()
    assert make(tasks=3, steps=0, seed=0) == replace(make(), tasks=3, steps=0, seed=0)


def test_the_guard_is_on_where_a_step_has_enough_episodes() -> None:
    assert make().guard
    assert not make(episodes_per_step=10).guard  # too few to judge by
    assert make(episodes_per_step=10, guard=True).guard
    assert not make(guard=False).guard
    assert make(simulator=Simulator.ACTORS).simulator is Simulator.ACTORS


def test_a_simulator_that_the_family_lacks_is_refused() -> None:
    with pytest.raises(InvalidField) as caught:
        make_plan(FAMILIES["halfcheetah-velocity"], Split.TEST, simulator=Simulator.BATCH)
    assert caught.value.field == "plan.simulator"


def test_tasks_and_seeds_come_from_the_plan_alone() -> None:
    family = FAMILIES["navigation-2d"]
    tasks = draw_tasks(family, replace(PLAN, tasks=5))
    assert [task.name for task in tasks] == [f"families/navigation-2d/tasks/test-1-{i}" for i in range(5)]
    assert session_seed(PLAN, 3) == session_seed(PLAN, 3)
    assert len({session_seed(replace(PLAN, seed=seed), i) for seed in (0, 1) for i in range(10)}) == 20


def test_what_a_family_enumerates_is_taken_in_turn() -> None:
    family = HalfCheetahDirection()
    assert family.enumerate(Split.TEST) == [{"direction": 0}, {"direction": 1}]
    drawn = draw_tasks(family, replace(PLAN, tasks=5))
    assert [int(task.parameters["direction"]) for task in drawn] == [0, 1, 0, 1, 0]
    assert [task.name for task in drawn] == [""] * 5  # no place in a stream
    assert FAMILIES["navigation-2d"].enumerate(Split.TEST) is None  # goals without number


@pytest.mark.parametrize(
    ("family", "environments"),
    [(MetaWorldML10(), range(10, 15)), (MetaWorldML45(), range(45, 50)), (MetaWorldML1(), [0])],
)
def test_the_official_meta_world_plans(family: Family, environments: Sequence[int]) -> None:
    plan = fixed_plan(family)
    assert (plan.episodes_per_step, plan.steps, plan.evaluation_episodes, plan.guard) == (10, 1, 3, False)
    drawn = [
        (int(task.parameters.get("environment", 0)), int(task.parameters["goal"])) for task in draw_tasks(family, plan)
    ]
    assert drawn == [(environment, goal) for goal in range(100, 140) for environment in environments]
    for split in (Split.TRAIN, Split.VALIDATION):
        assert not set(drawn) & {
            (int(one.get("environment", 0)), int(one["goal"])) for one in family.enumerate(split) or ()
        }
    check = fixed_plan(family, Split.VALIDATION)
    met = {int(task.parameters.get("environment", 0)) for task in draw_tasks(family, check)}
    assert len(met) == len(family._train)  # every environment, equally often
    assert check.tasks % len(met) == 0
