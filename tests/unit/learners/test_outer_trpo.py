"""The outer step of MAML-TRPO on several tasks; ``test_exact_gradients`` holds it to a closed form on one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from tests.unit.learners.conftest import MakeExperience, MakeSpec

from innerloop.arrays import Discrete
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.maml import Maml
from innerloop_server.learners.trainable import Prepared, Unrolled
from innerloop_server.training import outer_trpo

TASKS, EPISODES, CAPACITY = 5, 3, 4


class Counting(Maml):
    """Knows how many tasks it was asked to unroll together, each time."""

    together: list[int]

    def unroll(self, meta: Tensors, steps: Sequence[Prepared], *, second_order: bool = True) -> Iterator[Unrolled]:
        self.together.append(steps[0].mask.shape[0])
        return super().unroll(meta, steps, second_order=second_order)


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("rates", ["fixed", "learned"])
def test_what_a_step_does_does_not_depend_on_how_tasks_are_divided(
    make_spec: MakeSpec,
    make_experience: MakeExperience,
    monkeypatch: pytest.MonkeyPatch,
    discrete: bool,
    rates: str,
) -> None:
    """But for rounding: the last part is smaller than the others and must count for less."""
    spec = make_spec(action=Discrete(3) if discrete else None, horizon=CAPACITY, outer="trpo", rates=rates)
    learner = Counting(spec)
    meta = {name: value.double() for name, value in learner.initial_meta(0).items()}
    lengths = torch.randint(1, CAPACITY + 1, (TASKS, EPISODES), generator=torch.Generator().manual_seed(0))
    samples = [
        learner.prepare(make_experience(spec, TASKS, EPISODES, CAPACITY, seed=seed, lengths=lengths))
        for seed in range(3)
    ]

    def step(tasks_at_once: int) -> tuple[Tensors, dict[str, float]]:
        learner.together = []
        monkeypatch.setattr(outer_trpo, "STEPS_AT_ONCE", tasks_at_once * EPISODES * CAPACITY)
        return outer_trpo.step(learner, meta, samples, kl_limit=0.01)

    whole, metrics = step(TASKS)
    assert set(learner.together) == {TASKS}
    assert metrics["step_size"] > 0
    for tasks_at_once, together in ((2, [2, 2, 1]), (0, [1] * TASKS)):
        divided, said = step(tasks_at_once)
        assert learner.together[: len(together)] == together
        assert said == pytest.approx(metrics, rel=1e-6)
        for name, value in whole.items():
            torch.testing.assert_close(divided[name], value, rtol=1e-5, atol=1e-8)
