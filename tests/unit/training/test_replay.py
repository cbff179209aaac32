import dataclasses

import numpy as np
import torch

from innerloop_server.learners.transitions import Transitions
from innerloop_server.training import replay


def fresh(first: int, tasks: int, steps: int, real: int | None = None) -> Transitions:
    """Transitions whose reward is 100 * task + step, tasks counted from ``first``; the first ``real`` are real."""
    rewards = (100.0 * torch.arange(first, first + tasks)[:, None] + torch.arange(steps)).float()
    mask = torch.arange(steps).expand(tasks, steps) < (steps if real is None else real)
    return Transitions(
        observations=rewards[..., None].expand(tasks, steps, 2),
        actions=rewards.long(),
        rewards=rewards,
        next_observations=rewards[..., None].expand(tasks, steps, 2) + 1,
        terminated=torch.zeros(tasks, steps, dtype=torch.bool),
        seen=mask,
        real=mask,
    )


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def rewards_of(memory: dict[str, torch.Tensor], slot: int) -> list[float]:
    return sorted(memory["rewards"][slot, : memory[replay.LENGTH][slot]].tolist())


def test_the_newest_tasks_are_kept() -> None:
    memory = replay.empty(3, 4, fresh(0, 1, 4))
    memory = replay.remember(memory, fresh(1, 2, 4), rng())
    assert memory[replay.LENGTH].tolist() == [4, 4, 0]
    memory = replay.remember(memory, fresh(3, 2, 3), rng())
    assert rewards_of(memory, 0) == [400, 401, 402]
    assert rewards_of(memory, 1) == [200, 201, 202, 203]
    assert rewards_of(memory, 2) == [300, 301, 302]


def test_padding_is_not_remembered_and_what_is_too_much_is_drawn_from() -> None:
    memory = replay.empty(2, 4, fresh(0, 1, 6))
    few = replay.remember(memory, fresh(1, 1, 6, real=2), rng())
    assert rewards_of(few, 0) == [100, 101]
    many = [replay.remember(memory, fresh(1, 1, 6), rng(seed)) for seed in range(5)]
    assert all(len(set(rewards_of(m, 0))) == 4 for m in many)
    assert len({tuple(rewards_of(m, 0)) for m in many}) > 1
    assert not memory["rewards"].any(), "a replay is a value"


def test_draws_come_from_their_tasks_and_nothing_else() -> None:
    memory = replay.remember(replay.empty(5, 8, fresh(0, 1, 4)), fresh(1, 3, 8, real=5), rng())
    tasks = replay.draw_tasks(memory, 400, rng())
    assert set(tasks.tolist()) == {0, 1, 2}
    drawn = replay.draw(memory, tasks, 30, rng())
    assert drawn.real.all()
    assert torch.equal((drawn.rewards // 100).long(), (tasks + 1)[:, None].expand(400, 30))
    assert set((drawn.rewards % 100).flatten().tolist()) == {0, 1, 2, 3, 4}
    for other in (drawn.observations[..., 0], drawn.actions.float(), drawn.next_observations[..., 1] - 1):
        assert torch.equal(other, drawn.rewards)


def test_the_same_stream_draws_the_same() -> None:
    memory = replay.remember(replay.empty(5, 8, fresh(0, 1, 4)), fresh(1, 3, 8), rng())
    one, two = (replay.draw(memory, replay.draw_tasks(memory, 9, rng(4)), 7, rng(5)) for _ in range(2))
    for field in dataclasses.fields(Transitions):
        assert torch.equal(getattr(one, field.name), getattr(two, field.name))
