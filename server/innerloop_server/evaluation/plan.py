"""How an evaluation is run, as a value; and the fixed plans that every learner of a family is scored by."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from innerloop_server.adaptation.guard import MINIMUM_EPISODES
from innerloop_server.domain import Simulator, Split, Task
from innerloop_server.errors import InvalidField
from innerloop_server.streams import Purpose, derive
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.sampling import custom_task, sample_task

PROTOCOLS = resources.files("innerloop_server.evaluation") / "protocols.toml"
"""The fixed plans; a committed file, so that no score can choose its tasks."""

LARGEST_SEED = 2**63 - 1
_RANGES = {
    "task_seed": (0, LARGEST_SEED),
    "tasks": (1, 1_000),
    "steps": (0, 100),
    "episodes_per_step": (1, 1_000),
    "evaluation_episodes": (1, 1_000),
    "seed": (0, LARGEST_SEED),
}


@dataclass(frozen=True)
class Plan:
    """Held-out tasks, K adaptation steps, E fresh episodes at each k = 0 .. K. The same plan gives the same scores."""

    split: Split
    task_seed: int
    """Seed of the tasks' stream; they are its first ``tasks``, unless the family can enumerate its tasks."""
    tasks: int
    """M, 1 to 1000."""
    steps: int
    """K, 0 to 100."""
    episodes_per_step: int
    """Of each adaptation step, 1 to 1000."""
    evaluation_episodes: int
    """E of each task at each k, 1 to 1000; adaptation never sees them."""
    seed: int
    """Of everything else that is drawn."""
    guard: bool
    """Whether sessions guard themselves."""
    greedy: bool
    """Score the mode of the policy instead of its samples. Adaptation samples in any case, but where it is remembering:
    there the episodes that are remembered are those of the policy that is scored."""
    simulator: Simulator

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InvalidField: a number outside its range; names ``plan.<field>``.
        """
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidField(f"plan.{name}", f"is {value}; give {low} to {high}")

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Plan:
        """Undo :meth:`to_json`."""
        read = dict(values)
        return Plan(**{**read, "split": Split(read["split"]), "simulator": Simulator(read["simulator"])})


def fixed_plan(family: Family, split: Split = Split.TEST, *, remembers: bool = False) -> Plan:
    """The committed plan that every learner of ``family`` is scored by on ``split``.

    Args:
        family: one without an entry in the file takes that of the same family with default options, else the default.
        split: TEST is what is reported, VALIDATION what a revision is promoted on. TRAIN has no plan of its own and
            takes the numbers of TEST: a score there tells of overfitting, nothing else.
        remembers: the learner adapts by remembering, so that its sessions have a guard whatever their steps.
    """
    plans: Mapping[str, Mapping[str, Mapping[str, int]]] = tomllib.loads(PROTOCOLS.read_text(encoding="utf-8"))
    own = plans.get(family.name) or plans.get(family.name.partition(".")[0]) or plans["default"]
    values = own[Split.TEST if split is Split.TRAIN else split]
    return Plan(
        split=split,
        guard=_guarded(family, values["episodes_per_step"], remembers=remembers),
        greedy=False,
        simulator=family.simulators[0],
        **values,
    )


def make_plan(
    family: Family,
    split: Split,
    *,
    remembers: bool = False,
    guard: bool | None = None,
    greedy: bool = False,
    simulator: Simulator | None = None,
    **numbers: int | None,
) -> Plan:
    """The fixed plan with some of its fields changed.

    Args:
        family: what the learner is bound to.
        split: the stream of tasks.
        remembers: the learner adapts by remembering.
        guard: ``None``: on where a step has enough episodes to judge by, and where the learner remembers. Supervised
            families have none.
        greedy: score the mode.
        simulator: ``None``: the family's first.
        **numbers: any numeric field of :class:`Plan`; ``None``: as in the fixed plan.

    Raises:
        InvalidField: a field out of its range, a simulator that the family does not have, or a guard where there is
            none.
    """
    if guard and family.supervision is not None:
        raise InvalidField("plan.guard", f"sessions of {family.name} learn from labelled examples and have no guard")
    if simulator is not None and simulator not in family.simulators:
        raise InvalidField(
            "plan.simulator",
            f"{family.name} has no {simulator} simulator; it has {', '.join(family.simulators)}",
            reason="SIMULATOR_UNSUPPORTED",
        )
    fixed = fixed_plan(family, split, remembers=remembers)
    given: dict[str, Any] = {name: value for name, value in numbers.items() if value is not None}
    episodes = given.get("episodes_per_step", fixed.episodes_per_step)
    return dataclasses.replace(
        fixed,
        guard=_guarded(family, episodes, remembers=remembers) if guard is None else guard,
        greedy=greedy,
        simulator=simulator or fixed.simulator,
        **given,
    )


def _guarded(family: Family, episodes: int, *, remembers: bool) -> bool:
    return family.supervision is None and (remembers or episodes >= MINIMUM_EPISODES)


def draw_tasks(family: Family, plan: Plan) -> list[Task]:
    """The M tasks of a plan: those that the family enumerates, in order and from the first again where M is more; of a
    family that cannot, the first of the stream (split, task_seed).
    """
    every = family.enumerate(plan.split)
    if every is None:
        return [sample_task(family, plan.task_seed, plan.split, index) for index in range(plan.tasks)]
    return [custom_task(family, every[index % len(every)]) for index in range(plan.tasks)]


def session_seed(plan: Plan, index: int) -> int:
    """Seed of the session of the task at ``index``: a function of the plan and the index alone."""
    return derive(plan.seed, Purpose.EVALUATION_SESSION, index)
